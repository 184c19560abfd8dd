"""Gradient descent along the mean of the messages."""

from __future__ import annotations

import optax

from stalegrad._core.specs import PositiveFloat
from stalegrad.policies.controllers import AdaSync, Growth
from stalegrad.policies.optimizers import Optimizer, OptimizerSpec
from stalegrad.policies.rules.parts.corrections import gap_limited
from stalegrad.policies.rules.parts.momentum import momentum as one_momentum
from stalegrad.policies.rules.rule import Decay, Momentum, Rule, chain, decayed


def gradient_descent(*, optimizer: OptimizerSpec = "sgd", weight_decay: Decay = None) -> Rule:
    """Descend along the mean of the messages, with any optax optimizer at the server.

    w_{j+1} = w_j + optimizer(mean_l g(w_{v(l,j)}) + weight_decay * w_j); plain SGD gives -learning_rate * mean.

    Args:
        optimizer: any optax optimizer, see :func:`~stalegrad.policies.optimizers.check_optimizer`; plain SGD by
            default.
        weight_decay: L2 decay, taken at the server's current parameters.
    """
    return Rule(Optimizer(optimizer, weight_decay))


def gap_limited_rate(*, threshold: PositiveFloat = 5e-5, weight_decay: Decay = None) -> Rule:
    """SGD with learning rate min{threshold / ||w_j - w_v||_2^2, eta_max}; eta_max is the learning rate.

    Args:
        threshold: C, of the order of the error floor one wants.
        weight_decay: L2 decay at the server's parameters.
    """
    return Rule(correction=chain(decayed(weight_decay), gap_limited(threshold)))


def scaled_momentum(
    *,
    workers: int,
    momentum: Momentum = 0.9,
    weight_decay: Decay = None,
    nesterov: bool = True,
    scale: bool = True,
) -> Rule:
    """Synchronous SGD with one momentum at the server and a learning rate scaled by the number of workers.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        weight_decay: L2 decay.
        nesterov: Nesterov's form.
        scale: multiply the learning rate by the number of workers (Goyal et al. 2017).
    """
    step = one_momentum(momentum, nesterov=nesterov)
    return Rule(
        optimizer=optax.chain(step, optax.scale(float(workers))) if scale else step,
        correction=decayed(weight_decay),
    )


def adasync(
    *,
    interval: PositiveFloat = 60.0,
    growth: Growth = "auto",
    floor: float = 0.0,
    optimizer: OptimizerSpec = "sgd",
    weight_decay: Decay = None,
) -> Rule:
    """Gradient descent whose k grows as the training loss falls; the synchrony's k is K_0.

    Args:
        interval: simulated seconds between two decisions.
        growth: ``quadratic`` or ``square-root``; ``auto``: quadratic for K-sync and K-async.
        floor: the least loss possible, F_inf.
        optimizer: any optax optimizer.
        weight_decay: L2 decay at the server's parameters.
    """
    descent = gradient_descent(optimizer=optimizer, weight_decay=weight_decay)
    return descent._replace(controller=AdaSync(interval, growth, floor))
