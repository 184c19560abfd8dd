"""Pipeline parallelism with weight stashing."""

from __future__ import annotations

from stalegrad._core.specs import PositiveInt
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, OptimizerSpec
from stalegrad.policies.rules.rule import Rule


def pipeline(*, stages: PositiveInt = 4, optimizer: OptimizerSpec = "sgd", weight_decay: Decay = None) -> Rule:
    """A pipeline of P stages: stage i computes at its own parameters, which are P - 1 - i updates old.

    Arrays are divided among the stages in the order in which JAX flattens them (for a network: from the input on),
    in equal numbers; stage i keeps P - 1 - i old versions. One stage is sequential SGD.

    Args:
        stages: P, the number of stages.
        optimizer: any optax optimizer; plain SGD by default.
        weight_decay: L2 decay, taken at the current parameters.
    """
    from stalegrad.policies.optimizers import Built, Optimizer

    inner = Optimizer(optimizer, weight_decay).build()
    built = Built(lambda rate: parts.stashing.stashed(inner.at, stages, rate), inner.inside)
    return Rule(built, look_ahead=parts.stashing.oldest())
