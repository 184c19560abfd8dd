"""Delayed averaging of local models, with fixed cycles and without."""

from __future__ import annotations

from dataclasses import field

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.barrier import Barrier
from stalegrad.policies.synchrony.base import LocalSteps, Synchrony
from stalegrad.policies.synchrony.programs import (
    ANNOUNCE,
    AWAIT,
    NOBODY,
    SEND,
    WAIT,
    Announced,
    Compute,
    Decision,
    Joined,
    Received,
    Send,
    ServerProgram,
    Worker,
    WorkerProgram,
)

_RELEASE = Send(go_on=True)


@spec
class DelayedAveraging(Synchrony):
    """Workers compute while their last releases are being merged; idle only when the bound is reached.

    Each releases the sum of a cycle of tau / 2 local steps, holding it back until the model of the release before
    has come, and continues at once; the server merges one release of every worker and sends the model to all.
    No model in use ever lacks more than tau of a worker's own gradients.

    Args:
        tau: the bound on staleness, in local gradients; even.

    Reference: Talyansky et al., Asynchronous SGD without gradient delay for efficient distributed training,
    2018, Algorithm 2.

    Example:
        >>> from stalegrad.policies import DelayedAveraging
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 1.0]), DelayedAveraging(tau=2), updates=4)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1, 1, 1, 1, 1])
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    def check_fields(self) -> None:
        """Raise ValueError unless tau is even."""
        if self.tau % 2:
            raise ValueError(f"tau of {self.name} = {self.tau} is not allowed: it must be even")
        object.__setattr__(self, "local_steps", self.tau // 2)

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Merge one release of each worker that is present, then send to all."""
        merge = Decision(apply=True, send=range(workers))
        barrier = Barrier(workers)
        event = yield WAIT
        while True:
            if barrier.note(event):
                barrier.renew()
                event = yield merge
            else:
                event = yield WAIT

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute a cycle, hold it back until the release before has been answered, release it, continue."""
        cycle = Compute(self.local_steps)
        while True:
            yield cycle
            while worker.unanswered:
                yield AWAIT
            yield _RELEASE


@spec
class DelayedAveragingGeneral(Synchrony):
    """Delayed averaging without fixed cycles: the server asks for updates as soon as every worker has one.

    A worker adds every gradient to its own model and continues; asked, it releases at its next gradient boundary
    what it has not yet released. It idles only when its model holds tau gradients that the newest one it has
    received lacks. Questions take no time, but never overtake a model on its way down.

    Args:
        tau: the bound on staleness, in local gradients.

    Reference: Talyansky et al. 2018, Algorithm 1.

    Example:
        >>> from stalegrad.policies import DelayedAveragingGeneral
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 2.0]), DelayedAveragingGeneral(tau=2), updates=4)
        >>> trace.update_times.tolist(), trace.updates["gradients"].tolist()
        ([2.0, 4.0, 6.0, 8.0], [3, 3, 3, 3])
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Ask, once a version, as soon as every worker has something; merge one release of each, send to all.

        Every worker that is there, that is: one that joins after the question is asked when it has something.
        """
        everybody = range(workers)
        released, announced = Barrier(workers), Barrier(workers)
        asked, not_asked = False, set[int]()
        event = yield WAIT
        while True:
            ask: tuple[int, ...] | range = NOBODY
            if isinstance(event, Announced) and event.worker in not_asked:
                not_asked.discard(event.worker)
                ask = (event.worker,)
            elif not isinstance(event, Received):
                announced.note(event)
            if isinstance(event, Joined) and asked:
                not_asked.add(event.worker)
            if merge := not isinstance(event, Announced) and released.note(event):
                released.renew()
                asked = False
            if announced.passed and not asked:
                announced.renew()
                not_asked.clear()
                asked, ask = True, everybody
            event = yield Decision(apply=merge, send=everybody if merge else NOBODY, ask=ask)

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute; release what there is when asked; wait while there are tau gradients beyond the model held."""
        gradient, held = Compute(1), worker.version
        earlier, releases = worker.version - worker.asked, worker.version  # questions and models before it joined
        kept = beyond = 0
        while True:
            yield gradient
            if worker.version != held:
                held, beyond = worker.version, kept
            kept, beyond, release = kept + 1, beyond + 1, _RELEASE
            if kept == 1:
                yield ANNOUNCE
            while True:
                # Question q is about version q - 1, which has to have come.
                if releases == worker.version == worker.asked + earlier - 1:
                    yield release
                    kept, releases = 0, releases + 1
                if beyond < self.tau:
                    break
                yield AWAIT
                release = SEND
                if worker.version != held:
                    held, beyond = worker.version, kept
