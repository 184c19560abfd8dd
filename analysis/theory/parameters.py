"""Parameters of methods from constants of a problem: thresholds, batches, learning rates and updates, by theorems.

All theorems hold for a smooth F that need not be convex, with E||g - ∇F||^2 <= sigma^2 for every gradient g. The
target is E||∇F||^2 <= epsilon, on average over updates. The parameters are sufficient, not optimal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad._core.types import Floats
from stalegrad.analysis.theory.checks import ConstantsLike, check_number, check_whole, smoothness_and_noise


class Parameters(NamedTuple):
    """Parameters with which a method reaches E||∇F||^2 <= epsilon, on average over updates.

    Thresholds, batches and updates are rounded up, except for the rounding error of quotients (relative 1e-12).

    Attributes:
        learning_rate: gamma, the learning rate of an update.
        updates: K, the number of updates that suffices for the target; None without a gap and for Ringleader.
        threshold: R of Ringmaster: gradients of at least this staleness are ignored; None for other methods.
        batch: S of Rennala and Malenia, the number of gradients of an update; None for other methods.
    """

    learning_rate: float
    updates: int | None
    threshold: int | None = None
    batch: int | None = None


class BirchParameters(NamedTuple):
    """Step and number of gradients with which a method of some tree distance reaches E||∇F||^2 <= epsilon.

    The target is that on average over gradients.

    Attributes:
        step: gamma, the step per gradient. The learning rate of an update by the mean of m messages is m gamma,
            and that of local steps is gamma.
        gradients: K, the number of used gradients that suffices for the target; None without a gap.
    """

    step: float
    gradients: int | None


def ringmaster_parameters(
    constants: ConstantsLike, epsilon: float, gap: float | None = None, *, batch_size: int = 1
) -> Parameters:
    """Return threshold, learning rate and updates of Ringmaster ASGD:

        R = max(1, ceil(sigma^2 / eps)),  gamma = min(1 / (2 R L), eps / (4 L sigma^2)),
        K = 8 R L Delta / eps + 16 sigma^2 L Delta / eps^2

    Args:
        constants: constants L and sigma^2 of the problem: measured ones, or the pair of numbers.
        epsilon: target, E||∇F||^2 <= eps.
        gap: Delta = F(w_0) - F* at the start; without it K is None.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range, which the error names, or noise that grows with the gradient.

    References:
        Maranjyan, Tyurin, Richtarik, Ringmaster ASGD, ICML 2025, https://arxiv.org/abs/2501.16168.

    Example:
        >>> from stalegrad.analysis import ringmaster_parameters
        >>> ringmaster_parameters((2.0, 0.5), epsilon=0.1, gap=3.0)
        Parameters(learning_rate=0.025, updates=7200, threshold=5, batch=None)
    """
    smoothness, noise = target(constants, epsilon, gap, batch_size)
    threshold = max(1, ceil_of(noise / epsilon))
    rate = min(1 / (2 * threshold * smoothness), ratio_of(epsilon, 4 * smoothness * noise))
    updates = None if gap is None else ceil_of(smoothness * gap / epsilon * (8 * threshold + 16 * noise / epsilon))
    return Parameters(rate, updates, threshold=threshold)


def rennala_parameters(
    constants: ConstantsLike, epsilon: float, gap: float | None = None, *, batch_size: int = 1
) -> Parameters:
    """Return batch, learning rate and updates of Rennala SGD, which is k-batch-sync with k = S:

        S = max(1, ceil(sigma^2 / eps)),  gamma = min(1 / L, eps S / (2 L sigma^2)),
        K = 4 L Delta / eps + 8 sigma^2 L Delta / (eps^2 S)

    Arguments and errors as for :func:`ringmaster_parameters`.

    References:
        Tyurin, Richtarik, Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
        Computation Model, NeurIPS 2023, https://arxiv.org/abs/2305.12387.

    Example:
        >>> from stalegrad.analysis import rennala_parameters
        >>> rennala_parameters((2.0, 0.5), epsilon=0.1, gap=3.0)
        Parameters(learning_rate=0.25, updates=720, threshold=None, batch=5)
    """
    return _mean_of_batch(constants, epsilon, gap, batch_size, least=1)


def malenia_parameters(
    constants: ConstantsLike, epsilon: float, workers: int, gap: float | None = None, *, batch_size: int = 1
) -> Parameters:
    """Return batch, learning rate and updates of Malenia SGD, for workers with different data:

        S = max(n, ceil(sigma^2 / eps)),  gamma = min(1 / L, eps S / (2 L sigma^2))

    K is that of Rennala with this S, because the variance of Malenia's direction is also at most sigma^2 / S.

    Args:
        constants: constants as for :func:`ringmaster_parameters`; sigma^2 holds for the data of every worker.
        epsilon: target, E||∇F||^2 <= eps.
        workers: number of workers n.
        gap: Delta = F(w_0) - F* at the start; without it K is None.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range, which the error names, or noise that grows with the gradient.

    References:
        Tyurin, Richtarik, Optimal Time Complexities, NeurIPS 2023, https://arxiv.org/abs/2305.12387.

    Example:
        >>> from stalegrad.analysis import malenia_parameters
        >>> malenia_parameters((2.0, 0.5), epsilon=0.1, workers=8, gap=3.0)
        Parameters(learning_rate=0.4, updates=540, threshold=None, batch=8)
    """
    check_whole("workers", workers)
    return _mean_of_batch(constants, epsilon, gap, batch_size, least=workers)


def ringleader_parameters(
    constants: ConstantsLike, epsilon: float, workers: int, rows: float = 1.0, *, batch_size: int = 1
) -> Parameters:
    """Return the learning rate of Ringleader ASGD, for workers with different data:

        gamma = min(1 / (8 n L), eps B / (10 L sigma^2))

    Args:
        constants: constants as for :func:`ringmaster_parameters`; L and sigma^2 hold for the data of every worker.
        epsilon: target, E||∇F||^2 <= eps.
        workers: number of workers n.
        rows: B, the minimum over updates of the harmonic mean of the numbers of gradients in the rows of the
            table. 1 is always valid; :func:`~stalegrad.analysis.ringleader_rows` returns a larger value for fixed
            times.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range, which the error names, or noise that grows with the gradient.

    References:
        Maranjyan, Richtarik, Ringleader ASGD, ICLR 2026, https://arxiv.org/abs/2509.22860.

    Example:
        >>> from stalegrad.analysis import ringleader_parameters
        >>> ringleader_parameters((2.0, 0.5), epsilon=0.1, workers=8).learning_rate
        0.0078125
    """
    smoothness, noise = target(constants, epsilon, None, batch_size)
    check_whole("workers", workers)
    check_number("rows", rows, low=1.0)
    rate = min(1 / (8 * workers * smoothness), ratio_of(epsilon * rows, 10 * smoothness * noise))
    return Parameters(rate, None)


def birch_parameters(
    distance: int, constants: ConstantsLike, epsilon: float, gap: float | None = None, *, batch_size: int = 1
) -> BirchParameters:
    """Return the step per gradient and the number of gradients for a tree distance R:

        gamma = min(1 / (2 L), 1 / (2 R L), eps / (4 sigma^2 L)),
        K = 4 (R + 1) L Delta / eps + 8 sigma^2 L Delta / eps^2

    It holds for plain SGD with any synchrony if all workers draw from the same data: every used gradient is
    applied once, with weight gamma. For Ringmaster, whose R is its threshold - 1, K is half of the K of its own
    theorem.

    Args:
        distance: tree distance R, see :func:`~stalegrad.analysis.tree_distance`.
        constants: constants L and sigma^2 of the problem: measured ones, or the pair of numbers.
        epsilon: target, E||∇F||^2 <= eps, on average over used gradients.
        gap: Delta = F(w_0) - F* at the start; without it K is None.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range, which the error names, or noise that grows with the gradient.

    References:
        Tyurin, Sivtsov, Birch SGD: A Tree Graph Framework for Local and Asynchronous SGD Methods, ICLR 2026,
        Theorem 2.4, https://arxiv.org/abs/2505.09218.

    Example:
        >>> from stalegrad.analysis import birch_parameters
        >>> birch_parameters(7, (2.0, 0.5), epsilon=0.1, gap=3.0)
        BirchParameters(step=0.025, gradients=4320)
    """
    smoothness, noise = target(constants, epsilon, gap, batch_size)
    check_whole("distance", distance, low=0)
    step = min(1 / (2 * max(distance, 1) * smoothness), ratio_of(epsilon, 4 * noise * smoothness))
    known = (
        None if gap is None else ceil_of(smoothness * gap / epsilon * (4 * (distance + 1) + 8 * noise / epsilon))
    )
    return BirchParameters(step, known)


def async_learning_rate(constants: ConstantsLike, concurrency: int, max_staleness: int) -> float:
    """Return a constant learning rate at which asynchronous SGD is stable: 1 / (2 L sqrt(tau_C tau_max)).

    It does not depend on the noise, which may require a smaller one; see :func:`birch_parameters`.

    Args:
        constants: constants of the problem, of which L is used: measured ones, or the pair (L, sigma^2).
        concurrency: tau_C, the number of workers that compute at the same time.
        max_staleness: tau_max, in updates; 0 counts as 1.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Koloskova, Stich, Jaggi, Sharper Convergence Guarantees for Asynchronous SGD for Distributed and Federated
        Learning, NeurIPS 2022, https://arxiv.org/abs/2206.08307.

    Example:
        >>> from stalegrad.analysis import async_learning_rate
        >>> async_learning_rate((2.0, 0.5), concurrency=4, max_staleness=25)
        0.025
    """
    smoothness, _ = smoothness_and_noise(constants, 1)
    check_whole("concurrency", concurrency)
    check_whole("max_staleness", max_staleness, low=0)
    return 1 / (2 * smoothness * math.sqrt(concurrency * max(max_staleness, 1)))


def delay_adaptive_learning_rates(constants: ConstantsLike, concurrency: int, staleness: npt.ArrayLike) -> Floats:
    """Return the largest learning rate, per staleness, of delay-adaptive asynchronous SGD:

        1 / (4 L) up to staleness tau_C, 1 / (4 L staleness) beyond it

    Beyond tau_C any smaller learning rate is allowed, including 0. The staleness need not be bounded. The learning
    rate does not depend on the noise, which may require a smaller one.

    Args:
        constants: constants of the problem, of which L is used: measured ones, or the pair (L, sigma^2).
        concurrency: tau_C, the number of workers that compute at the same time.
        staleness: a number or an array, in updates.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Koloskova, Stich, Jaggi, Sharper Convergence Guarantees for Asynchronous SGD, NeurIPS 2022, Theorem 8,
        https://arxiv.org/abs/2206.08307.

    Example:
        >>> from stalegrad.analysis import delay_adaptive_learning_rates
        >>> delay_adaptive_learning_rates((2.0, 0.5), concurrency=4, staleness=[0, 4, 5, 50])
        array([0.125 , 0.125 , 0.025 , 0.0025])
    """
    smoothness, _ = smoothness_and_noise(constants, 1)
    check_whole("concurrency", concurrency)
    tau = np.asarray(staleness, float)
    if not (tau >= 0).all():
        raise ValueError(f"staleness = {staleness!r:.200} is not allowed: numbers of at least 0")
    return np.asarray(1 / (4 * smoothness * np.where(tau > concurrency, tau, 1.0)))


def _mean_of_batch(
    constants: ConstantsLike, epsilon: float, gap: float | None, batch_size: int, *, least: int
) -> Parameters:
    """Return the parameters of methods whose direction is unbiased, fresh and of variance at most sigma^2 / S."""
    smoothness, noise = target(constants, epsilon, gap, batch_size)
    batch = max(least, ceil_of(noise / epsilon))
    rate = min(1 / smoothness, ratio_of(epsilon * batch, 2 * smoothness * noise))
    updates = None if gap is None else ceil_of(smoothness * gap / epsilon * (4 + 8 * noise / (epsilon * batch)))
    return Parameters(rate, updates, batch=batch)


def target(constants: ConstantsLike, epsilon: float, gap: float | None, batch_size: int) -> tuple[float, float]:
    """Check epsilon and the gap, and return L and sigma^2."""
    check_number("epsilon", epsilon, above=True)
    if gap is not None:
        check_number("gap", gap)
    return smoothness_and_noise(constants, batch_size)


def ratio_of(numerator: float, denominator: float) -> float:
    """Return a quotient; it is infinite for a denominator of 0."""
    return numerator / denominator if denominator else math.inf


def ceil_of(value: float) -> int:
    """Return a number rounded up, except for the rounding error of quotients: 2.1 / 0.3 is above 7."""
    if not math.isfinite(value):
        raise ValueError("epsilon is too small for these constants: a number of gradients is infinite")
    return math.ceil(value * (1 - 1e-12))
