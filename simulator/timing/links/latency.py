"""Latency: what is sent on a link arrives a time later, in the order in which it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stalegrad._core.delay import Delay
from stalegrad.simulator.timing.calendar import Call
from stalegrad.simulator.timing.clock import check_advance
from stalegrad.simulator.timing.streams import Draws, Purpose


class Engine(Protocol):
    """What is used of the engine."""

    now: float
    seed: int

    def at(self, delay: float, rank: float, what: Callable[[Any], None], whom: Any) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds."""


class Latency:
    """The latencies of all links of one direction.

    Args:
        engine: it has the clock and the calendar.
        name: ``uplink`` or ``downlink``.
        value: seconds: a number, a delay, or a tuple of one of them per worker.
        rank: of a worker's events among those of one instant.
        deliver: takes what arrives.

    Attributes:
        latest: when the last thing that was sent on a link arrives, by worker.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        value: Any,
        rank: Callable[[int], float],
        deliver: Callable[[Any], None],
    ) -> None:
        self.engine, self.name, self.value, self.rank, self.deliver = engine, name, value, rank, deliver
        self.same = not isinstance(value, Delay | tuple)
        self.draws: dict[int, Draws] = {}
        self.latest: dict[int, float] = {}

    def send(self, worker: int, thing: Any) -> None:
        """Let a thing arrive."""
        engine = self.engine
        if self.same:
            latency = self.value
            if latency:
                check_advance(engine.now, latency, f"{self.name} of cluster")
                engine.at(latency, self.rank(worker), self.deliver, thing)
            else:
                self.deliver(thing)
            return
        draws = self.draws.get(worker) or self._draws_of(worker)
        now, latency = engine.now, draws.next()
        check_advance(now, latency, draws.what, draws.negligible)
        arrival, before = now + latency, self.latest.get(worker, 0.0)
        if arrival < before:
            latency = before - now
            latency += before - (now + latency)  # so that the sum is the same float
        self.latest[worker] = now + latency
        engine.at(latency, self.rank(worker), self.deliver, thing)

    def _draws_of(self, worker: int) -> Draws:
        value = self.value[worker] if isinstance(self.value, tuple) else self.value
        what, purpose = f"{self.name} of worker {worker}", Purpose[self.name.upper()]
        self.draws[worker] = Draws(value, self.engine.seed, purpose, worker, what)
        return self.draws[worker]
