"""Synchronies whose server waits for messages: how many, how long beyond that, and how long at most."""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

from stalegrad._core.specs import NonNegativeFloat, PositiveFloat, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import Decision, Event, Received, Timeout


@spec
class Waiting(Synchrony):
    """Base of synchronies whose updates wait for k messages.

    Args:
        grace: seconds that the server waits on after the k-th message: messages received by then count, too.
        deadline: seconds after the last update at which the server takes what it has; if it has nothing, it takes
            the first message that comes. None: no limit.
    """

    grace: NonNegativeFloat = field(default=0.0, kw_only=True)
    deadline: PositiveFloat | None = field(default=None, kw_only=True)

    @property
    def timed(self) -> bool:
        """Whether its server needs a timer."""
        return bool(self.grace) or self.deadline is not None


class Seen(NamedTuple):
    """What a window makes of an event: whether it closes, and the timer that is to be set."""

    closes: bool
    wake_after: float | None = None
    tag: tuple[str, int] | None = None


class Window:
    """The time between two updates, in which messages are collected.

    It closes ``grace`` seconds after the message that makes the quorum, and at the deadline, or with the first
    message after that.

    Args:
        quorum: messages that are waited for.
        grace: in seconds.
        deadline: in seconds after the last update; None: none.
    """

    def __init__(self, quorum: float, grace: float, deadline: float | None) -> None:
        self.quorum, self.grace, self.deadline = quorum, grace, deadline
        self.number = self.kept = 0
        self.overdue = False

    def begin(self) -> Decision:
        """Return what the server program yields first: it sets the timer of the first deadline."""
        return Decision(wake_after=self.deadline, tag=("deadline", 0))

    def note(self, event: Event, *, complete: bool = False) -> Seen:
        """Record an event; a message is one that is kept.

        Args:
            event: event of the server program.
            complete: whether nothing more can come, so that the window closes now.
        """
        before = self.kept
        self.kept += isinstance(event, Received)
        reached = before < self.quorum <= self.kept
        if isinstance(event, Timeout):
            self.overdue |= event.tag == ("deadline", self.number)
            complete = event.tag == ("grace", self.number)
        if complete or (self.overdue and self.kept) or (reached and not self.grace):
            self.number, self.kept, self.overdue = self.number + 1, 0, False
            return Seen(True, self.deadline, ("deadline", self.number))
        return Seen(False, self.grace, ("grace", self.number)) if reached else Seen(False)
