"""Momentum at the server, and what is sent back to make up for it."""

from __future__ import annotations

from typing import Literal

from stalegrad._core.specs import NonNegativeFloat
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Momentum, UnitInterval
from stalegrad.policies.rules.rule import Rule, chain, decayed


def nag_asgd(*, momentum: Momentum | None = 0.9, weight_decay: Decay = None, nesterov: bool = True) -> Rule:
    """One momentum at the server, into which the gradients of all workers go.

    v <- gamma v + d; theta <- theta - eta (gamma v + d); theta is sent.

    Args:
        momentum: gamma; None: none.
        weight_decay: L2 decay at the server's parameters.
        nesterov: False: heavy ball, theta <- theta - eta v.
    """
    optimizer = None if momentum is None else parts.momentum.momentum(momentum, nesterov=nesterov)
    return Rule(optimizer, decayed(weight_decay))


def multi_asgd(
    *, workers: int, momentum: Momentum = 0.9, weight_decay: Decay = None, nesterov: bool = True
) -> Rule:
    """One momentum per worker, at the server; each worker is sent its own look-ahead.

    v^i <- gamma v^i + d; theta <- theta - eta v^i; theta - eta gamma v^i is sent to worker i.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        weight_decay: L2 decay at the server's parameters.
        nesterov: False: theta itself is sent. (The one-buffer form theta - eta (gamma v^i + d), theta sent,
            would be DANA-Slim: its offset is the sum of all workers' momenta.)
    """
    optimizer = parts.momentum.per_worker_momentum(momentum, workers)
    if not nesterov:
        return Rule(optimizer, decayed(weight_decay), single=True)

    look_ahead = parts.look_ahead.own_momentum(momentum)
    return Rule(optimizer, decayed(weight_decay), look_ahead=look_ahead, single=True, own_reads=True)


def dc_asgd(
    *,
    workers: int,
    strength: NonNegativeFloat = 2.0,
    adaptive: bool = False,
    mean_square_decay: UnitInterval = 0.95,
    momentum: Momentum | None = 0.9,
    buffer: Literal["shared", "per-worker"] = "shared",
    nesterov: bool = True,
    weight_decay: Decay = None,
) -> Rule:
    """Delay compensation, then momentum at the server.

    d = g + lambda g g (theta - w), w the point read; v <- gamma v + d; theta <- theta - eta (gamma v + d), or with
    ``nesterov = False`` theta <- theta - eta v.

    Args:
        workers: filled in by the run.
        strength: lambda; 0.04 for the constant rule of its paper, 2 as DANA uses it.
        adaptive: lambda / sqrt(mean square of g, per worker).
        mean_square_decay: decay of that mean square.
        momentum: momentum at the server; None: none, as in its paper.
        buffer: one momentum for all, or one per worker.
        nesterov: Nesterov's form.
        weight_decay: L2 decay, added after the compensation.
    """
    if adaptive:
        compensation = parts.corrections.adaptive_delay_compensation(strength, mean_square_decay, workers)
    else:
        compensation = parts.corrections.delay_compensation(strength)
    correction = chain(compensation, decayed(weight_decay))
    if momentum is None:
        return Rule(correction=correction)
    if buffer == "shared":
        return Rule(parts.momentum.momentum(momentum, nesterov=nesterov), correction)
    return Rule(parts.momentum.per_worker_momentum(momentum, workers, nesterov=nesterov), correction, single=True)


def lwp(
    *,
    workers: int,
    momentum: Momentum = 0.9,
    horizon: NonNegativeFloat | None = None,
    weight_decay: Decay = None,
) -> Rule:
    """Linear weight prediction: momentum at the server, which sends where it expects to be T updates later.

    v <- gamma v + d; theta <- theta - eta v; theta - T eta v is sent.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        horizon: T, the lag to predict over; by default N - 1, the mean lag.
        weight_decay: L2 decay.
    """
    steps = float(workers - 1) if horizon is None else horizon

    step = parts.momentum.momentum(momentum)
    return Rule(step, decayed(weight_decay), look_ahead=parts.look_ahead.linear(steps))


def spectrain(
    *, workers: int, momentum: Momentum = 0.9, horizon: NonNegativeFloat | None = None, weight_decay: Decay = None
) -> Rule:
    """Weight prediction with a smoothed gradient: v <- gamma v + (1 - gamma) d, theta - s eta v is sent.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        horizon: s, the version difference to predict over; by default N - 1.
        weight_decay: L2 decay.
    """
    steps = float(workers - 1) if horizon is None else horizon
    import optax

    step = optax.chain(parts.momentum.momentum(momentum), optax.scale(1 - momentum))
    return Rule(step, decayed(weight_decay), look_ahead=parts.look_ahead.smoothed(steps, momentum))


def smega2_rule(
    *, workers: int, momentum: Momentum = 0.9, naive: bool = False, weight_decay: Decay = None
) -> Rule:
    """One momentum for all, updated every N messages; the server's future position is estimated from it.

    c <- (c + 1) mod N; a <- a + d; theta <- theta - eta (gamma m + d); if c = 0: m <- gamma m + a / N, a <- 0.
    theta - eta gamma (m (N + c (gamma - 1)) + a c / N) is sent (naive: theta - eta gamma N m).

    Args:
        workers: filled in by the run.
        momentum: gamma.
        naive: the simpler estimate.
        weight_decay: L2 decay.
    """
    step, look_ahead = parts.momentum.smega2(momentum, workers), parts.look_ahead.smega2(momentum, workers, naive)
    return Rule(step, decayed(weight_decay), look_ahead=look_ahead, single=True)
