"""Simulated runtimes and staleness against theory: P = 8 workers, zero communication, i.i.d. times.

The numbers are those of Dutta et al. 2018 and of independent simulations and quadratures made from it. Every
run is made once and shared by the tests; its length is chosen so that the tolerance is some 2.5 standard errors.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy import integrate, special

from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Synchrony
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    Delay,
    Erlang,
    Exponential,
    HyperExponential,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Uniform,
)
from stalegrad.simulator.timing.engine import simulate

P = 8
KS = range(1, P + 1)
EXP, SHIFTED, PARETO = Exponential(1.0), ShiftedExponential(1.0, 1.0), Pareto(2.0, 1.0)
ERLANG, HYPER = Erlang(4, 1.0), HyperExponential((0.9, 0.1), (0.5, 5.5))
LAWS = {"exp(1)": EXP, "1+exp(1)": SHIFTED, "Pareto(2,1)": PARETO, "Erlang(4)": ERLANG, "HyperExp": HYPER}
MEAN = {EXP: 1.0, SHIFTED: 2.0, PARETO: 2.0, ERLANG: 1.0, HYPER: 1.0}

# E[T] per update, K = 1..8.
K_SYNC_EXACT = {
    EXP: [0.125, 0.2678571, 0.4345238, 0.6345238, 0.8845238, 1.2178571, 1.7178571, 2.7178571],
    SHIFTED: [1.125, 1.2678571, 1.4345238, 1.6345238, 1.8845238, 2.2178571, 2.7178571, 3.7178571],
    PARETO: [1.0666667, 1.1487179, 1.2531469, 1.3923854, 1.5912976, 1.9095571, 2.5460761, 5.0921523],
}
K_SYNC_MEASURED = {
    ERLANG: [0.4206, 0.5877, 0.7268, 0.8621, 1.0086, 1.1782, 1.4068, 1.8085],
    HYPER: [0.0699, 0.1513, 0.2475, 0.3691, 0.5317, 0.7978, 1.4563, 4.38],
}
K_ASYNC_MEASURED = {
    SHIFTED: [0.2495, 0.5340, 0.8559, 1.2413, 1.6272, 2.0547, 2.6379, 3.7229],
    PARETO: [0.2512, 0.5310, 0.8559, 1.2536, 1.5997, 2.0658, 2.8995, 5.10],
    ERLANG: [0.1252, 0.2664, 0.4286, 0.6154, 0.8296, 1.0710, 1.3579, 1.8101],
    HYPER: [0.1244, 0.2686, 0.4411, 0.6584, 0.9537, 1.3905, 2.2059, 4.37],
}
K_BATCH_SYNC_MEASURED = {
    SHIFTED: [1.1250, 1.2687, 1.4345, 1.6310, 1.8606, 2.1278, 2.4072, 2.6733],
    PARETO: [1.0670, 1.1487, 1.2536, 1.3915, 1.5755, 1.8159, 2.0972, 2.3640],
    ERLANG: [0.4202, 0.5871, 0.7184, 0.8407, 0.9607, 1.0811, 1.2049, 1.3280],
    HYPER: [0.0698, 0.1396, 0.2124, 0.2838, 0.3569, 0.4307, 0.5074, 0.5854],
}

# P(staleness = 0), K = 1..8.
FRESH_K_ASYNC_MEASURED = {
    SHIFTED: [0.0009, 0.0136, 0.0802, 0.2556, 0.4993, 0.6998, 0.8636, 1.0],
    PARETO: [0.0017, 0.0230, 0.1277, 0.3720, 0.6078, 0.7755, 0.8999, 1.0],
    HYPER: [0.2164, 0.4043, 0.5581, 0.6825, 0.7820, 0.8612, 0.9276, 1.0],
}
FRESH_K_BATCH_ASYNC_EXP = [0.125, 0.179688, 0.229818, 0.275818, 0.318073, 0.356928, 0.392696, 0.425658]


# Measuring


class Measured(NamedTuple):
    seconds: float
    """per update"""
    staleness: float
    """mean"""
    fresh: float
    """fraction with staleness 0"""


@cache
def measure(delay: Delay, synchrony: Synchrony, gradients: int) -> Measured:
    trace = simulate(Cluster(P, delay), synchrony, gradients=gradients, seed=2018)
    staleness = trace.staleness
    return Measured(trace.end / len(trace.update_times), staleness.mean(), (staleness == 0).mean())


def k_async(delay: Delay, k: int) -> Measured:
    gradients = {EXP: 80_000, SHIFTED: 20_000, ERLANG: 20_000, PARETO: 60_000, HYPER: 80_000}
    return measure(delay, KAsync(k), gradients[delay])


def k_batch_async(delay: Delay, k: int) -> Measured:
    gradients = {EXP: 80_000, SHIFTED: 30_000, ERLANG: 30_000, PARETO: 200_000, HYPER: 400_000}
    return measure(delay, Async() if k == 1 else KBatchAsync(k), gradients[delay])


def k_batch_sync(delay: Delay, k: int) -> Measured:
    gradients = {EXP: 60_000, SHIFTED: 2_000 * k, ERLANG: 2_000 * k, PARETO: 2_000 * k, HYPER: 20_000}
    return measure(delay, KBatchSync(k), gradients[delay])


def k_sync(delay: Delay, k: int, tolerance: float) -> Measured:
    """Measure K-sync over so many updates that 2.5 standard errors are the tolerance."""
    if delay == PARETO and k == P:  # infinite variance
        return measure(delay, KSync(k), 30_000 * k)
    mean, square = order_statistic_moments(delay, k)
    updates = max(2_000, math.ceil(6 * (square / mean**2 - 1) / tolerance**2))
    return measure(delay, KSync(k), updates * k)


@cache
def order_statistic_moments(delay: Delay, k: int, workers: int = P) -> tuple[float, float]:
    """Return E[X] and E[X^2] of the k-th smallest of ``workers`` draws, by quadrature of its survival."""

    # The nodes of a Gauss rule on each of many pieces; corners of the delays lie between the pieces.
    edges = np.concatenate([np.arange(0.0, 4.0, 0.25), np.geomspace(4.0, 1e7, 80)])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(edges)[:, None] / 2
    t = edges[:-1, None] + half * (1 + nodes)
    # X_{k:P} > t: more than P - k of the draws are.
    survival = special.bdtrc(workers - k, workers, delay.sf(t)) * weights * half
    return float(survival.sum()), float((2 * t * survival).sum())


def each(table: dict[Delay, list[float]], ks=KS):
    """Return one test parameter per delay and K: (delay, k, number of the table)."""
    names = {delay: name for name, delay in LAWS.items()}
    return [pytest.param(delay, k, table[delay][k - 1], id=f"{names[delay]}-{k}") for delay in table for k in ks]


def tolerance_of(delay: Delay, k: int, plain: float) -> float:
    """Pareto's late workers have infinite variance: 3 % from K = 7 on."""
    return 0.03 if delay == PARETO and k >= 7 else plain


