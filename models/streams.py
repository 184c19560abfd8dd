"""Data that do not fit into memory and are fetched from disk, one mini-batch at a time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.types import Batch, Data, Ints


@runtime_checkable
class Stream(Protocol):
    """A data set that is read in pieces, possibly by several threads at once."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def fetch(self, indices: Ints) -> Batch:
        """Return these examples: a pytree of numpy arrays with a common first axis, in this order."""


def on_device(data: Data) -> Data:
    """Return arrays on the device; a stream is returned unchanged."""
    return data if isinstance(data, Stream) else jax.tree.map(jnp.asarray, data)


def first_examples(data: Data, count: int) -> Batch:
    """Return the first examples of arrays or of a stream."""
    if isinstance(data, Stream):
        return data.fetch(np.arange(count))
    return jax.tree.map(lambda leaf: leaf[:count], data)
