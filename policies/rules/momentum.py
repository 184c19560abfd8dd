"""Momentum at the server, and what is sent back to make up for it."""

from __future__ import annotations

from typing import Any, Literal

import optax

from stalegrad._core.specs import NonNegativeFloat
from stalegrad._core.trees import at_worker, tree_map
from stalegrad.policies.rules.parts.corrections import adaptive_delay_compensation, delay_compensation
from stalegrad.policies.rules.parts.momentum import momentum as one_momentum, per_worker_momentum, smega2
from stalegrad.policies.rules.rule import Decay, Momentum, Params, Rule, UnitInterval, chain, decayed


def nag_asgd(*, momentum: Momentum = 0.9, weight_decay: Decay = None, nesterov: bool = True) -> Rule:
    """One momentum at the server, into which the gradients of all workers go.

    v <- gamma v + d; theta <- theta - eta (gamma v + d); theta is sent.

    Args:
        momentum: gamma.
        weight_decay: L2 decay at the server's parameters.
        nesterov: False: heavy ball, theta <- theta - eta v.
    """
    return Rule(one_momentum(momentum, nesterov=nesterov), decayed(weight_decay))


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
    optimizer = per_worker_momentum(momentum, workers)
    if not nesterov:
        return Rule(optimizer, decayed(weight_decay), single=True)

    def own(params: Params, state: Any, learning_rate: Any, worker: Any) -> Params:
        velocity = at_worker(state.velocity, worker)
        return tree_map(lambda p, v: p - learning_rate * momentum * v, params, velocity)

    return Rule(optimizer, decayed(weight_decay), look_ahead=own, single=True, own_reads=True)


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
    """Delay compensation: g + lambda g g (theta - w), then momentum at the server.

    Args:
        workers: filled in by the run.
        strength: lambda; 0.04 for the constant rule of its paper, 2 as DANA uses it.
        adaptive: lambda / sqrt(mean square of g, per worker).
        mean_square_decay: of that mean square.
        momentum: at the server; None: none, as in its paper.
        buffer: one momentum for all, or one per worker.
        nesterov: Nesterov's form.
        weight_decay: L2 decay, added after the compensation.
    """
    if adaptive:
        compensation = adaptive_delay_compensation(strength, mean_square_decay, workers)
    else:
        compensation = delay_compensation(strength)
    correction = chain(compensation, decayed(weight_decay))
    if momentum is None:
        return Rule(correction=correction)
    if buffer == "shared":
        return Rule(one_momentum(momentum, nesterov=nesterov), correction)
    return Rule(per_worker_momentum(momentum, workers, nesterov=nesterov), correction, single=True)


def lwp(
    *,
    workers: int,
    momentum: Momentum = 0.9,
    horizon: NonNegativeFloat | None = None,
    weight_decay: Decay = None,
) -> Rule:
    """Linear weight prediction: heavy ball at the server, theta - T eta v is sent.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        horizon: T, the lag to predict over; by default N - 1, the mean lag.
        weight_decay: L2 decay.
    """
    steps = float(workers - 1) if horizon is None else horizon

    def predict(params: Params, state: Any, learning_rate: Any, worker: Any) -> Params:
        return tree_map(lambda p, v: p - steps * learning_rate * v, params, state.velocity)

    return Rule(one_momentum(momentum), decayed(weight_decay), look_ahead=predict)


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
    smoothed = one_momentum(momentum)

    def predict(params: Params, state: Any, learning_rate: Any, worker: Any) -> Params:
        scale = steps * (1 - momentum)
        return tree_map(lambda p, v: p - scale * learning_rate * v, params, state[0].velocity)

    return Rule(optax.chain(smoothed, optax.scale(1 - momentum)), decayed(weight_decay), look_ahead=predict)


def smega2_rule(
    *, workers: int, momentum: Momentum = 0.9, naive: bool = False, weight_decay: Decay = None
) -> Rule:
    """One momentum for all, updated every N messages; the server's future position is estimated from it.

    Sent: theta - eta gamma (m (N + c (gamma - 1)) + a c / N), a the sum of c messages (naive: gamma N m).

    Args:
        workers: filled in by the run.
        momentum: gamma.
        naive: the simpler estimate.
        weight_decay: L2 decay.
    """
    n = float(workers)

    def estimate(params: Params, state: Any, learning_rate: Any, worker: Any) -> Params:
        c = 0.0 if naive else state.phase
        return tree_map(
            lambda p, m, a: (p - learning_rate * momentum * (m * (n + c * (momentum - 1)) + a * c / n)).astype(
                p.dtype
            ),
            params,
            state.velocity,
            state.gathered,
        )

    return Rule(smega2(momentum, workers), decayed(weight_decay), look_ahead=estimate, single=True)
