"""Parameters of MindFlayer SGD, from constants of a problem and the probability that a trial succeeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad.analysis.theory.checks import ConstantsLike
from stalegrad.analysis.theory.parameters import ceil_of, ratio_of, target


class MindFlayerParameters(NamedTuple):
    """Parameters with which MindFlayer SGD reaches E||∇F||^2 <= epsilon.

    Attributes:
        learning_rate: gamma, the learning rate of an update.
        updates: K, the number of updates that suffices for the target; None without a gap.
        trials: B_i of every worker, 0 for workers that do not take part.
        expected: B = sum_i p_i B_i, the mean number of gradients of a round.
        seconds: t*, an upper bound on the time of a round.
    """

    learning_rate: float
    updates: int | None
    trials: tuple[int, ...]
    expected: float
    seconds: float


def mindflayer_parameters(
    constants: ConstantsLike,
    epsilon: float,
    limits: npt.ArrayLike,
    chances: npt.ArrayLike,
    gap: float | None = None,
    *,
    batch_size: int = 1,
) -> MindFlayerParameters:
    """Return trials, expected number of gradients, learning rate and updates of MindFlayer SGD:

        S = max(1, ceil(sigma^2 / eps)),  t* = min_m (S + sum_{i<=m} p_i) / sum_{i<=m} p_i / l_i,
        B_i = ceil(t* / l_i) - 1 where l_i < t*, else 0,  B = sum_i p_i B_i,
        gamma = min(1, eps B / sigma^2) / (2 L),  K = max(1, sigma^2 / (eps B)) 8 L Delta / eps

    with workers in the order of their limits l_i. Thus B >= S, and no round takes longer than t*.

    Args:
        constants: constants L and sigma^2 of the problem: measured ones, or the pair of numbers.
        epsilon: target, E||∇F||^2 <= eps.
        limits: l_i, the longest time of a trial of each worker in seconds, shape (workers,). For heavy-tailed
            times, the median of the worker's times is a good choice.
        chances: p_i = P(time <= l_i), above 0 and at most 1, shape (workers,).
        gap: Delta = F(w_0) - F* at the start; without it K is None.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range, which the error names, or noise that grows with the gradient.

    References:
        Maranjyan, Shaikh Omar, Richtarik, MindFlayer SGD, UAI 2025, https://arxiv.org/abs/2410.04285.

    Example:
        >>> from stalegrad.analysis import mindflayer_parameters
        >>> found = mindflayer_parameters((2.0, 0.5), epsilon=0.1, limits=[1.0, 2.0], chances=[0.5, 0.5])
        >>> found.trials, found.expected, found.seconds
        ((7, 3), 5.0, 8.0)
    """
    smoothness, noise = target(constants, epsilon, gap, batch_size)
    lengths, odds = np.asarray(limits, float), np.asarray(chances, float)
    if lengths.ndim != 1 or not lengths.size or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError(f"limits = {limits!r} is not allowed: finite seconds above 0, one per worker")
    if odds.shape != lengths.shape or not ((odds > 0) & (odds <= 1)).all():
        raise ValueError(f"chances = {chances!r} is not allowed: one above 0 and at most 1 for each of the limits")
    batch = max(1, ceil_of(noise / epsilon))
    order = np.argsort(lengths, kind="stable")
    sums = np.cumsum(odds[order]), np.cumsum(odds[order] / lengths[order])
    seconds = float(np.min((batch + sums[0]) / sums[1]))
    trials = tuple(max(ceil_of(seconds / length) - 1, 0) for length in lengths)
    expected = float(np.dot(odds, trials))
    rate = min(1.0, ratio_of(epsilon * expected, noise)) / (2 * smoothness)
    updates = None
    if gap is not None:
        updates = ceil_of(max(1.0, noise / (epsilon * expected)) * 8 * smoothness * gap / epsilon)
    return MindFlayerParameters(rate, updates, trials, expected, seconds)
