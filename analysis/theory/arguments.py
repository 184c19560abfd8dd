"""Arguments of the theory of runtimes: a synchrony that it covers, and the delay of every worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

from stalegrad._core.protocols import SynchronyLike
from stalegrad._core.types import Floats, Table
from stalegrad.simulator.timing.delays import Delay, Deterministic, Empirical, Recorded, as_delay

if TYPE_CHECKING:
    from scipy.stats.distributions import rv_frozen

DelayLike: TypeAlias = "Delay | float | Table | rv_frozen | Callable[[np.random.Generator, int], Floats]"
"""A delay, or a value that is converted to one by :func:`~stalegrad.simulator.timing.delays.as_delay`."""

Compute: TypeAlias = "DelayLike | Sequence[DelayLike]"
"""The seconds of one mini-batch: one delay for all workers, or one for each."""

ROUNDS = ("sync", "k-sync", "k-batch-sync")
"""Synchronies in which all gradients of an update are computed at the version before it."""

KNOWN = (*ROUNDS, "async", "k-async", "k-batch-async")


def delays_and_k(synchrony: SynchronyLike, compute: Compute, workers: int | None) -> tuple[list[Delay], int]:
    """Return the delay of every worker, and k; raise ValueError for arguments without theory."""
    count = worker_count(compute, workers)
    k = k_of(synchrony, count)
    values = list(compute) if _is_list(compute) else [as_delay(compute)] * count
    own = [as_delay(value).of_worker(worker) for worker, value in enumerate(values)]
    known = {delay: _delay(delay) for delay in dict.fromkeys(own)}
    return [known[delay] for delay in own], k


def worker_count(compute: Compute, workers: int | None) -> int:
    """Return the number of workers, from ``workers`` or from a list of delays.

    Raises:
        ValueError: if neither gives it, or the two differ.
    """
    count = len(compute) if workers is None and _is_list(compute) else workers
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"workers = {workers!r} is not allowed: a whole number of at least 1")
    if _is_list(compute) and len(compute) != count:
        raise ValueError(f"compute has {len(compute)} delays, but there are {count} workers: give one per worker")
    return int(count)


def _is_list(compute: Compute) -> TypeGuard[Sequence[DelayLike]]:
    return isinstance(compute, Sequence | np.ndarray) and not isinstance(compute, str)


def k_of(synchrony: SynchronyLike, workers: int) -> int:
    """Return k, the gradients of an update; raise ValueError for a synchrony without theory."""
    name = getattr(synchrony, "name", None)
    if name not in KNOWN:
        raise ValueError(
            f"there is no theory for synchrony {name or repr(synchrony)}: allowed are {', '.join(KNOWN)}"
        )
    synchrony.check(workers)
    return workers if name == "sync" else int(getattr(synchrony, "k", 1))


def _delay(delay: Delay) -> Delay:
    machines = [delay.realise(np.random.default_rng(seed)) for seed in (0, 1)]
    if machines[0] != machines[1]:
        raise ValueError(
            f"compute = {delay!r} draws a machine per worker: draw them first, [d.realise(rng) for each worker]"
        )
    try:
        mean = machines[0].expectation()
    except TypeError as error:
        raise ValueError(f"compute = {delay!r} has no known mean: {error}") from None
    if not math.isfinite(mean) or mean <= 0:
        raise ValueError(f"compute = {delay!r} has mean {mean}: theory needs a finite one above 0")
    return machines[0]


def check_independent(delays: Sequence[Delay], *, rounds: bool = False) -> None:
    """Raise ValueError if a worker's times depend on each other; for ``rounds``, only recorded times matter."""
    for delay in dict.fromkeys(delays):
        if isinstance(delay, Recorded) or (delay.remembers and not rounds):
            raise ValueError(f"compute = {delay!r:.200} remembers: theory here needs independent times")


def check_continuous(delay: Delay) -> None:
    """Raise ValueError for a delay with jumps: its fresh share is not known."""
    if isinstance(delay, Deterministic | Empirical):
        raise ValueError(f"compute = {delay!r} has jumps: the fresh share is known for continuous delays only")
