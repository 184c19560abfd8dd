"""Who waits for whom, and who is cancelled: the synchrony of a method. No clock in here.

A synchrony is a small state machine, written as a generator: it is sent one received message at a time and
answers each with a :class:`Decision`. The engine carries the decision out; a new synchrony needs no change
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import field
from typing import Annotated, ClassVar, NamedTuple, Protocol

from pydantic import Field

from stalegrad._core.specs import NonNegativeInt, PositiveInt, kebab, spec


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


def _at_most_workers(k: int, workers: int, name: str) -> None:
    if k > workers:
        raise ValueError(f"k = {k} of {name} exceeds the number of workers: allowed is 1 to {workers}")


@spec
class KSync(Synchrony):
    """K-sync: an update waits for the first ``k`` distinct workers; the others are cancelled.

    Everybody reads the new version. ``k`` workers out of P are "P - k backup workers".

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        _at_most_workers(self.k, workers, self.name)

    def serve(self, workers: int) -> Server:
        """Collect ``k`` fresh gradients, update, send the new version to all."""
        return self.serve_changing(workers, lambda: self.k)

    def serve_changing(self, workers: int, k: CurrentK) -> Server:
        """Serve with a k that may change from update to update."""
        return _serve_rounds(k, workers)


@spec
class Sync(Synchrony):
    """Fully synchronous: an update waits for one gradient of every worker (K-sync with k = P)."""

    def serve(self, workers: int) -> Server:
        """Serve as K-sync with k = P."""
        return _serve_rounds(lambda: workers, workers)


@spec
class KBatchSync(Synchrony):
    """K-batch-sync: an update waits for the first ``k`` mini-batches, whoever made them.

    Nobody idles: a finisher goes on at the same version at once. At the update all jobs are cancelled and
    everybody reads the new version. Rennala SGD with batch S = k; ``k`` may exceed the number of workers.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: Messages

    ahead: ClassVar[float] = math.inf

    def serve(self, workers: int) -> Server:
        """Collect ``k`` fresh gradients of any workers, update, send the new version to all."""
        return self.serve_changing(workers, lambda: self.k)

    def serve_changing(self, workers: int, k: CurrentK) -> Server:
        """Serve with a k that may change from update to update."""
        return _serve_rounds(k, workers)


def _serve_rounds(k: CurrentK, workers: int) -> Server:
    """Rounds of ``k`` gradients of the current version; older ones, still on their way, are discarded."""
    version = kept = needed = 0
    message = yield WAIT
    while True:
        if message.read_version != version:
            message = yield DISCARD
            continue
        needed = k() if kept == 0 else needed
        kept += 1
        if kept < needed:
            message = yield WAIT
            continue
        version, kept = version + 1, 0
        message = yield Decision(apply=True, send=range(workers))


@spec
class Async(Synchrony):
    """Asynchronous: every gradient is an update; its worker, and only that one, reads the new version."""

    def serve(self, workers: int) -> Server:
        """Apply every message at once."""
        return _serve_batches(lambda: 1)


@spec
class KBatchAsync(Synchrony):
    """K-batch-async: every ``k``-th received gradient makes an update of the last ``k``.

    Nobody idles and nobody is cancelled: each worker reads the current version right after it has sent.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: Messages

    def serve(self, workers: int) -> Server:
        """Count messages; the sender always reads."""
        return self.serve_changing(workers, lambda: self.k)

    def serve_changing(self, workers: int, k: CurrentK) -> Server:
        """Serve with a k that may change from update to update."""
        return _serve_batches(k)


def _serve_batches(k: CurrentK) -> Server:
    message = yield WAIT
    while True:
        for _ in range(k() - 1):
            message = yield Decision(send=(message.worker,))
        message = yield Decision(apply=True, send=(message.worker,))


