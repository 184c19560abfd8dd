"""Models of the staleness, fits of them, and the step sizes that follow from them, for MindTheStep."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, logsumexp

from stalegrad._core.types import Floats, Ints
from stalegrad.policies.rules.hyperparameters import StalenessModel


def log_pmf(model: StalenessModel, support: Ints, *, mean: float, nu: float = 1.0) -> Floats:
    """Return log p(tau) of a staleness model at tau = 0, 1, ..., in logs throughout.

    Args:
        model: ``geometric``: p = 1 / mean; ``poisson``: lambda = mean; ``cmp``: lambda^(1/nu) = mean;
            ``uniform`` on 0, ..., 2 (mean - 1).
        support: the integers 0, 1, ..., n - 1 that the law is normalised over.
        mean: m, the paper's constraint: the number of workers.
        nu: dispersion of ``cmp``; 1 is Poisson.
    """
    k = support.astype(float)
    if model == "geometric":
        p = min(1.0 / mean, 1.0 - 1e-12)
        return np.asarray(np.log(p) + k * np.log1p(-p))
    if model == "uniform":
        last = max(round(2 * (mean - 1)), 0)
        return np.where(k <= last, -np.log(last + 1.0), -np.inf)
    dispersion = 1.0 if model == "poisson" else nu
    raw = dispersion * (k * np.log(mean) - gammaln(k + 1))
    return np.asarray(raw - logsumexp(raw))


def step_factors(log_p: Floats, damping: float) -> Floats:
    """alpha(tau) / alpha = (1 - damping F(tau - 1)) / p(tau), up to a constant.

    With tau ~ p it makes consecutive terms of the expected step differ by damping * p(tau): damping 0 cancels
    the sum over stale gradients altogether, damping 1 is non-increasing in tau (for log-concave p) and is the
    default. Where the model says p = 0 the factor is 0.
    """
    p = np.exp(log_p)
    before = np.cumsum(p) - p
    with np.errstate(over="ignore", invalid="ignore"):
        factors = np.exp(np.log(np.clip(1 - damping * before, 1e-300, None)) - log_p + log_p.max())
    tail_sum = np.cumsum(p[::-1])[::-1]  # 1 - F(tau - 1) without cancellation, for damping 1
    if damping == 1:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            factors = np.exp(np.log(tail_sum) - log_p + log_p.max())
    return np.where(np.isfinite(log_p), np.minimum(factors, 1e300), 0.0)


def bhattacharyya(q: Floats, log_p: Floats) -> float:
    """Return the Bhattacharyya distance -ln sum sqrt(q p) of a histogram and a model on the same support."""
    seen = q > 0
    return -float(logsumexp(0.5 * (np.log(q[seen]) + log_p[seen])))


def fit(model: StalenessModel, q: Floats, *, mean: float) -> dict[str, float]:
    """Return the model's parameters that minimise the Bhattacharyya distance to a histogram.

    The constraint of the paper is kept where it has one: ``cmp`` fits nu with lambda^(1/nu) = mean; the others
    fit their mean.
    """
    support = np.arange(len(q))
    if model == "cmp":
        found = minimize_scalar(
            lambda log_nu: bhattacharyya(q, log_pmf("cmp", support, mean=mean, nu=np.exp(log_nu))),
            bounds=(np.log(1e-3), np.log(50.0)),
            method="bounded",
        )
        return {"mean": mean, "nu": float(np.exp(found.x))}
    if model == "uniform":
        tops = np.arange(max(int(np.flatnonzero(q)[0]), 1), len(q))
        distances = [bhattacharyya(q, np.where(support <= t, -np.log(t + 1.0), -np.inf)) for t in tops]
        return {"mean": float(tops[int(np.argmin(distances))]) / 2 + 1}
    found = minimize_scalar(
        lambda log_mean: bhattacharyya(q, log_pmf(model, support, mean=np.exp(log_mean))),
        bounds=(np.log(1.001), np.log(len(q) + 1.0)),
        method="bounded",
    )
    return {"mean": float(np.exp(found.x))}


def mean_factor(q: Floats, factors: Floats, clip: float | None) -> float:
    """Return the Z with sum q min(factors / Z, clip) = 1: their mean, if there is no clip; 0 if there is none."""
    q, factors = q[q > 0], factors[q > 0]
    mean = float(np.dot(q, factors))
    if clip is None or mean == 0 or clip * q[factors > 0].sum() <= 1:
        return mean

    def excess(log_z: float) -> float:
        return float(np.dot(q, np.minimum(factors * np.exp(-log_z), clip))) - 1.0

    smallest = float(np.log(factors[factors > 0].min() / clip))
    return float(np.exp(brentq(excess, smallest, np.log(mean) + 1e-9, xtol=1e-14)))
