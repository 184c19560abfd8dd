"""Parameters of MindFlayer: limits, promises, and times per gradient of heavy-tailed trials."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stalegrad.analysis import mindflayer_parameters, rennala_parameters
from stalegrad.policies import KBatchSync, MindFlayer
from stalegrad.simulator import Cluster, Exponential, Scipy, simulate

CONSTANTS = (2.0, 0.5)


def test_one_worker_whose_trials_always_succeed_makes_the_batch_of_rennala():
    found = mindflayer_parameters(CONSTANTS, 0.1, [3.0], [1.0], gap=3.0)
    batch = rennala_parameters(CONSTANTS, 0.1).batch
    assert found.trials == (batch,)
    assert found.expected == batch
    assert found.seconds == pytest.approx((batch + 1) * 3.0)
    assert found.learning_rate == 1 / (2 * 2.0)
    assert found.updates == math.ceil(8 * 2.0 * 3.0 / 0.1)


WORKERS = st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.05, 1.0)), min_size=1, max_size=8)


@given(workers=WORKERS, noise=st.floats(0.0, 20.0))
def test_rounds_are_as_large_as_promised_and_no_longer(workers, noise):
    limits, chances = map(list, zip(*workers, strict=True))
    found = mindflayer_parameters((1.0, noise), 0.5, limits, chances)
    batch = max(1, math.ceil(noise / 0.5 * (1 - 1e-12)))
    assert found.expected >= batch * (1 - 1e-9)
    assert all(b * limit <= found.seconds * (1 + 1e-9) for b, limit in zip(found.trials, limits, strict=True))
    fastest = np.argmin(limits)
    alone = (batch + chances[fastest]) * limits[fastest] / chances[fastest]
    assert found.seconds <= alone * (1 + 1e-9)


def test_simulated_rounds_have_the_expected_number_and_stay_within_the_time():
    scales, limits = np.array([1.0, 2.0, 5.0]), np.array([1.0, 1.5, 4.0])
    chances = 1 - np.exp(-limits / scales)
    found = mindflayer_parameters((1.0, 3.0), 0.5, limits, chances)
    cluster = Cluster(compute=[Exponential(scale) for scale in scales])
    trace = simulate(cluster, MindFlayer(found.trials, tuple(limits)), updates=4_000)
    assert np.diff(trace.update_times).max() <= found.seconds
    assert trace.updates["messages"].mean() == pytest.approx(found.expected, rel=0.02)


@pytest.mark.parametrize(("sigma", "clipped", "waiting"), [(2.0, 3.335, 8.389), (1.0, 3.524, 2.649)])
def test_time_per_gradient_with_heavy_tails(sigma, clipped, waiting):
    """One worker, 1 s + lognormal(0, sigma): limits at the median help where tails are heavy."""
    cluster = Cluster(1, Scipy("lognorm", {"s": sigma, "loc": 1.0}))
    flayed = simulate(cluster, MindFlayer(50, 2.0), updates=2_000)
    assert flayed.end / flayed.updates["gradients"].sum() == pytest.approx(clipped, rel=0.015)
    rennala = simulate(cluster, KBatchSync(50), updates=2_000)
    assert rennala.end / rennala.updates["gradients"].sum() == pytest.approx(waiting, rel=0.06)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: mindflayer_parameters(CONSTANTS, 0.0, [1.0], [1.0]), "epsilon = 0.0"),
        (lambda: mindflayer_parameters(CONSTANTS, 0.1, [0.0], [1.0]), "limits = .* finite seconds above 0"),
        (lambda: mindflayer_parameters(CONSTANTS, 0.1, [1.0], [0.0]), "chances = .* above 0"),
        (lambda: mindflayer_parameters(CONSTANTS, 0.1, [1.0, 2.0], [0.5]), "one above 0 and at most 1 for each"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
