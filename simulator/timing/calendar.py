"""Calls on SimPy's calendar, and the order of the events of one instant."""

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
"""SimPy priorities, after URGENT (0) and NORMAL (1). Worker i's events have 2 + i, so that events of one instant
happen in the order of indices; then follow departures, timeouts, returns, and the end of a wallclock."""


class Ranks(NamedTuple):
    """The ranks of the workers' events of one kind: worker i's is ``first + step * i``."""

    first: int
    step: int


UPLOAD_RANKS = Ranks(WORKER_RANK, 1)
DOWNLOAD_RANKS = Ranks(simpy.events.NORMAL, 0)


class Call(simpy.Event):
    """A call of ``what(whom)`` at a time on the calendar; without ``callbacks`` nothing happens then."""

    __slots__ = ("callbacks", "what", "whom")

    _ok = True
    _value = None

    def __init__(
        self, callbacks: tuple[Callable[[Call], None], ...], what: Callable[[Any], None], whom: Any
    ) -> None:
        self.callbacks: Any = callbacks
        self.what, self.whom = what, whom


class Calendar(Protocol):
    """A clock that calls functions at given times.

    Attributes:
        now: simulated time in seconds.
    """

    now: float

    def at(self, delay: float, rank: float, what: Callable[[T], None], whom: T) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds; ``rank`` orders the events of that instant."""
