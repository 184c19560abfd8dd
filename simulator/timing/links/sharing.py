"""The ways to divide bandwidth among the transfers in progress. A worker has at most one transfer."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from stalegrad._core.types import Floats
from stalegrad.simulator.timing.calendar import Calendar, Call, Ranks

Limits: TypeAlias = "float | tuple[float, ...]"
"""Bytes per second of the links: one number for all, or one per worker; ``inf``: no limit."""


class Sharing:
    """Base of all ways to divide bandwidth.

    Args:
        calendar: calendar of the engine.
        limits: bytes per second of the links.
        capacity: bytes per second of all links together; ``inf``: no limit.
        ranks: ranks of the workers' events among the events of one instant.
        ended: function that receives the worker whose transfer has ended.
    """

    def __init__(
        self,
        calendar: Calendar,
        limits: Limits,
        capacity: float,
        ranks: Ranks,
        ended: Callable[[int], None],
    ) -> None:
        self.calendar, self.limits, self.capacity, self.ended = calendar, limits, capacity, ended
        self.first, self.step = ranks
        self.last = 0.0
        self.expected: Call | None = None
        self.prepare()

    def prepare(self) -> None:
        """Set up the state of this way of sharing."""

    def start(self, worker: int, size: float) -> None:
        """Begin a transfer of ``size`` bytes."""
        raise NotImplementedError

    def rates(self) -> dict[int, float]:
        """Return the bytes per second of every transfer in progress, by worker."""
        raise NotImplementedError

    def expect(self, delay: float, worker: int) -> None:
        """Let the next transfer end after ``delay`` seconds; this replaces the end expected before."""
        if self.expected is not None:
            self.expected.callbacks = ()
        self.expected = self.calendar.at(delay, self.first + self.step * worker, self.end, worker)

    def end(self, worker: int) -> None:
        """End a transfer whose time has come."""
        raise NotImplementedError


class Separate(Sharing):
    """No sharing: every transfer has the bandwidth of its link, at most the server's capacity."""

    def start(self, worker: int, size: float) -> None:
        """Begin a transfer, whose end is known."""
        limit = self.limits[worker] if isinstance(self.limits, tuple) else self.limits
        self.calendar.at(size / min(limit, self.capacity), self.first + self.step * worker, self.ended, worker)


class EqualShares(Sharing):
    """Processor sharing: each of n transfers has 1/n of the capacity, or the common limit if that is smaller.

    Virtual time counts the bytes that each transfer has moved since the server was last idle. In virtual time, the
    end of a transfer does not depend on other transfers; a heap holds these ends.

    Reference: Parekh and Gallager, A Generalized Processor Sharing Approach to Flow Control in Integrated Services
    Networks, IEEE/ACM Transactions on Networking 1993, section III, https://doi.org/10.1109/90.234856.
    """

    virtual = 0.0

    def prepare(self) -> None:
        """Begin with no transfer."""
        self.limit = min(self.limits) if isinstance(self.limits, tuple) else self.limits
        self.ends: list[tuple[float, int]] = []

    def rate(self) -> float:
        """Return the bytes per second of each transfer."""
        return min(self.limit, self.capacity / len(self.ends))

    def rates(self) -> dict[int, float]:
        """Return the same rate for all transfers."""
        return {worker: self.rate() for _, worker in self.ends}

    def start(self, worker: int, size: float) -> None:
        """Begin a transfer."""
        now = self.calendar.now
        self.virtual = self.virtual + (now - self.last) * self.rate() if self.ends else 0.0
        self.last = now
        heapq.heappush(self.ends, (self.virtual + size, worker))
        self.look_ahead()

    def end(self, worker: int) -> None:
        """End the transfer with the earliest end."""
        self.virtual, worker = heapq.heappop(self.ends)
        self.last, self.expected = self.calendar.now, None
        if self.ends:
            self.look_ahead()
        self.ended(worker)

    def look_ahead(self) -> None:
        """Expect the earliest end of a transfer."""
        end, worker = self.ends[0]
        self.expect(max(0.0, end - self.virtual) / self.rate(), worker)


class MaxMin(Sharing):
    """Max-min fairness: all rates rise together; a rate stops when it reaches the limit of its link.

    Reference: Bertsekas and Gallager, Data Networks, 1992, section 6.5.2,
    https://web.mit.edu/dimitrib/www/datanets.html.
    """

    def prepare(self) -> None:
        """Sort the links by their limits."""
        self.limit = np.array(self.limits)
        self.order = np.argsort(self.limit, kind="stable")
        workers = len(self.limit)
        self.busy = np.zeros(workers, bool)
        self.rate, self.left, self.ends = np.zeros(workers), np.zeros(workers), np.full(workers, math.inf)

    def rates(self) -> dict[int, float]:
        """Return the rates."""
        return {int(worker): float(self.rate[worker]) for worker in np.flatnonzero(self.busy)}

    def start(self, worker: int, size: float) -> None:
        """Begin a transfer."""
        self.go_on()
        self.busy[worker], self.left[worker] = True, size
        self.share()

    def end(self, worker: int) -> None:
        """End a transfer; for others that end at the same instant, set the rest that is left by rounding to 0."""
        self.go_on()
        self.left[self.ends == self.ends[worker]] = 0.0
        self.busy[worker], self.rate[worker], self.ends[worker] = False, 0.0, math.inf
        self.expected = None
        self.share()
        self.ended(worker)

    def go_on(self) -> None:
        """Subtract the bytes moved up to now."""
        now = self.calendar.now
        if now != self.last:
            self.left -= self.rate * (now - self.last)
            self.last = now

    def share(self) -> None:
        """Divide the capacity, and expect the earliest end of a transfer."""
        busy = self.order[self.busy[self.order]]
        if not len(busy):
            return
        rate = max_min_rates(self.limit[busy], self.capacity)
        delay = np.maximum(self.left[busy], 0.0) / rate
        self.rate[busy], self.ends[busy] = rate, self.calendar.now + delay
        first = int(self.ends.argmin())  # ties: the lowest worker
        self.expect(float(max(0.0, self.left[first]) / self.rate[first]), first)


def max_min_rates(limits: Floats, capacity: float) -> Floats:
    """Return max-min fair rates of transfers.

    Args:
        limits: largest rate of each transfer, ascending, (transfers,).
        capacity: largest rate of all together, in the same unit.
    """
    smaller = np.concatenate([[0.0], np.cumsum(limits)[:-1]])
    level = (capacity - smaller) / np.arange(len(limits), 0, -1)
    limited = limits <= level
    if limited.all():
        return limits
    first = int(limited.argmin())
    rates: Floats = np.minimum(limits, level[first])
    return rates


def sharing_of(limits: Limits, capacity: float) -> type[Sharing]:
    """Return the simplest way of sharing that gives the rates of max-min fairness."""
    if capacity == math.inf:
        return Separate
    unequal = isinstance(limits, tuple) and min(limits) < capacity and min(limits) < max(limits)
    return MaxMin if unequal else EqualShares
