"""The expected k-th smallest of independent times, by closed forms if known, and by quadrature otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from stalegrad.simulator.timing.delays import (
    Delay,
    Deterministic,
    Empirical,
    Exponential,
    Pareto,
    Scipy,
    ShiftedExponential,
    Uniform,
)

Floats = npt.NDArray[np.float64]

LEVELS = np.concatenate(
    [
        1 - np.geomspace(1e-15, 1e-2, 14),
        np.linspace(0.95, 0.05, 19),
        np.geomspace(1e-2, 1e-16, 15),
        np.geomspace(1e-20, 1e-300, 71),
    ]
)
"""Survival probabilities; the quadrature is split at their times."""

NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)
ACCURACY = 1e-10
"""Relative change of the result below which the pieces are no longer halved."""

HALVINGS = 10


def closed_form(delay: Delay, k: int, workers: int) -> float | None:
    """Return the expected ``k``-th smallest of ``workers`` draws of one delay, or None if no closed form is known.

    Exponential: (H_P - H_{P-k}) scale, plus the shift if there is one. Pareto: scale Γ(P+1) Γ(P-k+1-1/a) /
    (Γ(P-k+1) Γ(P+1-1/a)). Uniform: low + (high - low) k/(P+1).
    """
    match delay:
        case Deterministic():
            return delay.value
        case Exponential():
            return delay.scale * harmonic(workers, k)
        case ShiftedExponential():
            return delay.shift + delay.scale * harmonic(workers, k)
        case Uniform():
            return delay.low + (delay.high - delay.low) * k / (workers + 1)
        case Pareto():
            late, inverse = workers - k + 1, 1 / delay.shape
            logs = special.gammaln([workers + 1, late - inverse, late, workers + 1 - inverse])
            return float(delay.scale * math.exp(logs[0] + logs[1] - logs[2] - logs[3]))
    return None


def harmonic(workers: int, k: int) -> float:
    """Return H_P - H_{P-k} = 1/(P-k+1) + ... + 1/P."""
    return float(special.digamma(workers + 1) - special.digamma(workers - k + 1))


def order_statistic(delays: Sequence[Delay], k: int) -> float:
    """Return the expected ``k``-th smallest of one draw of every delay, in seconds, by quadrature.

    It is the integral of P(at most k - 1 have finished by t). The pieces of the quadrature lie between quantiles
    of the delays, so that kinks and jumps are at their ends; they are halved until the result converges.

    Raises:
        ValueError: for a delay whose survival function is not known, or a SciPy delay of whole numbers.
        ArithmeticError: if the quadrature does not converge.
    """
    kinds = list(dict.fromkeys(delays))
    edges = np.unique(np.concatenate([[0.0], *map(split_points, kinds)]))

    if len(kinds) == 1:
        return _integral(lambda t: special.bdtrc(len(delays) - k, len(delays), survival(kinds[0], t)), edges)
    return _integral(lambda t: _at_most(k - 1, delays, {delay: survival(delay, t) for delay in kinds}), edges)


def survival(delay: Delay, t: Floats) -> Floats:
    """Return P(X > t).

    Raises:
        ValueError: if the delay has no survival function, or is a SciPy delay of whole numbers.
    """
    if isinstance(delay, Scipy) and not hasattr(delay.distribution().dist, "pdf"):
        raise ValueError(f"compute = {delay!r} is a delay of whole numbers: theory here needs a continuous one")
    try:
        return delay.sf(t)
    except TypeError as error:
        raise ValueError(
            f"compute = {delay!r} has no survival function, which this theory needs: {error}"
        ) from None


def split_points(delay: Delay) -> Floats:
    """Return times that split the delay's support: its quantiles, far into the tail, and its jumps."""
    if isinstance(delay, Empirical):
        return np.unique(delay.times())
    low, high = np.full(len(LEVELS), -700.0), np.full(len(LEVELS), 700.0)  # logarithms of times
    for _ in range(64):
        middle = (low + high) / 2
        later = survival(delay, np.exp(middle)) > LEVELS
        low, high = np.where(later, middle, low), np.where(later, high, middle)
    return np.asarray(np.exp(high))


def _integral(function: Callable[[Floats], Floats], edges: Floats) -> float:
    before = math.nan
    for _ in range(HALVINGS):
        half = np.diff(edges)[:, None] / 2
        nodes = edges[:-1, None] + half * (1 + NODES)
        value = float((function(nodes.ravel()).reshape(nodes.shape) * WEIGHTS * half).sum())
        if abs(value - before) <= ACCURACY * value:
            return value
        before = value
        edges = np.sort(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2]))
    raise ArithmeticError(f"the expected order statistic does not settle: last two values {before} and {value}")


def _at_most(count: int, delays: Sequence[Delay], late: dict[Delay, Floats]) -> Floats:
    """Return P(at most ``count`` of the times have passed), given the survival function of each delay."""
    finished = np.zeros((count + 1, len(late[delays[0]])))
    finished[0] = 1.0
    for delay in delays:
        over = finished[:-1] * (1 - late[delay])
        finished *= late[delay]
        finished[1:] += over
    return np.asarray(finished.sum(axis=0))
