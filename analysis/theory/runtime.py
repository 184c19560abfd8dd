"""Expected runtimes and staleness, to compare simulations with.

All results are for the long run, workers with independent times, messages that travel in no time and a server that
takes no time. If only means matter (async, k-batch-async), or only the times of one round (sync, k-sync), a
worker's own times may depend on each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from stalegrad._core.protocols import SynchronyLike
from stalegrad.analysis.theory.arguments import (
    ROUNDS,
    Compute,
    check_continuous,
    check_independent,
    delays_and_k,
    k_of,
)
from stalegrad.analysis.theory.order_statistics import closed_form, order_statistic, split_points, survival
from stalegrad.analysis.theory.renewal import batch_order_statistic, fresh_share
from stalegrad.simulator.timing.delays import Delay, Deterministic, Empirical, Exponential

Kind = Literal["exact", "numerical", "upper bound", "lower bound"]

DUTTA = "Dutta et al. 2018"


class Estimate(NamedTuple):
    """A number that theory gives, with its kind and source.

    Attributes:
        value: the number.
        kind: ``exact`` (a closed form), ``numerical`` (exact theory, computed by quadrature), ``upper bound`` or
            ``lower bound``.
        source: the formula and its origin.
    """

    value: float
    kind: Kind
    source: str


def expected_update_time(synchrony: SynchronyLike, compute: Compute, workers: int | None = None) -> Estimate:
    """Return the expected simulated seconds from one update to the next.

    ===============  =============================================  =====================================
    synchrony        E[T]                                           kind
    ===============  =============================================  =====================================
    sync             E[X_{P:P}]                                     exact or numerical
    k-sync           E[X_{K:P}]                                     exact or numerical
    k-batch-sync     K E[X] / P if exponential; else the integral   exact or numerical; delays with jumps:
                     of P(fewer than K are done by t)               upper bound E[X_{K:P}]
    async            E[X] / P                                       exact
    k-batch-async    K E[X] / P                                     exact
    k-async          E[X_{K:P}] if exponential or K = P;            exact or numerical
                     E[X] / P if K = 1
    k-async          at most E[X_{K:P}], if new jobs last longer    upper bound
                     than used ones
    k-async          at least E[X_{K:P}], if they are shorter;      lower bound
                     at least K E[X] / P always
    ===============  =============================================  =====================================

    If workers differ, E[X] / P becomes 1 / sum of 1 / E[X_i], and X_{K:P} is the K-th smallest of times with
    different delays.

    Args:
        synchrony: one of the six synchronies above, with one mini-batch gradient per message.
        compute: delay of the seconds of one mini-batch, anything that :class:`~stalegrad.simulator.Cluster` takes;
            a list has one per worker.
        workers: number of workers P; optional if ``compute`` is a list.

    Raises:
        ValueError: if k exceeds the number of workers, a mean is infinite or unknown, or there is no theory.
        ArithmeticError: if the numbers do not converge, for delays with extremely many tiny times.

    References:
        Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, Theorems 1 and 2, Lemmas 3 to 5.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import expected_update_time
        >>> time = expected_update_time(sg.KSync(2), sg.Exponential(1.0), workers=4)
        >>> round(time.value, 4), time.kind  # 1/4 + 1/3
        (0.5833, 'exact')
    """
    delays, k = delays_and_k(synchrony, compute, workers)
    if synchrony.local_steps != 1:
        raise ValueError(f"local_steps = {synchrony.local_steps}: update times are known for 1 only")
    if len(delays) == 1 or synchrony.name in ("async", "k-batch-async"):
        return _renewals(delays, k)
    check_independent(delays, rounds=synchrony.name in ("sync", "k-sync"))
    if synchrony.name in ("sync", "k-sync"):
        return _order_statistic(delays, k)
    return _k_batch_sync(delays, k) if synchrony.name == "k-batch-sync" else _k_async(delays, k)


def expected_speedup(synchrony: SynchronyLike, compute: Compute, workers: int | None = None) -> Estimate:
    """Return the rate of updates of a synchrony over that of fully synchronous SGD: E[T_sync] / E[T].

    For async it is P E[X_{P:P}] / E[X], which is P H_P for exponential times. Arguments and errors as for
    :func:`expected_update_time`. Reference: Dutta et al. 2018, Theorem 1.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import expected_speedup
        >>> round(expected_speedup(sg.Async(), sg.Exponential(1.0), workers=4).value, 4)  # 4 (1 + 1/2 + 1/3 + 1/4)
        8.3333
    """
    delays, _ = delays_and_k(synchrony, compute, workers)
    check_independent(delays, rounds=True)
    sync = _order_statistic(delays, len(delays))
    own = expected_update_time(synchrony, compute, workers)
    kind: Kind = "numerical" if own.kind == "exact" and sync.kind == "numerical" else _reciprocal(own.kind)
    return Estimate(sync.value / own.value, kind, f"{DUTTA}, Theorem 1: E[X_P:P] / E[T]; {own.source}")


def throughput(synchrony: SynchronyLike, compute: Compute, workers: int | None = None) -> dict[str, Estimate]:
    """Return ``updates_per_second`` and (used) ``gradients_per_second``, as ``Trace.throughput`` measures them.

    Arguments and errors as for :func:`expected_update_time`.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import throughput
        >>> throughput(sg.Async(), [1.0, 2.0])["updates_per_second"].value
        1.5
    """
    _, k = delays_and_k(synchrony, compute, workers)
    time = expected_update_time(synchrony, compute, workers)
    kind = _reciprocal(time.kind)
    return {
        "updates_per_second": Estimate(1 / time.value, kind, f"1 / E[T]; {time.source}"),
        "gradients_per_second": Estimate(k / time.value, kind, f"K / E[T]; {time.source}"),
    }


def expected_staleness(synchrony: SynchronyLike, workers: int) -> Estimate:
    """Return the mean staleness of used gradients in the long run, in updates; it does not depend on delays.

    0 for sync, k-sync and k-batch-sync; (P - K) / K for k-async; (P - 1) / K for k-batch-async and async (K = 1).
    Every update adds 1 to the staleness of each gradient in flight whose worker does not read at this update, and
    uses K gradients.

    Args:
        synchrony: one of the six synchronies of :func:`expected_update_time`.
        workers: number of workers P.

    Raises:
        ValueError: if k exceeds the number of workers, or there is no theory.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import expected_staleness
        >>> expected_staleness(sg.KAsync(2), workers=8).value
        3.0
    """
    k = k_of(synchrony, workers)
    if synchrony.name in ROUNDS:
        return Estimate(0.0, "exact", "every gradient is of the version it updates")
    if synchrony.name == "k-async":
        return Estimate((workers - k) / k, "exact", "(P - K) / K: each update adds as much staleness as it uses")
    return Estimate((workers - 1) / k, "exact", "(P - 1) / K: each update adds as much staleness as it uses")


def fresh_probability(synchrony: SynchronyLike, compute: Compute, workers: int | None = None) -> Estimate:
    """Return the share of used gradients with staleness 0 in the long run.

    1 for sync, k-sync and k-batch-sync; K / P for k-async with exponential times; 1 - ((P - 1) / K)
    (1 - (1 - 1/P)^K) for k-batch-async (and async, K = 1) with exponential times, numerical for others.

    The p0 of the error bounds is a lower bound for *every* gradient of an update: this share for k-async with
    exponential times, but 1 / P for k-batch-async, the probability that the first gradient of a group is fresh.

    Args:
        synchrony: one of the six synchronies of :func:`expected_update_time`.
        compute: delay of the seconds of one mini-batch, the same for all workers.
        workers: number of workers P.

    Raises:
        ValueError: if k exceeds the workers, a mean is infinite or unknown, workers differ, or there is no theory.

    References:
        Dutta et al. 2018, Lemma 8 (p0 = 1 / P for async and exponential times).

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import fresh_probability
        >>> fresh_probability(sg.KAsync(2), sg.Exponential(1.0), workers=8).value
        0.25
    """
    delays, k = delays_and_k(synchrony, compute, workers)
    count = len(delays)
    if synchrony.name in ROUNDS or (synchrony.name == "k-async" and k == count):
        return Estimate(1.0, "exact", "every gradient is of the version it updates")
    check_independent(delays)
    if len(set(delays)) > 1:
        raise ValueError("fresh_probability has no theory for workers that differ: give one delay for all")
    memoryless = isinstance(delays[0], Exponential)
    if synchrony.name == "k-async" and k > 1:
        if memoryless:
            return Estimate(k / count, "exact", "K / P: all workers are equally likely to finish next")
        raise ValueError(f"k-async with k = {k} of {count}: the fresh share is known for exponential times only")
    if memoryless:
        value = 1 - (count - 1) / k * (1 - (1 - 1 / count) ** k)
        return Estimate(value, "exact", f"1 - ((P - 1) / K)(1 - (1 - 1/P)^K); for K = 1 {DUTTA}, Lemma 8")
    check_continuous(delays[0])
    return Estimate(fresh_share(delays[0], k, count), "numerical", "equilibrium renewals of the other workers")


def longer_when_new(delay: Delay, *, shorter: bool = False) -> bool:
    """Return whether a new job lasts longer than the rest of one in progress: P(X > u + t) <= P(X > u) P(X > t).

    The inequality holds for the exponential (with equality), shifted exponential, Erlang, uniform and constant
    delay, and for gamma and Weibull delays of shape 1 and above; the reverse (``shorter``) holds for
    hyper-exponential delays. For Pareto and log-normal delays neither holds. It is checked on pairs of quantiles,
    also for delays of users.

    Args:
        delay: delay of the times.
        shorter: whether to check the reverse inequality instead.

    Raises:
        ValueError: if its survival function is not known.

    References:
        Dutta et al. 2018, Definition of new-longer-than-used.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import longer_when_new
        >>> longer_when_new(sg.Gamma(1.0, cv=0.5)), longer_when_new(sg.Gamma(1.0, cv=2.0))
        (True, False)
    """
    points = split_points(delay)
    t = np.unique(np.concatenate([points, points / 1.5]))[:: max(1, len(points) // 60)]
    single = np.log(np.maximum(survival(delay, t), 1e-300))
    product = single[:, None] + single
    joint = np.log(np.maximum(survival(delay, (t[:, None] + t).ravel()), 1e-300)).reshape(product.shape)
    excess = (joint - product)[product > math.log(1e-290)]
    return bool((-excess if shorter else excess).max(initial=-math.inf) <= 1e-6)


# Per synchrony


def _renewals(delays: Sequence[Delay], k: int) -> Estimate:
    rate = sum(number / delay.expectation() for delay, number in Counter(delays).items())
    name = "K E[X] / P" if len(set(delays)) == 1 else "K / sum of 1 / E[X_i]"
    return Estimate(k / rate, "exact", f"{DUTTA}, Lemmas 4 and 5: {name} (renewals)")


def _order_statistic(delays: Sequence[Delay], k: int) -> Estimate:
    source = f"{DUTTA}, Lemma 3: E[X_K:P]"
    value = closed_form(delays[0], k, len(delays)) if len(set(delays)) == 1 else None
    if value is not None:
        return Estimate(value, "exact", source)
    return Estimate(order_statistic(delays, k), "numerical", f"{source}, by quadrature")


def _k_batch_sync(delays: Sequence[Delay], k: int) -> Estimate:
    if k == 1:
        return _order_statistic(delays, 1)
    if all(isinstance(delay, Exponential) for delay in delays):
        return _renewals(delays, k)._replace(source=f"{DUTTA}: mean of an Erlang delay, K over the sum of rates")
    if len(set(delays)) == 1 and isinstance(delays[0], Deterministic):
        return Estimate(delays[0].value * math.ceil(k / len(delays)), "exact", "rounds of P")
    if any(isinstance(delay, Deterministic | Empirical) for delay in delays):
        if k <= len(delays):
            value = _order_statistic(delays, k).value
            return Estimate(value, "upper bound", "E[X_K:P]: the first K distinct workers are K mini-batches")
        raise ValueError(
            f"k-batch-sync with k = {k} above {len(delays)} workers has no theory for delays with jumps"
        )
    value = batch_order_statistic(delays, k)
    return Estimate(value, "numerical", "integral of P(fewer than K mini-batches are done by t), renewal counts")


def _k_async(delays: Sequence[Delay], k: int) -> Estimate:
    if k == len(delays):
        return _order_statistic(delays, k)
    if k == 1:
        return _renewals(delays, k)
    if all(isinstance(delay, Exponential) for delay in delays):
        return _order_statistic(delays, k)._replace(source=f"{DUTTA}, Lemma 3: E[X_K:P], memoryless")
    if all(longer_when_new(delay) for delay in dict.fromkeys(delays)):
        value = _order_statistic(delays, k).value
        return Estimate(value, "upper bound", f"{DUTTA}, Lemma 3: E[X_K:P], new jobs last longer than used ones")
    floor = _renewals(delays, k).value
    if all(longer_when_new(delay, shorter=True) for delay in dict.fromkeys(delays)):
        value = max(floor, _order_statistic(delays, k).value)
        return Estimate(value, "lower bound", "E[X_K:P], new jobs are shorter than used ones, or K E[X] / P")
    return Estimate(floor, "lower bound", "K E[X] / P: with idle workers, not faster than k-batch-async")


def _reciprocal(kind: Kind) -> Kind:
    flipped: dict[Kind, Kind] = {"upper bound": "lower bound", "lower bound": "upper bound"}
    return flipped.get(kind, kind)
