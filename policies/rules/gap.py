"""Messages scaled by how far the server has moved, or by how noisy they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat
from stalegrad._core.types import OptimizerState, Params, Scalar
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Granularity, Momentum, Spread, UnitInterval
from stalegrad.policies.rules.rule import Rule, chain, decayed


def _velocity(message: Params, state: OptimizerState, worker: Scalar) -> Params:
    return state.velocity


def _message(message: Params, state: OptimizerState, worker: Scalar) -> Params:
    return message


def gap_aware_momentum(
    *,
    optimizer: Literal["sgd", "adam"] = "sgd",
    momentum: Momentum | None = 0.9,
    granularity: Granularity = "elementwise",
    gap_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999,
    running_peak: bool = False,
    penalise_weight_decay: bool = True,
    nesterov: bool = True,
    weight_decay: Decay = None,
) -> Rule:
    """Messages divided by their gap in units of a typical step, then momentum (or Adam) at the server.

    R <- r R + (1 - r) v v (without momentum: g g); C = eta_max (sqrt(R / (1 - r^n)) + 1e-8) after n messages,
    r = gap_decay; G = |theta - w| / C + 1, elementwise, w the point read (1 if staleness is 0); d = g / G;
    v <- gamma v + d; theta <- theta - eta (gamma v + d), or with ``nesterov = False`` theta <- theta - eta v. With
    Adam, R is the mean of its squared steps and C = sqrt(R) + 1e-8.

    Args:
        optimizer: ``sgd``, or ``adam`` with b1 = momentum and b2 = gap_decay.
        momentum: gamma; None: none.
        granularity: ``elementwise``, ``layer`` or ``global``.
        gap_decay: decay of the mean square behind the typical step.
        running_peak: measure in steps of the largest learning rate so far, instead of the schedule's peak (with
            Adam the steps really taken hold the learning rate).
        penalise_weight_decay: divide the weight decay too.
        nesterov: Nesterov's form (of sgd).
        weight_decay: L2 decay at the server's parameters.
    """
    if optimizer == "adam":
        import optax

        b1, b2 = 0.0 if momentum is None else momentum, gap_decay
        ordered = [decayed(weight_decay), parts.corrections.gap_aware_adam(b1=b1, b2=b2, granularity=granularity)]
        return Rule(optax.adam(1.0, b1, b2), chain(*(ordered if penalise_weight_decay else reversed(ordered))))
    penalty = parts.corrections.gap_aware(
        _message if momentum is None else _velocity,
        decay=gap_decay,
        granularity=granularity,
        running_peak=running_peak,
        weight_decay=weight_decay if penalise_weight_decay else None,
    )
    step = None if momentum is None else parts.momentum.momentum(momentum, nesterov=nesterov)
    return Rule(step, penalty if penalise_weight_decay else chain(penalty, decayed(weight_decay)))


def fasgd_rule(
    *,
    square_decay: UnitInterval = 0.9,
    deviation_decay: UnitInterval = 0.9,
    eps: NonNegativeFloat = 1e-8,
    floor: NonNegativeFloat = 1e-8,
    spread: Spread = "deviation",
) -> Rule:
    """Learning rate eta / ((v + floor) (tau + 1)) elementwise, v a moving average of the standard deviation of g.

    n <- c1 n + (1 - c1) g^2; b <- c1 b + (1 - c1) g; v <- c2 v + (1 - c2) sqrt(n - b^2 + eps). FRED, the code
    published with the paper, has v <- c2 v + (1 - c2) |g| instead: spread = "magnitude", floor = 1e-3.

    Args:
        square_decay: c1, of the moving averages of g and g^2.
        deviation_decay: c2, of that of the standard deviation.
        eps: added to the variance before the root.
        floor: added to v.
        spread: ``deviation``, or ``magnitude`` for |g|.
    """
    return Rule(parts.momentum.fasgd(square_decay, deviation_decay, eps, floor, spread), single=True)
