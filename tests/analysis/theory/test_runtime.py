"""Runtime theory of the six protocols: published numbers, kinds of knowledge, and what is refused."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.analysis import (
    expected_speedup,
    expected_staleness,
    expected_update_time,
    fresh_probability,
    longer_when_new,
    throughput,
)
from stalegrad.policies.synchrony import SSP, Async, KAsync, KBatchAsync, KBatchSync, KSync, Sequential, Sync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    Correlated,
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Function,
    Gamma,
    HyperExponential,
    LogNormal,
    MarkovModulated,
    Pareto,
    Recorded,
    Shared,
    ShiftedExponential,
    TwoLevelGamma,
    Uniform,
    Weibull,
)
from stalegrad.simulator.timing.engine import simulate

P = 8
EXP, SHIFTED, PARETO = Exponential(1.0), ShiftedExponential(1.0, 1.0), Pareto(2.0, 1.0)
ERLANG, HYPER = Erlang(4, 1.0), HyperExponential((0.9, 0.1), (0.5, 5.5))
# Independent simulations of 120,000 updates of K-async, K = 1..8.
K_ASYNC_SIMULATED = {
    SHIFTED: [0.2495, 0.5340, 0.8559, 1.2413, 1.6272, 2.0547, 2.6379, 3.7229],
    PARETO: [0.2512, 0.5310, 0.8559, 1.2536, 1.5997, 2.0658, 2.8995, 5.10],
    ERLANG: [0.1252, 0.2664, 0.4286, 0.6154, 0.8296, 1.0710, 1.3579, 1.8101],
    HYPER: [0.1244, 0.2686, 0.4411, 0.6584, 0.9537, 1.3905, 2.2059, 4.37],
}


def known(estimate):
    return estimate.value, estimate.kind


# Update times


@pytest.mark.parametrize(
    ("workers", "delay", "times"),
    [
        (20, SHIFTED, [1.05, 1.279511, 1.668771, 2.314406, 4.59774]),
        (20, PARETO, [1.025641, 1.152298, 1.405409, 1.962929, 7.976346]),
    ],
    ids=["1+exp(1)", "Pareto(2,1)"],
)
def test_k_sync_waits_for_the_order_statistic(workers, delay, times):
    for k, time in zip((1, 5, 10, 15, 20), times, strict=True):
        assert known(expected_update_time(KSync(k), delay, workers)) == (pytest.approx(time, rel=1e-6), "exact")


def test_sync_is_k_sync_of_all_and_k_async_of_all():
    times = {known(expected_update_time(s, ERLANG, P)) for s in (Sync(), KSync(P), KAsync(P))}
    assert len(times) == 1
    assert times.pop() == (pytest.approx(1.8079, abs=1e-4), "numerical")


@pytest.mark.parametrize("delay", [EXP, SHIFTED, PARETO, ERLANG, HYPER], ids=repr)
def test_renewal_theory_gives_async_and_k_batch_async(delay):
    mean = {EXP: 1.0, SHIFTED: 2.0, PARETO: 2.0, ERLANG: 1.0, HYPER: 1.0}[delay]
    assert known(expected_update_time(Async(), delay, P)) == (pytest.approx(mean / P), "exact")
    assert known(expected_update_time(KAsync(1), delay, P)) == (pytest.approx(mean / P), "exact")
    assert known(expected_update_time(KBatchAsync(11), delay, P)) == (pytest.approx(11 * mean / P), "exact")


def test_k_batch_sync_is_exact_for_memoryless_and_constant_times_and_numerical_otherwise():
    assert known(expected_update_time(KBatchSync(6), EXP, P)) == (0.75, "exact")
    assert known(expected_update_time(KBatchSync(17), 2.0, P)) == (6.0, "exact")
    assert known(expected_update_time(KBatchSync(4), ERLANG, P)) == (pytest.approx(0.8407, rel=0.01), "numerical")
    bound = expected_update_time(KBatchSync(2), Empirical((1.0, 2.0)), 2)
    assert known(bound) == (pytest.approx(1.75), "upper bound")  # and really 1.5 + 0.25 / 2


@pytest.mark.parametrize("k", range(2, P))
def test_k_async_lies_on_the_side_of_k_sync_that_the_delay_says(k):
    assert expected_update_time(KAsync(k), EXP, P).kind == "exact"
    for delay in (SHIFTED, ERLANG):
        bound = expected_update_time(KAsync(k), delay, P)
        assert known(bound) == (expected_update_time(KSync(k), delay, P).value, "upper bound")
        assert K_ASYNC_SIMULATED[delay][k - 1] < bound.value
    for delay in (HYPER, PARETO):
        bound = expected_update_time(KAsync(k), delay, P)
        assert bound.kind == "lower bound"
        assert bound.value < K_ASYNC_SIMULATED[delay][k - 1] * 1.01


def test_pareto_times_leave_the_bound_at_k_5():
    sync = [expected_update_time(KSync(k), PARETO, P).value for k in (4, 5)]
    assert K_ASYNC_SIMULATED[PARETO][3] < sync[0]
    assert K_ASYNC_SIMULATED[PARETO][4] > sync[1]


def test_a_lone_worker_takes_its_mean_per_gradient():
    delay = LogNormal(1.0, 0.5)
    for synchrony in (Sync(), KSync(1), KBatchSync(5), Async(), KAsync(1), KBatchAsync(5)):
        gradients = getattr(synchrony, "k", 1)
        found = expected_update_time(synchrony, delay, 1)
        assert known(found) == (pytest.approx(gradients * delay.expectation()), "exact")


def test_workers_that_differ_add_up_their_rates():
    delays = [Exponential(0.5), Uniform(1.0, 3.0), Erlang(2, 4.0)]
    rate = 1 / 0.5 + 1 / 2.0 + 1 / 4.0
    assert expected_update_time(Async(), delays).value == pytest.approx(1 / rate)
    assert expected_update_time(KBatchAsync(5), delays, 3).value == pytest.approx(5 / rate)
    assert throughput(KBatchAsync(5), delays)["gradients_per_second"].value == pytest.approx(rate)
    memoryless = [Exponential(scale) for scale in (1.0, 2.0, 4.0)]
    assert known(expected_update_time(KBatchSync(7), memoryless)) == (pytest.approx(4.0), "exact")
    assert expected_update_time(Sync(), memoryless).kind == "numerical"


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 20), st.data())
def test_whoever_cancels_less_waits_no_longer(workers, data):
    k = data.draw(st.integers(1, workers))
    delay = data.draw(st.sampled_from([EXP, SHIFTED, ERLANG, Uniform(0.5, 1.5)]))
    batch, sync = (expected_update_time(s(k), delay, workers).value for s in (KBatchSync, KSync))
    assert k * delay.expectation() / workers <= batch * (1 + 1e-4)
    assert batch <= sync * (1 + 1e-4)


# Ratios


@pytest.mark.parametrize(
    ("delay", "ratios"),
    [
        (EXP, [3, 8.3333, 21.7429, 54.0917, 129.8718, 303.609]),
        (SHIFTED, [2.5, 6.1667, 14.8714, 35.0458, 80.9359, 183.8045]),
        (PARETO, [2.6667, 7.3143, 20.3686, 57.1633, 161.0521, 454.6353]),
    ],
    ids=repr,
)
def test_speed_up_of_async_over_sync(delay, ratios):
    for workers, ratio in zip((2, 4, 8, 16, 32, 64), ratios, strict=True):
        assert known(expected_speedup(Async(), delay, workers)) == (pytest.approx(ratio, rel=1e-4), "exact")


def test_k_async_over_k_batch_async_as_in_theorem_2():
    published = [1, 1.0714, 1.1587, 1.2690, 1.4152, 1.6238, 1.9633, 2.7179]
    for k, ratio in enumerate(published, start=1):
        slow, fast = (expected_speedup(s(k), EXP, P).value for s in (KAsync, KBatchAsync))
        assert fast / slow == pytest.approx(ratio, abs=1e-4)


def test_the_reciprocal_of_an_upper_bound_is_a_lower_one():
    assert expected_speedup(KAsync(4), ERLANG, P).kind == "lower bound"
    assert throughput(KAsync(4), ERLANG, P)["updates_per_second"].kind == "lower bound"
    assert throughput(KAsync(4), HYPER, P)["updates_per_second"].kind == "upper bound"
    assert expected_speedup(Async(), ERLANG, P).kind == "numerical"


# Staleness and freshness


@pytest.mark.parametrize("k", range(1, P + 1))
def test_mean_staleness_is_a_balance(k):
    assert known(expected_staleness(KAsync(k), P)) == ((P - k) / k, "exact")
    assert known(expected_staleness(KBatchAsync(k), P)) == ((P - 1) / k, "exact")
    assert {expected_staleness(s, P).value for s in (Sync(), KSync(k), KBatchSync(k))} == {0.0}
    assert expected_staleness(Async(), P).value == P - 1


def test_fresh_share_of_memoryless_workers():
    published = [0.125, 0.179688, 0.229818, 0.275818, 0.318073, 0.356928, 0.392696, 0.425658]
    for k, share in enumerate(published, start=1):
        assert known(fresh_probability(KBatchAsync(k), EXP, P)) == (pytest.approx(share, abs=1e-6), "exact")
        assert known(fresh_probability(KAsync(k), EXP, P)) == (pytest.approx(k / P), "exact")
    assert fresh_probability(KSync(3), HYPER, P).value == 1.0


@pytest.mark.parametrize(("delay", "share"), [(SHIFTED, 0.0009), (HYPER, 0.2164)], ids=repr)
def test_fresh_share_of_async_is_what_independent_simulations_found(delay, share):
    assert known(fresh_probability(Async(), delay, P)) == (pytest.approx(share, rel=0.03, abs=1e-4), "numerical")


@pytest.mark.parametrize(
    ("delay", "longer", "shorter"),
    [
        (EXP, True, True), (SHIFTED, True, False), (ERLANG, True, False), (Uniform(0.0, 1.0), True, False),
        (Gamma(1.0, 0.5), True, False), (Gamma(1.0, 2.0), False, True), (HYPER, False, True),
        (Weibull(2.0), True, False), (Weibull(0.5), False, True), (Deterministic(3.0), True, False),
        (PARETO, False, False), (LogNormal(1.0, 1.0), False, False),
    ],
)  # fmt: skip
def test_new_jobs_against_used_ones(delay, longer, shorter):
    assert (longer_when_new(delay), longer_when_new(delay, shorter=True)) == (longer, shorter)


# What is refused


@pytest.mark.parametrize(
    ("synchrony", "compute", "workers", "words"),
    [
        (KSync(9), EXP, 8, "k = 9 of k-sync exceeds the number of workers: allowed is 1 to 8"),
        (Async(), Pareto(1.0, 1.0), 8, "mean inf: theory needs a finite one"),
        (SSP(2), EXP, 8, "no theory for synchrony ssp: allowed are sync, k-sync"),
        (Sequential(), EXP, 8, "no theory for synchrony sequential"),
        ("async", EXP, 8, "no theory for synchrony 'async'"),
        (Async(), EXP, 0, "workers = 0 is not allowed"),
        (Async(), EXP, None, "workers = None is not allowed"),
        (Async(), [EXP, EXP], 3, "compute has 2 delays, but there are 3 workers"),
        (Async(), Function(math.ceil), 2, "has no known mean"),
        (Async(), TwoLevelGamma(), 2, "draws a machine per worker"),
        (KSync(2), TwoLevelGamma(1.0, 0.5, 0.2), 2, "no survival function"),
        (KBatchSync(9), Empirical((1.0, 2.0)), 2, "no theory for delays with jumps"),
        (KSync(2, local_steps=3), EXP, 8, "local_steps = 3"),
    ],
)
def test_settings_without_theory_are_refused(synchrony, compute, workers, words):
    with pytest.raises(ValueError, match=words):
        expected_update_time(synchrony, compute, workers)


@pytest.mark.parametrize(
    ("synchrony", "compute", "words"),
    [
        (KAsync(3), ERLANG, "known for exponential times only"),
        (Async(), [EXP] * 7 + [SHIFTED], "workers that differ"),
        (Async(), Deterministic(1.0), "has jumps"),
    ],
)
def test_fresh_shares_without_theory_are_refused(synchrony, compute, words):
    with pytest.raises(ValueError, match=words):
        fresh_probability(synchrony, compute, P)


# Times that depend on each other


def test_means_and_single_rounds_do_not_ask_what_a_worker_remembers():
    base = Gamma(1.0, 0.5)
    for synchrony in (Async(), KBatchAsync(3), Sync(), KSync(2)):
        expected = expected_update_time(synchrony, base, 4).value
        assert expected_update_time(synchrony, Correlated(base, 0.9), 4).value == pytest.approx(expected, rel=1e-9)
    switching = MarkovModulated([Exponential(1.0), Exponential(5.0)], [30.0, 10.0])
    assert expected_update_time(Async(), switching, 4).value == pytest.approx(2.0 / 4)
    trace = simulate(Cluster(4, switching), KSync(2), updates=20_000, seed=1)
    assert trace.end / 20_000 == pytest.approx(expected_update_time(KSync(2), switching, 4).value, rel=0.05)


def test_every_worker_s_own_record_counts():
    record = Recorded([[1.0, 3.0], [4.0, 4.0]])
    assert expected_update_time(Async(), record, 2).value == pytest.approx(1 / (1 / 2 + 1 / 4))
    assert simulate(Cluster(2, record), Async(), updates=3_000).end / 3_000 == pytest.approx(4 / 3, rel=0.01)


@pytest.mark.parametrize(
    ("synchrony", "compute"),
    [
        (KAsync(2), Correlated(Exponential(), 0.5)),
        (KBatchSync(2), Correlated(Exponential(), 0.5)),
        (Sync(), Recorded([1.0, 2.0])),
        (Async(), Shared(1.0, Exponential(), 5.0)),
        (Async(), MarkovModulated([1.0, 2.0], [3.0, 3.0], unit="seconds")),
    ],
)
def test_theory_that_memory_would_break_is_refused_by_name(synchrony, compute):
    with pytest.raises(ValueError, match=r"remembers: theory here needs|no distribution: its times"):
        expected_update_time(synchrony, compute, 4)
    with pytest.raises(ValueError, match=r"remembers: theory here needs|no distribution: its times"):
        fresh_probability(Async(), compute, 4)
