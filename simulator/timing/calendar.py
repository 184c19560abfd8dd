"""What is on SimPy's calendar, and in which order the events of one instant happen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import simpy

from stalegrad.simulator.timing.limits import MOST_WORKERS

T = TypeVar("T")

WORKER_RANK = 2
DEPARTURE_RANK = WORKER_RANK + MOST_WORKERS
TIMEOUT_RANK = DEPARTURE_RANK + MOST_WORKERS
RETURN_RANK, LAST_RANK = TIMEOUT_RANK + 1, math.inf
"""SimPy priorities, after URGENT and NORMAL, 0 and 1: worker i's events have 2 + i, so that those of one instant
happen in the order of indices; then come departures, timeouts, returns, and the end of a wallclock."""


class Ranks(NamedTuple):
    """The ranks of the workers' events of one kind: worker i's is ``first + step * i``."""

    first: int
    step: int


UPLOAD_RANKS = Ranks(WORKER_RANK, 1)
DOWNLOAD_RANKS = Ranks(simpy.events.NORMAL, 0)


class Call(simpy.Event):
    """Something on the calendar, to be called at its time; without ``callbacks`` nothing happens then."""

    __slots__ = ("callbacks", "what", "whom")

    _ok = True
    _value = None

    def __init__(
        self, callbacks: tuple[Callable[[Call], None], ...], what: Callable[[Any], None], whom: Any
    ) -> None:
        self.callbacks: Any = callbacks
        self.what, self.whom = what, whom


class Calendar(Protocol):
    """What has the clock, and calls at a time.

    Attributes:
        now: simulated seconds.
    """

    now: float

    def at(self, delay: float, rank: float, what: Callable[[T], None], whom: T) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds, among the events of that instant by its rank."""
