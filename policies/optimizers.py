"""Optimizers of the server that optax does not have: momentum under staleness.

All follow one convention (PyTorch's): the buffer holds no learning rate, v <- gamma v + d, and theta moves by
learning_rate * update from outside, so an optimizer returns *minus* its step. A momentum therefore survives a
change of the learning rate as it is. Beside ``d`` (and ``params``) they are told ``worker`` and ``staleness`` of
the message; those with a buffer per worker need updates of one message.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stalegrad.policies.specs import unknown_name
from stalegrad.policies.trees import after, at_worker, put_worker, stacked, tree_map

Params = Any
OptimizerSpec = Any
"""An optax optimizer: its name, a table ``{"name": "adam", "b1": 0.9}``, or itself (learning rate 1)."""


def make_optimizer(value: OptimizerSpec) -> optax.GradientTransformation:
    """Return the optax optimizer of learning rate 1 that a user meant.

    Args:
        value: the name of an optax alias (``"sgd"``, ``"adam"``, ...), a table of the name and its
            arguments, or a transformation built with ``learning_rate=1.0``.

    Raises:
        ValueError: for an unknown name or arguments it does not take.
    """
    if isinstance(value, optax.GradientTransformation):
        return value
    if not isinstance(value, str | dict):
        raise ValueError(f"optimizer = {value!r} is not allowed: give a name, a table or an optax transformation")
    arguments = {"name": value} if isinstance(value, str) else dict(value)
    name = arguments.pop("name", None)
    known = optimizer_names()
    if name not in known:
        raise ValueError(unknown_name("optimizer", name, known))
    function = getattr(optax, name)
    allowed = [p for p in inspect.signature(function).parameters if p != "learning_rate"]
    for key in arguments:
        if key not in allowed:
            raise ValueError(unknown_name(f"parameter of optimizer {name!r}:", key, allowed))
    made: optax.GradientTransformation = function(learning_rate=1.0, **arguments)
    try:
        leaf = jnp.ones(2)
        made.update(leaf, made.init(leaf), leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer {name!r} does not work with {arguments}: {error}") from None
    return made


@functools.cache
def optimizer_names() -> tuple[str, ...]:
    """Return the optax aliases that take a learning rate and nothing else that is compulsory."""
    names = []
    deprecated = {"noisy_sgd", "optimistic_adam"}
    for name, function in sorted(vars(optax).items()):
        if not inspect.isfunction(function) or name.startswith("scale_by") or name in deprecated:
            continue
        parameters = inspect.signature(function).parameters
        required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if required == ["learning_rate"]:
            names.append(name)
    return tuple(names)


class MomentumState(NamedTuple):
    """The server's one momentum buffer."""

    velocity: Params


def momentum(decay: Any, *, nesterov: bool = False) -> optax.GradientTransformationExtraArgs:
    """v <- decay v + d; theta -= eta v, or with ``nesterov`` theta -= eta (decay v + d)."""

    def update(d: Params, state: Any, params: Params = None, **_: Any) -> tuple[Params, Any]:
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
    decay: Any, workers: int, *, nesterov: bool = False, running_sum: bool = False
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

    def update(d: Params, state: Any, params: Params = None, *, worker: Any, **_: Any) -> tuple[Params, Any]:
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


def _step(velocity: Params, d: Params, decay: Any, nesterov: bool) -> Params:
    if nesterov:
        return tree_map(lambda v, d: -(decay * v + d), velocity, d)
    return tree_map(jnp.negative, velocity)


class SMEGA2State(NamedTuple):
    """Momentum, the gradients gathered since its last update, and how many they are."""

    velocity: Params
    gathered: Params
    phase: jax.Array


def smega2(decay: Any, workers: int) -> optax.GradientTransformationExtraArgs:
    """One buffer that is updated every N messages, with their mean.

    c <- (c + 1) mod N; a += d; theta -= eta (gamma m + d); if c = 0: m <- gamma m + a / N, a <- 0.

    Reference: Cohen, Hakimi, Schuster, SMEGA2: Distributed Asynchronous Deep Neural Network Training With a
    Single Momentum Buffer, 2022.
    """

    def init(params: Params) -> SMEGA2State:
        zeros = tree_map(jnp.zeros_like, params)
        return SMEGA2State(zeros, zeros, jnp.zeros((), jnp.int32))

    def update(d: Params, state: Any, params: Params = None, **_: Any) -> tuple[Params, Any]:
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
    square_decay: Any, deviation_decay: Any, eps: float = 1e-8, floor: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """theta -= eta d / (v (tau + 1)), where v is a moving average of the standard deviation of d.

    n <- c1 n + (1 - c1) d^2; b <- c1 b + (1 - c1) d; v <- c2 v + (1 - c2) sqrt(n - b^2 + eps).

    Reference: Odena, Faster Asynchronous SGD, 2016 (with the division by the deviation of its text, tau + 1 of
    its code, and ``floor`` added to v).
    """

    def init(params: Params) -> FASGDState:
        zeros = tree_map(jnp.zeros_like, params)
        return FASGDState(zeros, zeros, zeros)

    def update(d: Params, state: Any, params: Params = None, *, staleness: Any, **_: Any) -> tuple[Params, Any]:
        c1, c2 = square_decay, deviation_decay
        square = tree_map(lambda n, d: c1 * n + (1 - c1) * d * d, state.square, d)
        mean = tree_map(lambda b, d: c1 * b + (1 - c1) * d, state.mean, d)
        deviation = tree_map(
            lambda v, n, b: c2 * v + (1 - c2) * jnp.sqrt(jnp.maximum(n - b * b, 0) + eps),
            state.deviation,
            square,
            mean,
        )
        direction = tree_map(lambda d, v: -d / ((v + floor) * (staleness + 1)), d, deviation)
        return direction, FASGDState(square, mean, deviation)

    return optax.GradientTransformationExtraArgs(init, update)
