"""What is recorded of every message: staleness, gap, gradient norm, effective step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Gamma, Record, Result, replay, run, simulate
from stalegrad.simulator.replays.lowering import lower

RATE, UPDATES = 0.1, 150
CLUSTER = Cluster(4, compute=Gamma(1.0, 0.6))
CURVATURE = np.array([0.5, 1.0, 2.0])
RECORDED = Record(updates=10, per_gradient=True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def quadratic():
    return Problem.from_functions(
        lambda key: jnp.ones(3), lambda w, batch, key: 0.5 * jnp.sum(jnp.array([0.5, 1.0, 2.0]) * w**2)
    )


def recorded(method, path=None, updates=UPDATES):
    trace = simulate(CLUSTER, method.synchrony, updates=updates, seed=3)
    return trace, replay(trace, quadratic(), method, record=RECORDED, execution=path)


@pytest.mark.parametrize("path", ["scan", "loop"])
@pytest.mark.parametrize(
    "method",
    [methods.async_(learning_rate=RATE), methods.k_batch_async(k=3, learning_rate=RATE)],
    ids=lambda m: m.name,
)
def test_the_table_equals_a_walk_over_the_trace(method, path, x64):
    trace, done = recorded(method, path)
    schedule = lower(trace)
    versions, expected = [np.ones(3)], []
    for u in range(UPDATES):
        ids = range(schedule.first[u], schedule.first[u + 1])
        reads = [versions[schedule.read_version[m]] for m in ids]
        for m, w in zip(ids, reads, strict=True):
            gap = np.sqrt(np.mean((versions[-1] - w) ** 2))
            norm = np.linalg.norm(CURVATURE * w)
            expected.append(
                (schedule.worker[m], u, schedule.time[u], schedule.staleness[m], gap, norm, RATE, RATE)
            )
        versions.append(versions[-1] - RATE * np.mean([CURVATURE * w for w in reads], axis=0))
    assert list(done.gradients.columns) == [
        "worker", "update", "wallclock", "staleness", "gap", "gradient_norm", "learning_rate", "effective_step",
    ]  # fmt: skip
    np.testing.assert_allclose(done.gradients.to_numpy(float), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(done.gradients["staleness"], trace.staleness)
    first = done.history.iloc[1]
    here = done.gradients.query("update < 10")
    assert first["mean_gap"] == pytest.approx(here["gap"].mean(), rel=1e-12)


def test_the_effective_step_is_what_staleness_leaves_of_the_learning_rate(x64):
    method = methods.staleness_aware(offset=1, momentum=None, learning_rate=RATE)
    table = recorded(method)[1].gradients
    np.testing.assert_allclose(table["effective_step"], RATE / (table["staleness"] + 1), rtol=1e-12)


def test_the_effective_step_is_what_the_gap_leaves_of_the_learning_rate(x64):
    threshold = 1e-3
    table = recorded(methods.gap_limited(threshold=threshold, learning_rate=RATE))[1].gradients
    square = 3 * table["gap"] ** 2  # the recorded gap is a root mean square over 3 parameters
    expected = np.minimum(threshold / np.maximum(square, 1e-30), RATE)
    np.testing.assert_allclose(table["effective_step"], expected, rtol=1e-9)
    assert (expected < RATE).sum() >= 10


def test_workers_that_send_displacements_have_the_learning_rate_in_them(x64):
    table = recorded(methods.delayed_averaging(tau=4, learning_rate=RATE))[1].gradients
    np.testing.assert_allclose(table["effective_step"], 1.0, rtol=1e-12)
    assert (table["gradient_norm"] > 0).all()


def test_recording_changes_no_bit_and_is_off_by_default():
    method = methods.gap_aware(learning_rate=RATE)
    trace, done = recorded(method)
    plain = replay(trace, quadratic(), method, record=Record(updates=10))
    assert plain.gradients is None
    assert np.asarray(plain.params).tobytes() == np.asarray(done.params).tobytes()
    assert plain.history.equals(done.history)


def test_a_run_that_diverges_has_the_gradients_until_then():
    trace, done = recorded(methods.async_(learning_rate=50.0))
    assert done.diverged_at is not None
    assert len(done.gradients) == done.history["update"].iloc[-1] < len(trace.used)


def test_no_updates_give_an_empty_table():
    experiment = Experiment(quadratic(), CLUSTER, methods.async_(), wallclock=1e-3, record=RECORDED)
    assert run(experiment, progress=False).gradients.empty


def test_the_table_is_saved_and_comes_back(tmp_path):
    problem = Problem("softmax-regression", "fashion-mnist-small", batch_size=8)
    experiment = Experiment(problem, CLUSTER, methods.async_(), updates=20, record=RECORDED)
    result = run(experiment, progress=False)
    result.save(tmp_path / "run")
    assert Result.load(tmp_path / "run").gradients.equals(result.gradients)
