"""Shards: the classes and the training data of each worker's examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stalegrad._core.types import Batch, Data, Ints

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.models.streams import Stream


def labels_of(train: Data) -> Ints | None:
    """Return the class of every example of a training set, (examples,), or None if it has none.

    Classes are the targets of ``(inputs, targets)`` if these are whole numbers, one per example; the classes of
    images in folders are their folders.
    """
    from stalegrad.models.streams import Stream

    if isinstance(train, Stream):
        from stalegrad.models.datasets import ImageFolder

        return train.targets if isinstance(train, ImageFolder) else None
    if not isinstance(train, tuple | list) or len(train) != 2:
        return None
    targets = train[1]
    classes = getattr(targets, "ndim", None) == 1 and np.dtype(targets.dtype).kind in "iu"
    return np.asarray(targets) if classes else None


def checked_labels(labels: object, examples: int) -> Ints:
    """Check the classes that a user gives, and return them as whole numbers (examples,).

    Raises:
        ValueError: for another shape or type.
    """
    found = np.asarray(labels)
    if found.shape != (examples,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"labels of shape {found.shape} and type {found.dtype} are not allowed: give a whole number for each "
            f"of the {examples} training examples"
        )
    return found


def shard_table(shards: Sequence[Ints], labels: Ints | None) -> pd.DataFrame:
    """Return the number of examples of each class at each worker: a row per class, a column per worker.

    Args:
        shards: the indices of the examples of each worker.
        labels: the class of every example; None: one row, ``all``.
    """
    import pandas as pd

    workers = pd.RangeIndex(len(shards), name="worker")
    if labels is None:
        counts = [[len(shard) for shard in shards]]
        return pd.DataFrame(counts, index=pd.Index(["all"], name="class"), columns=workers)
    classes, kinds = np.unique(labels, return_inverse=True)
    by_worker = [np.bincount(kinds[shard], minlength=len(classes)) for shard in shards]
    return pd.DataFrame(np.transpose(by_worker), index=pd.Index(classes, name="class"), columns=workers)


class Part:
    """A part of a stream, itself a stream.

    Args:
        stream: the whole stream.
        rows: the indices of the part's examples in the stream.
    """

    def __init__(self, stream: Stream, rows: Ints) -> None:
        self.stream, self.rows = stream, rows

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, indices: Ints) -> Batch:
        """Return examples of the part."""
        return self.stream.fetch(self.rows[indices])


def part_of(train: Data, rows: Ints) -> Data:
    """Return the examples ``rows`` of a training set, as arrays or as a stream like the whole."""
    import jax

    from stalegrad.models.streams import Stream

    if isinstance(train, Stream):
        return Part(train, rows)
    return jax.tree.map(lambda leaf: leaf[rows], train)
