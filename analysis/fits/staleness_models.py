"""Log probabilities of distributions of staleness on 0, 1, 2, ..., and the search for their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from scipy.special import digamma, gammaln, logsumexp

from stalegrad._core.registry import Registry

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Loss = Callable[[Floats], float]

NEGLIGIBLE = 40.0
"""Terms whose logarithm is this far below the largest are left out of a sum: e^-40 is below a rounding error."""

SUMMED = 16_384
"""Number of terms above which only the first ``HEAD`` terms of a sum are added; the others change slowly and are
replaced by an integral (Euler-Maclaurin)."""

HEAD = 1_024

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def cmp_log_pmf(k: npt.ArrayLike, log_lam: float, nu: float) -> Floats:
    """Return log of lam^k / ((k!)^nu Z(lam, nu)), the Conway-Maxwell-Poisson distribution (nu = 1: Poisson)."""
    return np.asarray(_log_terms(k, log_lam, nu) - cmp_log_normaliser(log_lam, nu))


def cmp_log_normaliser(log_lam: float, nu: float) -> float:
    """Return log Z(lam, nu), Z = sum over i of lam^i / (i!)^nu; inf if its largest term is beyond i = 1e12."""
    if (nu == 0 and log_lam >= 0) or log_lam > nu * np.log(1e12):
        return np.inf
    mode = np.exp(log_lam / nu) if log_lam > 0 else 0.0
    floor = float(_log_terms(mode, log_lam, nu)) - NEGLIGIBLE
    reach = {}
    for side in (-1, 1):
        step = 1.0
        while mode + side * step > 0 and _log_terms(mode + side * step, log_lam, nu) > floor:
            step *= 2
        reach[side] = max(np.round(mode + side * step), 0.0)
    low, high = reach[-1], reach[1]
    if high - low < SUMMED:
        return float(logsumexp(_log_terms(np.arange(low, high + 1), log_lam, nu)))
    first = float(logsumexp(_log_terms(np.arange(low, low + HEAD), log_lam, nu)))
    ends = np.array([low + HEAD, high])
    edges = np.linspace(low + HEAD, high, 65)
    half = np.diff(edges)[:, None] / 2
    area = (np.exp(_log_terms(edges[:-1, None] + half * (1 + NODES), log_lam, nu) - floor) * WEIGHTS * half).sum()
    at_ends = np.exp(_log_terms(ends, log_lam, nu) - floor)
    slopes = at_ends * (log_lam - nu * digamma(ends + 1))
    rest = area + at_ends.sum() / 2 + (slopes[1] - slopes[0]) / 12
    return float(np.logaddexp(first, floor + np.log(rest)))


def _log_terms(k: npt.ArrayLike, log_lam: float, nu: float) -> Floats:
    k = np.asarray(k, float)
    return np.asarray(k * log_lam - nu * gammaln(k + 1))


class Tie(NamedTuple):
    """The constraint of the paper: ``workers`` fixes the geometric model; ``mode`` is lam^(1/nu) of the others."""

    workers: int
    mode: int


Family = tuple[list[float], Callable[[Floats], tuple[float, ...]]]
"""The start of a search, in coordinates of order 1, and the function from coordinates to parameters."""


def _geometric(mean: float, variance: float, tie: Tie | None) -> Family:
    if tie:
        return [], lambda _: (1 / tie.workers,)
    return [0.0], lambda x: (1 / (1 + mean * np.exp(x[0])),)


def _poisson(mean: float, variance: float, tie: Tie | None) -> Family:
    if tie:
        return [], lambda _: (tie.mode,)
    return [0.0], lambda x: (mean * np.exp(x[0]),)


def _cmp(mean: float, variance: float, tie: Tie | None) -> Family:
    def nu(x: Floats) -> float:
        return float(np.exp(np.clip(x[0], np.log(1e-9), np.log(1e4))))

    start = float(np.log(mean / variance))
    if tie:
        return [start], lambda x: (nu(x) * np.log(tie.mode), nu(x))
    # The slope of log p at the mean, in standard deviations, hardly depends on nu; lam does.
    return [start, 0.0], lambda x: (nu(x) * digamma(mean + 1) + x[1] / np.sqrt(variance), nu(x))


def _negative_binomial(mean: float, variance: float, tie: Tie | None) -> Family:
    def decode(x: Floats) -> tuple[float, float]:
        r = float(np.exp(np.clip(x[0], np.log(1e-6), np.log(1e4 * mean))))
        return r, r / (r + mean * np.exp(x[1]))

    return [float(np.log(mean**2 / max(variance - mean, 1e-3 * mean))), 0.0], decode


class Model(NamedTuple):
    """A distribution of staleness: names of its parameters, log p(k) given them, and its family for the search."""

    parameters: tuple[str, ...]
    log_pmf: Callable[..., Any]
    family: Callable[[float, float, Tie | None], Family] | None


MODELS = Registry[Model](
    "staleness model",
    {
        "geometric": Model(("p",), lambda k, p: stats.geom.logpmf(k, p, loc=-1), _geometric),
        "uniform": Model(("tau_hat",), lambda k, top: stats.randint.logpmf(k, 0, top + 1), None),
        "poisson": Model(("lam",), stats.poisson.logpmf, _poisson),
        "cmp": Model(("log_lam", "nu"), cmp_log_pmf, _cmp),
        "negative-binomial": Model(("r", "p"), stats.nbinom.logpmf, _negative_binomial),
    },
)
"""The models of staleness by name; ``MODELS.register`` adds your own."""


def described(model: str, parameters: tuple[float, ...]) -> dict[str, float]:
    """Return the parameters by their names in the literature; lam may overflow to infinity for large nu."""
    named = dict(zip(MODELS[model].parameters, parameters, strict=True))
    with np.errstate(over="ignore"):
        return {("lam" if k == "log_lam" else k): (np.exp(v) if k == "log_lam" else v) for k, v in named.items()}


def bhattacharyya(share: Floats, log_p: Floats) -> float:
    """Return the Bhattacharyya distance -ln sum sqrt(q p), given q > 0 and log p at the same points."""
    return -float(logsumexp(0.5 * (np.log(share) + log_p)))


def search(model: str, counts: Ints, by: str, tie: Tie | None) -> tuple[tuple[float, ...], int]:
    """Return the parameters that fit a histogram best, and the number of free ones.

    Args:
        model: a key of :data:`MODELS`.
        counts: numbers of messages with staleness 0, 1, ..., at least two of them positive.
        by: ``likelihood`` or ``bhattacharyya``.
        tie: the constraint on the parameters; the uniform and the negative binomial distribution have none.
    """
    seen = np.flatnonzero(counts)
    share = counts[seen] / counts.sum()
    family = MODELS[model].family
    if family is None:  # the uniform distribution, whose parameter is a whole number
        overlap = np.cumsum(np.sqrt(share)) / np.sqrt(seen + 1)
        return (int(seen[-1] if by == "likelihood" else seen[np.argmax(overlap)]),), 1

    def loss(x: Floats) -> float:
        log_p = MODELS[model].log_pmf(seen, *decode(x))
        return bhattacharyya(share, log_p) if by == "bhattacharyya" else -float((share * log_p).sum())

    mean = float(seen @ share)
    start, decode = family(mean, float((seen - mean) ** 2 @ share), tie)
    return decode(_minimum(loss, np.array(start))), len(start)


def _minimum(loss: Loss, start: Floats) -> Floats:
    if len(start) == 0:
        return start
    if len(start) == 1:  # as in the paper, exhaustively on a grid; then the minimum within the best cell
        grid = start + np.linspace(-5, 5, 41)
        best = grid[np.argmin([loss(np.array([x])) for x in grid])]
        cell = (best - 0.25, best + 0.25)
        found = optimize.minimize_scalar(
            lambda x: loss(np.array([x])), bounds=cell, method="bounded", options={"xatol": 1e-6}
        )
        return np.array([found.x])
    simplex = start + 0.5 * np.vstack([np.zeros(2), np.eye(2)])
    options: Any = {"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-11, "maxiter": 500}
    return np.asarray(optimize.minimize(loss, start, method="Nelder-Mead", options=options).x)
