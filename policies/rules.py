"""What the server does with a gradient, and what it sends back.

A rule is put together from small pure parts, each an optax transformation or a function on pytrees:

* ``correction``: of each message, given how stale it is;
* ``optimizer``: of the mean of an update's messages;
* ``look_ahead``: the point that is sent to workers, from the new parameters.

The parts are told about a message through optax's extra arguments, of which each takes those it names:
``read`` (the parameters the gradient was computed at), ``staleness``, ``worker`` and ``learning_rate``.
An optimizer's update is scaled by the learning rate from outside: theta <- theta + learning_rate * update, so
optax optimizers are built with learning rate 1 and momentum never holds a learning rate.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from stalegrad.policies.specs import NonNegativeFloat, unknown_name

Params = Any
"""Any pytree of arrays."""

LookAhead = Callable[[Params, Any, Any], Params]
"""(parameters, optimizer state, learning rate) -> the point that is sent."""


class Rule(NamedTuple):
    """A rule's parts; see the module."""

    correction: optax.GradientTransformationExtraArgs | None = None
    optimizer: optax.GradientTransformation = optax.sgd(1.0)
    look_ahead: LookAhead | None = None


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
    try:
        made: optax.GradientTransformation = getattr(optax, name)(learning_rate=1.0, **arguments)
    except TypeError as error:
        raise ValueError(f"optimizer {name!r}: {error}") from None
    return made


def optimizer_names() -> list[str]:
    """Return the optax aliases that take a learning rate and nothing else that is compulsory."""
    names = []
    for name, function in sorted(vars(optax).items()):
        if not inspect.isfunction(function) or name.startswith("scale_by"):
            continue
        parameters = inspect.signature(function).parameters
        required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if required == ["learning_rate"]:
            names.append(name)
    return names


def gradient_descent(*, optimizer: OptimizerSpec = "sgd", weight_decay: NonNegativeFloat | None = None) -> Rule:
    """Descend along the mean of the messages, with any optax optimizer at the server.

    w_{j+1} = w_j - learning_rate * optimizer(mean_l g(w_{v(l,j)}) + weight_decay * w_j)

    Args:
        optimizer: any optax optimizer; plain SGD by default.
        weight_decay: L2 decay, taken at the server's current parameters.
    """
    step = make_optimizer(optimizer)
    if weight_decay is not None:
        step = optax.chain(optax.add_decayed_weights(weight_decay), step)
    return Rule(optimizer=step)
