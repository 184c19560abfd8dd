"""Synchronies in rounds: fully synchronous, K-sync, K-batch-sync."""

from __future__ import annotations

import math
from typing import ClassVar

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import (
    DISCARD,
    WAIT,
    CurrentK,
    Decision,
    Messages,
    Server,
    Synchrony,
    check_k,
)


@spec
class KSync(Synchrony):
    """K-sync: an update waits for the first ``k`` distinct workers; the others are cancelled.

    Everybody reads the new version. ``k`` workers out of P are "P - k backup workers".

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, section 2.3.
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

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
