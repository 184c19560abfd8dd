"""Time bounds: known values, the equation they solve, and simulations that stay below them."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import brentq

from stalegrad.analysis import (
    expected_update_time,
    optimal_time_heterogeneous,
    optimal_time_homogeneous,
    rennala_time,
    ringleader_round_time,
    ringleader_rows,
    ringmaster_time,
)
from stalegrad.policies.synchrony import Async, KBatchSync, KSync, Ringleader, Ringmaster
from stalegrad.simulator import Cluster, Exponential, MarkovModulated, Uniform, simulate

SIXTEEN = np.arange(1.0, 17)
"""tau_i = i."""

TIMES = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=12)
KINDS = {
    "fixed": lambda tau: tau,
    "uniform": lambda tau: Uniform(0.05 * tau, tau),
    "switching": lambda tau: MarkovModulated([0.05 * tau, tau], mean_stay=[6.0, 3.0]),
}


def clusters(times):
    return st.sampled_from(sorted(KINDS)).map(lambda kind: Cluster(compute=[KINDS[kind](tau) for tau in times]))


def windows(trace, length):
    times = np.concatenate([[0.0], trace.update_times])
    return times[length:] - times[:-length]


# Numbers


@pytest.mark.parametrize(
    ("threshold", "seconds", "workers"),
    [(1, 4.0, 1), (4, 7.6364, 3), (16, 17.6610, 8), (64, 47.3271, 16)],
)
def test_ringmaster_with_sixteen_workers(threshold, seconds, workers):
    bound = ringmaster_time(threshold, SIXTEEN[::-1])
    assert round(bound.seconds, 4) == seconds
    assert bound.workers == workers


@pytest.mark.parametrize(
    ("threshold", "longest", "discarded"), [(1, 1.0, 0.704), (4, 3.0, 0.556), (16, 8.0, 0.271), (64, 21.0, 0.0)]
)
def test_windows_of_ringmaster_are_those_of_an_independent_simulation(threshold, longest, discarded):
    trace = simulate(Cluster(compute=list(SIXTEEN)), Ringmaster(threshold), updates=6_000)
    assert windows(trace, threshold).max() == longest
    fate = trace.column("fate")
    share = np.sum(fate == "discarded") / np.sum((fate == "discarded") | (fate == "used"))
    assert share == pytest.approx(discarded, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(times=TIMES, batch=st.integers(1, 200))
def test_the_bound_of_rennala_is_when_whole_gradients_must_be_enough(times, batch):
    # t' solves sum max(t / tau_i - 1, 0) = S: by then floor(t / tau_i) > t / tau_i - 1 gradients are there.
    tau = np.array(times)

    def missing(t):
        return np.maximum(t / tau - 1, 0).sum() - batch

    root = brentq(missing, 0.0, tau.min() * (batch + 1), rtol=1e-14)
    bound = rennala_time(batch, times)
    assert bound.seconds == pytest.approx(root)
    assert ringmaster_time(batch, times) == pytest.approx((2 * root, bound.workers))
    # The lower bound is the same minimum, for sigma^2 / eps in place of S.
    optimal = optimal_time_homogeneous(times, (2.0, 0.5 * batch), epsilon=0.5, gap=3.0)
    assert optimal == pytest.approx((2.0 * 3.0 / 0.5 * root, bound.workers))


def test_equal_workers_and_one_worker():
    assert rennala_time(8, [3.0] * 4).seconds == pytest.approx(3.0 * (8 / 4 + 1))
    assert rennala_time(5, [2.0]) == (12.0, 1)
    assert ringmaster_time(5, [2.0]) == (24.0, 1)
    assert ringleader_round_time([2.0, 7.0, 3.0]) == 14.0
    assert ringleader_rows([3.0] * 4) == 1.0
    assert ringleader_rows([1.0] * 9 + [11.0]) == pytest.approx(11 / 4)


def test_the_optimal_time_of_unlike_data_by_hand():
    found = optimal_time_heterogeneous([1.0, 2.0, 6.0], (2.0, 0.3), epsilon=0.1, gap=5.0)
    assert found == pytest.approx(6 * 100 + 3 * 0.3 * 1000 / 3)
    halved = optimal_time_heterogeneous([1.0, 2.0, 6.0], (2.0, 0.3), epsilon=0.1, gap=5.0, batch_size=2)
    assert halved == pytest.approx(6 * 100 + 3 * 0.15 * 1000 / 3)


@pytest.mark.parametrize(
    ("needed", "backups", "seconds"),
    [(8, 0, 2.7179), (7, 1, 1.7179), (6, 2, 1.2179), (96, 4, 3.1040), (100, 0, 5.1874)],
)
def test_times_with_backup_workers_are_differences_of_harmonic_numbers(needed, backups, seconds):
    found = expected_update_time(KSync(needed), Exponential(), needed + backups)
    assert found.value == pytest.approx(seconds, abs=5.1e-5)
    assert found.value == pytest.approx(sum(1 / i for i in range(backups + 1, needed + backups + 1)))


# Simulation


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_iteration_of_rennala_takes_longer(data):
    times, batch = data.draw(TIMES), data.draw(st.integers(1, 40))
    trace = simulate(data.draw(clusters(times)), KBatchSync(batch), updates=25)
    assert windows(trace, 1).max() <= rennala_time(batch, times).seconds * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_window_of_ringmaster_takes_longer(data):
    times, threshold = data.draw(TIMES), data.draw(st.integers(1, 20))
    synchrony = Ringmaster(threshold, stops=data.draw(st.booleans()))
    trace = simulate(data.draw(clusters(times)), synchrony, updates=8 * threshold)
    assert windows(trace, threshold).max() <= ringmaster_time(threshold, times).seconds * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_round_of_ringleader_takes_longer_and_no_row_of_its_table_is_older(data):
    times = data.draw(TIMES)
    workers = len(times)
    trace = simulate(data.draw(clusters(times)), Ringleader(), updates=20 * workers)
    ends = trace.update_times[workers - 1 :: workers]
    assert np.diff(ends, prepend=0.0).max() <= ringleader_round_time(times) * (1 + 1e-9)
    used = trace.used
    last = (trace.column("update")[used] // workers + 1) * workers - 1  # update that uses the row
    assert (last - trace.column("read_version")[used]).max() <= 2 * workers - 2


@settings(max_examples=40, deadline=None)
@given(TIMES)
def test_rows_of_ringleader_hold_as_many_gradients_as_fixed_times_promise(times):
    workers = len(times)
    trace = simulate(Cluster(compute=times), Ringleader(), updates=20 * workers)
    used = trace.messages[trace.messages["update"] >= 0]
    for update in range(len(trace.updates)):
        begun = update // workers * workers
        rows = used[(used["update"] >= begun) & (used["update"] <= update)].groupby("worker").size()
        assert len(rows) == workers
        assert 1 / (1 / rows).mean() >= ringleader_rows(times) * (1 - 1e-9)


def test_half_the_bound_of_ringmaster_is_no_bound():
    # Three workers, of which the slow two finish together: one is stopped and 2 s pass, more than half the bound.
    times = [1.0, 1.05, 1.05]
    bound = ringmaster_time(2, times).seconds
    trace = simulate(Cluster(compute=times), Ringmaster(2, stops=True), updates=100)
    assert bound == pytest.approx(2 * 5 / (1 + 2 / 1.05))
    assert 0.5 * bound < windows(trace, 2).max() == pytest.approx(2.0)
    asynchronous = simulate(Cluster(compute=times), Async(), updates=100)
    assert windows(asynchronous, 2).max() < 0.5 * bound


# What is refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rennala_time(0, [1.0]), "batch = 0 is not allowed: a whole number of at least 1"),
        (lambda: rennala_time(2.5, [1.0]), "batch = 2.5"),
        (lambda: rennala_time(True, [1.0]), "batch = True"),
        (lambda: rennala_time(2, []), r"times = \[\] is not allowed: give finite seconds above 0, one per worker"),
        (lambda: rennala_time(2, [[1.0]]), "times = "),
        (lambda: rennala_time(2, 1.0), "times = 1.0"),
        (lambda: ringmaster_time(-1, [1.0]), "threshold = -1"),
        (lambda: ringmaster_time(1, [1.0, 0.0]), "times = "),
        (lambda: ringleader_round_time([1.0, np.inf]), "times = "),
        (lambda: ringleader_rows([np.nan]), "times = "),
        (lambda: optimal_time_homogeneous([1.0], (1.0, 1.0), 0.0, 1.0), "epsilon = 0.0 is not allowed"),
        (lambda: optimal_time_heterogeneous([1.0], (1.0, 1.0), 0.1, -1.0), "gap = -1.0 is not allowed"),
        (lambda: optimal_time_heterogeneous([1.0], 3.0, 0.1, 1.0), "constants = 3.0 is not allowed"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
