"""Learning rates that depend on staleness alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from stalegrad._core.specs import PositiveFloat, PositiveInt
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Momentum, StalenessModel, UnitInterval
from stalegrad.policies.rules.rule import Rule, decayed


def _weighted(weight: Any, momentum: Momentum | None, nesterov: bool, weight_decay: Decay) -> Rule:
    optimizer = None if momentum is None else parts.momentum.momentum(momentum, nesterov=nesterov)
    return Rule(optimizer, decayed(weight_decay), weight)


def staleness_aware(
    *,
    offset: Literal[0, 1] = 0,
    momentum: Momentum | None = 0.9,
    nesterov: bool = True,
    weight_decay: Decay = None,
) -> Rule:
    """Messages divided by max(1, tau) (offset 0) or tau + 1 (offset 1), before the momentum.

    Args:
        offset: the convention.
        momentum: at the server; None: none.
        nesterov: Nesterov's form.
        weight_decay: L2 decay, divided too.
    """
    return _weighted(parts.staleness_weights.staleness_aware(offset), momentum, nesterov, weight_decay)


def inverse_staleness(*, weight_decay: Decay = None) -> Rule:
    """Learning rate eta / (tau + 1).

    Args:
        weight_decay: L2 decay.
    """
    return _weighted(parts.staleness_weights.staleness_aware(1), None, False, weight_decay)


def fleet(*, integer_division: bool = False, weight_decay: Decay = None) -> Rule:
    """Learning rate eta exp(-beta tau), beta = (2 / T) ln(1 + T / 2), T = N + 1.

    Args:
        integer_division: compute T / 2 in integers, as other people's code does.
        weight_decay: L2 decay.
    """
    return _weighted(parts.staleness_weights.fleet(integer_division), None, False, weight_decay)


def delay_adaptive(*, weight_decay: Decay = None) -> Rule:
    """Learning rate eta N / max(N, tau).

    Args:
        weight_decay: L2 decay.
    """
    return _weighted(parts.staleness_weights.delay_adaptive(), None, False, weight_decay)


def tail(
    *,
    amplitude: UnitInterval = 1.0,
    cdf: Literal["midpoint", "strict"] = "midpoint",
    weight_decay: Decay = None,
) -> Rule:
    """Learning rate eta (1 + A (1 - 2 F(tau))), F the staleness distribution measured in this run.

    Args:
        amplitude: A.
        cdf: ``midpoint`` keeps the mean step; ``strict`` is what the authors' code does.
        weight_decay: L2 decay.
    """
    return _weighted(parts.staleness_weights.tail(amplitude, cdf), None, False, weight_decay)


def mindthestep(
    *,
    model: StalenessModel = "poisson",
    mean: PositiveFloat | None = None,
    nu: PositiveFloat = 1.0,
    damping: UnitInterval = 1.0,
    target_momentum: Annotated[float, Field(gt=0, le=1)] | None = None,
    online: bool = False,
    normalise: bool | Literal["after-clip"] = True,
    warmup: PositiveInt = 300,
    refresh: PositiveInt | None = None,
    clip: PositiveFloat | None = 5.0,
    drop_above: PositiveInt | None = 150,
    weight_decay: Decay = None,
) -> Rule:
    """Learning rate alpha(tau) from a model p of the staleness, F its distribution function.

    alpha(tau) = c eta (1 - damping F(tau - 1)) / p(tau), c such that the mean step stays eta; the geometric model
    with a target momentum mu: alpha(tau) = c eta C^-tau, C = (1 - p) / mu.

    Args:
        model: ``geometric``, ``poisson``, ``cmp`` or ``uniform``.
        mean: the model's m (default: the number of workers).
        nu: dispersion of ``cmp``.
        damping: K / alpha in [0, 1]; 1 makes the step non-increasing in tau.
        target_momentum: for the geometric model: the implicit momentum wanted, C = (1 - p) / target.
        online: fit the model to the observed staleness after the warm-up.
        normalise: keep the mean step at eta under the observed staleness, before the clip or ``after-clip``.
        warmup: messages with factor 1 before the histogram is taken.
        refresh: messages after which it is taken again (None: freeze it).
        clip: largest factor.
        drop_above: staler messages count nothing.
        weight_decay: L2 decay.
    """
    weight = parts.staleness_weights.mindthestep(
        model,
        mean=mean,
        nu=nu,
        damping=damping,
        target_momentum=target_momentum,
        online=online,
        normalise=normalise,
        warmup=warmup,
        refresh=refresh,
        clip=clip,
        drop_above=drop_above,
    )
    return _weighted(weight, None, False, weight_decay)
