"""Gradient descent along the mean of the messages."""

from __future__ import annotations

from stalegrad._core.specs import PositiveFloat
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Momentum, OptimizerSpec
from stalegrad.policies.rules.rule import Rule, chain, decayed


def gradient_descent(*, optimizer: OptimizerSpec = "sgd", weight_decay: Decay = None) -> Rule:
    """Descend along the mean of the messages, with any optax optimizer at the server.

    w_{j+1} = w_j + optimizer(mean_l g(w_{v(l,j)}) + weight_decay * w_j); plain SGD gives -learning_rate * mean.
    The mean is over the messages l of update j, each computed at the version v(l,j) that its worker has read.

    Args:
        optimizer: any optax optimizer, see :func:`~stalegrad.policies.optimizers.check_optimizer`; plain SGD by
            default.
        weight_decay: L2 decay, taken at the server's current parameters.
    """
    from stalegrad.policies.optimizers import Optimizer

    return Rule(Optimizer(optimizer, weight_decay))


def plain_descent(*, weight_decay: Decay = None) -> Rule:
    """Plain SGD along the mean of the messages, each with its weight decay: w <- w - eta mean_l weight_l d_l.

    Args:
        weight_decay: L2 decay at the server's parameters; it belongs to the message and is scaled with it.
    """
    return Rule(correction=decayed(weight_decay))


def gap_limited_rate(*, threshold: PositiveFloat = 5e-5, weight_decay: Decay = None) -> Rule:
    """SGD with learning rate min{threshold / ||w_j - w_v||_2^2, eta_max}; eta_max is the learning rate.

    Args:
        threshold: C, of the order of the error floor one wants.
        weight_decay: L2 decay at the server's parameters.
    """
    return Rule(correction=chain(decayed(weight_decay), parts.corrections.gap_limited(threshold)))


def clipped_descent(*, clip: PositiveFloat = 1.0, weight_decay: Decay = None) -> Rule:
    """SGD with clipped messages: w <- w - eta min(1, clip / ||g||_2) g, the norm over all parameters.

    Args:
        clip: c, largest norm of a message.
        weight_decay: L2 decay at the server's parameters; it is clipped, too.
    """
    return Rule(correction=chain(decayed(weight_decay), parts.corrections.clipped(clip)))


def scaled_momentum(
    *,
    workers: int,
    momentum: Momentum = 0.9,
    weight_decay: Decay = None,
    nesterov: bool = True,
    scale: bool = True,
) -> Rule:
    """Synchronous SGD with one momentum at the server and a learning rate scaled by the number of workers N.

    d = mean_i g_i + weight_decay theta; v <- gamma v + d; theta <- theta - N eta (gamma v + d), or with
    ``nesterov = False`` theta <- theta - N eta v. Without ``scale`` the factor N is left out.

    Args:
        workers: filled in by the run.
        momentum: gamma.
        weight_decay: L2 decay.
        nesterov: Nesterov's form.
        scale: multiply the learning rate by the number of workers (Goyal et al. 2017).
    """
    import optax

    step = parts.momentum.momentum(momentum, nesterov=nesterov)
    return Rule(
        optimizer=optax.chain(step, optax.scale(float(workers))) if scale else step,
        correction=decayed(weight_decay),
    )
