"""Availability as alternating renewal: every worker is up for a random time, down for another, and so on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from stalegrad._core.delay import Delay
from stalegrad._core.specs import changed_fields, spec
from stalegrad.simulator.timing.availability.base import Availability, Presence
from stalegrad.simulator.timing.delays import as_delay, as_table

PERIODS = 256
"""Periods drawn at once; a constant, because it is part of what a seed means."""

SAMPLE = 4_096
"""Periods drawn to choose the period in progress at 0 s."""


@spec
class Renewal(Availability):
    """Every worker is up for a random time, then down for one, then up again, independently of the others.

    Args:
        up: delay of the time for which a worker is present, in seconds.
        down: delay of the time until it returns, in seconds.
        start: state at 0 s. ``up``: all workers are present, at the beginning of a period. ``stationary``: each
            is present with probability E[up] / (E[up] + E[down]), within a period that is chosen out of 4,096
            drawn ones with probability proportional to its length.

    Example:
        >>> from stalegrad.policies import Async
        >>> from stalegrad.simulator import Cluster, Exponential, Renewal, simulate
        >>> preempted = Renewal(up=Exponential(3600.0), down=Exponential(600.0))
        >>> trace = simulate(Cluster(8, Exponential(1.0), availability=preempted), Async(), wallclock=7200.0)
        >>> set(trace.messages["fate"]) == {"used", "lost", "pending"}
        True
    """

    up: Any
    down: Any
    start: Literal["up", "stationary"] = "up"

    def check_fields(self) -> None:
        """Raise ValueError unless ``up`` and ``down`` are delays, with finite means if these are needed."""
        for name in ("up", "down"):
            try:
                delay = as_delay(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} of renewal: {error}") from None
            if delay.remembers:
                raise ValueError(
                    f"{name} of renewal = {delay!r:.200} is not allowed: periods are drawn independently"
                )
            object.__setattr__(self, name, delay)
            if self.start == "stationary" and not 0 < _mean(delay, name) < np.inf:
                raise ValueError(
                    f'{name} of renewal has the mean {_mean(delay, name)} s: start = "stationary" needs one above '
                    "0 and finite"
                )

    def share(self) -> float:
        """Return the long-run share of time for which a worker is present, E[up] / (E[up] + E[down])."""
        up, down = _mean(self.up, "up"), _mean(self.down, "down")
        return up / (up + down)

    def presence(self, worker: int, workers: int, rng: np.random.Generator) -> Presence:
        """Return alternating periods."""
        up, down = (delay.realise(rng) for delay in (self.up, self.down))
        if self.start == "up":
            return Presence(True, self._changes(worker, rng, up, down, 0.0))
        there = bool(rng.random() < self.share())
        under_way = _times(up if there else down, rng, SAMPLE, f"worker {worker}")
        rest = rng.random() * rng.choice(under_way, p=under_way / under_way.sum())
        following = (down, up) if there else (up, down)
        return Presence(there, itertools.chain([rest], self._changes(worker, rng, *following, rest)))

    def _changes(
        self, worker: int, rng: np.random.Generator, first: Delay, second: Delay, now: float
    ) -> Iterator[float]:
        """Yield the ends of periods in seconds; the first period begins at ``now``."""
        what = f"worker {worker}"
        while True:
            for one, other in zip(
                _times(first, rng, PERIODS, what), _times(second, rng, PERIODS, what), strict=True
            ):
                yield (now := now + float(one))
                yield (now := now + float(other))

    def settings(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as tables."""
        return {name: as_table(value) for name, value in changed_fields(self).items()}


def _mean(delay: Delay, name: str) -> float:
    try:
        return delay.expectation()
    except TypeError as error:
        raise ValueError(f"{name} of renewal: {error}, which its stationary state needs") from None


def _times(delay: Delay, rng: np.random.Generator, size: int, what: str) -> Any:
    """Return periods of a delay.

    Raises:
        ValueError: for a period that is not a finite time above 0; it names the worker.
    """
    times = np.asarray(delay.sample(rng, size), float)
    wrong = ~((times > 0) & (times < np.inf))
    if wrong.any():
        raise ValueError(
            f"availability of {what} drew a period of {times[np.argmax(wrong)]} s: allowed are finite ones above 0"
        )
    return times
