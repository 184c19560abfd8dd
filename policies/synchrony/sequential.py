"""One worker alone: the sequential baseline."""

from __future__ import annotations

from stalegrad._core.specs import spec
from stalegrad.policies.synchrony.asynchronous import Async
from stalegrad.policies.synchrony.base import Server, Synchrony


@spec
class Sequential(Synchrony):
    """One worker, the first, trains alone; the others are absent. The sequential baseline."""

    def members(self, workers: int) -> range:
        """Worker 0 only."""
        return range(1)

    def serve(self, workers: int) -> Server:
        """Apply every message at once."""
        return Async().serve(workers)
