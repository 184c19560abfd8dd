"""Synchronies whose updates need a gradient of every worker, because data differ between workers.

All wait for workers that are away: no other worker has their data.
"""

from __future__ import annotations

from dataclasses import field

from stalegrad._core.specs import spec
from stalegrad.policies.synchrony.base import Messages, Synchrony
from stalegrad.policies.synchrony.programs import (
    DISCARD,
    NOBODY,
    WAIT,
    Decision,
    ServerProgram,
    Worker,
    WorkerProgram,
)
from stalegrad.policies.synchrony.rounds import go_on


@spec
class AsyncAfterAll(Synchrony):
    """Asynchronous, after a first update of at least one gradient of every worker.

    Until then every worker continues at the initial version.

    Reference: the baseline IA2SGD of Maranjyan, Richtarik, Ringleader ASGD, 2025, https://arxiv.org/abs/2509.22860.

    Example:
        >>> from stalegrad.policies import AsyncAfterAll
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.5]), AsyncAfterAll(), updates=3)
        >>> trace.updates["messages"].tolist(), trace.update_times.tolist()
        ([3, 1, 1], [2.5, 3.0, 4.0])
    """

    def serve(self, workers: int) -> ServerProgram:
        """Collect a gradient of every worker, then apply every message at once; the sender always reads."""
        missing = set(range(workers))
        event = yield WAIT
        while True:
            missing.discard(event.worker)
            event = yield Decision(apply=not missing, send=(event.worker,))


@spec
class Malenia(Synchrony):
    """Rounds at one version that end when the harmonic mean of the workers' gradient counts reaches ``batch`` / P.

    So every worker contributes at least one gradient, and fast ones more: a finisher continues at the same version
    at once. At the update every worker reads the new version. A batch of at most P ends rounds with the first
    gradient of the slowest worker.

    Args:
        batch: S; the harmonic mean (1/P sum_i 1/B_i)^-1 of the numbers B_i must reach S / P.
        cancel: False: jobs in progress are finished; results from an older version are discarded.

    Reference: Tyurin, Richtarik, Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
    Fixed Computation Model, NeurIPS 2023, https://arxiv.org/abs/2305.12387 (Malenia SGD).

    Example:
        >>> from stalegrad.policies import Malenia
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.5]), Malenia(batch=2), updates=2)
        >>> trace.updates["messages"].tolist(), trace.update_times.tolist()
        ([3, 3], [2.5, 5.0])
    """

    batch: Messages
    cancel: bool = field(default=True, kw_only=True)

    def serve(self, workers: int) -> ServerProgram:
        """Collect fresh gradients until there are enough of every worker, update, send the new version to all."""
        everybody = range(workers)
        renew = Decision(apply=True, send=everybody, cancel=everybody if self.cancel else NOBODY)
        enough = workers**2 / self.batch * (1 + 1e-12)  # against rounding: of the sum of 1 / B_i
        counts, missing, inverses = [0] * workers, workers, 0.0
        event = yield WAIT
        while True:
            if event.staleness:
                event = yield DISCARD
                continue
            count = counts[event.worker] = counts[event.worker] + 1
            missing -= count == 1
            inverses += 1.0 if count == 1 else 1 / count - 1 / (count - 1)
            if missing or inverses > enough:
                event = yield WAIT
            else:
                counts, missing, inverses = [0] * workers, workers, 0.0
                event = yield renew

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute and send without end and without waiting for answers."""
        return go_on(worker)


@spec
class Ringleader(Synchrony):
    """Rounds of P updates, one for every worker, each of the mean of all workers' gradients.

    A round first collects at least one gradient of every worker; a worker that has sent continues at the version
    that it holds. Then the last of them, and after it each worker with the first gradient that it sends, makes an
    update and reads the new version. What a worker sends after its own update belongs to the next round. So
    all gradients of a worker that are used together are of one version, and none is older than 2 P - 2 updates.

    The trace says which messages each update is the first to use: the first update of a round uses all that are
    collected by then, the others one.

    Reference: Maranjyan, Richtarik, Ringleader ASGD: The First Asynchronous SGD with Optimal Time Complexity under
    Data Heterogeneity, ICLR 2026, https://arxiv.org/abs/2509.22860.

    Example:
        >>> from stalegrad.policies import Ringleader
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.5]), Ringleader(), updates=4)
        >>> trace.updates["messages"].tolist(), trace.update_times.tolist()
        ([3, 1, 3, 1], [2.5, 3.0, 5.0, 6.0])
    """

    def serve(self, workers: int) -> ServerProgram:
        """Collect, then update once for every worker; keep what comes early for the next round."""
        missing, served, early = set(range(workers)), set[int](), set[int]()
        event = yield WAIT
        while True:
            worker, collecting = event.worker, bool(missing)
            missing.discard(worker)
            if missing or worker in served:
                early |= {worker} & served
                event = yield WAIT
                continue
            served.add(worker)
            decision = Decision(apply=collecting or (event,), send=(worker,))
            if len(served) == workers:
                missing, served, early = set(range(workers)) - early, set(), set()
            event = yield decision

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute and send without end and without waiting for answers."""
        return go_on(worker)
