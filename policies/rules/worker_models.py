"""Rules whose workers keep their own models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stalegrad._core.specs import PositiveInt
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Momentum, OptimizerSpec
from stalegrad.policies.rules.rule import Rule


def delayed_averaging(*, workers: int) -> Rule:
    """Averaged model updates, merged while the workers keep computing: y_{j+1} = y_j + mean_w d_w.

    d_w is what worker w's last cycle of local SGD has added; its next cycle starts at y_j + d_w. The learning rate
    of a cycle is that of the update it goes into.

    Args:
        workers: filled in by the run.
    """
    return Rule(work=parts.work.delayed_averaging(workers), displaces=True)


def delayed_averaging_general(*, workers: int) -> Rule:
    """As ``delayed-averaging``, with releases of any number of gradients: y_{j+1} = y_j + (sum of all) / N.

    Args:
        workers: filled in by the run.
    """
    return Rule(
        work=parts.work.delayed_averaging_general(workers),
        weight=parts.staleness_weights.SumPerWorker(),
        displaces=True,
    )


def elastic_averaging(
    *,
    workers: int,
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None,
    momentum: Momentum | None = None,
) -> Rule:
    """Every worker trains its own model; it and the server's center pull each other at every message.

    At an exchange e = alpha (x_i - center) and center += e; the worker's next step takes its gradient at the same
    point, x_i <- x_i - eta g(x_i) - e, and ``local_steps - 1`` steps without e follow.

    Args:
        workers: filled in by the run.
        alpha: strength of the pull; by default 0.9 / N.
        momentum: local Nesterov momentum (EAMSGD); None: none.
    """
    return Rule(
        work=parts.work.elastic(workers, 0.9 / workers if alpha is None else alpha, momentum),
        displaces=True,
        single=True,
    )


def downpour(*, workers: int, fetch_every: PositiveInt = 1, optimizer: OptimizerSpec = "sgd") -> Rule:
    """Workers push the sum of the gradients of ``local_steps`` local steps and fetch a model after some pushes.

    Worker i repeats x_i <- x_i - eta g(x_i) and pushes the sum s of these gradients; theta <- theta - eta s (any
    optax optimizer takes s in place of a gradient). After every ``fetch_every``-th push x_i <- theta.

    Args:
        workers: filled in by the run.
        fetch_every: pushes between two fetches.
        optimizer: optimizer at the server; DistBelief uses ``adagrad``.
    """
    from stalegrad.policies.optimizers import Optimizer

    kept = None if fetch_every == 1 else parts.work.downpour(workers, fetch_every)
    return Rule(Optimizer(optimizer), work=kept)
