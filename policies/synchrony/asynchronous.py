"""Asynchronous synchronies: async, K-async, K-batch-async."""

from __future__ import annotations

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import WAIT, CurrentK, Decision, Messages, Server, Synchrony, check_k


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
        check_k(self.k, workers, self.name)

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
