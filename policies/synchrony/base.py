"""Who waits for whom, and who is cancelled: the synchrony of a method. No clock in here.

A synchrony is a small state machine, written as a generator: it is sent one received message at a time and
answers each with a :class:`Decision`. The engine carries the decision out; a new synchrony needs no change
there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import field
from typing import Annotated, ClassVar, NamedTuple, Protocol

from pydantic import Field

from stalegrad._core.specs import PositiveInt, kebab, spec


class Message(Protocol):
    """What a synchrony may know of a received message."""

    worker: int
    read_version: int


class Decision(NamedTuple):
    """The server's answer to one message.

    Attributes:
        apply: make one update out of the messages kept since the last one, this one included.
        send: the workers that are sent the current version (the new one, if ``apply``). One that is
            computing drops its job when the model reaches it, if the synchrony ``cancels``.
        keep: whether the message counts; one that is not kept is discarded.
    """

    apply: bool = False
    send: Iterable[int] = ()
    keep: bool = True


LocalSteps = Annotated[PositiveInt, Field(le=100_000)]
"""Local gradients of one message, or of one bound on them: each is drawn before the message ends."""

Messages = Annotated[PositiveInt, Field(le=1_000_000)]
"""Messages of one update that need not come from distinct workers: all are kept until it is made."""

WAIT = Decision()
DISCARD = Decision(keep=False)

CurrentK = Callable[[], int]
"""Asked for k when an update's first message has come."""

Server = Generator[Decision, Message, None]
"""Primed with ``next``, then sent every received message; yields what to do about it."""


@spec
class Synchrony:
    """Base of all synchronies; the class attributes say how its workers behave.

    Args:
        local_steps: mini-batch gradients in one message (H of local SGD); 1 = plain gradients; at most 100,000.
    """

    local_steps: LocalSteps = field(default=1, kw_only=True)

    ahead: ClassVar[float] = 0
    """How many messages a worker may have sent without an answer and still go on computing."""
    cancels: ClassVar[bool] = True
    """Whether a model that reaches a computing worker cancels its job (otherwise it waits for the job)."""

    holds: ClassVar[bool] = False
    """Whether a finished message is held back until the one before has been answered."""

    collects: ClassVar[bool] = False
    """Whether the server asks for messages, once every worker has one; until then workers keep theirs and go on,
    up to ``tau`` messages beyond the model they hold. The server is told one message of each answer."""

    def serve(self, workers: int) -> Server:
        """Return the server's state machine for ``workers`` workers."""
        raise TypeError(f"{type(self).__name__} does not say how its server decides: define serve()")

    def check(self, workers: int) -> None:
        """Raise ValueError if this synchrony cannot work with that many workers."""

    def members(self, workers: int) -> range:
        """Return the workers that take part; the others never join."""
        return range(workers)

    @property
    def name(self) -> str:
        """The name users type, e.g. ``k-batch-async``."""
        return kebab(type(self).__name__)


def check_k(k: int, workers: int, name: str) -> None:
    """Raise ValueError if ``k`` distinct workers are more than there are."""
    if k > workers:
        raise ValueError(f"k = {k} of {name} exceeds the number of workers: allowed is 1 to {workers}")
