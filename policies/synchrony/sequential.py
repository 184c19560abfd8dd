"""One worker alone: the sequential baseline."""

from __future__ import annotations

from stalegrad._core.specs import spec
from stalegrad.policies.synchrony.asynchronous import Async
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import ServerProgram, Worker, WorkerProgram


@spec
class Sequential(Synchrony):
    """One worker, the first, trains alone; the others are absent. The sequential baseline.

    Example:
        >>> from stalegrad.policies import Sequential
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.5]), Sequential(), updates=3)
        >>> trace.update_times.tolist(), set(trace.staleness.tolist())
        ([1.0, 2.0, 3.0], {0})
    """

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message at once."""
        return Async().serve(1)

    def work(self, worker: Worker) -> WorkerProgram:
        """Work as every worker does if this is the first worker; else never begin."""
        return Synchrony.work(self, worker) if worker.index == 0 else _absent()


def _absent() -> WorkerProgram:
    yield from ()
