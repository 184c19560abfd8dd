"""What a server program is told and answers, and what a worker program asks for. No clock in here.

A synchrony is two programs, written as generators:

* the **server program** is sent one event at a time (:class:`Received`, :class:`Joined`, :class:`Left`,
  :class:`Timeout`, :class:`Announced`) and answers each with a :class:`Decision`;
* a **worker program** yields what its worker does next: :class:`Compute`, :class:`Send`, :data:`AWAIT`,
  :data:`ANNOUNCE`, :data:`DROP`.

The engine of the simulator carries both out; it knows no synchrony by name.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Hashable, Iterable
from typing import Any, NamedTuple, Protocol


class Received:
    """A message has arrived at the server, or several that were sent as one.

    Attributes:
        worker: who sent it, 0 to the number of workers - 1.
        read_version: the version that it was computed at (of several: the last of them).
        version: the current version.
        steps: mini-batch gradients in it.
    """

    __slots__ = ("read_version", "steps", "version", "worker")

    def __init__(self, worker: int, read_version: int, version: int = 0, steps: int = 1) -> None:
        self.worker, self.read_version, self.version, self.steps = worker, read_version, version, steps

    @property
    def staleness(self) -> int:
        """The current version minus ``read_version``: 0 = fresh."""
        return self.version - self.read_version

    def __repr__(self) -> str:
        return (
            f"Received(worker={self.worker}, read_version={self.read_version}, version={self.version}, "
            f"steps={self.steps})"
        )


class Joined(NamedTuple):
    """A worker begins to take part: it reads the current version."""

    worker: int


class Left(NamedTuple):
    """A worker no longer takes part: its program has ended."""

    worker: int


class Timeout(NamedTuple):
    """The time set by a decision with ``wake_after`` and this ``tag`` is over."""

    tag: Hashable


class Announced(NamedTuple):
    """A worker has announced that it has something to send (:data:`ANNOUNCE`). The announcement takes no time."""

    worker: int


Event = Received | Joined | Left | Timeout | Announced


NOBODY: tuple[Any, ...] = ()


class Decision(NamedTuple):
    """The server's answer to one event.

    Attributes:
        apply: make one update out of the messages kept and not yet used, this one included; or out of these of
            them, given as the events ``Received`` that told of them.
        send: the workers that are sent the current version (the new one, if ``apply``). One that is computing
            finishes its job first, and computes the next one at the version that came last.
        keep: whether a received message counts; one that is not kept is discarded.
        cancel: workers of ``send`` that drop the job in progress when the model reaches them; they begin the same
            job again, at that model.
        ask: workers that are asked for what they have announced. A question takes no time.
        wake_after: seconds, at least 0, after which the server is sent ``Timeout(tag)``; one that is pending with
            the same tag is replaced.
        tag: which timer it is.
        drop: messages that were kept, as the events that told of them: they no longer count and are discarded.

    Example:
        >>> from stalegrad.policies import Async, Decision
        >>> from stalegrad.policies.synchrony import WAIT, Received
        >>> server = Async().serve(workers=2)
        >>> next(server) == WAIT
        True
        >>> server.send(Received(worker=1, read_version=0)) == Decision(apply=True, send=(1,))
        True
    """

    apply: bool | Collection[Received] = False
    send: Iterable[int] = NOBODY
    keep: bool = True
    cancel: Collection[int] = NOBODY
    ask: Iterable[int] = NOBODY
    wake_after: float | None = None
    tag: Hashable = None
    drop: Iterable[Received] = NOBODY


WAIT = Decision()
DISCARD = Decision(keep=False)

ServerProgram = Generator[Decision, Any, None]
"""Primed with ``next`` (of what that yields only the timer counts), then sent every event; yields what to do."""


MOST_STEPS = 100_000
"""Local steps of a job at most: each is drawn before the job ends."""


class Compute(NamedTuple):
    """Compute a message at the version held.

    A job that the server cancels begins again at the model that has come; the program does not notice. The value
    of ``yield`` is the number of whole gradients computed; a message without any is cancelled.

    Attributes:
        steps: mini-batch gradients of the message, at most 100,000.
        at_most: seconds after which the job ends with the whole gradients that it has by then; None: no limit.
        send: whether the message is sent as soon as it has been computed, as by :data:`SEND`.
    """

    steps: int = 1
    at_most: float | None = None
    send: bool = False


class Send(NamedTuple):
    """Send the messages computed and not yet sent, as one upload. It need not be over for the program to continue.

    Attributes:
        go_on: what comes first where links and server take no time: the program continues (True), or the server
            decides about the message (False).
    """

    go_on: bool = False


class Await(NamedTuple):
    """Wait until the next model or question comes."""


class Announce(NamedTuple):
    """Tell the server that there is something to send: it is sent :class:`Announced` at the same moment."""


class Drop(NamedTuple):
    """Drop the messages computed and not yet sent: they are cancelled."""


Action = Compute | Send | Await | Announce | Drop

SEND, AWAIT, ANNOUNCE, DROP = Send(), Await(), Announce(), Drop()

WorkerProgram = Generator[Action, int, None]
"""Begins when its worker joins; yields what the worker does next. A worker whose program ends has left."""


class Rounds(NamedTuple):
    """A pattern: an update takes the first ``k`` messages computed at the current version, one of a worker.

    The others are cancelled, and every worker reads the new version.
    """

    k: int


class Free(NamedTuple):
    """A pattern: every ``k``-th message received makes an update of the last ``k``.

    A worker that has sent reads the current version at once; no worker waits and no message is cancelled.
    """

    k: int


Pattern = Rounds | Free


class Worker(Protocol):
    """What a worker program may know of its worker.

    Attributes:
        index: 0 to the number of workers - 1.
        version: the version held: read on joining, or that of the last model that came.
        unanswered: uploads that no model has answered yet.
        asked: questions that have come so far.
        models: models that have come so far.
        local_steps: mini-batch gradients of a message, as the synchrony says; a controller may change it.
    """

    index: int
    version: int
    unanswered: int
    asked: int
    models: int
    local_steps: int
