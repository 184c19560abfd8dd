"""Momentum and scaling under staleness, which optax does not have.

All follow one convention (PyTorch's): the buffer holds no learning rate, v <- gamma v + d, and theta moves by
learning_rate * update from outside, so a transformation returns *minus* its step. A momentum therefore survives a
change of the learning rate as it is. Beside ``d`` (and ``params``) they are told ``worker`` and ``staleness`` of
the message; those with a buffer per worker need updates of one message.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from stalegrad._core.trees import after, at_worker, put_worker, scalar_type, stacked, tree_map
from stalegrad._core.types import Params, Scalar
from stalegrad.policies.rules.hyperparameters import Spread


class MomentumState(NamedTuple):
    """The server's one momentum buffer."""

    velocity: Params


def momentum(decay: Scalar, *, nesterov: bool = False) -> optax.GradientTransformationExtraArgs:
    """v <- decay v + d; theta -= eta v, or with ``nesterov`` theta -= eta (decay v + d)."""

    def update(
        d: Params, state: MomentumState, params: Params = None, **_: object
    ) -> tuple[Params, MomentumState]:
        velocity = tree_map(lambda v, d: decay * v + d, state.velocity, d)
        return _step(velocity, d, decay, nesterov), MomentumState(velocity)

    return optax.GradientTransformationExtraArgs(
        lambda params: MomentumState(tree_map(jnp.zeros_like, params)), update
    )


class PerWorkerMomentumState(NamedTuple):
    """One buffer per worker (stacked along a first axis), and their running sum where it is needed."""

    velocity: Params
    total: Params | None


def per_worker_momentum(
    decay: Scalar, workers: int, *, nesterov: bool = False, running_sum: bool = False
) -> optax.GradientTransformationExtraArgs:
    """v^i <- decay v^i + d for the message's worker i only; theta -= eta v^i (Nesterov: decay v^i + d).

    Args:
        decay: the momentum gamma.
        workers: their number N.
        nesterov: use the look-ahead form of the step.
        running_sum: keep S = sum_j v^j (in O(1) buffers per message), as DANA's look-ahead needs.
    """

    def init(params: Params) -> PerWorkerMomentumState:
        total = tree_map(jnp.zeros_like, params) if running_sum else None
        return PerWorkerMomentumState(stacked(params, workers), total)

    def update(
        d: Params, state: PerWorkerMomentumState, params: Params = None, *, worker: Scalar, **_: object
    ) -> tuple[Params, PerWorkerMomentumState]:
        old = at_worker(state.velocity, worker)
        new = tree_map(lambda v, d: decay * v + d, old, d)
        total = state.total
        if running_sum:
            total = tree_map(lambda s, n, o: s + n - o, total, new, old)
            new = after(new, total)
        velocity = put_worker(state.velocity, worker, new)
        new = at_worker(velocity, worker)  # read back: nothing else then needs the old stack
        return _step(new, d, decay, nesterov), PerWorkerMomentumState(velocity, total)

    return optax.GradientTransformationExtraArgs(init, update)


def _step(velocity: Params, d: Params, decay: Scalar, nesterov: bool) -> Params:
    if nesterov:
        return tree_map(lambda v, d: -(decay * v + d), velocity, d)
    return tree_map(jnp.negative, velocity)


class SMEGA2State(NamedTuple):
    """Momentum, the gradients gathered since its last update, and how many they are."""

    velocity: Params
    gathered: Params
    phase: jax.Array


def smega2(decay: Scalar, workers: int) -> optax.GradientTransformationExtraArgs:
    """One buffer that is updated every N messages, with their mean.

    c <- (c + 1) mod N; a += d; theta -= eta (gamma m + d); if c = 0: m <- gamma m + a / N, a <- 0.

    Reference: Cohen, Hakimi, Schuster, SMEGA2: Distributed Asynchronous Deep Neural Network Training With a
    Single Momentum Buffer, 2022.
    """

    def init(params: Params) -> SMEGA2State:
        zeros = tree_map(jnp.zeros_like, params)
        return SMEGA2State(zeros, zeros, jnp.zeros((), jnp.int32))

    def update(d: Params, state: SMEGA2State, params: Params = None, **_: object) -> tuple[Params, SMEGA2State]:
        phase = (state.phase + 1) % workers
        gathered = tree_map(jnp.add, state.gathered, d)
        direction = tree_map(lambda m, d: -(decay * m + d), state.velocity, d)
        full = phase == 0
        velocity = tree_map(lambda m, a: jnp.where(full, decay * m + a / workers, m), state.velocity, gathered)
        gathered = tree_map(lambda a: jnp.where(full, jnp.zeros_like(a), a), gathered)
        return direction, SMEGA2State(velocity, gathered, phase)

    return optax.GradientTransformationExtraArgs(init, update)


class FASGDState(NamedTuple):
    """Moving averages of g^2, of g, and of the standard deviation of g."""

    square: Params
    mean: Params
    deviation: Params


