"""One worker alone: the sequential baseline."""

from __future__ import annotations

from stalegrad._core.specs import spec
from stalegrad.policies.synchrony.asynchronous import Async
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import ServerProgram, Worker, WorkerProgram


@spec
class Sequential(Synchrony):
    """One worker, the first, trains alone; the others are absent. The sequential baseline."""

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message at once."""
        return Async().serve(1)

    def work(self, worker: Worker) -> WorkerProgram:
        """Work as every worker does if this is the first worker; else never begin."""
        return Synchrony.work(self, worker) if worker.index == 0 else _absent()


def _absent() -> WorkerProgram:
    yield from ()