# Runtimes


@pytest.mark.parametrize(("delay", "k", "seconds"), each(K_SYNC_EXACT))
def test_k_sync_takes_the_expected_order_statistic(delay, k, seconds):
    tolerance = tolerance_of(delay, k, 0.01)
    assert k_sync(delay, k, tolerance).seconds == pytest.approx(seconds, rel=tolerance)


@pytest.mark.parametrize(("delay", "k", "seconds"), each(K_SYNC_MEASURED))
def test_k_sync_takes_what_independent_simulations_took(delay, k, seconds):
    assert k_sync(delay, k, 0.02).seconds == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(("delay", "k", "seconds"), each(K_SYNC_EXACT))
def test_quadrature_of_the_survival_function_gives_the_closed_form_order_statistics(delay, k, seconds):
    mean, _ = order_statistic_moments(delay, k)
    assert mean == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(("delay", "k", "_"), each(K_SYNC_MEASURED))
def test_k_sync_takes_the_numerically_integrated_order_statistic(delay, k, _):
    mean, _square = order_statistic_moments(delay, k)
    assert k_sync(delay, k, 0.02).seconds == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize("k", KS)
def test_k_async_takes_as_long_as_k_sync_where_times_are_memoryless(k):
    assert k_async(EXP, k).seconds == pytest.approx(K_SYNC_EXACT[EXP][k - 1], rel=0.01)


