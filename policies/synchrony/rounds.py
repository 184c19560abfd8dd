"""Synchronies in rounds: fully synchronous, K-sync, K-batch-sync."""

from __future__ import annotations

import math
from dataclasses import field

from stalegrad._core.specs import PositiveFloat, PositiveInt, spec
from stalegrad.policies.synchrony.barrier import Barrier
from stalegrad.policies.synchrony.base import Messages, Synchrony, check_k
from stalegrad.policies.synchrony.programs import (
    DISCARD,
    WAIT,
    Compute,
    Decision,
    Received,
    Rounds,
    ServerProgram,
    Timeout,
    Worker,
    WorkerProgram,
)
from stalegrad.policies.synchrony.waiting import Waiting, Window


@spec
class KSync(Waiting):
    """K-sync: an update waits for the first ``k`` distinct workers; the others are cancelled.

    Everybody reads the new version. ``k`` workers out of P are "P - k backup workers".

    Args:
        k: distinct workers whose gradients make an update; at most their number.
        grace: seconds that the server waits on after the k-th gradient: what comes by then counts, too.
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come.

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients, update, send the new version to all."""
        if self.timed:
            return _serve_windows(Window(self.k, self.grace, self.deadline), workers, distinct=True)
        return _serve_rounds(self.k, workers, distinct=True)

    def pattern(self, workers: int) -> Rounds | None:
        """Return that it takes rounds, unless by a timer."""
        return None if self.timed else Rounds(self.k)


@spec
class Sync(Synchrony):
    """Fully synchronous: an update waits for one gradient of every worker that is there (K-sync with k = P).

    Args:
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come;
            the others are cancelled. None: no limit.
    """

    membership = True

    deadline: PositiveFloat | None = field(default=None, kw_only=True)

    def serve(self, workers: int) -> ServerProgram:
        """Collect a fresh gradient of everybody who is there, update, send the new version to all."""
        everybody = range(workers)
        barrier, window = Barrier(workers), Window(math.inf, 0.0, self.deadline)
        event = yield window.begin()
        while True:
            if isinstance(event, Received) and (event.staleness or event.worker in barrier.arrived):
                event = yield DISCARD
                continue
            complete = not isinstance(event, Timeout) and barrier.note(event)
            closes, wake_after, tag = window.note(event, complete=complete)
            if closes:
                barrier.renew()
                event = yield Decision(True, everybody, cancel=everybody, wake_after=wake_after, tag=tag)
            else:
                event = yield WAIT

    def pattern(self, workers: int) -> Rounds | None:
        """Return that it takes rounds, unless by a timer."""
        return None if self.deadline is not None else Rounds(workers)


@spec
class KBatchSync(Waiting):
    """K-batch-sync: an update waits for the first ``k`` mini-batches, whoever made them.

    Nobody idles: a finisher goes on at the same version at once. At the update all jobs are cancelled and
    everybody reads the new version. Rennala SGD with batch S = k; ``k`` may exceed the number of workers.

    Args:
        k: mini-batches of an update.
        grace: seconds that the server waits on after the k-th mini-batch: what comes by then counts, too.
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: Messages

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients of any workers, update, send the new version to all."""
        if self.timed:
            return _serve_windows(Window(self.k, self.grace, self.deadline), workers, distinct=False)
        return _serve_rounds(self.k, workers, distinct=False)

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute and send, for ever, without waiting for answers."""
        job = Compute(self.local_steps, send=True)
        while True:
            yield job


def _serve_rounds(k: int, workers: int, *, distinct: bool) -> ServerProgram:
    """Rounds of ``k`` gradients of the current version; older ones, still on their way, are discarded.

    So is a second one of a worker that has returned, where they must be of ``distinct`` workers.
    """
    everybody = range(workers)
    renew = Decision(apply=True, send=everybody, cancel=everybody)
    contributors = set[int]()
    kept, event = 0, (yield WAIT)
    while True:
        if event.staleness or event.worker in contributors:
            event = yield DISCARD
        elif kept + 1 < k:
            if distinct:
                contributors.add(event.worker)
            kept, event = kept + 1, (yield WAIT)
        else:
            contributors.clear()
            kept, event = 0, (yield renew)


def _serve_windows(window: Window, workers: int, *, distinct: bool) -> ServerProgram:
    """Rounds as above, which end when their window closes."""
    everybody = range(workers)
    contributors = set[int]()
    event = yield window.begin()
    while True:
        if isinstance(event, Received):
            if event.staleness or event.worker in contributors:
                event = yield DISCARD
                continue
            if distinct:
                contributors.add(event.worker)
        closes, wake_after, tag = window.note(event, complete=len(contributors) == workers)
        if closes:
            contributors.clear()
            event = yield Decision(True, everybody, cancel=everybody, wake_after=wake_after, tag=tag)
        else:
            event = yield Decision(wake_after=wake_after, tag=tag)
