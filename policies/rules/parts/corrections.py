"""Corrections of one message, from how far the server has moved since it was read.

Each is an optax transformation; beside the message it is told, by name:

* ``params`` (theta): the server's parameters now; ``read`` (w): those the gradient was computed at;
* ``staleness`` (tau), ``worker``, ``learning_rate`` (eta), ``peak_learning_rate`` (the schedule's peak);
* ``optimizer_state``: of the server's optimizer, before this message reaches it.

Chain them with ``optax.chain``; the order matters and is part of a method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from stalegrad._core.trees import (
    at_worker,
    global_norm_squared,
    put_worker,
    scalar_type,
    stacked,
    tree_map,
    wide,
)
from stalegrad._core.types import OptimizerState, Params, Scalar
from stalegrad.policies.rules.hyperparameters import Granularity

Buffer = Callable[[Params, OptimizerState, Scalar], Params]
"""(message, optimizer state, worker) -> what the typical step is estimated from."""


def _stateless(update: Callable[..., Params]) -> optax.GradientTransformationExtraArgs:
    def update_fn(
        message: Params, state: optax.EmptyState, params: Params = None, **extra: object
    ) -> tuple[Params, optax.EmptyState]:
        return update(message, params, **extra), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update_fn)


def weight_decay(rate: Scalar, *, at_read: bool = False) -> optax.GradientTransformationExtraArgs:
    """d = g + rate * theta: L2 decay at the server's current parameters (or at those read)."""

    def update(g: Params, params: Params, *, read: Params, **_: object) -> Params:
        return tree_map(lambda g, p: g + rate * p, g, read if at_read else params)

    return _stateless(update)


def clipped(norm: Scalar) -> optax.GradientTransformationExtraArgs:
    """min(1, norm / ||g||_2) g, the L2 norm over all parameters."""

    def update(g: Params, params: Params, **_: object) -> Params:
        factor = jnp.minimum(norm / jnp.maximum(jnp.sqrt(global_norm_squared(g)), 1e-30), 1)
        return tree_map(lambda g: g * factor, g)

    return _stateless(update)


def displacement() -> optax.GradientTransformationExtraArgs:
    """eta g: how far local SGD has moved, of the sum g of its gradients; for rules that displace."""

    def update(g: Params, params: Params, *, learning_rate: Scalar, **_: object) -> Params:
        return tree_map(lambda g: learning_rate * g, g)

    return _stateless(update)


def delay_compensation(strength: Scalar) -> optax.GradientTransformationExtraArgs:
    """g + strength * g * g * (theta - w): first-order compensation with a constant strength.

    Reference: Zheng et al., Asynchronous Stochastic Gradient Descent with Delay Compensation, 2017 (DC-ASGD-c).
    """

    def update(g: Params, params: Params, *, read: Params, **_: object) -> Params:
        return tree_map(lambda g, p, w: g + strength * g * g * (p - w), g, params, read)

    return _stateless(update)


class AdaptiveDelayCompensationState(NamedTuple):
    """Running mean of squared gradients, one per worker."""

    mean_square: Params


def adaptive_delay_compensation(
    strength: Scalar, decay: Scalar, workers: int, eps: float = 1e-7
) -> optax.GradientTransformationExtraArgs:
    """As :func:`delay_compensation` with strength / sqrt(MS + eps), MS <- decay MS + (1 - decay) g^2 per worker.

    Reference: Zheng et al. 2017 (DC-ASGD-a); MS starts at 0 and is updated before use, without bias correction.
    """

    def init(params: Params) -> AdaptiveDelayCompensationState:
        return AdaptiveDelayCompensationState(stacked(params, workers))

    def update(
        g: Params,
        state: AdaptiveDelayCompensationState,
        params: Params = None,
        *,
        read: Params,
        worker: Scalar,
        **_: object,
    ) -> tuple[Params, AdaptiveDelayCompensationState]:
        square = tree_map(lambda ms, g: decay * ms + (1 - decay) * g * g, at_worker(state.mean_square, worker), g)
        mean_square = put_worker(state.mean_square, worker, square)
        square = at_worker(mean_square, worker)  # read back: nothing else then needs the old stack
        corrected = tree_map(
            lambda g, p, w, ms: g + strength / jnp.sqrt(wide(ms) + eps) * g * g * (p - w), g, params, read, square
        )
        return corrected, AdaptiveDelayCompensationState(mean_square)

    return optax.GradientTransformationExtraArgs(init, update)


class GapAwareState(NamedTuple):
    """Mean square of the normaliser's buffer, the number of messages so far, the largest learning rate so far."""

    mean_square: Params
    messages: jax.Array
    peak: jax.Array