@pytest.mark.parametrize(("delay", "k", "seconds"), each(K_ASYNC_MEASURED))
def test_k_async_takes_what_independent_simulations_took(delay, k, seconds):
    assert k_async(delay, k).seconds == pytest.approx(seconds, rel=tolerance_of(delay, k, 0.02))


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("delay", LAWS.values(), ids=LAWS)
def test_k_batch_async_takes_k_times_mean_over_p_whatever_the_delay(delay, k):
    assert k_batch_async(delay, k).seconds == pytest.approx(k * MEAN[delay] / P, rel=0.01)


@pytest.mark.parametrize("k", KS[1:])  # K = 1 is K-sync
def test_k_batch_sync_takes_k_over_p_where_times_are_memoryless(k):
    assert k_batch_sync(EXP, k).seconds == pytest.approx(k / P, rel=0.01)


@pytest.mark.parametrize(("delay", "k", "seconds"), each(K_BATCH_SYNC_MEASURED))
def test_k_batch_sync_takes_what_independent_simulations_took(delay, k, seconds):
    assert k_batch_sync(delay, k).seconds == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize("delay", LAWS.values(), ids=LAWS)
def test_async_makes_p_updates_per_mean_time(delay):
    assert 1 / k_batch_async(delay, 1).seconds == pytest.approx(P / MEAN[delay], rel=0.01)


@pytest.mark.parametrize(
    ("delay", "speedups"),
    [
        (EXP, [3, 8.3333, 21.7429, 54.0917, 129.8718, 303.609]),
        (SHIFTED, [2.5, 6.1667, 14.8714, 35.0458, 80.9359, 183.8045]),
        (PARETO, [2.6667, 7.3143, 20.3686, 57.1633, 161.0521, 454.6353]),
    ],
    ids=["exp(1)", "1+exp(1)", "Pareto(2,1)"],
)
def test_speed_up_of_async_over_sync_is_p_times_the_maximum_over_the_mean(delay, speedups):
    for workers, speedup in zip((2, 4, 8, 16, 32, 64), speedups, strict=True):
        maximum, _ = order_statistic_moments(delay, workers, workers)
        assert workers * maximum / delay.expectation() == pytest.approx(speedup, rel=1e-4)


# Who is faster


@pytest.mark.parametrize("k", KS[:-1])
@pytest.mark.parametrize("delay", [ERLANG, SHIFTED], ids=["Erlang(4)", "1+exp(1)"])
def test_k_async_is_faster_than_k_sync_where_new_jobs_last_longer_than_used_ones(delay, k):
    assert k_async(delay, k).seconds < order_statistic_moments(delay, k)[0]


@pytest.mark.parametrize("k", KS[:-1])
def test_k_async_is_slower_than_k_sync_where_new_jobs_are_shorter_than_used_ones(k):
    assert k_async(HYPER, k).seconds > order_statistic_moments(HYPER, k)[0]


def test_for_pareto_times_k_async_loses_its_lead_between_k_4_and_k_6():
    ratio = [k_async(PARETO, k).seconds / K_SYNC_EXACT[PARETO][k - 1] for k in KS]
    assert max(ratio[:4]) < 0.95
    assert min(ratio[5:7]) > 1.05
    # At K = 5 theory has the two half a per cent apart, which only millions of gradients could resolve.
    assert ratio[4] == pytest.approx(1.6 / 1.591, rel=0.02)


# Staleness


MORE_LAWS = {**LAWS, "uniform": Uniform(0.0, 2.0), "log-normal": LogNormal(1.0, 1.0)}