@spec
class KAsync(Synchrony):
    """K-async: an update waits for ``k`` distinct workers; the others keep running on what they read.

    The first k - 1 idle until the update; then exactly the ``k`` contributors read the new version.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        _at_most_workers(self.k, workers, self.name)

    def serve(self, workers: int) -> Server:
        """Collect ``k`` gradients, fresh or stale, update, answer their workers."""
        return self.serve_changing(workers, lambda: self.k)

    def serve_changing(self, workers: int, k: CurrentK) -> Server:
        """Serve with a k that may change from update to update."""
        message = yield WAIT
        while True:
            contributors, needed = [message.worker], k()
            while len(contributors) < needed:
                message = yield WAIT
                contributors.append(message.worker)
            message = yield Decision(apply=True, send=contributors)


@spec
class SSP(Synchrony):
    """Stale synchronous parallel: asynchronous, but nobody runs more than ``bound`` steps ahead of the slowest.

    A worker that has sent its c-th message may start the next one only while c - min_q c_q <= bound; until
    then it waits, and reads the version of the moment it is let go. bound = 0 lets nobody start a round
    before all have finished the last one (but applies each gradient as it comes).

    Reference: Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, 2013.
    """

    bound: NonNegativeInt

    def serve(self, workers: int) -> Server:
        """Apply every message; let those go who are not too far ahead."""
        clocks, parked = [0] * workers, set[int]()
        message = yield WAIT
        while True:
            clocks[message.worker] += 1
            parked.add(message.worker)
            slowest = min(clocks)
            free = sorted(w for w in parked if clocks[w] - slowest <= self.bound)
            parked.difference_update(free)
            message = yield Decision(apply=True, send=free)


@spec
class Sequential(Synchrony):
    """One worker, the first, trains alone; the others are absent. The sequential baseline."""

    def members(self, workers: int) -> range:
        """Worker 0 only."""
        return range(1)

    def serve(self, workers: int) -> Server:
        """Apply every message at once."""
        return _serve_batches(lambda: 1)


@spec
class DelayedAveraging(Synchrony):
    """Workers compute while their last releases are being merged; idle only when the bound is reached.

    Each releases the sum of a cycle of tau / 2 local steps, holding it back until the model of the release before
    has come, and goes on at once; the server merges one release of every worker and sends the model to all.
    No model in use ever lacks more than tau of a worker's own gradients.

    Args:
        tau: the bound on staleness, in local gradients; even.

    Reference: Talyansky et al., Asynchronous SGD without gradient delay for efficient distributed training,
    2018, Algorithm 2.
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    ahead: ClassVar[float] = 1
    cancels: ClassVar[bool] = False
    holds: ClassVar[bool] = True

    def check_fields(self) -> None:
        """Raise ValueError unless tau is even."""
        if self.tau % 2:
            raise ValueError(f"tau of {self.name} = {self.tau} is not allowed: it must be even")
        object.__setattr__(self, "local_steps", self.tau // 2)

    def serve(self, workers: int) -> Server:
        """Merge one release of each worker, then send to all."""
        return _serve_merges(workers)


@spec
class DelayedAveragingGeneral(Synchrony):
    """Delayed averaging without fixed cycles: the server asks for updates as soon as every worker has one.

    A worker adds every gradient to its own model and goes on; asked, it releases at its next gradient boundary
    what it has not yet released. It idles only when its model holds tau gradients that the newest one it has
    received lacks. Questions take no time, but never overtake a model on its way down.

    Args:
        tau: the bound on staleness, in local gradients.

    Reference: Talyansky et al. 2018, Algorithm 1.
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    cancels: ClassVar[bool] = False
    collects: ClassVar[bool] = True

    def serve(self, workers: int) -> Server:
        """Merge one release of each worker, then send to all."""
        return _serve_merges(workers)


def _serve_merges(workers: int) -> Server:
    yield WAIT
    while True:
        for _ in range(workers - 1):
            yield WAIT
        yield Decision(apply=True, send=range(workers))


SYNCHRONIES: dict[str, type[Synchrony]] = {
    kebab(cls.__name__): cls
    for cls in (
        Sync,
        KSync,
        KBatchSync,
        Async,
        KAsync,
        KBatchAsync,
        SSP,
        Sequential,
        DelayedAveraging,
        DelayedAveragingGeneral,
    )
}