def gap_aware(
    buffer: Buffer,
    *,
    decay: Scalar = 0.999,
    granularity: Granularity = "elementwise",
    running_peak: bool = False,
    fresh_is_free: bool = True,
    weight_decay: Scalar | None = None,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """(g + weight_decay * theta) / G with the gap in units of a typical step, G = |theta - w| / C + 1.

    C = eta_max * (sqrt(R / (1 - decay^n)) + eps), R <- decay R + (1 - decay) b^2, where b is the momentum buffer
    before this message (the raw message, without weight decay, where there is none).

    Args:
        buffer: ``(message, optimizer state, worker) -> b``.
        decay: decay of the mean square.
        granularity: ``elementwise``; ``layer``: L2 norms of each array; ``global``: L2 norms of everything.
        running_peak: eta_max is the largest learning rate so far, instead of the schedule's peak.
        fresh_is_free: G = 1 for a message of staleness 0 (for methods that send theta itself).
        weight_decay: L2 decay that is penalised, too; None: none.
        eps: keeps C away from 0.

    Reference: Barkai, Hakimi, Schuster, Gap-Aware Mitigation of Gradient Staleness, 2020.
    """

    def init(params: Params) -> GapAwareState:
        peak = jnp.zeros((), scalar_type(params))
        return GapAwareState(tree_map(jnp.zeros_like, params), jnp.zeros((), jnp.int32), peak)

    def update(
        g: Params,
        state: GapAwareState,
        params: Params = None,
        *,
        read: Params,
        staleness: Scalar,
        worker: Scalar,
        learning_rate: Scalar,
        peak_learning_rate: Scalar,
        optimizer_state: OptimizerState,
        **_: object,
    ) -> tuple[Params, GapAwareState]:
        b = buffer(g, optimizer_state, worker)
        mean_square = tree_map(lambda r, b: decay * r + (1 - decay) * b * b, state.mean_square, b)
        count = state.messages + 1
        peak = jnp.maximum(state.peak, learning_rate)
        eta = peak if running_peak else peak_learning_rate
        correction = 1 - decay ** count.astype(peak.dtype)
        step = tree_map(lambda r: jnp.sqrt(r / correction), mean_square)
        penalty = gap_penalty(params, read, step, eta, eps, granularity)
        if fresh_is_free:
            penalty = tree_map(lambda p: jnp.where(staleness == 0, jnp.ones_like(p), p), penalty)
        if weight_decay is not None:
            g = tree_map(lambda g, p: g + weight_decay * p, g, params)
        return tree_map(lambda g, p: g / p, g, penalty), GapAwareState(mean_square, count, peak)

    return optax.GradientTransformationExtraArgs(init, update)


class GapAwareAdamState(NamedTuple):
    """Mean square of Adam's steps, the learning rate of the last one."""

    mean_square: Params
    learning_rate: jax.Array


def gap_aware_adam(
    *, b1: Scalar, b2: Scalar, granularity: Granularity = "elementwise", eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """g / G before Adam's moments, G = |theta - w| / C + 1 with C = sqrt(R) + eps.

    R <- b2 R + (1 - b2) s^2 over the steps s that Adam has taken; s holds the learning rate, so C needs none,
    and R has no bias correction. G = 1 for a message of staleness 0.

    Args:
        b1: Adam's decay of the first moment.
        b2: that of the second, and of R.
        granularity: as of :func:`gap_aware`.
        eps: Adam's, and what keeps C away from 0.

    Reference: Barkai, Hakimi, Schuster 2020 (the variant for Transformers), with the order of its authors' code.
    """

    def init(params: Params) -> GapAwareAdamState:
        return GapAwareAdamState(tree_map(jnp.zeros_like, params), jnp.zeros((), scalar_type(params)))

    def update(
        g: Params,
        state: GapAwareAdamState,
        params: Params = None,
        *,
        read: Params,
        staleness: Scalar,
        learning_rate: Scalar,
        optimizer_state: OptimizerState,
        **_: object,
    ) -> tuple[Params, GapAwareAdamState]:
        adam = optimizer_state[0]
        taken = jnp.maximum(adam.count, 1).astype(state.learning_rate.dtype)
        first, second = 1 - b1**taken, 1 - b2**taken

        def mean_square(r: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            step = state.learning_rate * (m / first) / (jnp.sqrt(v / second) + eps)
            return jnp.where(adam.count > 0, b2 * r + (1 - b2) * step * step, r)

        square = tree_map(mean_square, state.mean_square, adam.mu, adam.nu)
        penalty = gap_penalty(params, read, tree_map(jnp.sqrt, square), 1.0, eps, granularity)
        g = tree_map(lambda g, p: jnp.where(staleness == 0, g, g / p), g, penalty)
        rate = jnp.asarray(learning_rate, state.learning_rate.dtype)
        return g, GapAwareAdamState(square, rate)

    return optax.GradientTransformationExtraArgs(init, update)


def gap_penalty(
    params: Params, read: Params, step: Params, eta: Scalar, eps: float, granularity: Granularity
) -> Params:
    """Return G = |theta - w| / (eta * (step + eps)) + 1 at the granularity asked for."""
    distance = tree_map(jnp.subtract, params, read)
    if granularity == "elementwise":
        return tree_map(lambda d, s: jnp.abs(d) / (eta * (s + eps)) + 1, distance, step)

    def norm(tree: Params) -> jax.Array:
        return jnp.sqrt(global_norm_squared(tree))

    if granularity == "layer":
        return tree_map(lambda d, s: norm(d) / (eta * (norm(s) + eps)) + 1, distance, step)
    penalty = norm(distance) / (eta * (norm(step) + eps)) + 1
    return tree_map(lambda d: penalty, distance)


def gap_limited(threshold: Scalar) -> optax.GradientTransformationExtraArgs:
    """Learning rate min{threshold / ||theta - w||_2^2, eta_max}, as a factor on the message (eta_max = schedule).

    The norm is the L2 norm over all parameters, not the recorded (RMSE) gap. For K > 1 each message has its own.

    Reference: Dutta et al. 2018, eq. (13).
    """

    def update(g: Params, params: Params, *, read: Params, learning_rate: Scalar, **_: object) -> Params:
        square = global_norm_squared(tree_map(jnp.subtract, params, read))
        factor = jnp.minimum(threshold / jnp.maximum(square * learning_rate, 1e-30), 1)
        return tree_map(lambda g: g * factor, g)

    return _stateless(update)
