"""What a rule is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import optax
from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat
from stalegrad.policies.controllers import Controller
from stalegrad.policies.rules.parts.corrections import weight_decay
from stalegrad.policies.rules.parts.staleness_weights import Weight
from stalegrad.policies.rules.parts.work import Work

Params = Any

Momentum = Annotated[float, Field(ge=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Decay = NonNegativeFloat | None
"""L2 weight decay, or None for none."""

LookAhead = Callable[[Params, Any, Any, Any], Params]
"""(parameters, optimizer state, learning rate, worker it is sent to) -> the point that is sent."""


class Rule(NamedTuple):
    """A rule's parts; see the folder.

    Attributes:
        optimizer: of the mean message: an optax transformation with learning rate 1, by which its step is
            multiplied, or an :class:`~stalegrad.policies.optimizers.Optimizer`.
        correction: of each message.
        weight: factors from staleness alone, computed on the host.
        look_ahead: what is sent; None: the parameters.
        single: takes updates of one message only (it keeps state per worker, or looks ahead for one).
        own_reads: the point sent depends on the worker, so that each version may be read by the worker
            that made it only.
        work: what workers do that keep state of their own; None: gradients at what they read.
        controller: changes k during the run; None: nobody does.
        displaces: messages are displacements, not gradients: the learning rate has acted already.
    """

    optimizer: Any = optax.sgd(1.0)
    correction: Any = None
    weight: Weight | None = None
    look_ahead: LookAhead | None = None
    single: bool = False
    own_reads: bool = False
    work: Work | None = None
    displaces: bool = False
    controller: Controller | None = None


def chain(*parts: Any) -> Any:
    """Chain the parts that are there; None if there are none."""
    there = [part for part in parts if part is not None]
    return optax.chain(*there) if there else None


def decayed(rate: Decay) -> Any:
    """Return L2 weight decay at the server's parameters, or None."""
    return None if rate is None else weight_decay(rate)
