"""Types of hyper-parameters that several rules and their parts take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stalegrad._core.specs import NonNegativeFloat

Momentum = Annotated[float, Field(ge=0, lt=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Decay = NonNegativeFloat | None
"""L2 weight decay, or None for none."""

Granularity = Literal["elementwise", "layer", "global"]
"""Of a gap: per parameter, per array, or of all parameters."""

Norm = Literal["spectral", "sign", "euclidean"]
"""Of steps of unit length: the spectral norm of matrices, the largest entry, or the L2 norm of everything."""

Spread = Literal["deviation", "magnitude"]
"""What FASGD divides by: the standard deviation of the gradient, or its magnitude."""

StalenessModel = Literal["geometric", "poisson", "cmp", "uniform"]


def _checked_optimizer(value: object) -> object:
    if isinstance(value, str) and value in ("sgd", "adamw"):  # the defaults, for which JAX need not be imported
        return value
    from stalegrad.policies.optimizers import check_optimizer

    return check_optimizer(value)


OptimizerSpec = Annotated[Any, BeforeValidator(_checked_optimizer)]
"""An optimizer as :func:`~stalegrad.policies.optimizers.check_optimizer` takes it."""
