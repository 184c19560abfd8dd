"""The timers of the server program."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sized
from typing import NoReturn, Protocol

from stalegrad._core.specs import builtin
from stalegrad.policies.synchrony import Decision, Event, Synchrony, Timeout
from stalegrad.simulator.timing.calendar import TIMEOUT_RANK, Calendar, Call
from stalegrad.simulator.timing.clock import READS, are_seconds, check_advance


class Server(Protocol):
    """The part of the server that timers use."""

    synchrony: Synchrony
    inbox: deque[Event]

    @property
    def workers(self) -> Sized:
        """All workers."""

    def refuse(self, event: Event | None, decision: object, why: str) -> NoReturn:
        """Raise ValueError about a decision on an event; an event of None stands for the start of the program."""

    def time_out(self, tag: Hashable) -> None:
        """Handle a timer that has run out."""


class Timers:
    """The timers by tag.

    Attributes:
        instant: a time in seconds, and the number of timers of 0 s that have been set at it.
    """

    def __init__(self, calendar: Calendar, server: Server) -> None:
        self.calendar, self.server = calendar, server
        self.calls: dict[Hashable, Call] = {}
        self.instant = (-1.0, 0)

    def set(self, event: Event | None, decision: Decision) -> None:
        """Set the timer that a decision requests; it replaces a timer with the same tag."""
        server, seconds, tag, now = self.server, builtin(decision.wake_after), decision.tag, self.calendar.now
        if not are_seconds(seconds):
            server.refuse(event, decision, "wake_after must be finite seconds of at least 0")
        if not isinstance(tag, Hashable):
            server.refuse(event, decision, "tag must be hashable: for example a text or a number")
        check_advance(now, seconds, f"wake_after of synchrony {server.synchrony.name!r}")
        if seconds == 0:
            moment, count = self.instant
            self.instant = now, (count + 1 if now == moment else 1)
            if self.instant[1] > READS + len(server.workers):
                raise ValueError(
                    f"wake_after of synchrony {server.synchrony.name!r} = 0 s, {self.instant[1]} times at {now!r} "
                    "s: time would never advance"
                )
        if tag in self.calls:
            self.calls.pop(tag).callbacks = ()
        elif server.inbox:  # the timer may have run out, with its timeout in the inbox
            server.inbox = deque(waiting for waiting in server.inbox if waiting != Timeout(tag))
        self.calls[tag] = self.calendar.at(seconds, TIMEOUT_RANK, self.run_out, tag)

    def run_out(self, tag: Hashable) -> None:
        """Remove a timer that has run out, and tell the server."""
        del self.calls[tag]
        self.server.time_out(tag)

    def stop(self) -> None:
        """Stop all timers, and remove timeouts from the inbox."""
        for call in self.calls.values():
            call.callbacks = ()
        self.calls.clear()
        self.server.inbox = deque(event for event in self.server.inbox if not isinstance(event, Timeout))
