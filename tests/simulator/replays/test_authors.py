"""What an author may give a replay and take from it: starts, mini-batches, versions, vectors, own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from stalegrad._core.trees import flat
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import (
    Cluster,
    Experiment,
    Exponential,
    Record,
    Result,
    mini_batches,
    replay,
    run,
    simulate,
    sweep,
)
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.run import Request, replay_together

RNG = np.random.default_rng(0)
ROWS, TARGETS = RNG.normal(size=(40, 3)).astype(np.float32), RNG.normal(size=40).astype(np.float32)
CLUSTER = Cluster(4, Exponential(1.0))


def init(key):
    return {"slope": jax.random.normal(key, (3,)), "offset": jnp.zeros(())}


def loss(w, batch, key):
    x, y = batch
    return 0.5 * jnp.mean((x @ w["slope"] + w["offset"] - y) ** 2)


REGRESSION = Problem.from_functions(init, loss, train=(ROWS, TARGETS), batch_size=5)


def equal(a, b):
    leaves = jax.tree.leaves(a), jax.tree.leaves(b)
    return all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


# Starts


def test_a_start_is_what_an_init_returns():
    method = methods.dana_zero(learning_rate=0.05)
    trace = simulate(CLUSTER, method.synchrony, updates=30)
    start = {"slope": np.float32([1, -2, 3]), "offset": np.float32(0.5)}
    its_own = REGRESSION.but(init=lambda key: jax.tree.map(jnp.asarray, start))
    given, expected = replay(trace, REGRESSION, method, params=start), replay(trace, its_own, method)
    assert equal(given.params, expected.params)
    pd.testing.assert_frame_equal(given.history, expected.history, check_exact=True)
    assert not equal(given.params, replay(trace, REGRESSION, method).params)
    assert (start["slope"] == [1, -2, 3]).all()  # not donated


def test_the_parameters_of_a_stored_result_are_a_start(tmp_path):
    experiment = Experiment(
        Problem("softmax-regression", "fashion-mnist-small"), CLUSTER, methods.async_(), updates=10
    )
    first = run(experiment, progress=False)
    stored = Result.load(first.save(tmp_path / "result"))
    again = replay(first.trace, experiment.problem, experiment.method, params=stored.params)
    assert again.history["test_loss"].iloc[0] == first.history["test_loss"].iloc[-1]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"slope": np.zeros(3, np.float32)}, r"params with arrays \['slope'\] .* has \['offset', 'slope'\]"),
        (
            {"slope": np.zeros(4, np.float32), "offset": np.float32(0)},
            r"slope of params has shape \(4,\) and type float32; allowed are \(3,\) and float32",
        ),
        ({"slope": np.zeros(3), "offset": np.float32(0)}, "slope of params has shape .* type float64"),
        (np.zeros(4, np.float32), r"params with arrays \['params'\]"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, said):
    method = methods.async_()
    with pytest.raises(ValueError, match=said):
        replay(simulate(CLUSTER, method.synchrony, updates=3), REGRESSION, method, params=start)


# Mini-batches


def test_mini_batches_in_an_order_of_ones_own():
    """One step at a time, by hand: on the examples given and no others."""
    method = methods.sync(learning_rate=0.1)
    trace = simulate(Cluster(1), method.synchrony, updates=6)
    batches = RNG.integers(0, 40, (6, 1, 5))
    found = replay(trace, REGRESSION, method, batches=batches, params=(start := {
        "slope": np.float32([1, 2, 3]), "offset": np.float32(0)
    }))  # fmt: skip
    slope, offset = start["slope"].astype(float), 0.0
    for chosen in batches[:, 0]:
        residual = ROWS[chosen] @ slope + offset - TARGETS[chosen]
        slope, offset = slope - 0.1 * residual @ ROWS[chosen] / 5, offset - 0.1 * residual.mean()
    np.testing.assert_allclose(found.params["slope"], slope, rtol=1e-5)
    np.testing.assert_allclose(found.params["offset"], offset, rtol=1e-4)


@pytest.mark.parametrize("method", [methods.k_async(k=2), methods.async_(local_steps=3)], ids=["k", "steps"])
def test_the_mini_batches_that_would_be_drawn_change_nothing(method):
    trace = simulate(CLUSTER, method.synchrony, updates=20)
    plain = replay(trace, REGRESSION, method)
    drawn = mini_batches(trace, REGRESSION)
    assert equal(replay(trace, REGRESSION, method, batches=drawn).params, plain.params)
    assert not equal(replay(trace, REGRESSION, method, batches=drawn[::-1]).params, plain.params)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (np.zeros((3, 5), int), r"batches of shape \(3, 5\) .* of shape \(3, 1, 5\)"),
        (np.zeros((3, 1, 5)), "type float64 are not allowed"),
        (np.full((3, 1, 5), 40), r"batches\[\(0, 0, 0\)\] = 40 is not allowed: examples are 0 to 39"),
        (np.full((3, 1, 5), -1), r"= -1 is not allowed"),
    ],
)
def test_mini_batches_that_do_not_fit_are_refused(batches, said):
    method = methods.async_()
    with pytest.raises(ValueError, match=said):
        replay(simulate(CLUSTER, method.synchrony, updates=3), REGRESSION, method, batches=batches)


# Versions

LOOK_AHEAD = methods.dana_zero(learning_rate=0.05, momentum=0.8)


@pytest.mark.parametrize("execution", ["scan", "windows", "loop", "lanes"])
def test_snapshots_are_the_versions_and_what_is_sent(execution):
    """DANA-Zero sends theta - eta gamma S; v^i <- gamma v^i + d, so S follows from the versions alone."""
    trace = simulate(CLUSTER, LOOK_AHEAD.synchrony, updates=25)
    record = Record(updates=1, params=True, fn=lambda w: {"slope": w["slope"]})
    if execution == "lanes":
        found, _ = replay_together([Request(trace, REGRESSION, LOOK_AHEAD, record, s) for s in (0, 1)], 2)
    else:
        found = replay(trace, REGRESSION, LOOK_AHEAD, record=record, execution=execution)
    kept = found.snapshots
    assert kept["update"].tolist() == list(range(26))
    assert equal(jax.tree.map(lambda leaf: leaf[-1], kept["params"]), found.params)
    columns = found.history[["slope[0]", "slope[1]", "slope[2]"]].to_numpy(np.float32)
    np.testing.assert_array_equal(columns, kept["params"]["slope"])

    velocity = np.zeros((4, 3))
    for j, worker in enumerate(trace.messages.loc[trace.used].sort_values("update")["worker"]):
        velocity[worker] = (kept["params"]["slope"][j] - kept["params"]["slope"][j + 1]) / 0.05
        ahead = kept["params"]["slope"][j + 1] - 0.05 * 0.8 * velocity.sum(0)
        np.testing.assert_allclose(kept["sent"]["slope"][j + 1], ahead, rtol=2e-4, atol=2e-5)


def test_without_a_look_ahead_the_version_itself_is_sent():
    for method in (methods.sync(), methods.k_async(k=2)):
        trace = simulate(CLUSTER, method.synchrony, updates=9)
        kept = replay(trace, REGRESSION, method, record=Record(updates=4, params=True)).snapshots
        assert kept["update"].tolist() == [0, 4, 8, 9]
        assert equal(kept["params"], kept["sent"])


def test_a_version_with_several_rows_is_kept_once():
    trace = simulate(Cluster(2, [1.0, 1.5]), methods.async_().synchrony, wallclock=4.0)
    found = replay(trace, REGRESSION, methods.async_(), record=Record(wallclock=0.25, params=True))
    assert len(found.history) == 17
    assert found.snapshots["update"].tolist() == [0, 1, 2, 3, 5, 6]  # at 0, 1, 1.5, 2, twice at 3, and at 4 s
    assert found.history["update"].unique().tolist() == [0, 1, 2, 3, 5, 6]


def test_snapshots_are_stored_and_survive_an_interruption(tmp_path):
    class Breaks(Checkpoint):
        left = 3

        def save(self, about, arrays):
            super().save(about, arrays)
            self.left -= 1
            if not self.left:
                raise InterruptedError

    experiment = Experiment(
        Problem("softmax-regression", "fashion-mnist-small", batch_size=4), CLUSTER, LOOK_AHEAD, updates=40,
        record=Record(updates=10, params=True),
    )  # fmt: skip
    whole = run(experiment, progress=False)
    first = Breaks(tmp_path / "checkpoint", {}, every=0.0)
    with pytest.raises(InterruptedError):
        replay(whole.trace, experiment.problem, LOOK_AHEAD, record=experiment.record, checkpoint=first)
    second = Checkpoint(tmp_path / "checkpoint", {})
    resumed = replay(whole.trace, experiment.problem, LOOK_AHEAD, record=experiment.record, checkpoint=second)
    assert equal(resumed.snapshots, whole.snapshots)

    stored = Result.load(whole.save(tmp_path / "result")).snapshots
    np.testing.assert_array_equal(stored["update"], [0, 10, 20, 30, 40])
    expected = flat(whole.snapshots)
    assert stored.keys() == expected.keys() >= {"update", "params/layers/1/bias", "sent/layers/1/bias"}
    for path, array in expected.items():
        np.testing.assert_array_equal(stored[path], array)


def test_more_parameters_than_are_kept_are_refused_before_any_update():
    large = Problem.from_functions(lambda key: jnp.zeros(1_000_000), lambda w, batch, key: jnp.sum(w**2))
    method = methods.async_()
    trace = simulate(CLUSTER, method.synchrony, updates=600)
    with pytest.raises(ValueError, match=r"params of record keeps twice 4000000 bytes in 601 rows, .* 536 rows"):
        replay(trace, large, method, record=Record(updates=1, params=True))


# Vectors


def test_a_vector_becomes_columns():
    record = Record(updates=5, fn=lambda w: {"w": jnp.outer(w["slope"], jnp.arange(2.0)), "one": w["slope"][:1]})
    method = methods.async_()
    trace = simulate(CLUSTER, method.synchrony, updates=10)
    found = replay(trace, REGRESSION, method, record=record)
    own = [name for name in found.history if name.startswith(("w[", "one"))]
    assert own == ["w[0,0]", "w[0,1]", "w[1,0]", "w[1,1]", "w[2,0]", "w[2,1]", "one[0]"]
    np.testing.assert_allclose(found.history[["w[0,1]", "w[1,1]", "w[2,1]"]].iloc[-1], found.params["slope"])
    with pytest.raises(ValueError, match=r"shape \(10001,\) for the column 'w': at most 10000 numbers"):
        replay(trace, REGRESSION, method, record=Record(fn=lambda w: {"w": np.zeros(10_001)}))


# Gradients


@pytest.mark.parametrize("method", [
    methods.k_async(k=2), methods.dana_zero(), methods.easgd(local_steps=2), methods.async_(optimizer="adam"),
], ids=lambda method: method.name)  # fmt: skip
@pytest.mark.parametrize("execution", ["scan", "loop"])
def test_the_derivative_given_as_a_gradient_changes_nothing(method, execution):
    trace = simulate(CLUSTER, method.synchrony, updates=20)
    own = REGRESSION.but(gradient=jax.grad(loss))
    plain, given = (replay(trace, p, method, execution=execution).params for p in (REGRESSION, own))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_workers_compute_the_gradient_that_is_given():
    """Signs of a loss that has no derivative: w moves by the learning rate, whatever the loss."""

    def sign(w, batch, key):
        return jax.tree.map(lambda leaf: jnp.ones_like(leaf), w)

    rounded = REGRESSION.but(loss=lambda w, batch, key: jnp.round(loss(w, batch, key)), gradient=sign)
    method = methods.async_(learning_rate=0.5)
    trace = simulate(CLUSTER, method.synchrony, updates=8)
    found = replay(trace, rounded, method, params=jax.tree.map(jnp.zeros_like, init(jax.random.key(0))))
    np.testing.assert_allclose(found.params["slope"], [-4.0] * 3)
    assert float(found.history["train_loss"].iloc[-1]).is_integer()


def test_noise_is_drawn_anew_for_every_mini_batch():
    still = Problem.from_functions(
        lambda key: jnp.zeros(2), lambda w, batch, key: jnp.sum(w),
        gradient=lambda w, batch, key: jax.random.normal(key, w.shape),
    )  # fmt: skip
    method = methods.async_(learning_rate=1.0)
    trace = simulate(CLUSTER, method.synchrony, updates=200)
    kept = replay(trace, still, method, record=Record(updates=1, params=True)).snapshots["params"]
    steps = np.diff(kept, axis=0)
    assert len(np.unique(steps)) == 400
    assert abs(steps.mean()) < 0.2
    assert 0.85 < steps.std() < 1.15


@pytest.mark.parametrize(
    ("gradient", "said"),
    [
        (lambda w, batch, key: w["slope"], "returned the shapes .*it must return arrays of the shapes of params"),
        (lambda w, batch, key: 1 / 0, r"gradient\(params, batch, key\) .* raised ZeroDivisionError"),
    ],
)
def test_a_wrong_gradient_is_refused(gradient, said):
    with pytest.raises(ValueError, match=said):
        REGRESSION.but(gradient=gradient).objective()


# Problems of one's own in sweeps


def test_problems_of_ones_own_are_axes_of_a_sweep():
    steep = REGRESSION.but(
        gradient=lambda w, batch, key: jax.tree.map(lambda g: 3 * g, jax.grad(loss)(w, batch, key))
    )
    experiment = Experiment(REGRESSION, CLUSTER, methods.async_(learning_rate=0.05), updates=20)
    found = sweep(experiment, progress=False, problem=[REGRESSION, steep], seed=[0, 1])
    assert len(found.results) == 4
    faster = run(experiment.but(method=methods.async_(learning_rate=0.15)), progress=False)
    own = next(r for r in found.results if r.experiment.problem is steep and r.experiment.seed == 0)
    np.testing.assert_allclose(own.params["slope"], faster.params["slope"], rtol=1e-4)