@pytest.mark.parametrize("delay", MORE_LAWS.values(), ids=MORE_LAWS)
def test_k_async_mean_staleness_is_p_minus_k_over_k_whatever_the_delay(delay):
    for k in KS if delay in MEAN else (1, 3, 6):
        found = k_async(delay, k) if delay in MEAN else measure(delay, KAsync(k), 25_000)
        assert found.staleness == pytest.approx((P - k) / k, rel=0.005), f"k = {k}"


@pytest.mark.parametrize("delay", MORE_LAWS.values(), ids=MORE_LAWS)
def test_k_batch_async_mean_staleness_is_p_minus_1_over_k_whatever_the_delay(delay):
    for k in KS if delay == EXP else (1, 2, 5):
        found = k_batch_async(delay, k) if delay in MEAN else measure(delay, KBatchAsync(k), 25_000)
        assert found.staleness == pytest.approx((P - 1) / k, rel=0.005), f"k = {k}"


def test_async_staleness_of_memoryless_workers_is_geometric():
    staleness = simulate(Cluster(P, EXP), Async(), updates=100_000, seed=1).staleness
    counts = np.bincount(staleness) / len(staleness)
    geometric = (1 / P) * (1 - 1 / P) ** np.arange(len(counts))
    bhattacharyya = -math.log(np.sqrt(counts * geometric).sum())
    assert bhattacharyya < 1e-3


@pytest.mark.parametrize("k", KS)
def test_a_k_async_gradient_of_memoryless_workers_is_fresh_with_probability_k_over_p(k):
    assert k_async(EXP, k).fresh == pytest.approx(k / P, rel=0.02)


@pytest.mark.parametrize("k", KS)
def test_fresh_fraction_of_k_batch_async_with_memoryless_workers(k):
    closed_form = 1 - (P - 1) / k * (1 - (1 - 1 / P) ** k)
    assert closed_form == pytest.approx(FRESH_K_BATCH_ASYNC_EXP[k - 1], abs=1e-6)
    assert k_batch_async(EXP, k).fresh == pytest.approx(closed_form, rel=0.02)


@pytest.mark.parametrize(("delay", "k", "fresh"), each(FRESH_K_ASYNC_MEASURED, KS[1:]))
def test_fresh_fraction_of_k_async_is_what_independent_simulations_found(delay, k, fresh):
    # Pareto's fractions converge slowly, in the table as here: 2,000,000 gradients at K = 4 gave 0.360.
    assert k_async(delay, k).fresh == pytest.approx(fresh, rel=0.05 if delay == PARETO else 0.02, abs=0.003)


@pytest.mark.parametrize("delay", [EXP, HYPER, SHIFTED], ids=["exp(1)", "HyperExp", "1+exp(1)"])
def test_fresh_fraction_of_async_is_that_of_independent_renewal_processes(delay):
    # Fresh: none of the P - 1 others, each caught at a random moment of its job, finishes during this one.
    def remaining(t: float) -> float:
        """P(the rest of a running job lasts longer than t) = integral of sf from t on, over the mean."""
        if delay == HYPER:
            return 0.45 * math.exp(-2 * t) + 0.55 * math.exp(-t / 5.5)
        return {EXP: math.exp(-t), SHIFTED: 0.5 * math.exp(1 - t) if t > 1 else 1 - t / 2}[delay]

    def density(t: float) -> float:
        if delay == HYPER:
            return 1.8 * math.exp(-2 * t) + 0.1 / 5.5 * math.exp(-t / 5.5)
        return {EXP: math.exp(-t), SHIFTED: math.exp(1 - t) if t > 1 else 0.0}[delay]

    exact = integrate.quad(lambda t: density(t) * remaining(t) ** (P - 1), 0, 60, points=[1.0, 5.0])[0]
    assert k_batch_async(delay, 1).fresh == pytest.approx(exact, rel=0.02, abs=5e-4)


def test_fresh_fraction_is_below_1_over_p_where_new_lasts_longer_and_above_where_shorter():
    assert k_async(ERLANG, 1).fresh < 1 / P
    assert k_async(SHIFTED, 1).fresh < 1 / P
    assert k_async(HYPER, 1).fresh > 1 / P
