"""Types that annotations of several packages share. Nothing here imports NumPy or JAX at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import jax
    import numpy as np
    import numpy.typing as npt

PyTree: TypeAlias = Any
"""Arrays in nested tuples, lists, dicts and the like, or a single array. Type checkers cannot be more precise."""

Params: TypeAlias = PyTree
"""Parameters of a model, or a pytree of the same structure: a gradient, a message, a momentum."""

Stats: TypeAlias = PyTree
"""Running statistics of batch norm; no leaves where there are none."""

Batch: TypeAlias = PyTree
"""Examples that go through a function together: arrays with a common first axis, or None without data."""

Data: TypeAlias = PyTree
"""A training or test set: arrays with a common first axis, a stream of them, or None."""

OptimizerState: TypeAlias = PyTree
"""State of an optax transformation, such as an optimizer or a correction."""

Own: TypeAlias = PyTree
"""A worker's own state between jobs, of fixed structure; states of all workers are stacked along a first axis."""

Job: TypeAlias = PyTree
"""A worker's state during a job."""

Scalar: TypeAlias = "jax.Array | float"
"""A number that compiled code may get as a tracer: a hyper-parameter, a staleness, an index."""

Array: TypeAlias = "jax.Array | np.ndarray"
"""An array on the host or on a device."""

Floats: TypeAlias = "npt.NDArray[np.floating]"
"""A NumPy array of floating-point numbers."""

Ints: TypeAlias = "npt.NDArray[np.integer]"
"""A NumPy array of whole numbers."""

Columns: TypeAlias = "dict[str, np.ndarray]"
"""Columns of a table by name, of equal lengths."""

Table: TypeAlias = dict[str, Any]
"""A table as TOML and JSON hold it: texts, numbers, lists and tables, by name."""
