"""Descent along the mean of a table with a row per worker, for workers whose data differ.

The server keeps n times the parameters, n the number of workers. Where all workers draw from the same data these
rules are no better than those without a table.
"""

from __future__ import annotations

from stalegrad._core.specs import PositiveFloat
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay
from stalegrad.policies.rules.rule import Rule, decayed


def latest_gradients(*, workers: int, weight_decay: Decay = None) -> Rule:
    """Every message replaces its worker's row G_i: w <- w - eta (1/n) sum_i G_i.

    Takes memory for n times the parameters, and reads all of it at every update.

    Args:
        workers: filled in by the run.
        weight_decay: L2 decay at the server's parameters; it belongs to the message.
    """
    return Rule(correction=decayed(weight_decay), table=parts.tables.latest(workers, incremental=False))


def latest_gradients_incremental(*, workers: int, weight_decay: Decay = None) -> Rule:
    """Every message replaces its worker's row G_i, and moves their mean: m += (g - G_i) / n, w <- w - eta m.

    Takes memory for n times the parameters; the cost of an update does not depend on n.

    Args:
        workers: filled in by the run.
        weight_decay: L2 decay at the server's parameters; it belongs to the message.
    """
    return Rule(correction=decayed(weight_decay), table=parts.tables.latest(workers, incremental=True))


def mean_of_workers(*, workers: int, weight_decay: Decay = None) -> Rule:
    """The mean over workers of the mean gradient of each: w <- w - eta (1/n) sum_i (1/B_i) sum_j g_ij.

    Takes memory for n times the parameters.

    Args:
        workers: filled in by the run.
        weight_decay: L2 decay at the server's parameters; it belongs to the message.
    """
    return Rule(correction=decayed(weight_decay), table=parts.tables.mean_of_workers(workers, updates=1))


def mean_of_workers_in_rounds(*, workers: int, weight_decay: Decay = None) -> Rule:
    """The mean over workers of the mean gradient of each, in a table that is emptied every n updates.

    w <- w - eta (1/n) sum_i (1/b_i) sum_j g_ij. Takes memory for n times the parameters.

    Args:
        workers: filled in by the run.
        weight_decay: L2 decay at the server's parameters; it belongs to the message.
    """
    return Rule(correction=decayed(weight_decay), table=parts.tables.mean_of_workers(workers, updates=workers))


def calibrated(*, workers: int, server_rate: PositiveFloat = 1.0) -> Rule:
    """Buffered local SGD with cached calibration: x <- x - server_rate (mean_i h_i + (1/K) sum_l (d_l - h_l)).

    d = x^v - y is what the worker's local steps have moved, h_i worker i's last one, the mean that of the last
    update. The learning rate is that of the local steps. Takes memory for n times the parameters.

    Args:
        workers: filled in by the run.
        server_rate: the server's learning rate.
    """
    import optax

    return Rule(
        optax.sgd(server_rate),
        parts.corrections.displacement(),
        table=parts.tables.calibrated(workers),
        displaces=True,
    )
