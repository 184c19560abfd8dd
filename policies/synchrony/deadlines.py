"""Rounds in which a worker's time is limited: what it has not computed by then does not count."""

from __future__ import annotations

from dataclasses import field

from stalegrad._core.specs import NonNegativeInt, PositiveFloat, PositiveInt, spec
from stalegrad.policies.synchrony.barrier import Barrier
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import (
    ANNOUNCE,
    AWAIT,
    DISCARD,
    SEND,
    WAIT,
    Compute,
    Decision,
    Received,
    ServerProgram,
    Worker,
    WorkerProgram,
)


@spec
class MindFlayer(Synchrony):
    """Rounds in which every worker makes a number of trials, each given up after ``limit`` seconds.

    A trial is one mini-batch gradient at the round's version; one that takes longer is cancelled, and the next one
    begins. An update takes the gradients of all trials that succeeded; if none did, the round is repeated.

    Args:
        trials: trials of each worker in a round: a number, or a list of one per worker (0: it takes no part).
        limit: seconds of a trial, or a list of one per worker.

    Reference: Maranjyan, Shaikh Omar, Richtarik, MindFlayer SGD, UAI 2025, https://arxiv.org/abs/2410.04285.

    Example:
        >>> from stalegrad.policies import MindFlayer
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.0]), MindFlayer(trials=2, limit=1.5), updates=2)
        >>> trace.updates["messages"].tolist(), trace.update_times.tolist()
        ([2, 2], [3.0, 6.0])
    """

    trials: PositiveInt | tuple[NonNegativeInt, ...]
    limit: PositiveFloat | tuple[PositiveFloat, ...]
    local_steps: PositiveInt = field(default=1, init=False)

    membership = True

    def check_fields(self) -> None:
        """Raise ValueError if no worker makes a trial."""
        if isinstance(self.trials, tuple) and not any(self.trials):
            raise ValueError(f"trials of {self.name} = {self.trials} is not allowed: somebody must make one")

    def check(self, workers: int) -> None:
        """Raise ValueError if a list is not one per worker."""
        for name in ("trials", "limit"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != workers:
                raise ValueError(f"{name} of {self.name} has {len(value)} entries for {workers} workers")

    def serve(self, workers: int) -> ServerProgram:
        """Wait for every worker that is present, update, send the new version to all."""
        return _serve_everybody(workers)

    def work(self, worker: Worker) -> WorkerProgram:
        """Make the trials of a round, send the results, await the next version."""
        trials = self.trials[worker.index] if isinstance(self.trials, tuple) else self.trials
        trial = Compute(at_most=self.limit[worker.index] if isinstance(self.limit, tuple) else self.limit)
        while True:
            models, succeeded = worker.models, 0
            for _ in range(trials):
                succeeded += yield trial
            yield SEND if succeeded else ANNOUNCE
            while worker.models == models:
                yield AWAIT


@spec
class DropCompute(Synchrony):
    """Fully synchronous, but a worker stops its ``local_steps`` mini-batches after ``limit`` seconds.

    It sends the gradients that it has by then. If no worker has any, the round is repeated.

    Args:
        limit: seconds of a worker's computation in a round.

    Reference: Giladi et al., DropCompute: Simple and More Robust Distributed Synchronous Training via Compute
    Variance Reduction, NeurIPS 2023, https://arxiv.org/abs/2306.10598.

    Example:
        >>> from stalegrad.policies import DropCompute
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.0]), DropCompute(limit=2.5, local_steps=3), updates=1)
        >>> trace.messages["steps"].tolist(), trace.end
        ([2, 1], 2.5)
    """

    limit: PositiveFloat

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Wait for every worker that is present, update, send the new version to all."""
        return _serve_everybody(workers)

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute until the limit, send what there is, await the next version."""
        job = Compute(self.local_steps, at_most=self.limit)
        while True:
            models = worker.models
            yield SEND if (yield job) else ANNOUNCE
            while worker.models == models:
                yield AWAIT


def _serve_everybody(workers: int) -> ServerProgram:
    """Rounds that end when every worker that is present has sent something, or announced that it has nothing."""
    everybody = range(workers)
    barrier, kept = Barrier(workers), False
    event = yield WAIT
    while True:
        if isinstance(event, Received):
            if event.staleness or event.worker in barrier.arrived:  # it has left and returned
                event = yield DISCARD
                continue
            kept = True
        if barrier.note(event):
            barrier.renew()
            update, kept = kept, False
            event = yield Decision(apply=update, send=everybody)
        else:
            event = yield WAIT
