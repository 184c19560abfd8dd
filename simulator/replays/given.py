"""The inputs of a replay that a user may give in place of those from problem and seed: a start, mini-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from stalegrad._core.trees import flat
from stalegrad._core.types import Params, PyTree, Stats
from stalegrad.simulator.replays.lowering import LoweredTrace


class Start(NamedTuple):
    """A user's inputs; None: those from problem and seed. See :func:`~stalegrad.simulator.replay`."""

    params: Params = None
    stats: Stats = None
    batches: npt.ArrayLike | None = None


FROM_SEED = Start()


def checked_start(name: str, given: PyTree, expected: PyTree) -> PyTree:
    """Return arrays given as a start, in the structure of the problem.

    Args:
        name: name of the arrays in errors.
        given: a pytree like ``expected``, or the flat ``{"path/to/leaf": array}`` of a stored result.
        expected: pytree of shapes and types.

    Raises:
        ValueError: for an array that is missing, unknown, or of another shape or type; it names the array.
    """
    structure: jax.tree_util.PyTreeDef
    leaves, structure = jax.tree.flatten(expected)
    if jax.tree.structure(given) != structure:
        own, theirs = list(flat(expected)), list(flat(given))
        if not isinstance(given, Mapping) or set(given) != set(own):
            raise ValueError(f"{name} with arrays {theirs!s:.300} is not allowed: the problem has {own!s:.300}")
        given = jax.tree.unflatten(structure, [given[path] for path in own])
    for path, leaf, to in zip(flat(expected), jax.tree.leaves(given), leaves, strict=True):
        shape, dtype = np.shape(leaf), getattr(leaf, "dtype", np.asarray(leaf).dtype)
        if (shape, dtype) != (to.shape, to.dtype):
            raise ValueError(
                f"{path} of {name} has shape {shape} and type {dtype}; allowed are {to.shape} and {to.dtype}"
            )
    return jax.tree.map(jnp.array, given)


def checked_batches(
    given: npt.ArrayLike, lowered: LoweredTrace, batch_size: int, examples: int
) -> npt.NDArray[np.int32]:
    """Return mini-batches given as indices of training examples.

    Args:
        given: integers, (used messages, local steps, batch size), as from
            :func:`~stalegrad.simulator.mini_batches`.
        lowered: lowered trace.
        batch_size: examples in a mini-batch.
        examples: size of the training set.

    Raises:
        ValueError: for another shape or type, or an index out of range; it names the place.
    """
    shape = len(lowered.worker), lowered.steps, batch_size
    found = np.asarray(given)
    if found.shape != shape or found.dtype.kind not in "iu":
        raise ValueError(
            f"batches of shape {found.shape} and type {found.dtype} are not allowed: this trace takes whole "
            f"numbers of shape {shape}: (used messages, local steps, batch size)"
        )
    own = np.ones(shape[:2], bool)
    if lowered.steps_of is not None:
        own = np.arange(lowered.steps) < lowered.steps_of[:, None]
    wrong = own[..., None] & ((found < 0) | (found >= examples))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"batches[{at}] = {found[at]} is not allowed: examples are 0 to {examples - 1}")
    return np.where(own[..., None], found, 0).astype(np.int32)
