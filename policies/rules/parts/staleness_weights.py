"""Step sizes that depend on staleness alone: a factor on each message.

Staleness is known from the trace, so these are computed for a whole run at once, on the host, in float64. A
weight is a function ``(staleness, update, workers) -> factors``: arrays with one entry per message in the order of
gradient ids. What is estimated from observed staleness uses messages of the past only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, logsumexp

from stalegrad.policies.rules.hyperparameters import StalenessModel

Array = npt.NDArray[Any]
Weight = Callable[[Array, Array, int], Array]


_SUPPORT = 4_096
"""Models are tabulated for staleness below this, or up to the largest observed."""


def staleness_aware(offset: int) -> Weight:
    """1 / max(1, tau) (``offset`` 0) or 1 / (tau + 1) (``offset`` 1).

    Reference: Zhang et al., Staleness-aware Async-SGD for Distributed Deep Learning, 2016.
    """
    return lambda tau, update, workers: np.asarray(1.0 / (tau + 1.0 if offset else np.maximum(tau, 1.0)))


def sum_per_worker() -> Weight:
    """(messages of the update) / N: makes of their mean their sum divided by the number of workers."""

    def weight(tau: Array, update: Array, workers: int) -> Array:
        return np.asarray(np.bincount(update)[update] / workers)

    return weight


def fleet(integer_division: bool) -> Weight:
    """exp(-beta tau), beta = (2 / T) ln(1 + T / 2), T = N + 1: meets 1 / (tau + 1) at tau = T / 2.

    Args:
        integer_division: compute T / 2 in integers, as the code of its authors' neighbours does.
    """

    def weight(tau: Array, update: Array, workers: int) -> Array:
        horizon = workers + 1
        half = horizon // 2 if integer_division else horizon / 2
        return np.asarray(np.exp(-2.0 / horizon * np.log1p(half) * tau))

    return weight


def delay_adaptive() -> Weight:
    """N / max(N, tau): constant up to the number of workers, then inversely proportional.

    Reference: Mishchenko et al., Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays, 2022.
    """
    return lambda tau, update, workers: workers / np.maximum(tau, workers)


def tail(amplitude: float, cdf: Literal["midpoint", "strict"], bound: int = 200) -> Weight:
    """C_A(tau) = 1 + A (1 - 2 F(tau)), F the staleness distribution measured in this very run.

    F is taken from the updates 10 N < step < 15 N (N workers); until then the factor is 1. Staleness of
    ``bound`` and more is not recorded, and treated as ``bound - 1``.

    Args:
        amplitude: A in [0, 1].
        cdf: ``midpoint``: P[T < tau] + P[T = tau] / 2, whose mean factor is exactly 1; ``strict``: P[T < tau],
            normalised by 5 N.

    Reference: Backstrom, Papatriantafilou, Tsigas, ASAP.SGD: Instance-based Adaptiveness to Staleness in
    Asynchronous SGD, 2022 (TAIL-tau).
    """

    def weight(tau: Array, update: Array, workers: int) -> Array:
        window = (update > 10 * workers) & (update < 15 * workers)
        seen = tau[window & (tau < bound)]
        factors = np.ones(len(tau))
        if not len(seen):
            return factors
        counts = np.bincount(seen, minlength=bound).astype(float)
        p = counts / (len(seen) if cdf == "midpoint" else 5.0 * workers)
        below = np.cumsum(p) - p
        distribution = below + p / 2 if cdf == "midpoint" else below
        after = update >= 15 * workers
        factors[after] = 1 + amplitude * (1 - 2 * distribution[np.minimum(tau[after], bound - 1)])
        return factors

    return weight


def log_pmf(model: StalenessModel, support: Array, *, mean: float, nu: float = 1.0) -> Array:
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


def step_factors(log_p: Array, damping: float) -> Array:
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


def bhattacharyya(q: Array, log_p: Array) -> float:
    """Return the Bhattacharyya distance -ln sum sqrt(q p) of a histogram and a model on the same support."""
    seen = q > 0
    return -float(logsumexp(0.5 * (np.log(q[seen]) + log_p[seen])))


def fit(model: StalenessModel, q: Array, *, mean: float) -> dict[str, float]:
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


def mean_factor(q: Array, factors: Array, clip: float | None) -> float:
    """Return the Z with sum q min(factors / Z, clip) = 1: their mean, if there is no clip; 0 if there is none."""
    q, factors = q[q > 0], factors[q > 0]
    mean = float(np.dot(q, factors))
    if clip is None or mean == 0 or clip * q[factors > 0].sum() <= 1:
        return mean

    def excess(log_z: float) -> float:
        return float(np.dot(q, np.minimum(factors * np.exp(-log_z), clip))) - 1.0

    smallest = float(np.log(factors[factors > 0].min() / clip))
    return float(np.exp(brentq(excess, smallest, np.log(mean) + 1e-9, xtol=1e-14)))


def mindthestep(
    model: StalenessModel,
    *,
    mean: float | None,
    nu: float,
    damping: float,
    target_momentum: float | None,
    online: bool,
    normalise: bool | Literal["after-clip"],
    warmup: int,
    refresh: int | None,
    clip: float | None,
    drop_above: int | None,
) -> Weight:
    """Staleness-adaptive steps of MindTheStep-AsyncPSGD.

    Geometric model with a target momentum mu*: alpha(tau) proportional to C^-tau, C = (1 - p) / mu*. Otherwise
    (and for the geometric model without target): :func:`step_factors` of the model.

    Args:
        model: the staleness model.
        mean: its m; by default the number of workers.
        nu: dispersion of ``cmp``, if not fitted.
        damping: K / alpha of the paper, in [0, 1].
        target_momentum: for the geometric model.
        online: fit the model to the staleness observed so far, whenever the histogram is taken.
        normalise: divide by the mean factor under the observed histogram, so that the mean step is the plain one
            before the clip; ``after-clip``: so that it is the plain one after it.
        warmup: messages before the histogram is first taken; until then the factor is 1.
        refresh: take it again after this number of messages; None: never.
        clip: largest factor.
        drop_above: messages staler than this count nothing.

    What was computed at the initial parameters is not counted: all workers read them at once, and those few low
    values, to which the models give next to no probability, would decide the mean factor.

    Reference: Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, 2019. The implicit momentum of the
    geometric step is (1 - p) / C (the sign printed in the paper, as we recall it, does not survive a check).
    """

    def table(q: Array, workers: int) -> Array:
        """Return the factor at each staleness, given the histogram observed so far."""
        support = np.arange(len(q))
        m = float(workers if mean is None else mean)
        fitted = fit(model, q, mean=m) if online else {"mean": m, "nu": nu}
        if model == "geometric" and target_momentum is not None:
            p = min(1.0 / fitted["mean"], 1.0 - 1e-12)
            with np.errstate(over="ignore"):
                factors = np.minimum(np.exp(-support * np.log((1 - p) / target_momentum)) / p, 1e300)
        else:
            factors = step_factors(log_pmf(model, support, **fitted), damping)
        if drop_above is not None:
            factors = np.where(support <= drop_above, factors, 0.0)
        if normalise:
            average = mean_factor(q, factors, clip if normalise == "after-clip" else None)
            factors = factors / average if average > 0 else np.ones(len(q))
        return factors if clip is None else np.asarray(np.minimum(factors, clip))

    def weight(tau: Array, update: Array, workers: int) -> Array:
        factors = np.ones(len(tau))
        size = max(_SUPPORT, int(tau.max(initial=0)) + 1)
        starts = range(warmup, len(tau), refresh or max(len(tau), 1))
        for start in starts:
            stop = len(tau) if refresh is None else min(start + refresh, len(tau))
            seen = tau[:start][update[:start] > tau[:start]]
            if len(seen):
                q = np.bincount(seen, minlength=size) / len(seen)
                factors[start:stop] = table(q, workers)[tau[start:stop]]
        return factors

    return weight
