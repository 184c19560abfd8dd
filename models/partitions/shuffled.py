"""The i.i.d. partition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stalegrad._core.specs import spec
from stalegrad._core.types import Ints
from stalegrad.models.partitions.base import Partition


@spec
class Shuffled(Partition):
    """The examples in random order, cut into equal parts: i.i.d. shards, as with ``sampling="sharded"``.

    Sizes of shards differ by at most one example.

    Example:
        >>> from stalegrad.models import Problem, Shuffled
        >>> problem = Problem("mlp", "fashion-mnist-small", partition=Shuffled())
        >>> problem == Problem("mlp", "fashion-mnist-small", sampling="sharded")
        True
    """

    def split(self, labels: Ints, workers: int, least: int, rng: np.random.Generator) -> Sequence[Ints]:
        """Return equal parts of a permutation."""
        return np.array_split(rng.permutation(len(labels)), workers)
