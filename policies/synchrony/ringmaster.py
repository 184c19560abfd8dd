"""Asynchrony with a threshold on staleness: Ringmaster."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import field
from typing import Literal

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import WAIT, Decision, Joined, Received, ServerProgram


@spec
class Ringmaster(Synchrony):
    """Asynchronous, but a gradient counts only if its staleness is below ``threshold``.

    In both cases its worker continues at the current version. With ``stops`` a worker whose job has become too
    stale is stopped at once, and begins again at the new version: where links take no time, nothing is discarded.
    threshold = 1 uses fresh gradients only; with ``threshold`` above any staleness of ``async`` it is ``async``.

    Args:
        threshold: R, in updates; ``sqrt``: floor(sqrt(k)) at the k-th update, for which no constant need be known.
        stops: whether jobs that have become too stale are cancelled.

    Reference: Maranjyan, Tyurin, Richtarik, Ringmaster ASGD: The First Asynchronous SGD with Optimal Time
    Complexity, ICML 2025, https://arxiv.org/abs/2501.16168.

    Example:
        >>> from stalegrad.policies import Ringmaster
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.5]), Ringmaster(threshold=2), updates=3)
        >>> trace.messages["fate"].tolist()
        ['used', 'discarded', 'used', 'used', 'pending']
    """

    threshold: PositiveInt | Literal["sqrt"]
    stops: bool = field(default=False, kw_only=True)

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Apply what is fresh enough; stop, if asked to, workers that have become too stale."""
        read = [0] * workers  # the version that each has been sent last
        readers = defaultdict[int, set[int]](set, {0: set(range(workers))})
        oldest = version = 0
        event = yield WAIT
        while True:
            worker = event.worker
            counts = isinstance(event, Received) and event.staleness < self._at(version)
            version += counts
            stopped = list[int]()
            if isinstance(event, Received | Joined):
                readers[read[worker]].discard(worker)
                while self.stops and version - oldest >= self._at(version):
                    stopped += readers.pop(oldest, ())
                    oldest += 1
                for reader in (worker, *stopped):
                    read[reader] = version
                    readers[version].add(reader)
            send = [*stopped, worker] if isinstance(event, Received) else stopped
            event = yield Decision(apply=counts, send=sorted(send), keep=counts, cancel=stopped)

    def _at(self, version: int) -> int:
        """Return the threshold of the update that changes this version."""
        return self.threshold if isinstance(self.threshold, int) else math.isqrt(version + 1)
