"""Families of delays: maximum-likelihood fits, distances, tails, and ageing of jobs."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from scipy.special import expit, kolmogorov, logsumexp

from stalegrad.simulator.timing.delays import (
    Delay,
    Deterministic,
    Erlang,
    Exponential,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Uniform,
    Weibull,
)

Floats = npt.NDArray[np.float64]

CONSTANT = 1e-9
"""Range of times, relative to their mean, below which they count as constant."""

NEWER_LONGER, NEWER_SHORTER, MEMORYLESS, NEITHER = (
    "new-longer-than-used",
    "new-shorter-than-used",
    "memoryless",
    "neither",
)

CERTAIN = 3.5
"""Number of standard errors above which a difference of survival functions counts. By chance it is exceeded in 1
to 4 % of samples of 43 to 10,000 exponential times."""

EXPECTED = 5
"""Least expected number of times beyond u + t for a pair (u, t) to be compared."""

GROUPS = 5_000
"""Largest number of values in a search for a maximum, where each value is the mean of neighbouring times in sorted
order; also the largest number of points at which the Kolmogorov-Smirnov distance is evaluated."""

EXACT = 1_000
"""Largest number of times for which p-values of the Kolmogorov-Smirnov distance are exact."""

TAIL = 5
"""Least number of largest times for Hill's estimate."""


def fit_families(times: Floats) -> list[Delay]:
    """Return every delay with the parameters of maximum likelihood, given positive times.

    An Erlang delay is found as the gamma delay with cv = 1/sqrt(shape). The hyper-exponential delay (two branches)
    is fitted only to times with a coefficient of variation above 1, because its own is at least 1. For constant
    times only the deterministic delay is returned.
    """
    mean, logs = float(times.mean()), np.log(times)
    low, high = float(times.min()), float(times.max())
    if high - low <= CONSTANT * mean:
        return [Deterministic(mean)]
    few = _grouped(times)[0]
    delays: list[Delay] = [
        Exponential(mean),
        ShiftedExponential(low, mean - low),
        Pareto(float(1 / (logs - logs.min()).mean()), low),
        Gamma(mean, float(stats.gamma.fit(few, floc=0)[0] ** -0.5)),
        LogNormal(math.exp(logs.mean()), float(logs.std())),
        _weibull(few / few.max(), float(few.max())),
        Uniform(low, high),
    ]
    return [*delays, _hyper_exponential(times)] if times.std() > mean else delays


def _weibull(relative: Floats, scale: float) -> Delay:
    logs = np.log(relative)

    def slope(log_shape: float) -> float:
        """Return the derivative of the profile likelihood with respect to the shape."""
        powers = relative ** np.exp(log_shape)
        return float(np.exp(-log_shape) + logs.mean() - (powers @ logs) / powers.sum())

    shape = math.exp(optimize.brentq(slope, math.log(1e-3), math.log(1e12)))
    return Weibull(shape, float(scale * (relative**shape).mean() ** (1 / shape)))


def _hyper_exponential(times: Floats) -> Delay:
    means, sizes = _grouped(times)

    def decode(x: Floats) -> HyperExponential:
        weight = float(expit(np.clip(x[0], -15, 15)))
        return HyperExponential((weight, 1 - weight), tuple(float(m) for m in times.mean() * np.exp(x[1:])))

    start = np.array([0.0, -0.7, 0.4])
    simplex = start + 0.5 * np.vstack([np.zeros(3), np.eye(3)])
    options: Any = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-10, "maxiter": 1000}

    def loss(x: Floats) -> float:
        return -float(np.average(log_density(decode(x), means), weights=sizes))

    return decode(optimize.minimize(loss, start, method="Nelder-Mead", options=options).x)


