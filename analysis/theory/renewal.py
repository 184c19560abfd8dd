"""Numbers of mini-batches that workers finish by a time: renewal counts on a grid of times.

N(t) is the number of mini-batches of a worker that starts one whenever it has finished one; for several workers it
is the sum. It gives the time of a round of K-batch-sync, which ends with the k-th mini-batch of all workers, and
the probability that a gradient of K-batch-async is fresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from stalegrad.analysis.theory.order_statistics import survival
from stalegrad.simulator.timing.delays import Delay

Floats = npt.NDArray[np.float64]

POINTS = 512
"""Number of points of the first grid, which is refined until the result converges."""

REFINEMENTS = 7
ACCURACY = 1e-4
"""Relative change below which a result has converged, after extrapolation to an infinitely fine grid."""

SHORTEST, NEGLIGIBLE = 2.0**-10, 1e-9
"""Length of the first grid, relative to the expected time, and share of the result beyond the grid below which the
length is no longer doubled."""


def batch_order_statistic(delays: Sequence[Delay], k: int) -> float:
    """Return the expected seconds until ``k`` mini-batches are finished, if workers compute without pauses.

    It is the integral of P(N_1(t) + ... + N_P(t) <= k - 1), where all workers start at 0.

    Args:
        delays: delays of the time of a mini-batch, one per worker; continuous.
        k: number of mini-batches, at least 1; it may exceed the number of workers.

    Raises:
        ValueError: for a delay whose survival function is not known.
        ArithmeticError: if the result does not converge.
    """
    groups = Counter(delays)
    rate = sum(number / delay.expectation() for delay, number in groups.items())

    def time(t: Floats) -> tuple[float, float]:
        few = _sum_of_counts([(_counts(survival(delay, t), k), number) for delay, number in groups.items()], k)
        late = few.sum(axis=0)
        value = float(np.trapezoid(late, t))
        return value, float(late[-1]) * t[-1] / value

    return _refined(time, 2 * (k + 1) / rate)


def fresh_share(delay: Delay, k: int, workers: int) -> float:
    """Return the share of fresh gradients of K-batch-async in the long run.

    While a gradient is computed, the P - 1 other workers, each at a random moment of its job, send N gradients.
    The gradient is fresh if no update was made meanwhile: if it is the l-th of its group (all l = 1..k are equally
    likely) and N <= l - 1. For exponential times N is geometric.

    Args:
        delay: delay of the time of a mini-batch, the same for all workers; continuous.
        k: number of gradients per update.
        workers: number of workers P.

    Raises:
        ValueError: for a delay whose survival function is not known.
        ArithmeticError: if the result does not converge.
    """
    mean = delay.expectation()

    def share(t: Floats) -> tuple[float, float]:
        late = survival(delay, t)
        remaining = np.maximum(1 - np.concatenate([[0.0], np.cumsum((late[1:] + late[:-1]) / 2)]) * t[1] / mean, 0)
        few = _sum_of_counts([(_counts(late, k, remaining), workers - 1)], k)
        fresh = (few * (1 - np.arange(k) / k)[:, None]).sum(axis=0)
        value = float((-np.diff(late) * (fresh[1:] + fresh[:-1]) / 2).sum())
        return value, float(fresh[-1] * late[-1]) / max(value, NEGLIGIBLE)

    return _refined(share, 8 * mean)


def _counts(late: Floats, most: int, first: Floats | None = None) -> Floats:
    """Return P(N(t) = n) for n < ``most`` on the grid, (most, points).

    Args:
        late: survival function of every interval.
        most: number of counts, from 0 to most - 1.
        first: survival function of the first interval, if it has its own delay.
    """
    first = late if first is None else first
    counts = np.zeros((most, len(late)))
    counts[0] = first
    shape = 2 * len(late)
    ends, first_ends = (fft.rfft(-np.diff(sf), shape) for sf in (late, first))
    for n in range(1, most):
        # The end of the first interval (n = 1) or of one more interval, convolved with the counts without it.
        before = late if n == 1 else counts[n - 1]
        middle = fft.rfft((before[1:] + before[:-1]) / 2, shape)
        counts[n, 1:] = fft.irfft((first_ends if n == 1 else ends) * middle, shape)[: len(late) - 1]
    return np.maximum(counts, 0.0)


def _sum_of_counts(groups: Sequence[tuple[Floats, int]], most: int) -> Floats:
    """Return P(N_1 + ... + N_P = n) for n < ``most``, given independent counts as (counts, number of workers)."""
    total = np.zeros_like(groups[0][0])
    total[0] = 1.0
    for power, workers in groups:
        while workers:
            if workers % 2:
                total = _convolved(total, power, most)
            workers //= 2
            if workers:
                power = _convolved(power, power, most)
    return total


def _convolved(a: Floats, b: Floats, most: int) -> Floats:
    return np.asarray(signal.fftconvolve(a, b, axes=0)[:most]) if most > 1 else a * b


def _refined(measure: Callable[[Floats], tuple[float, float]], horizon: float) -> float:
    """Return the limit of ``measure(grid)`` as the grid becomes finer.

    ``measure`` also returns the share of its value that may lie beyond the grid. Its error decreases as a power of
    the step: the square, or less for delays whose density is infinite at 0.
    """
    horizon *= SHORTEST
    while measure(np.linspace(0.0, horizon, POINTS + 1))[1] > NEGLIGIBLE:
        horizon *= 2
    values, before = list[float](), np.nan
    for refinement in range(REFINEMENTS + 1):
        values.append(measure(np.linspace(0.0, horizon, POINTS * 2**refinement + 1))[0])
        limit = _extrapolated(values)
        if abs(limit - before) <= ACCURACY * abs(limit) + 1e-12:
            return limit
        before = limit
    raise ArithmeticError(f"the grid of times does not settle: values from coarse to fine {values}")


def _extrapolated(values: Sequence[float]) -> float:
    """Return the limit of a sequence from its last three values, if its steps shrink geometrically (Aitken)."""
    if len(values) < 3:
        return np.nan
    first, second = np.diff(values[-3:])
    return float(values[-1] if first == second else values[-1] - second**2 / (second - first))
