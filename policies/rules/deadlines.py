"""Workers that compute several mini-batches at one point, as many as they have time for."""

from __future__ import annotations

from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, OptimizerSpec
from stalegrad.policies.rules.rule import Rule


def accumulated(*, workers: int, optimizer: OptimizerSpec = "sgd", weight_decay: Decay = None) -> Rule:
    """Descend along the mean of all mini-batch gradients of an update, however many each worker has.

    A message is the sum of a worker's gradients at the version read: w <- w - eta (sum of all) / (their number).

    Args:
        workers: filled in by the run.
        optimizer: any optax optimizer; plain SGD by default.
        weight_decay: L2 decay, taken at the server's current parameters.
    """
    from stalegrad.policies.optimizers import Optimizer

    return Rule(Optimizer(optimizer, weight_decay), work=parts.work.accumulated(workers))
