"""The partition that lists the worker of every example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

from stalegrad._core.specs import NonNegativeInt, builtin, spec
from stalegrad._core.types import Ints
from stalegrad.models.partitions.base import Partition


@spec
class Assigned(Partition):
    """The worker of every example, given one by one.

    Args:
        workers: the worker of each training example, counted from 0; shape (examples,).

    Example:
        >>> import jax.numpy as jnp
        >>> from stalegrad.models import Assigned, Problem
        >>> centres = jnp.array([[0.0], [1.0], [5.0], [6.0]])
        >>> problem = Problem.from_functions(
        ...     lambda key: jnp.zeros(1), lambda w, batch, key: jnp.mean((w - batch) ** 2),
        ...     train=centres, batch_size=2, partition=Assigned(workers=[0, 0, 1, 1]),
        ... )
        >>> [shard.tolist() for shard in problem.split(2)]
        [[0, 1], [2, 3]]
    """

    workers: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(builtin)]

    def check(self, labels: Ints, workers: int, least: int) -> None:
        """Raise ValueError unless there is a worker for every example, and enough examples for every worker."""
        if len(self.workers) != len(labels):
            raise ValueError(
                f"workers of assigned has {len(self.workers)} entries, but there are {len(labels)} training "
                "examples"
            )
        if (most := max(self.workers)) >= workers:
            at = self.workers.index(most)
            raise ValueError(f"workers of assigned [{at}] = {most} is not allowed: workers are 0 to {workers - 1}")
        counts = np.bincount(self.workers, minlength=workers)
        if counts.min() < least:
            raise ValueError(
                f"workers of assigned gives worker {counts.argmin()} {counts.min()} examples: a mini-batch has "
                f"{least}"
            )

    def split(self, labels: Ints, workers: int, least: int, rng: np.random.Generator) -> Sequence[Ints]:
        """Return the examples of each worker, in their order."""
        counts = np.bincount(self.workers, minlength=workers)
        return np.split(np.argsort(self.workers, kind="stable"), np.cumsum(counts)[:-1])
