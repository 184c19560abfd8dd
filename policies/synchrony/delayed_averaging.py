"""Delayed averaging of local models, with fixed cycles and without."""

from __future__ import annotations

from dataclasses import field

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import LocalSteps, Synchrony
from stalegrad.policies.synchrony.programs import (
    ANNOUNCE,
    AWAIT,
    SEND,
    WAIT,
    Announced,
    Compute,
    Decision,
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
    has come, and goes on at once; the server merges one release of every worker and sends the model to all.
    No model in use ever lacks more than tau of a worker's own gradients.

    Args:
        tau: the bound on staleness, in local gradients; even.

    Reference: Talyansky et al., Asynchronous SGD without gradient delay for efficient distributed training,
    2018, Algorithm 2.
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    def check_fields(self) -> None:
        """Raise ValueError unless tau is even."""
        if self.tau % 2:
            raise ValueError(f"tau of {self.name} = {self.tau} is not allowed: it must be even")
        object.__setattr__(self, "local_steps", self.tau // 2)

    def serve(self, workers: int) -> ServerProgram:
        """Merge one release of each worker, then send to all."""
        merge = Decision(apply=True, send=range(workers))
        yield WAIT
        while True:
            for _ in range(workers - 1):
                yield WAIT
            yield merge

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute a cycle, hold it back until the release before has been answered, release it, go on."""
        cycle = Compute(self.local_steps)
        while True:
            yield cycle
            while worker.unanswered:
                yield AWAIT
            yield _RELEASE


@spec
class DelayedAveragingGeneral(Synchrony):
    """Delayed averaging without fixed cycles: the server asks for updates as soon as every worker has one.

    A worker adds every gradient to its own model and goes on; asked, it releases at its next gradient boundary
    what it has not yet released. It idles only when its model holds tau gradients that the newest one it has
    received lacks. Questions take no time, but never overtake a model on its way down.

    Args:
        tau: the bound on staleness, in local gradients.

    Reference: Talyansky et al. 2018, Algorithm 1.
    """

    tau: LocalSteps
    local_steps: PositiveInt = field(default=1, init=False)

    def serve(self, workers: int) -> ServerProgram:
        """Ask, once a version, as soon as every worker has something; merge one release of each, send to all."""
        everybody = range(workers)
        released, announced, asked = 0, 0, False
        event = yield WAIT
        while True:
            merge = False
            if isinstance(event, Announced):
                announced += 1
            else:
                released += 1
                merge = released == workers
            if merge:
                released, asked = 0, False
            ask = announced == workers and not asked
            if ask:
                announced, asked = 0, True
            event = yield Decision(apply=merge, send=everybody if merge else (), ask=everybody if ask else ())

    def work(self, worker: Worker) -> WorkerProgram:
        """Compute; release what there is when asked; wait while there are tau gradients beyond the model held."""
        gradient, held = Compute(1), worker.version
        kept = beyond = releases = 0
        while True:
            yield gradient
            if worker.version != held:
                held, beyond = worker.version, kept
            kept, beyond, release = kept + 1, beyond + 1, _RELEASE
            if kept == 1:
                yield ANNOUNCE
            while True:
                # Question q is about version q - 1, which has to have come.
                if releases == worker.version == worker.asked - 1:
                    yield release
                    kept, releases = 0, releases + 1
                if beyond < self.tau:
                    break
                yield AWAIT
                release = SEND
                if worker.version != held:
                    held, beyond = worker.version, kept
