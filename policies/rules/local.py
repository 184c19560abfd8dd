"""Workers that take local steps of their own optimizer, and a server that takes outer steps along them.

The learning rate is that of the local steps.
"""

from __future__ import annotations

from stalegrad._core.specs import PositiveFloat, PositiveInt
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Momentum, OptimizerSpec, UnitInterval
from stalegrad.policies.rules.rule import Rule


def diloco(
    *,
    workers: int,
    inner: OptimizerSpec = "adamw",
    outer_rate: PositiveFloat = 0.7,
    outer_momentum: Momentum = 0.9,
) -> Rule:
    """Inner steps of AdamW at the workers, Nesterov momentum at the server along the mean displacement.

    d_i = x^v - y_i, y_i after ``local_steps`` inner steps; m <- mu m + mean d; x <- x - rate (mu m + mean d). A
    worker keeps the state of its inner optimizer.

    Args:
        workers: filled in by the run.
        inner: optimizer of the local steps, any of optax.
        outer_rate: the server's learning rate.
        outer_momentum: mu.
    """
    import optax

    from stalegrad.policies.optimizers import Optimizer

    work = parts.work.inner_optimizer(workers, Optimizer(inner).build())
    return Rule(optax.sgd(outer_rate, outer_momentum, nesterov=True), work=work, displaces=True)


def delayed_nesterov(
    *,
    workers: int,
    inner: OptimizerSpec = "adamw",
    outer_rate: PositiveFloat = 0.1,
    outer_momentum: Momentum = 0.9,
    buffer: PositiveInt = 4,
    share: UnitInterval = 0.0,
) -> Rule:
    """Inner steps of AdamW at the workers; Nesterov momentum at the server, updated at every N-th message.

    With d = weight (x^v - y): delta += d; at every N-th message m <- beta m + delta / N, delta <- 0 and
    x <- x - rate ((1 - c N + c) beta m + d / N), else x <- x - rate (c beta m + d / N). N = 1 is Nesterov's form.

    Args:
        workers: filled in by the run.
        inner: optimizer of the local steps, any of optax.
        outer_rate: the server's learning rate.
        outer_momentum: beta.
        buffer: N, the number of messages between two updates of the momentum.
        share: c N, of the momentum that is spread over the messages between.
    """
    from stalegrad.policies.optimizers import Optimizer

    work = parts.work.inner_optimizer(workers, Optimizer(inner).build())
    outer = parts.momentum.delayed_nesterov(outer_rate, outer_momentum, buffer, share)
    return Rule(outer, work=work, displaces=True)
