"""The base of all synchronies: who waits for whom, and who is cancelled. No clock in here."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field

from stalegrad._core.specs import PositiveInt, kebab, spec
from stalegrad.policies.synchrony.programs import (
    AWAIT,
    MOST_STEPS,
    Compute,
    Pattern,
    ServerProgram,
    Worker,
    WorkerProgram,
)

LocalSteps = Annotated[PositiveInt, Field(le=MOST_STEPS)]
"""Local gradients of one message, or of one bound on them."""

Messages = Annotated[PositiveInt, Field(le=1_000_000)]
"""Messages of one update that need not come from distinct workers: all are kept until it is made."""


@spec
class Synchrony:
    """Base of all synchronies: a server program, and a worker program for every worker.

    Your own synchrony defines :meth:`serve`; most need nothing else::

        @spec
        class EveryOther(Synchrony):
            "Every other gradient is discarded; its worker continues at the current version."

            def serve(self, workers):
                event = yield WAIT
                while True:
                    event = yield Decision(keep=False, send=[event.worker])
                    event = yield Decision(apply=True, send=[event.worker])

    Args:
        local_steps: mini-batch gradients in one message (H of local SGD); 1 = plain gradients; at most 100,000.

    Example:
        >>> from dataclasses import dataclass
        >>> from stalegrad.policies import Decision, Synchrony
        >>> from stalegrad.policies.synchrony import WAIT
        >>> from stalegrad.simulator import Cluster, simulate
        >>> @dataclass(frozen=True)
        ... class Pairs(Synchrony):
        ...     def serve(self, workers):
        ...         event = yield WAIT
        ...         while True:
        ...             event = yield Decision(send=[event.worker])
        ...             event = yield Decision(apply=True, send=[event.worker])
        >>> simulate(Cluster(compute=[1.0, 2.5]), Pairs(), updates=3).staleness.tolist()
        [0, 0, 1, 0, 0, 0]
    """

    local_steps: LocalSteps = field(default=1, kw_only=True)

    membership: ClassVar[bool] = False
    """Whether the server program is also sent ``Joined`` and ``Left``."""

    def serve(self, workers: int) -> ServerProgram:
        """Return the program of the server of ``workers`` workers."""
        raise TypeError(f"{type(self).__name__} does not say how its server decides: define serve()")

    def work(self, worker: Worker) -> WorkerProgram:
        """Return the program of a worker: by default it computes, sends, waits for the answer, and repeats."""
        job = Compute(worker.local_steps, send=True)
        while True:
            yield job
            while worker.unanswered:
                yield AWAIT
            if worker.local_steps != job.steps:
                job = job._replace(steps=worker.local_steps)

    def steps_of(self, worker: int) -> int:
        """Return the mini-batch gradients in a message of a worker: ``local_steps``, unless workers differ."""
        return self.local_steps

    def pattern(self, workers: int) -> Pattern | None:
        """Return what the two programs reduce to where links and server take no time; None: nothing simple.

        The simulator then takes many updates at once, and need not run the programs. A class that defines
        ``serve`` or ``work`` anew states its own pattern, or has none.
        """
        return None

    def check(self, workers: int) -> None:
        """Raise ValueError if this synchrony cannot work with that many workers."""

    @property
    def name(self) -> str:
        """The name users type, e.g. ``k-batch-async``."""
        return kebab(type(self).__name__)


def check_k(k: int, workers: int, name: str) -> None:
    """Raise ValueError if ``k`` distinct workers are more than there are."""
    if k > workers:
        raise ValueError(f"k = {k} of {name} exceeds the number of workers: allowed is 1 to {workers}")
