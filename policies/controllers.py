"""Controllers: they change a parameter of the synchrony during a run, from the training loss.

The engine is advanced to the controller's next tick, the replay catches up, the controller speaks, and so on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol

from pydantic import Field

from stalegrad._core.specs import PositiveFloat, spec
from stalegrad.policies.synchrony import KAsync, KBatchAsync, KBatchSync, KSync, Synchrony


class Observation(NamedTuple):
    """What a controller sees at a tick: losses and learning rates at the start and now, and the parameter now."""

    first_loss: float
    loss: float
    first_learning_rate: float
    learning_rate: float
    value: int


class Adjustment(NamedTuple):
    """What a controller decided at ``time`` (simulated seconds) from ``loss``: the parameter from then on."""

    time: float
    loss: float
    value: int


Changes = Literal["k", "local_steps"]


class Controller(Protocol):
    """Anything with an interval (simulated seconds) and a decision."""

    @property
    def changes(self) -> Changes:
        """The parameter of the synchrony that it changes; ``local_steps`` never beyond their first value."""

    @property
    def interval(self) -> float:
        """Simulated seconds between decisions."""

    def decide(self, synchrony: Synchrony, workers: int, seen: Observation) -> int:
        """Return the parameter from the next update on; ``synchrony`` is the one that the run began with."""


Growth = Literal["auto", "quadratic", "square-root"]


@spec
class AdaSync:
    """Grow k as the loss falls, so that the error bound is least at every moment.

    square-root (K-batch-sync, K-batch-async): K = K_0 sqrt(F_0 / F). quadratic (K-sync, K-async): K^2 / (P - K) =
    theta, theta = K_0^2 / (P - K_0) * F_0 / F. F is the training loss above ``floor``. If the learning rate has
    changed, theta (or K^2) is multiplied by the square of its ratio. Rounded to the nearest, kept in [1, P].

    Args:
        interval: simulated seconds between decisions.
        growth: ``quadratic`` or ``square-root``; ``auto``: quadratic for K-sync and K-async.
        floor: F_inf, the least loss possible.

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2020 (journal version), AdaSync.
    """

    interval: PositiveFloat = 60.0
    growth: Growth = "auto"
    floor: float = 0.0

    changes: ClassVar[Changes] = "k"

    def decide(self, synchrony: Synchrony, workers: int, seen: Observation) -> int:
        """Return k from the next update on."""
        assert isinstance(synchrony, KSync | KBatchSync | KAsync | KBatchAsync)
        root = self.root(synchrony, workers, seen)
        return min(max(math.floor(root + 0.5), 1), workers)

    def root(self, synchrony: KSync | KBatchSync | KAsync | KBatchAsync, workers: int, seen: Observation) -> float:
        """Return the real K before rounding; P if the loss is at its floor or not finite."""
        above = seen.loss - self.floor
        if not 0 < above < math.inf:
            return float(workers)
        ratio = (seen.first_loss - self.floor) / above
        ratio *= (seen.learning_rate / seen.first_learning_rate) ** 2
        quadratic = self.growth == "quadratic" or (self.growth == "auto" and isinstance(synchrony, KSync | KAsync))
        if not quadratic:
            return synchrony.k * math.sqrt(ratio)
        if synchrony.k >= workers:
            return float(workers)
        theta = synchrony.k**2 / (workers - synchrony.k) * ratio
        return (-theta + math.sqrt(theta**2 + 4 * theta * workers)) / 2


@spec
class AdaComm:
    """Take fewer local steps as the loss falls: tau = ceil(sqrt(eta_0 / eta * F / F_0) tau_0).

    tau_0 is the first ``local_steps``. Where that is no less than the last tau, it is ceil(shrink * tau) instead.

    Args:
        interval: simulated seconds between decisions.
        shrink: gamma.

    Reference: Wang, Joshi, Adaptive Communication Strategies to Achieve the Best Error-Runtime Trade-off in
    Local-Update SGD, 2019, https://arxiv.org/abs/1810.08313.
    """

    interval: PositiveFloat = 60.0
    shrink: Annotated[float, Field(gt=0, lt=1)] = 0.5

    changes: ClassVar[Changes] = "local_steps"

    def decide(self, synchrony: Synchrony, workers: int, seen: Observation) -> int:
        """Return the local steps from the next update on."""
        ratio = seen.first_learning_rate / seen.learning_rate * seen.loss / seen.first_loss
        wanted = math.ceil(math.sqrt(ratio) * synchrony.local_steps) if 0 <= ratio < math.inf else seen.value
        return max(wanted if wanted < seen.value else math.ceil(self.shrink * seen.value), 1)


def changed(synchrony: Synchrony, name: Changes, value: int) -> Synchrony:
    """Return a synchrony with another value of a parameter.

    Raises:
        ValueError: if it has none of that name.
    """
    if name not in vars(synchrony):
        raise ValueError(f"synchrony {synchrony.name!r} has no {name} that a controller could change")
    return replace(synchrony, **{name: value})
