"""Servers of federated learning: workers take local steps of SGD, the server one along what these have moved.

The learning rate is that of the local steps; the server has its own rate.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, PositiveFloat
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Momentum, UnitInterval
from stalegrad.policies.rules.rule import Rule


def buffered(*, server_rate: PositiveFloat = 1.0, server_momentum: Momentum | None = None) -> Rule:
    """A buffer of K messages: x <- x - server_rate (1/K) sum_l weight_l (x^v - y_l), y_l after the local steps.

    Args:
        server_rate: the server's learning rate.
        server_momentum: momentum of the server's SGD (heavy ball); None: none.
    """
    import optax

    from stalegrad.policies.optimizers import Optimizer

    if server_momentum is None:
        return Rule(Optimizer(lambda learning_rate: optax.sgd(server_rate * learning_rate)))
    # The momentum is of displacements, so it holds the learning rate of each.
    return Rule(optax.sgd(server_rate, server_momentum), parts.corrections.displacement(), displaces=True)


def model_mixing(
    *, workers: int, mixing: Annotated[float, Field(gt=0, le=1)] = 0.6, proximal: NonNegativeFloat = 0.005
) -> Rule:
    """Every message is mixed into the model: x <- (1 - a) x + a y, a = mixing * weight.

    y is what local SGD on f_i(y) + (proximal / 2) ||y - x^v||^2 has made of the version x^v.

    Args:
        workers: filled in by the run.
        mixing: alpha.
        proximal: rho.
    """
    import optax

    return Rule(optax.sgd(mixing), work=parts.work.proximal(workers, proximal), displaces=True, single=True)


def adaptive(
    *,
    server_rate: PositiveFloat = 0.001,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.99,
    eps: PositiveFloat = 1e-8,
    tolerance: NonNegativeInt | None = None,
) -> Rule:
    """AMSGrad at the server along the mean d of a buffer of K local displacements.

    m <- b1 m + (1 - b1) d; v <- b2 v + (1 - b2) d^2; v^ <- max(v^, v); x <- x - rate m / (sqrt(v^) + eps); the
    rate is server_rate, or min(server_rate, 1 / tau) if the largest staleness tau in the buffer exceeds
    ``tolerance``.

    Args:
        server_rate: eta, the server's learning rate.
        b1: decay of m.
        b2: decay of v.
        eps: added to the root.
        tolerance: tau_c, in updates; None: the rate does not depend on staleness.
    """
    optimizer = parts.momentum.staleness_limited_amsgrad(server_rate, b1, b2, eps, tolerance)
    return Rule(optimizer, parts.corrections.displacement(), displaces=True)