def fasgd(
    square_decay: Scalar,
    deviation_decay: Scalar,
    eps: Scalar = 1e-8,
    floor: Scalar = 1e-8,
    spread: Spread = "deviation",
) -> optax.GradientTransformationExtraArgs:
    """theta -= eta d / ((v + floor) (tau + 1)), where v is a moving average of the standard deviation of d.

    n <- c1 n + (1 - c1) d^2; b <- c1 b + (1 - c1) d; v <- c2 v + (1 - c2) sqrt(n - b^2 + eps).

    Args:
        square_decay: c1.
        deviation_decay: c2.
        eps: added to the variance before the root.
        floor: added to v.
        spread: ``magnitude``: v <- c2 v + (1 - c2) |d|, as in FRED, the code published with the paper.

    Reference: Odena, Faster Asynchronous SGD, 2016 (with the division by the deviation of its text, and tau + 1 of
    its code).
    """

    def init(params: Params) -> FASGDState:
        zeros = tree_map(jnp.zeros_like, params)
        return FASGDState(zeros, zeros, zeros)

    def update(
        d: Params, state: FASGDState, params: Params = None, *, staleness: Scalar, **_: object
    ) -> tuple[Params, FASGDState]:
        c1, c2 = square_decay, deviation_decay
        square = tree_map(lambda n, d: c1 * n + (1 - c1) * d * d, state.square, d)
        mean = tree_map(lambda b, d: c1 * b + (1 - c1) * d, state.mean, d)
        if spread == "magnitude":
            now = tree_map(jnp.abs, d)
        else:
            now = tree_map(lambda n, b: jnp.sqrt(jnp.maximum(n - b * b, 0) + eps), square, mean)
        deviation = tree_map(lambda v, s: c2 * v + (1 - c2) * s, state.deviation, now)
        direction = tree_map(lambda d, v: -d / ((v + floor) * (staleness + 1)), d, deviation)
        return direction, FASGDState(square, mean, deviation)

    return optax.GradientTransformationExtraArgs(init, update)


class AMSGradState(NamedTuple):
    """Moving averages of d and of its square, and the largest of the latter so far."""

    mean: Params
    square: Params
    largest: Params


def staleness_limited_amsgrad(
    rate: Scalar, b1: Scalar, b2: Scalar, eps: Scalar = 1e-8, tolerance: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad without bias correction, its rate limited to 1 / tau where staleness tau exceeds ``tolerance``.

    m <- b1 m + (1 - b1) d; v <- b2 v + (1 - b2) d^2; v^ <- max(v^, v); theta -= rate m / (sqrt(v^) + eps). It
    holds its own rate, for rules that displace.

    Args:
        rate: eta.
        b1: decay of m.
        b2: decay of v.
        eps: added to the root.
        tolerance: tau_c; None: the rate is never limited.

    Reference: Wang et al., FADAS: Towards Federated Adaptive Asynchronous Optimization, ICML 2024,
    https://arxiv.org/abs/2407.18365.
    """

    def init(params: Params) -> AMSGradState:
        zeros = tree_map(jnp.zeros_like, params)
        return AMSGradState(zeros, zeros, zeros)

    def update(
        d: Params, state: AMSGradState, params: Params = None, *, staleness: Scalar, **_: object
    ) -> tuple[Params, AMSGradState]:
        mean = tree_map(lambda m, d: b1 * m + (1 - b1) * d, state.mean, d)
        square = tree_map(lambda v, d: b2 * v + (1 - b2) * d * d, state.square, d)
        largest = tree_map(jnp.maximum, state.largest, square)
        eta = rate
        if tolerance is not None:
            limit = 1 / jnp.asarray(jnp.maximum(staleness, 1), scalar_type(d))
            eta = jnp.where(staleness > tolerance, jnp.minimum(rate, limit), rate)
        step = tree_map(lambda m, v: -eta * m / (jnp.sqrt(v) + eps), mean, largest)
        return step, AMSGradState(mean, square, largest)

    return optax.GradientTransformationExtraArgs(init, update)


class DelayedNesterovState(NamedTuple):
    """Momentum, what has been gathered since its last update, and how many messages that are."""

    momentum: Params
    gathered: Params
    phase: jax.Array


def delayed_nesterov(
    rate: Scalar, decay: Scalar, buffer: int, share: Scalar = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Nesterov momentum that is updated with every ``buffer``-th message only, for rules that displace.

    delta += d. At every N-th message m <- beta m + delta / N, delta <- 0 and
    theta -= eps ((1 - c N + c) beta m + d / N); at the others theta -= eps (c beta m + d / N).

    Args:
        rate: eps, the outer learning rate.
        decay: beta.
        buffer: N, messages.
        share: c N, from 0 to 1.

    Reference: Liu et al., Asynchronous Local-SGD Training for Language Modeling, 2024,
    https://arxiv.org/abs/2401.09135.
    """

    def init(params: Params) -> DelayedNesterovState:
        zeros = tree_map(jnp.zeros_like, params)
        return DelayedNesterovState(zeros, zeros, jnp.zeros((), jnp.int32))

    def update(
        d: Params, state: DelayedNesterovState, params: Params = None, **_: object
    ) -> tuple[Params, DelayedNesterovState]:
        phase = (state.phase + 1) % buffer
        full = phase == 0
        gathered = tree_map(jnp.add, state.gathered, d)
        momentum = tree_map(
            lambda m, delta: jnp.where(full, decay * m + delta / buffer, m), state.momentum, gathered
        )
        weight = decay * (jnp.where(full, 1 - share, 0) + share / buffer)
        step = tree_map(lambda m, d: -rate * (weight * m + d / buffer), momentum, d)
        gathered = tree_map(lambda delta: jnp.where(full, jnp.zeros_like(delta), delta), gathered)
        return step, DelayedNesterovState(momentum, gathered, phase)

    return optax.GradientTransformationExtraArgs(init, update)
