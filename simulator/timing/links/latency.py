"""Latencies of links: things that are sent on a link arrive later, in the order in which they were sent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from stalegrad._core.delay import Delay
from stalegrad.simulator.timing.calendar import Calendar, Ranks
from stalegrad.simulator.timing.clock import check_advance
from stalegrad.simulator.timing.streams import Draws, Purpose

Thing = TypeVar("Thing")
Seconds: TypeAlias = "float | Delay | tuple[float | Delay, ...]"
"""Seconds: a number, a delay, or one of them per worker."""


class Latency(Generic[Thing]):
    """The latencies of all links of one direction.

    Args:
        calendar: calendar of the engine.
        seed: seed of the run.
        name: ``uplink`` or ``downlink``.
        value: latency in seconds.
        ranks: ranks of the workers' events among the events of one instant.
        deliver: function that receives what arrives.

    Attributes:
        same: latency of all links in seconds, if it is one number, else None.
        draws: draws of each worker's latencies otherwise.
        latest: arrival time of the last thing that was sent on a link, by worker.
    """

    def __init__(
        self,
        calendar: Calendar,
        seed: int,
        name: str,
        value: Seconds,
        ranks: Ranks,
        deliver: Callable[[Thing], None],
    ) -> None:
        self.calendar, self.seed, self.name, self.value = calendar, seed, name, value
        (self.first, self.step), self.deliver = ranks, deliver
        self.same = None if isinstance(value, Delay | tuple) else value
        self.draws: dict[int, Draws] = {}
        self.latest: dict[int, float] = {}

    def send(self, worker: int, thing: Thing) -> None:
        """Send a thing, which arrives after the latency of the link."""
        calendar, latency = self.calendar, self.same
        if latency == 0:
            self.deliver(thing)
            return
        now = calendar.now
        if latency is not None:
            if not now < now + latency < math.inf:
                check_advance(now, latency, f"{self.name} of cluster")
            calendar.at(latency, self.first + self.step * worker, self.deliver, thing)
            return
        draws = self.draws.get(worker) or self._draws_of(worker)
        latency = draws.next()
        if not now < now + latency < math.inf:
            check_advance(now, latency, draws.what, draws.negligible)
        before = self.latest.get(worker, 0.0)
        if now + latency < before:
            latency = before - now
            if now + latency < before:  # by rounding
                latency += math.ulp(before)
        self.latest[worker] = now + latency
        calendar.at(latency, self.first + self.step * worker, self.deliver, thing)

    def _draws_of(self, worker: int) -> Draws:
        value = self.value[worker] if isinstance(self.value, tuple) else self.value
        what, purpose = f"{self.name} of worker {worker}", Purpose[self.name.upper()]
        self.draws[worker] = Draws(value, self.seed, purpose, worker, what)
        return self.draws[worker]
