"""Delayed averaging of local models, with fixed cycles and without."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from stalegrad._core.specs import PositiveInt, spec
from stalegrad.policies.synchrony.base import WAIT, Decision, LocalSteps, Server, Synchrony


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

    ahead: ClassVar[float] = 1
    cancels: ClassVar[bool] = False
    holds: ClassVar[bool] = True

    def check_fields(self) -> None:
        """Raise ValueError unless tau is even."""
        if self.tau % 2:
            raise ValueError(f"tau of {self.name} = {self.tau} is not allowed: it must be even")
        object.__setattr__(self, "local_steps", self.tau // 2)

    def serve(self, workers: int) -> Server:
        """Merge one release of each worker, then send to all."""
        return _serve_merges(workers)


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

    cancels: ClassVar[bool] = False
    collects: ClassVar[bool] = True

    def serve(self, workers: int) -> Server:
        """Merge one release of each worker, then send to all."""
        return _serve_merges(workers)


def _serve_merges(workers: int) -> Server:
    yield WAIT
    while True:
        for _ in range(workers - 1):
            yield WAIT
        yield Decision(apply=True, send=range(workers))
