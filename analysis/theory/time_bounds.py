"""Time bounds: upper bounds in seconds, if the time of a gradient is bounded for every worker.

Worker i computes a gradient in at most tau_i seconds, tau_1 <= ... <= tau_n; messages and the server take no time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad._core.types import Floats
from stalegrad.analysis.theory.checks import ConstantsLike, check_number, check_whole, smoothness_and_noise


class TimeBound(NamedTuple):
    """A bound in simulated seconds, a minimum over the m fastest workers.

    Attributes:
        seconds: the bound.
        workers: m*, the m with the minimum; the smallest one if there are several.
    """

    seconds: float
    workers: int


def rennala_time(batch: int, times: npt.ArrayLike) -> TimeBound:
    """Return t'(S), an upper bound on the seconds of an iteration of Rennala SGD:

        t'(S) = min over m of (S + m) / sum_{i<=m} 1 / tau_i

    It holds for k-batch-sync with k = S, if every job in progress is cancelled at an update.

    Args:
        batch: S, the number of gradients of an update.
        times: tau, the largest seconds of a gradient of each worker, in any order.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Tyurin, Richtarik, Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
        Computation Model, NeurIPS 2023, https://arxiv.org/abs/2305.12387.

    Example:
        >>> from stalegrad.analysis import rennala_time
        >>> bound = rennala_time(16, times=range(1, 17))
        >>> f"{bound.seconds:.4f} s, attained by {bound.workers} workers"
        '8.8305 s, attained by 8 workers'
    """
    check_whole("batch", batch)
    rates, count = _rates(times)
    return _least((batch + count) / rates)


def ringmaster_time(threshold: int, times: npt.ArrayLike) -> TimeBound:
    """Return t(R), an upper bound on the seconds of any R consecutive updates of Ringmaster ASGD:

        t(R) = 2 min over m of ((1 / m) sum_{i<=m} 1 / tau_i)^-1 (1 + R / m)

    It holds with and without stops of workers. Naive optimal ASGD runs the m* fastest workers only.

    Args:
        threshold: R, the staleness at which a gradient is ignored.
        times: tau, the largest seconds of a gradient of each worker, in any order.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Maranjyan, Tyurin, Richtarik, Ringmaster ASGD, ICML 2025, https://arxiv.org/abs/2501.16168.

    Example:
        >>> from stalegrad.analysis import ringmaster_time
        >>> bound = ringmaster_time(16, times=range(1, 17))
        >>> f"{bound.seconds:.4f} s, attained by {bound.workers} workers"
        '17.6610 s, attained by 8 workers'
    """
    check_whole("threshold", threshold)
    rates, count = _rates(times)
    return _least(2 * (count / rates) * (1 + threshold / count))


def ringleader_round_time(times: npt.ArrayLike) -> float:
    """Return 2 tau_n, an upper bound on the seconds of a round (n updates) of Ringleader ASGD.

    It holds for rounds; other windows of n consecutive updates may take longer.

    Args:
        times: tau, the largest seconds of a gradient of each worker, in any order.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Maranjyan, Richtarik, Ringleader ASGD, ICLR 2026, https://arxiv.org/abs/2509.22860.

    Example:
        >>> from stalegrad.analysis import ringleader_round_time
        >>> ringleader_round_time([1.0, 4.0, 2.5])
        8.0
    """
    return 2 * float(_sorted(times)[-1])


def ringleader_rows(times: npt.ArrayLike) -> float:
    """Return a lower bound of B, the harmonic mean of the gradients in the rows of Ringleader's table:

        B >= max(1, tau_n / (2 mean of tau))

    It holds if worker i takes exactly tau_i seconds for every gradient. It is the argument ``rows`` of
    ``ringleader_parameters``.

    Args:
        times: tau, the seconds of a gradient of each worker, in any order.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Maranjyan, Richtarik, Ringleader ASGD, ICLR 2026, https://arxiv.org/abs/2509.22860.

    Example:
        >>> from stalegrad.analysis import ringleader_rows
        >>> ringleader_rows([1.0, 1.0, 1.0, 13.0])
        1.625
    """
    tau = _sorted(times)
    return max(1.0, float(tau[-1] / (2 * tau.mean())))


def optimal_time_homogeneous(
    times: npt.ArrayLike, constants: ConstantsLike, epsilon: float, gap: float, *, batch_size: int = 1
) -> TimeBound:
    """Return the least seconds of any method if all workers draw from the same data, up to a constant factor:

        T* = min over m of ((1 / m) sum_{i<=m} 1 / tau_i)^-1 (L Delta / eps + sigma^2 L Delta / (m eps^2))

    Rennala and Ringmaster attain it, up to a constant factor.

    Args:
        times: tau, the largest seconds of a gradient of each worker, in any order.
        constants: constants L and sigma^2 of the problem: measured ones, or the pair of numbers.
        epsilon: target, E||∇F||^2 <= eps.
        gap: Delta = F(w_0) - F* at the start.
        batch_size: number of examples of a gradient; the noise of the constants is that of one example.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Tyurin, Richtarik, Optimal Time Complexities, NeurIPS 2023, https://arxiv.org/abs/2305.12387.

    Example:
        >>> from stalegrad.analysis import optimal_time_homogeneous
        >>> bound = optimal_time_homogeneous([1.0, 1.0, 100.0], (2.0, 0.5), epsilon=0.1, gap=3.0)
        >>> f"{bound.seconds:.1f} s with {bound.workers} workers"
        '210.0 s with 2 workers'
    """
    descent, noise = _iterations(constants, epsilon, gap, batch_size)
    rates, count = _rates(times)
    return _least(count / rates * (descent + noise / count))


def optimal_time_heterogeneous(
    times: npt.ArrayLike, constants: ConstantsLike, epsilon: float, gap: float, *, batch_size: int = 1
) -> float:
    """Return the least seconds of any method if workers have different data, up to a constant factor:

        T* = tau_n L Delta / eps + (mean of tau) sigma^2 L Delta / (n eps^2)

    Malenia attains it, up to a constant factor.

    Arguments and errors as for :func:`optimal_time_homogeneous`; sigma^2 and L hold for the data of every worker.

    References:
        Tyurin, Richtarik, Optimal Time Complexities, NeurIPS 2023, https://arxiv.org/abs/2305.12387.

    Example:
        >>> from stalegrad.analysis import optimal_time_heterogeneous
        >>> optimal_time_heterogeneous([1.0, 1.0, 100.0], (2.0, 0.5), epsilon=0.1, gap=3.0)
        9400.0
    """
    descent, noise = _iterations(constants, epsilon, gap, batch_size)
    tau = _sorted(times)
    return float(tau[-1] * descent + tau.mean() * noise / len(tau))


def _iterations(constants: ConstantsLike, epsilon: float, gap: float, batch_size: int) -> tuple[float, float]:
    """Return L Delta / eps and sigma^2 L Delta / eps^2."""
    smoothness, noise = smoothness_and_noise(constants, batch_size)
    check_number("epsilon", epsilon, above=True)
    check_number("gap", gap)
    return smoothness * gap / epsilon, noise * smoothness * gap / epsilon**2


def _least(seconds: Floats) -> TimeBound:
    best = int(np.argmin(seconds))
    return TimeBound(float(seconds[best]), best + 1)


def _rates(times: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return, for every m, the sum of 1 / tau_i over the m fastest workers, and m."""
    tau = _sorted(times)
    return np.cumsum(1 / tau), np.arange(1.0, len(tau) + 1)


def _sorted(times: npt.ArrayLike) -> Floats:
    tau = np.asarray(times, float)
    if tau.ndim != 1 or not tau.size or not (np.isfinite(tau) & (tau > 0)).all():
        raise ValueError(f"times = {times!r:.200} is not allowed: give finite seconds above 0, one per worker")
    return np.sort(tau)
