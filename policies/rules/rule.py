"""What a rule is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from stalegrad._core.specs import NonNegativeFloat
from stalegrad.policies.rules import parts

if TYPE_CHECKING:
    from stalegrad.policies.rules.parts.staleness_weights import Weight
    from stalegrad.policies.rules.parts.work import Work

Params = Any

Momentum = Annotated[float, Field(ge=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Decay = NonNegativeFloat | None
"""L2 weight decay, or None for none."""

Granularity = Literal["elementwise", "layer", "global"]
"""Of a gap: per parameter, per array, or of all parameters."""

Spread = Literal["deviation", "magnitude"]
"""What FASGD divides by: the standard deviation of the gradient, or its magnitude."""

StalenessModel = Literal["geometric", "poisson", "cmp", "uniform"]


def _checked_optimizer(value: Any) -> Any:
    if isinstance(value, str) and value == "sgd":  # the default, for which optax and JAX need not be imported
        return value
    from stalegrad.policies.optimizers import check_optimizer

    return check_optimizer(value)


OptimizerSpec = Annotated[Any, BeforeValidator(_checked_optimizer)]
"""An optimizer as :func:`~stalegrad.policies.optimizers.check_optimizer` takes it."""

LookAhead = Callable[[Params, Any, Any, Any], Params]
"""(parameters, optimizer state, learning rate, worker it is sent to) -> the point that is sent."""


class Rule(NamedTuple):
    """A rule's parts; see the folder.

    Attributes:
        optimizer: of the mean message: an optax transformation with learning rate 1, by which its step is
            multiplied, or an :class:`~stalegrad.policies.optimizers.Optimizer`; None: gradient descent.
        correction: of each message.
        weight: factors from staleness alone, computed on the host.
        look_ahead: what is sent; None: the parameters.
        single: takes updates of one message only (it keeps state per worker, or looks ahead for one).
        own_reads: the point sent depends on the worker, so that each version may be read by the worker
            that made it only.
        work: what workers do that keep state of their own; None: gradients at what they read.
        displaces: messages are displacements, not gradients: the learning rate has acted already.
    """

    optimizer: Any = None
    correction: Any = None
    weight: Weight | None = None
    look_ahead: LookAhead | None = None
    single: bool = False
    own_reads: bool = False
    work: Work | None = None
    displaces: bool = False


def chain(*chained: Any) -> Any:
    """Chain the parts that are there; None if there are none."""
    there = [part for part in chained if part is not None]
    if not there:
        return None
    import optax

    return optax.chain(*there)


def decayed(rate: Decay) -> Any:
    """Return L2 weight decay at the server's parameters, or None."""
    return None if rate is None else parts.corrections.weight_decay(rate)
