"""Asynchronous synchronies: async, K-async, K-batch-async."""

from __future__ import annotations

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import Messages, Synchrony, check_k
from stalegrad.policies.synchrony.programs import DISCARD, WAIT, Decision, Free, ServerProgram


@spec
class Async(Synchrony):
    """Asynchronous: every gradient is an update; its worker, and only that one, reads the new version."""

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message at once."""
        answers = [Decision(apply=True, send=(worker,)) for worker in range(workers)]
        event = yield WAIT
        while True:
            event = yield answers[event.worker]

    def pattern(self, workers: int) -> Free:
        """Return that nobody waits."""
        return Free(1)


@spec
class KBatchAsync(Synchrony):
    """K-batch-async: every ``k``-th received gradient makes an update of the last ``k``.

    Nobody idles and nobody is cancelled: each worker reads the current version right after it has sent.

    Args:
        k: gradients of an update.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: Messages

    def serve(self, workers: int) -> ServerProgram:
        """Count messages; the sender always reads."""
        event = yield WAIT
        while True:
            for _ in range(self.k - 1):
                event = yield Decision(send=(event.worker,))
            event = yield Decision(apply=True, send=(event.worker,))

    def pattern(self, workers: int) -> Free:
        """Return that nobody waits."""
        return Free(self.k)


@spec
class KAsync(Synchrony):
    """K-async: an update waits for ``k`` distinct workers; the others keep running on what they read.

    The first k - 1 idle until the update; then exactly the ``k`` contributors read the new version.

    Args:
        k: distinct workers whose gradients make an update; at most their number.

    Reference: Dutta et al. 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` gradients, fresh or stale, update, answer their workers.

        A second one, of a worker that has left and returned meanwhile, is discarded.
        """
        contributors = dict[int, None]()  # in the order in which they came
        event = yield WAIT
        while True:
            if event.worker in contributors:
                event = yield DISCARD
                continue
            contributors[event.worker] = None
            if len(contributors) < self.k:
                event = yield WAIT
            else:
                send, contributors = contributors, {}
                event = yield Decision(apply=True, send=send)