def _grouped(times: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the times, or means of neighbours if there are many, and the number of times behind each value."""
    if len(times) <= GROUPS:
        return times, np.ones(len(times), np.int64)
    cuts = np.linspace(0, len(times), GROUPS + 1, dtype=int)
    return np.add.reduceat(np.sort(times), cuts[:-1]) / np.diff(cuts), np.diff(cuts)


def ks_distance(delay: Delay, times: Floats) -> float:
    """Return the largest distance of a delay's distribution function from that of measured times."""
    n = len(times)
    ranks = np.arange(n) if n <= GROUPS else np.linspace(0, n - 1, GROUPS, dtype=int)
    survival = delay.sf if isinstance(delay, HyperExponential) else _law(delay).sf
    below = 1.0 - np.asarray(survival(np.sort(times)[ranks]), float)
    return float(max(np.max((ranks + 1) / n - below), np.max(below - ranks / n)))


def log_density(delay: Delay, times: Floats) -> Floats:
    """Return the logarithm of the delay's density at these times; inf for the deterministic delay at its value."""
    if isinstance(delay, Deterministic):
        return np.where(np.isclose(times, delay.value, rtol=CONSTANT), np.inf, -np.inf)
    if isinstance(delay, HyperExponential):
        means = np.asarray(delay.means)
        return np.asarray(logsumexp(np.log(delay.weights) - np.log(means) - times[:, None] / means, axis=1))
    return np.asarray(_law(delay).logpdf(times))


@functools.lru_cache(maxsize=16)
def _law(delay: Delay) -> Any:
    """Return the SciPy distribution of a delay, cached: making one takes as long as thousands of evaluations."""
    return delay.distribution()


def ks_p_value(distance: float, count: int) -> float:
    """Return the probability that ``count`` times of a known delay have a larger Kolmogorov-Smirnov distance.

    Above 1,000 times it is computed from the limiting distribution with Stephens' correction, which agrees with
    the exact one within 5 % for probabilities of at least 1e-8.
    """
    if count <= EXACT:
        return float(stats.kstwo.sf(distance, count))
    root = math.sqrt(count)
    return float(kolmogorov(distance * (root + 0.12 + 0.11 / root)))


def parameters(delay: Delay) -> int:
    """Return the number of fitted parameters of a delay."""
    if isinstance(delay, HyperExponential):
        return 2 * len(delay.means) - 1
    return 1 if isinstance(delay, Deterministic | Exponential) else 2


def delay_ageing(delay: Delay) -> str:
    """Return how the time of a new job compares with the remaining time of a job that has already run for a while.

    ``new-longer-than-used``: P(X > u + t) <= P(X > u) P(X > t) for all u and t; ``new-shorter-than-used``: >= for
    all u and t; ``memoryless``: = for all u and t; ``neither``: none of these, as for all delays with a least time
    and a power tail.

    Reference: Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, Definition 1.
    """
    if isinstance(delay, Gamma | Weibull):
        spread = delay.cv if isinstance(delay, Gamma) else 1 / delay.shape
        return MEMORYLESS if spread == 1 else NEWER_LONGER if spread < 1 else NEWER_SHORTER
    if isinstance(delay, HyperExponential):
        return MEMORYLESS if len(set(delay.means)) == 1 else NEWER_SHORTER
    if isinstance(delay, Exponential):
        return MEMORYLESS
    longer = isinstance(delay, Deterministic | ShiftedExponential | Erlang | Uniform)
    return NEWER_LONGER if longer else NEITHER


def observed_ageing(times: Floats) -> str:
    """Return the ageing of measured times: how P(X > u + t) differs from P(X > u) P(X > t), beyond chance.

    All pairs (u, t) of deciles are compared for which enough times are expected beyond u + t. ``memoryless`` means
    that no difference is significant.
    """
    ordered = np.sort(times)
    points = np.quantile(ordered, np.arange(1, 10) / 10)
    u, t = points[np.array(np.triu_indices(len(points)))]

    def survival(at: Floats) -> Floats:
        return 1.0 - np.searchsorted(ordered, at, side="left") / len(ordered)

    both, first, second = survival(u + t), survival(u), survival(t)  # u <= t
    chance = first * second * (1 - first) * (1 + second)  # variance times n, if the two are equal
    excess = (both - first * second) / np.sqrt(np.maximum(chance, 1e-12) / len(ordered))
    excess = excess[first * second * len(ordered) >= EXPECTED]
    longer, shorter = bool((excess < -CERTAIN).any()), bool((excess > CERTAIN).any())
    if longer and shorter:
        return NEITHER
    return NEWER_LONGER if longer else NEWER_SHORTER if shorter else MEMORYLESS


def tail_index(times: Floats) -> float:
    """Return Hill's estimate of alpha in P(X > t) ~ t^-alpha, from the sqrt(n) largest times; NaN below 25 times.

    A small value (for example below 3) indicates a heavy tail; light tails give large values that grow with n.

    Reference: Hill, A Simple General Approach to Inference About the Tail of a Distribution, 1975.
    """
    top = math.isqrt(len(times))
    if top < TAIL:
        return math.nan
    largest = np.log(np.sort(times)[-top - 1 :])
    above = float((largest[1:] - largest[0]).mean())
    return 1 / above if above > 0 else math.inf
