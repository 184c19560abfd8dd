"""Parameters from constants: numbers by hand, how theorems agree, and runs that reach their target."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.analysis import (
    Constants,
    async_learning_rate,
    birch_parameters,
    delay_adaptive_learning_rates,
    malenia_parameters,
    rennala_parameters,
    ridge_constants,
    ringleader_parameters,
    ringmaster_parameters,
    tree_distance,
)
from stalegrad.policies.synchrony import Async, KBatchSync, Malenia, Ringmaster
from stalegrad.simulator import Cluster, Exponential, simulate

MEASURED = Constants(smoothness=4.0, convexity=0.1, noise=6.0)
POSITIVE = st.floats(1e-3, 1e3)


def test_ringmaster_by_hand():
    assert ringmaster_parameters(MEASURED, epsilon=0.5, gap=2.0) == (
        pytest.approx(0.5 / (4 * 4 * 6)),
        16 * 8 * 12 + 16 * 24 * 8,
        12,
        None,
    )
    noisier = ringmaster_parameters((4.0, 0.2), epsilon=0.5, gap=2.0)  # less noise than the target: R = 1
    assert noisier == (pytest.approx(0.125), 8 * 16 + math.ceil(16 * 0.2 * 8 / 0.25 - 1e-9), 1, None)


def test_rennala_and_malenia_by_hand():
    found = rennala_parameters(MEASURED, epsilon=0.5, gap=2.0)
    assert found == (pytest.approx(0.125), 4 * 16 + 8 * 6 * 8 / (0.25 * 12), None, 12)
    assert malenia_parameters(MEASURED, 0.5, workers=5, gap=2.0) == found
    many = malenia_parameters(MEASURED, 0.5, workers=48, gap=2.0)
    assert many == (pytest.approx(0.25), 4 * 16 + 8 * 6 * 8 / (0.25 * 48), None, 48)


def test_ringleader_by_hand():
    assert ringleader_parameters(MEASURED, 0.5, workers=2).learning_rate == pytest.approx(0.5 / (10 * 4 * 6))
    assert ringleader_parameters(MEASURED, 0.5, workers=2, rows=3.0).learning_rate == pytest.approx(1.5 / 240)
    assert ringleader_parameters(MEASURED, 0.5, workers=100).learning_rate == pytest.approx(1 / (8 * 100 * 4))
    assert ringleader_parameters(MEASURED, 0.5, workers=2).updates is None


def test_birch_by_hand():
    step, gradients = birch_parameters(31, MEASURED, epsilon=0.5, gap=2.0)
    assert step == pytest.approx(1 / (2 * 31 * 4))
    assert gradients == 4 * 32 * 16 + 8 * 6 * 8 / 0.25
    assert birch_parameters(0, (4.0, 0.0), epsilon=0.5, gap=2.0) == (1 / 8, 64)
    assert birch_parameters(0, MEASURED, epsilon=0.5).step == pytest.approx(0.5 / (4 * 6 * 4))


def test_koloskova_by_hand():
    assert async_learning_rate(MEASURED, 9, 16) == pytest.approx(1 / (8 * 12))
    assert async_learning_rate(MEASURED, 1, 0) == pytest.approx(1 / 8)
    rates = delay_adaptive_learning_rates(MEASURED, 9, [0, 1, 9, 10, 160])
    assert rates == pytest.approx([1 / 16, 1 / 16, 1 / 16, 1 / 160, 1 / 2560])
    assert delay_adaptive_learning_rates(MEASURED, 9, 20).shape == ()


@settings(max_examples=60, deadline=None)
@given(smoothness=POSITIVE, noise=st.floats(0, 1e3), epsilon=POSITIVE, gap=POSITIVE)
def test_theorems_agree_where_they_are_about_the_same(smoothness, noise, epsilon, gap):
    constants = (smoothness, noise)
    ringmaster = ringmaster_parameters(constants, epsilon, gap)
    rennala = rennala_parameters(constants, epsilon, gap)
    assert ringmaster.threshold == rennala.batch
    # The batch makes noise at most eps, and the step halves it; the gradient of the mean may go further.
    assert smoothness * rennala.learning_rate * noise / rennala.batch <= epsilon / 2 * (1 + 1e-9)
    assert rennala.learning_rate <= 1 / smoothness
    # 4 Delta / (gamma eps) updates are enough for both descents, which K is never below.
    for found in (ringmaster, rennala):
        assert found.updates >= 4 * gap / (found.learning_rate * epsilon) * (1 - 1e-9)
    # Of a tree as deep as the threshold allows, step and half the gradients.
    step, gradients = birch_parameters(ringmaster.threshold - 1, constants, epsilon, gap)
    assert step >= ringmaster.learning_rate
    assert gradients == pytest.approx(ringmaster.updates / 2, abs=1.5, rel=1e-6)


def test_measured_constants_count_for_mini_batches():
    one = ringmaster_parameters(MEASURED, 0.5, 2.0, batch_size=4)
    assert one == ringmaster_parameters((4.0, 1.5), 0.5, 2.0)
    assert one.threshold == 3


def test_quotients_that_are_whole_but_for_rounding_are_not_rounded_up():
    assert 2.1 / 0.3 > 7
    assert ringmaster_parameters((1.0, 2.1), 0.3).threshold == 7
    assert ringmaster_parameters((1.0, 2.1001), 0.3).threshold == 8


# Runs: SGD along a trace in NumPy, on a quadratic with noise


def mean_square(trace, learning_rate, gap, noise, rng):
    """Mean of ||∇F||^2 over the versions of 400 runs on w^2 / 2, from F = gap."""
    w = np.full(400, math.sqrt(2 * gap))
    versions, square = [w], 0.0
    update, read = trace.column("update")[trace.used], trace.column("read_version")[trace.used]
    for number in range(len(trace.updates)):
        gradients = [versions[v] + math.sqrt(noise) * rng.standard_normal(400) for v in read[update == number]]
        square += float(np.mean(w**2)) / len(trace.updates)
        w = w - learning_rate * np.mean(gradients, axis=0)
        versions.append(w)
    return square


@pytest.mark.parametrize("noise", [0.0, 0.3, 2.0])
def test_runs_reach_their_target(noise):
    cluster, epsilon, gap, rng = Cluster(6, Exponential()), 0.4, 3.0, np.random.default_rng(0)
    found = {}
    ringmaster = ringmaster_parameters((1.0, noise), epsilon, gap)
    trace = simulate(cluster, Ringmaster(ringmaster.threshold), updates=ringmaster.updates)
    found["ringmaster"] = mean_square(trace, ringmaster.learning_rate, gap, noise, rng)
    rennala = rennala_parameters((1.0, noise), epsilon, gap)
    trace = simulate(cluster, KBatchSync(rennala.batch), updates=rennala.updates)
    found["rennala"] = mean_square(trace, rennala.learning_rate, gap, noise, rng)
    distance = tree_distance(simulate(cluster, Async(), updates=3_000))
    birch = birch_parameters(distance, (1.0, noise), epsilon, gap)
    trace = simulate(cluster, Async(), updates=birch.gradients)
    assert tree_distance(trace) <= distance
    found["birch"] = mean_square(trace, birch.step, gap, noise, rng)
    assert all(0.02 * epsilon < square <= epsilon for square in found.values()), found


def test_the_variance_of_malenia_is_that_of_its_batch():
    batch = malenia_parameters((1.0, 30.0), 1.0, workers=6).batch
    trace = simulate(Cluster(compute=[1.0, 1.0, 1.5, 2.0, 4.0, 9.0]), Malenia(batch), updates=40)
    used = trace.messages[trace.messages.fate == "used"]
    counts = used.groupby(["update", "worker"]).size().unstack()
    variance = (1 / counts).sum(axis=1) / 6**2  # of the mean over workers of their means, of unit noise
    assert (variance <= 1 / batch * (1 + 1e-9)).all()


# What is refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ringmaster_parameters(MEASURED, 0.0), "epsilon = 0.0 is not allowed: a finite number above 0"),
        (lambda: ringmaster_parameters(MEASURED, 0.1, -1.0), "gap = -1.0 is not allowed"),
        (lambda: ringmaster_parameters((0.0, 1.0), 0.1), "smoothness = 0.0 is not allowed"),
        (lambda: ringmaster_parameters((1.0, -1.0), 0.1), "noise = -1.0 is not allowed"),
        (lambda: ringmaster_parameters((1.0, math.inf), 0.1), "noise = inf is not allowed"),
        (lambda: ringmaster_parameters((1.0, 2.0, 3.0), 0.1), r"Constants, or the pair \(L, sigma\^2\)"),
        (lambda: ringmaster_parameters([1.0, 2.0], 0.1), r"constants = \[1.0, 2.0\] is not allowed"),
        (lambda: ringmaster_parameters((1.0, 1e300), 1e-300), "epsilon is too small for these constants"),
        (lambda: rennala_parameters(MEASURED, 0.1, batch_size=0), "batch_size = 0 is not allowed"),
        (
            lambda: rennala_parameters(MEASURED._replace(growth=2.0), 0.1),
            "growth = 2.0 is not allowed: .* measured_noise",
        ),
        (lambda: rennala_parameters(ridge_constants(np.eye(3), np.ones(3)), 0.1), "growth = "),
        (lambda: malenia_parameters(MEASURED, 0.1, workers=0), "workers = 0 is not allowed"),
        (lambda: ringleader_parameters(MEASURED, 0.1, 2.0), "workers = 2.0 is not allowed"),
        (lambda: ringleader_parameters(MEASURED, 0.1, 2, rows=0.5), "rows = 0.5 is not allowed"),
        (
            lambda: birch_parameters(-1, MEASURED, 0.1),
            "distance = -1 is not allowed: a whole number of at least 0",
        ),
        (lambda: async_learning_rate(MEASURED, 0, 1), "concurrency = 0"),
        (lambda: async_learning_rate(MEASURED, 2, -1), "max_staleness = -1"),
        (lambda: delay_adaptive_learning_rates(MEASURED, 2, [1, -1]), r"staleness = \[1, -1\] is not allowed"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
