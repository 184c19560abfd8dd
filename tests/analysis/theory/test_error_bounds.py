"""Error bounds: the recursion they solve, the closed forms of the best k, and MindTheStep's numbers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.analysis import (
    Constants,
    ErrorBound,
    expected_update_time,
    mind_the_step_learning_rate,
    mind_the_step_updates,
)
from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync
from stalegrad.simulator.timing.delays import Exponential, Gamma, HyperExponential, Pareto, ShiftedExponential

CONSTANTS = Constants(smoothness=2.0, convexity=0.5, noise=3.0, growth=4.0)
BOUND = ErrorBound(CONSTANTS, learning_rate=0.05, gap=7.0, batch_size=2, gamma=0.3, p0=0.25)
PLAIN = Constants(1.0, 1.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    gamma=st.floats(0, 0.99), p0=st.floats(0, 1), k=st.integers(1, 9), m=st.integers(1, 64), gap=st.floats(0, 100)
)
def test_the_error_bound_solves_the_recursion_of_the_proof(gamma, p0, k, m, gap):
    bound = ErrorBound(CONSTANTS, 0.04, gap, m, gamma, p0)
    error, eta, (smooth, c, noise, _) = gap, 0.04, CONSTANTS
    for j in range(30):
        assert bound.error(j, k) == pytest.approx(error, rel=1e-9, abs=1e-12)
        # -eta/2 (1 - gamma + p0/2) E||grad F||^2 + L eta^2 sigma^2 / (2 K m), with E||grad F||^2 >= 2 c (F - F*)
        error += -eta / 2 * (1 - gamma + p0 / 2) * 2 * c * error + smooth * eta**2 * noise / (2 * k * m)


def test_the_gradient_bound_by_hand():
    shrinkage = 1 - 0.3 + 0.125
    by_hand = 2 * 7.0 / (10 * 0.05 * shrinkage) + 2.0 * 0.05 * 3.0 / (3 * 2 * shrinkage)
    assert BOUND.gradient(9, k=3) == pytest.approx(by_hand)


def test_the_printed_step_condition_would_allow_divergence():
    # Printed: eta <= 1 / (2 L (M_G / (K m) + 1 / K)), which is 4 / L for K = 8 and M_G = 0.
    bound = ErrorBound(PLAIN, learning_rate=4.0, gap=0.5)
    assert abs((1 - 4.0) ** 10) == 59049  # gradient descent on w^2 / 2 from 1
    with pytest.raises(
        ValueError, match=r"learning_rate = 4 is beyond the bound's condition: with k = 8 at most 0.5"
    ):
        bound.error(10, k=8)
    with pytest.raises(ValueError, match="beyond the bound's condition"):
        bound.gradient(10, k=8)


def test_the_largest_step_grows_with_the_gradients_of_an_update():
    assert BOUND.largest_learning_rate(1) == pytest.approx(1 / (4 * (4 / 2 + 1)))
    assert BOUND.largest_learning_rate(4) == pytest.approx(1 / (4 * (4 / 8 + 1)))


def test_bounds_against_wallclock_count_updates_by_their_expected_time():
    seconds = np.array([0.0, 10.0, 40.0])
    law = ShiftedExponential(1.0, 1.0)
    for synchrony, k in ((Sync(), 8), (KSync(3), 3), (Async(), 1), (KBatchAsync(3), 3), (KAsync(3), 3)):
        time = expected_update_time(synchrony, law, 8).value
        found = BOUND.against_wallclock(seconds, synchrony, law, 8)
        assert found == pytest.approx(BOUND.error(seconds / time, k))
    assert BOUND.against_wallclock(5.0, Sync(), [law] * 4, quantity="gradient") == pytest.approx(
        BOUND.gradient(5.0 / expected_update_time(Sync(), law, 4).value, 4)
    )


@pytest.mark.parametrize("seconds", [20.0, 200.0, 2_000.0])
def test_the_best_k_of_k_batch_async_is_the_square_root_rule(seconds):
    workers, bound = 32, ErrorBound(Constants(1.0, 0.0, 2.0), 0.1, 1.0)
    # K* = eta sqrt(L sigma^2 P t / (2 m E[X] gap))
    root = 0.1 * math.sqrt(1.0 * 2.0 * workers * seconds / (2 * 0.5 * 1.0))
    for law in (Exponential(0.5), Gamma(0.5, 0.3)):
        best = bound.best_k(seconds, KBatchAsync(1), law, workers, "gradient")
        assert best in (math.floor(min(root, workers)), math.ceil(min(root, workers)))


@pytest.mark.parametrize("seconds", [20.0, 200.0, 2_000.0, 200_000.0])
def test_the_best_k_of_k_sync_is_the_quadratic_rule(seconds):
    workers, bound = 32, ErrorBound(Constants(1.0, 0.0, 2.0), 0.1, 1.0)
    # K^2 / (P - K) = theta = mu t L eta^2 sigma^2 / (2 m gap), in the approximation log(P / (P - K)) of E[T]
    theta = seconds * 0.1**2 * 2.0 / 2
    root = (-theta + math.sqrt(theta**2 + 4 * theta * workers)) / 2
    best = bound.best_k(seconds, KSync(1), ShiftedExponential(1.0, 1.0), workers, "gradient")
    assert abs(best - root) <= 1.5


def test_the_best_k_grows_with_time():
    bound = ErrorBound(Constants(1.0, 0.1, 2.0), 0.1, 5.0)
    best = [bound.best_k(seconds, KBatchSync(1), Exponential(1.0), 16) for seconds in (1.0, 10.0, 100.0, 1_000.0)]
    assert best == sorted(best)
    assert best[0] == 1
    assert best[-1] == 16


def test_k_below_the_step_condition_is_passed_over():
    bound = ErrorBound(Constants(1.0, 0.0, 0.0, growth=3.0), 0.2, 1.0)  # without noise small k is best; k >= 2 may
    assert bound.best_k(10.0, KBatchAsync(1), Exponential(1.0), 8, "gradient") == 2
    with pytest.raises(ValueError, match="with k = 8 at most"):
        dataclasses.replace(bound, learning_rate=0.45).best_k(10.0, KSync(1), Exponential(1.0), 8, "gradient")


# MindTheStep


def test_mind_the_step_for_eight_exponential_workers():
    constants, target = Constants(1.0, 1.0, 1.0), 0.05
    step = mind_the_step_learning_rate(target, 7.0, constants=constants, second_moment=5.0)
    assert step == pytest.approx(4.16667e-3, rel=1e-5)
    staleness = 1 / 8 * (7 / 8) ** np.arange(600)
    updates = mind_the_step_updates(
        np.full(600, step), staleness, target, 4.0, constants=constants, second_moment=5.0
    )
    assert updates == pytest.approx(1051.69, rel=1e-5)


@pytest.mark.parametrize("theta", [0.2, 1.0, 1.7])
def test_mind_the_step_with_one_step_for_all_is_the_corollary(theta):
    constants, target, distance, square = Constants(3.0, 0.4, 0.0), 0.02, 9.0, 2.5
    share = np.array([0.5, 0.2, 0.2, 0.1])
    mean, m = float(share @ np.arange(4)), math.sqrt(square)
    step = mind_the_step_learning_rate(target, mean, constants=constants, second_moment=square, theta=theta)
    found = mind_the_step_updates(
        np.full(4, step), share, target, distance, constants=constants, second_moment=square
    )
    slowed = m * (m + 2 * 3.0 * math.sqrt(target) * mean)
    closed = slowed / (theta * (2 - theta) * 0.4**2 * target) * math.log(distance / target)
    assert found == pytest.approx(closed)


def test_mind_the_step_is_there_already():
    found = mind_the_step_updates([1e-3], [1.0], 0.5, 0.4, constants=PLAIN, second_moment=1.0)
    assert found == 0.0


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate = 0.0 is not allowed: a finite number above 0"),
        ({"gap": -1.0}, "gap = -1.0"),
        ({"gap": math.nan}, "gap = nan"),
        ({"batch_size": 0}, "batch_size = 0 is not allowed: a finite number of at least 1"),
        ({"gamma": 1.5}, "gamma = 1.5 is not allowed: a finite number of at least 0 and at most 1"),
        ({"p0": -0.1}, "p0 = -0.1"),
        ({"gamma": 1.0, "p0": 0.0}, "gamma = 1 with p0 = 0 bounds nothing"),
        ({"constants": CONSTANTS._replace(smoothness=-1.0)}, "smoothness = -1.0"),
        ({"constants": CONSTANTS._replace(convexity=3.0)}, "convexity = 3.0 is not allowed: .* at most 2"),
        ({"constants": CONSTANTS._replace(noise=-1.0)}, "noise = -1.0"),
        ({"constants": CONSTANTS._replace(growth=math.inf)}, "growth = inf"),
    ],
)
def test_bad_arguments_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(BOUND, **change)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: b.error(-1), "updates must be numbers of at least 0"),
        (lambda b: b.error(1, k=0), "k = 0"),
        (lambda b: dataclasses.replace(b, constants=CONSTANTS._replace(convexity=0.0)).error(1), "above 0 only"),
        (lambda b: b.against_wallclock(1.0, KAsync(2), Pareto(3.0), 8), "no upper bound"),
        (
            lambda b: b.against_wallclock(1.0, KAsync(2), HyperExponential((0.5, 0.5), (1.0, 9.0)), 8),
            "no upper bound",
        ),
        (lambda b: b.against_wallclock(1.0, KSync(9), Exponential(1.0), 8), "exceeds the number of workers"),
        (lambda b: b.against_wallclock(1.0, Async(), Exponential(1.0), 8, "loss"), "quantity = 'loss'"),
        (lambda b: b.best_k(1.0, Async(), Exponential(1.0), 8), "async has no k to choose"),
        (lambda b: b.best_k(1.0, KSync(1), Exponential(1.0)), "workers = None is not allowed"),
        (lambda b: b.best_k(-1.0, KSync(1), Exponential(1.0), 8), "wallclock = -1.0"),
    ],
)
def test_bounds_that_do_not_exist_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(BOUND)


@pytest.mark.parametrize(
    ("rates", "shares", "words"),
    [
        ([0.1, 0.2], [0.5, 0.5], "not increase with staleness"),
        ([0.1, 0.1], [0.5, 0.4], "staleness sums to 0.9"),
        ([0.1], [0.5, 0.5], "one number each per tau"),
        ([0.9, 0.9], [0.5, 0.5], "beyond the bound's condition"),
    ],
)
def test_mind_the_step_refuses(rates, shares, words):
    with pytest.raises(ValueError, match=words):
        mind_the_step_updates(rates, shares, 0.1, 1.0, constants=PLAIN, second_moment=1.0)


def test_mind_the_step_needs_theta_below_two():
    with pytest.raises(ValueError, match=r"theta = 2\.0 is not allowed"):
        mind_the_step_learning_rate(0.1, 1.0, constants=PLAIN, second_moment=1.0, theta=2.0)
