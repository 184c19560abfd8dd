"""DANA: a momentum per worker, and an estimate of where the server will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat
from stalegrad._core.types import OptimizerState, Params, Scalar
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Granularity, Momentum
from stalegrad.policies.rules.rule import Rule, chain, decayed

if TYPE_CHECKING:
    import optax


def _dana(workers: int, momentum: Scalar, correction: optax.GradientTransformation | None) -> Rule:
    optimizer = parts.momentum.per_worker_momentum(momentum, workers, running_sum=True)
    return Rule(optimizer, correction, look_ahead=parts.look_ahead.dana(momentum), single=True)


def dana_zero(*, workers: int, momentum: Momentum = 0.9, weight_decay: Decay = None) -> Rule:
    """One momentum per worker, at the server; DANA's estimate of its future position is sent.

    v^i <- gamma v^i + d; S = sum_j v^j; theta <- theta - eta v^i; theta - eta gamma S is sent.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        weight_decay: L2 decay at the server's parameters.
    """
    return _dana(workers, momentum, decayed(weight_decay))


def dana_slim(*, workers: int, momentum: Momentum = 0.9, weight_decay: Decay = None) -> Rule:
    """DANA-Zero in other coordinates, with the momentum at the worker and a plain server.

    v^i <- gamma v^i + g; u = gamma v^i + g; Theta <- Theta - eta u; Theta is sent. Equal to DANA-Zero while eta is
    constant; not when it changes.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        weight_decay: L2 decay at the parameters read (a worker has no others).
    """
    correction = None if weight_decay is None else parts.corrections.weight_decay(weight_decay, at_read=True)
    return Rule(parts.momentum.per_worker_momentum(momentum, workers, nesterov=True), correction, single=True)


def dana_dc(
    *, workers: int, momentum: Momentum = 0.9, strength: NonNegativeFloat = 2.0, weight_decay: Decay = None
) -> Rule:
    """DANA-Zero with delay compensation of the gradient towards the server's parameters.

    d = g + lambda g g (theta - w), w the point that was sent; v^i <- gamma v^i + d; S = sum_j v^j;
    theta <- theta - eta v^i; theta - eta gamma S is sent.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        strength: lambda of the compensation.
        weight_decay: L2 decay, added after the compensation.
    """
    return _dana(workers, momentum, chain(parts.corrections.delay_compensation(strength), decayed(weight_decay)))


def _own_velocity(message: Params, state: OptimizerState, worker: Scalar) -> Params:
    from stalegrad._core.trees import at_worker

    return at_worker(state.velocity, worker)


def dana_ga(
    *,
    workers: int,
    momentum: Momentum = 0.9,
    granularity: Granularity = "elementwise",
    gap_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999,
    running_peak: bool = False,
    weight_decay: Decay = None,
) -> Rule:
    """DANA-Zero with the gap penalty, measured from the look-ahead point at which the gradient was computed.

    R <- r R + (1 - r) v^i v^i; C = eta_max (sqrt(R / (1 - r^n)) + 1e-8) after n messages, r = gap_decay;
    G = |theta - w| / C + 1, w the point that was sent; v^i <- gamma v^i + g / G; S = sum_j v^j;
    theta <- theta - eta v^i; theta - eta gamma S is sent. All operations are elementwise.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        granularity: ``elementwise``, ``layer`` or ``global``.
        gap_decay: decay of the mean square behind the typical step.
        running_peak: see ``gap-aware``.
        weight_decay: L2 decay, penalised.
    """
    penalty = parts.corrections.gap_aware(
        _own_velocity,
        decay=gap_decay,
        granularity=granularity,
        running_peak=running_peak,
        fresh_is_free=False,
    )
    return _dana(workers, momentum, chain(decayed(weight_decay), penalty))
