"""The base of all partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from stalegrad._core.specs import kebab, spec
from stalegrad._core.types import Ints

SHARD = 102
"""Purpose of the random streams of shards: (SHARD,) divides the examples, (SHARD, worker, epoch) shuffles a
shard."""


@spec
class Partition:
    """Base of all partitions: every training example belongs to exactly one worker.

    Attributes:
        needs_labels: whether it depends on the classes of the examples.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> from stalegrad.models import Partition, Problem
        >>> @dataclass(frozen=True)
        ... class Slices(Partition):
        ...     def split(self, labels, workers, least, rng):
        ...         return np.array_split(np.arange(len(labels)), workers)
        >>> problem = Problem("mlp", "fashion-mnist-small", partition=Slices())
        >>> [len(shard) for shard in problem.split(workers=4)]
        [2500, 2500, 2500, 2500]
    """

    needs_labels: ClassVar[bool] = False

    def check(self, labels: Ints, workers: int, least: int) -> None:
        """Raise ValueError if the data cannot be divided in this way, whatever the seed.

        Args:
            labels: the class of every example, 0, 1, ..., shape (examples,); all 0 if there are no classes.
            workers: number of workers.
            least: smallest number of examples of a worker: that of a mini-batch.
        """

    def split(self, labels: Ints, workers: int, least: int, rng: np.random.Generator) -> Sequence[Ints]:
        """Return the indices of the examples of each worker.

        Args:
            labels: the class of every example, as for :meth:`check`.
            workers: number of workers.
            least: smallest number of examples of a worker.
            rng: the random stream for this purpose.
        """
        raise TypeError(f"{type(self).__name__} does not say who holds which example: define split()")


def split_of(partition: Partition, labels: Ints, workers: int, least: int, seed: int) -> tuple[Ints, ...]:
    """Return the indices of the examples of each worker, read-only.

    Args:
        partition: how the examples are divided.
        labels: the class of every example, 0, 1, ..., shape (examples,).
        workers: number of workers.
        least: smallest number of examples of a worker.
        seed: seed of the run.

    Raises:
        ValueError: if the examples cannot be divided in this way, or a user's partition leaves out an example,
            uses one twice or gives a worker too few.
    """
    partition.check(labels, workers, least)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SHARD,)))
    shards = tuple(np.array(shard, np.int64) for shard in partition.split(labels, workers, least, rng))
    name = kebab(type(partition).__name__)
    if len(shards) != workers:
        raise ValueError(f"partition {name} made {len(shards)} shards for {workers} workers")
    if not np.array_equal(np.sort(np.concatenate(shards)), np.arange(len(labels))):
        raise ValueError(f"partition {name} does not give every example of {len(labels)} to exactly one worker")
    for worker, shard in enumerate(shards):
        if len(shard) < least:
            raise ValueError(
                f"partition {name} leaves worker {worker} {len(shard)} examples: a mini-batch has {least}"
            )
        shard.flags.writeable = False
    return shards
