"""Synchronies in rounds: fully synchronous, K-sync, backup workers, K-batch-sync."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import field

from stalegrad._core.specs import NonNegativeInt, PositiveFloat, PositiveInt, spec
from stalegrad.policies.synchrony.barrier import Barrier
from stalegrad.policies.synchrony.base import Messages, Synchrony, check_k
from stalegrad.policies.synchrony.programs import (
    DISCARD,
    NOBODY,
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

    Every worker reads the new version. Also called m-synchronous SGD, m = k.

    Args:
        k: distinct workers whose gradients make an update; at most their number.
        cancel: False: the others finish; their gradients are discarded on arrival, and they then read the version
            of that moment (``k`` workers out of P with P - k backup workers).
        grace: seconds that the server waits on after the k-th gradient: messages received by then count, too.
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come.

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, section 2.3.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 1.5, 4.0]), sg.KSync(2), updates=1)
        >>> trace.messages["fate"].tolist()
        ['used', 'used', 'cancelled']
    """

    k: PositiveInt
    cancel: bool = field(default=True, kw_only=True)

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients, update, send the new version to all, or to workers that wait for it."""
        turn = _Round(workers, distinct=True, cancel=self.cancel)
        if self.timed:
            return _serve_windows(Window(self.k, self.grace, self.deadline), turn)
        return _serve_rounds(self.k, turn)

    def pattern(self, workers: int) -> Rounds | None:
        """Return that it takes rounds, unless by a timer or without cancelling."""
        return Rounds(self.k) if self.cancel and not self.timed else None


@spec
class BackupWorkers(Synchrony):
    """The first P - ``backups`` fresh gradients of all workers make an update; no message is cancelled.

    Late gradients are discarded on arrival, and their workers read the version of that moment: K-sync with
    k = P - ``backups`` and ``cancel = False``.

    Args:
        backups: workers that an update does not wait for; fewer than there are.

    Reference: Chen et al., Revisiting Distributed Synchronous SGD, 2016, https://arxiv.org/abs/1604.00981.

    Example:
        >>> from stalegrad.policies import BackupWorkers
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 1.5, 4.0]), BackupWorkers(1), updates=3)
        >>> int((trace.messages["fate"] == "discarded").sum())
        1
    """

    backups: NonNegativeInt

    def check(self, workers: int) -> None:
        """Raise ValueError if there are no more workers than backups."""
        if self.backups >= workers:
            raise ValueError(
                f"backups = {self.backups} of {self.name} leaves no worker: allowed is 0 to {workers - 1}"
            )

    def serve(self, workers: int) -> ServerProgram:
        """Collect fresh gradients of all workers but the backups, update, send the new version to these."""
        return _serve_rounds(workers - self.backups, _Round(workers, distinct=True, cancel=False))


@spec
class Sync(Synchrony):
    """Fully synchronous: an update waits for one gradient of every worker that is present (K-sync with k = P).

    Args:
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come;
            the others are cancelled. None: no limit.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.0]), sg.Sync(), updates=3)
        >>> trace.update_times.tolist(), trace.idle_fraction().tolist()
        ([2.0, 4.0, 6.0], [0.5, 0.0])
    """

    membership = True

    deadline: PositiveFloat | None = field(default=None, kw_only=True)

    def serve(self, workers: int) -> ServerProgram:
        """Collect a fresh gradient of every worker that is present, update, send the new version to all."""
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
    """K-batch-sync: an update waits for the first ``k`` mini-batches of any workers.

    No worker idles: a finisher continues at the same version at once. At the update all jobs are cancelled and
    every worker reads the new version. Rennala SGD with batch S = k; ``k`` may exceed the number of workers.

    Args:
        k: mini-batches of an update.
        cancel: False: jobs in progress are finished; results from an older version are discarded.
        grace: seconds that the server waits on after the k-th mini-batch: messages received by then count, too.
        deadline: seconds of a round after which the server takes what it has, or else the first gradient to come.

    Reference: Dutta et al. 2018, section 2.3.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 4.0]), sg.KBatchSync(2), updates=1)
        >>> trace.messages["fate"].tolist()
        ['used', 'cancelled', 'used']
    """

    k: Messages
    cancel: bool = field(default=True, kw_only=True)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients of any workers, update, send the new version to all."""
        turn = _Round(workers, distinct=False, cancel=self.cancel)
        if self.timed:
            return _serve_windows(Window(self.k, self.grace, self.deadline), turn)
        return _serve_rounds(self.k, turn)

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute and send without end and without waiting for answers."""
        return go_on(worker)


def go_on(worker: Worker) -> WorkerProgram:
    """Compute and send without end, without waiting for answers: the next job is at the version that came last."""
    job = Compute(worker.local_steps, send=True)
    while True:
        yield job


class _Round:
    """Which messages count in a round, and which workers are sent the next version.

    Args:
        workers: how many there are.
        distinct: whether messages must be of distinct workers, who then wait for the next version.
        cancel: whether the jobs in progress are cancelled at the end of a round.
    """

    def __init__(self, workers: int, *, distinct: bool, cancel: bool) -> None:
        self.workers, self.distinct, self.cancel = workers, distinct, cancel
        self.answered_late = distinct and not cancel
        self.contributors = set[int]()

    @property
    def complete(self) -> bool:
        """Whether no worker is left that could contribute."""
        return len(self.contributors) == self.workers

    def refuse(self, event: Received) -> Decision | None:
        """Return the answer to a message that does not count; None: it counts.

        It does not if it is of an older version, or the second one of a worker that has left and returned.
        """
        if event.staleness:
            return Decision(keep=False, send=(event.worker,)) if self.answered_late else DISCARD
        if event.worker in self.contributors:
            return DISCARD
        if self.distinct:
            self.contributors.add(event.worker)
        return None

    def end(self, wake_after: float | None = None, tag: Hashable = None) -> Decision:
        """Return the update that ends the round, and begin the next one."""
        everybody = range(self.workers)
        send = sorted(self.contributors) if self.answered_late else everybody
        self.contributors.clear()
        return Decision(True, send, cancel=everybody if self.cancel else NOBODY, wake_after=wake_after, tag=tag)


def _serve_rounds(k: int, turn: _Round) -> ServerProgram:
    """Rounds of ``k`` gradients of the current version."""
    kept, event = 0, (yield WAIT)
    while True:
        refusal = turn.refuse(event)
        if refusal is not None:
            event = yield refusal
        elif kept + 1 < k:
            kept, event = kept + 1, (yield WAIT)
        else:
            kept, event = 0, (yield turn.end())


def _serve_windows(window: Window, turn: _Round) -> ServerProgram:
    """Rounds as above, which end when their window closes."""
    event = yield window.begin()
    while True:
        refusal = turn.refuse(event) if isinstance(event, Received) else None
        if refusal is not None:
            event = yield refusal
            continue
        closes, wake_after, tag = window.note(event, complete=turn.complete)
        event = yield turn.end(wake_after, tag) if closes else Decision(wake_after=wake_after, tag=tag)
