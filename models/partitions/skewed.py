"""Partitions by label: workers hold different classes, or different numbers of examples of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from stalegrad._core.specs import PositiveFloat, PositiveInt, spec
from stalegrad._core.types import Floats, Ints
from stalegrad.models.partitions.base import Partition


@spec
class Dirichlet(Partition):
    """Classes are divided among workers in proportions drawn from a Dirichlet distribution.

    With ``sizes="free"`` each class k draws shares p_k ~ Dir(alpha, ..., alpha) of the W workers, and the numbers
    of its examples are multinomial with these shares: a worker has n_k / W of the n_k examples on average, with
    variance n_k (1/W)(1 - 1/W) (n_k + W alpha) / (1 + W alpha). A worker whose shard is smaller than a mini-batch
    is filled up from the largest shard.

    With ``sizes="equal"`` the shards have equal sizes, up to one example. Each worker, in random order, draws
    shares q ~ Dir(alpha K s_1, ..., alpha K s_K) of the K classes, where s_k is the share of class k in the whole
    set, and takes its examples one by one: among the examples that no worker has, each is chosen with probability
    proportional to q_k / s_k. If none is left of the classes that it has drawn, it draws shares of the other
    classes.

    Every example is used exactly once. For large alpha the shards are i.i.d.; for small alpha every class belongs
    to one worker (``free``), or every worker to one class as far as the sizes allow (``equal``).

    Args:
        alpha: concentration, above 0; 0.1 is strongly skewed, 100 almost i.i.d.
        sizes: ``free`` or ``equal``.

    Example:
        >>> from stalegrad.models import Dirichlet, Problem
        >>> problem = Problem("mlp", "fashion-mnist-small", partition=Dirichlet(alpha=0.1))
        >>> problem.shards(workers=5).shape
        (10, 5)

    Reference:
        Free: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019, section
        4.1, https://arxiv.org/abs/1905.12022; equal: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical
        Data Distribution for Federated Visual Classification", 2019, section 3, https://arxiv.org/abs/1909.06335.
    """

    needs_labels: ClassVar[bool] = True

    alpha: PositiveFloat
    sizes: Literal["free", "equal"] = "free"

    def split(self, labels: Ints, workers: int, least: int, rng: np.random.Generator) -> Sequence[Ints]:
        """Return the examples of each worker, class after class."""
        pools = _pools(labels, rng)
        sizes = np.array([len(pool) for pool in pools])
        if self.sizes == "free":
            shares = rng.dirichlet(np.full(workers, self.alpha), len(pools))
            counts = np.array([rng.multinomial(n, share) for n, share in zip(sizes, shares, strict=True)])
        else:
            counts = self._equal(sizes, workers, rng)
        parts = [np.split(pool, np.cumsum(count)[:-1]) for pool, count in zip(pools, counts, strict=True)]
        return _filled([np.concatenate(own) for own in zip(*parts, strict=True)], least)

    def _equal(self, sizes: Ints, workers: int, rng: np.random.Generator) -> Ints:
        """Return the number of examples of each class that each worker takes, (classes, workers)."""
        left, prior = sizes.copy(), sizes / sizes.sum()
        counts = np.zeros((len(sizes), workers), np.int64)
        wanted = [len(part) for part in np.array_split(np.arange(sizes.sum()), workers)]
        for worker in rng.permutation(workers):
            while missing := wanted[worker] - counts[:, worker].sum():
                there = np.flatnonzero(left)
                shares = rng.dirichlet(self.alpha * len(sizes) * prior[there])
                taken = _successive(left[there], shares / prior[there], missing, rng)
                counts[there, worker] += taken
                left[there] -= taken
        return counts


@spec
class ClassesPerWorker(Partition):
    """Every worker holds examples of a given number of classes.

    Each worker in turn takes the classes that the fewest workers have so far, with ties broken at random, so that
    the numbers of workers per class differ by at most one. A class is divided equally among its workers. Every
    example is used exactly once. If a shard could be smaller than a mini-batch, this is an error: filling it up
    would need examples of further classes.

    Args:
        classes: number of classes of each worker; enough that every class has a worker.

    Example:
        >>> from stalegrad.models import ClassesPerWorker, Problem
        >>> problem = Problem("mlp", "fashion-mnist-small", partition=ClassesPerWorker(2))
        >>> (problem.shards(workers=5) > 0).sum().tolist()
        [2, 2, 2, 2, 2]

    Reference:
        Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, section 4.1
        (quantity-based label imbalance), https://arxiv.org/abs/2102.02079
    """

    needs_labels: ClassVar[bool] = True

    classes: PositiveInt

    def check(self, labels: Ints, workers: int, least: int) -> None:
        """Raise ValueError if there are too few classes or examples for every worker, or a class has no worker."""
        sizes = np.bincount(labels)
        if not len(sizes) / workers <= self.classes <= len(sizes):
            raise ValueError(
                f"classes of classes-per-worker = {self.classes} is not allowed: for {len(sizes)} classes and "
                f"{workers} workers, give {-(-len(sizes) // workers)} to {len(sizes)}"
            )
        holders = -(-workers * self.classes // len(sizes))
        smallest = int(np.sort(sizes // holders)[: self.classes].sum())
        if sizes.min() < holders or smallest < least:
            raise ValueError(
                f"classes of classes-per-worker = {self.classes} is not allowed: with up to {holders} workers per "
                f"class, a class of {sizes.min()} examples, and shards of {smallest} in the worst case, "
                f"mini-batches of {least} are too large"
            )

    def split(self, labels: Ints, workers: int, least: int, rng: np.random.Generator) -> Sequence[Ints]:
        """Return the examples of each worker, class after class."""
        pools = _pools(labels, rng)
        holds = np.zeros((len(pools), workers), bool)
        for worker in range(workers):
            order = rng.permutation(len(pools))
            fewest = order[np.argsort(holds[order].sum(axis=1), kind="stable")]
            holds[fewest[: self.classes], worker] = True
        shards: list[list[Ints]] = [[] for _ in range(workers)]
        for pool, holders in zip(pools, holds, strict=True):
            those = rng.permutation(np.flatnonzero(holders))
            for worker, part in zip(those, np.array_split(pool, len(those)), strict=True):
                shards[worker].append(part)
        return [np.concatenate(own) for own in shards]


def _pools(labels: Ints, rng: np.random.Generator) -> list[Ints]:
    """Return the examples of each class, in random order."""
    return [rng.permutation(np.flatnonzero(labels == kind)) for kind in range(labels.max() + 1)]


def _successive(left: Ints, rates: Floats, size: int, rng: np.random.Generator) -> Ints:
    """Return the number of examples of each class among ``size`` examples that are drawn without replacement.

    Args:
        left: numbers of examples of each class, (classes,).
        rates: an example of class k is chosen with probability proportional to ``rates[k]``.
        size: number of examples to draw; fewer are drawn if too few have a positive rate.
        rng: random stream.
    """
    times = []
    for n, rate in zip(
        left, rates, strict=True
    ):  # exponential times of n clocks, in order; the earliest are drawn
        waits = rng.exponential(size=min(n, size)) / (n - np.arange(min(n, size)))
        with np.errstate(over="ignore"):
            times.append(np.cumsum(waits) / rate if rate > 0 else waits[:0])
    kinds = np.repeat(np.arange(len(left)), [len(own) for own in times])
    first = np.argsort(np.concatenate(times), kind="stable")[:size]
    return np.bincount(kinds[first], minlength=len(left))


def _filled(shards: list[Ints], least: int) -> list[Ints]:
    """Move examples from the end of the largest shard to the smallest, until every shard has ``least``."""
    sizes = np.array([len(shard) for shard in shards])
    while (missing := least - sizes[poor := int(sizes.argmin())]) > 0:
        rich = int(sizes.argmax())
        moved = min(missing, sizes[rich] - least)
        shards[poor] = np.concatenate([shards[poor], shards[rich][-moved:]])
        shards[rich] = shards[rich][:-moved]
        sizes[[poor, rich]] += moved, -moved
    return shards
