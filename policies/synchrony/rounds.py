"""Synchronies in rounds: fully synchronous, K-sync, K-batch-sync."""

from __future__ import annotations

from stalegrad._core.specs import PositiveInt, spec
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
    Worker,
    WorkerProgram,
)


@spec
class KSync(Synchrony):
    """K-sync: an update waits for the first ``k`` distinct workers; the others are cancelled.

    Everybody reads the new version. ``k`` workers out of P are "P - k backup workers".

    Args:
        k: distinct workers whose gradients make an update; at most their number.

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients, update, send the new version to all."""
        return _serve_rounds(self.k, workers, distinct=True)

    def pattern(self, workers: int) -> Rounds:
        """Return that it takes rounds."""
        return Rounds(self.k)


@spec
class Sync(Synchrony):
    """Fully synchronous: an update waits for one gradient of every worker that is there (K-sync with k = P)."""

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Collect a fresh gradient of everybody who is there, update, send the new version to all."""
        everybody = range(workers)
        renew = Decision(apply=True, send=everybody, cancel=everybody)
        barrier = Barrier(workers)
        event = yield WAIT
        while True:
            if isinstance(event, Received) and (event.staleness or event.worker in barrier.arrived):
                event = yield DISCARD
            elif barrier.note(event):
                barrier.renew()
                event = yield renew
            else:
                event = yield WAIT

    def pattern(self, workers: int) -> Rounds:
        """Return that it takes rounds."""
        return Rounds(workers)


@spec
class KBatchSync(Synchrony):
    """K-batch-sync: an update waits for the first ``k`` mini-batches, whoever made them.

    Nobody idles: a finisher goes on at the same version at once. At the update all jobs are cancelled and
    everybody reads the new version. Rennala SGD with batch S = k; ``k`` may exceed the number of workers.

    Args:
        k: mini-batches of an update.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: Messages

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` fresh gradients of any workers, update, send the new version to all."""
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
