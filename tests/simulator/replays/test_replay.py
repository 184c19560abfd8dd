"""The replay against independent slow implementations, and what must not change a bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.models import Problem
from stalegrad.policies import (
    SSP,
    Async,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    StepDecay,
    Sync,
    methods,
)
from stalegrad.simulator import Cluster, Exponential, Gamma, Record, Trace, replay, simulate
from stalegrad.simulator.replays import scan
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower

E1 = Cluster(compute=[0.7, 1.6, 3.3])
E2 = {  # spec 6, E2: first six values of w
    "sync": [0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441],
    "k-sync": [0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441],
    "k-batch-sync": [0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441],
    "async": [0.9, 0.81, 0.71, 0.629, 0.5661, 0.4951],
    "k-async": [0.9, 0.81, 0.7195, 0.643025, 0.5787225, 0.51381137],
    "k-batch-async": [0.9, 0.805, 0.71975, 0.6295, 0.5620375, 0.50246062],
}
ALL = [
    methods.sync(),
    methods.k_sync(k=2),
    methods.k_batch_sync(k=2),
    methods.async_(),
    methods.k_async(k=2),
    methods.k_batch_async(k=2),
]
PATHS = ["scan", "loop"]


def once_per_precision(function):
    """Cache a function's results, apart for 32 and 64 bits: arrays are of the type that was enabled."""

    @functools.cache
    def cached(x64, **options):
        return function(**options)

    return lambda **options: cached(jax.config.jax_enable_x64, **options)


@once_per_precision
def quadratic():
    return Problem.from_functions(lambda key: jnp.ones(1), lambda w, batch, key: 0.5 * jnp.sum(w**2))


@once_per_precision
def regression(examples=60, features=4, batch_size=5, sampling="epochs"):
    """Linear regression: rows and targets, so that every mini-batch has a gradient of its own."""
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(examples, features)), rng.normal(size=examples)

    def loss(w, batch, key):
        x, y = batch
        return 0.5 * jnp.mean((x @ w["slope"] + w["offset"] - y) ** 2)

    def init(key):
        return {"slope": jnp.asarray(rows[0]), "offset": jnp.zeros(())}

    problem = Problem.from_functions(init, loss, train=(rows, targets), batch_size=batch_size, sampling=sampling)
    return problem, rows, targets


def values(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for path in PATHS for method in ALL] + [(methods.async_(), "windows")],
    ids=lambda value: getattr(value, "name", value),
)
def test_parameter_values_of_the_specification(method, path, x64):
    trace = simulate(E1, method.synchrony, updates=6)
    record = Record(updates=1, fn=lambda w: {"w": w[0]})
    history = replay(trace, quadratic(), method, record=record, execution=path).history
    np.testing.assert_allclose(history["w"], [1.0, *E2[method.name]], atol=5e-9)


def slow_replay(trace, rows, targets, batch_size, seed, learning_rate, sampling, momentum=0.0, decay=0.0):
    """Replay in numpy from the tables alone: keep every version, walk over the updates."""
    table = trace.messages.query("fate == 'used'").sort_values(["update", "receive_time", "worker"])
    draw = sampler(sampling, len(rows), batch_size, seed, lower(trace), trace.workers)
    versions = [np.append(rows[0], 0.0)]
    velocity = np.zeros_like(versions[0])
    gaps, gradient_id = [], 0
    for update in range(len(trace.updates)):
        total, current = 0.0, versions[-1]
        messages = table[table["update"] == update]
        for read, steps in zip(messages["read_version"], messages["steps"], strict=True):
            point = versions[read].copy()
            gaps.append(np.sqrt(np.mean((current - point) ** 2)))
            for step in range(steps):
                ids = draw(gradient_id, gradient_id + 1)[0, step]
                x, y = np.column_stack([rows[ids], np.ones(batch_size)]), targets[ids]
                gradient = x.T @ (x @ point - y) / batch_size
                total = total + gradient
                point = point - learning_rate * gradient
            gradient_id += 1
        velocity = momentum * velocity + total / len(messages) + decay * current
        versions.append(current - learning_rate * velocity)
    return versions[-1], np.array(gaps)


def as_row(params):
    """Parameters of the regression as one vector: slope, then offset."""
    return np.append(params["slope"], params["offset"])


MAKERS = {
    "sync": methods.sync,
    "k-sync": lambda **a: methods.k_sync(k=3, **a),
    "k-batch-sync": lambda **a: methods.k_batch_sync(k=3, **a),
    "async": methods.async_,
    "k-async": lambda **a: methods.k_async(k=3, **a),
    "k-batch-async": lambda **a: methods.k_batch_async(k=3, **a),
    "ssp": lambda local_steps, **a: methods.async_(synchrony=SSP(2, local_steps=local_steps), **a),
}
WAYS = [
    ("scan", "epochs", 1),
    ("scan", "iid", 1),
    ("scan", "sharded", 3),
    ("loop", "epochs", 1),
    ("loop", "epochs", 3),
]
IN_WINDOWS = [("windows", "epochs", 1), ("windows", "sharded", 3)]


@pytest.mark.parametrize(
    ("name", "path", "sampling", "local_steps"),
    [(name, *way) for name in MAKERS for way in WAYS]
    + [(name, *way) for name in ("async", "ssp") for way in IN_WINDOWS],
)
def test_trajectory_equals_a_slow_numpy_replay(name, path, sampling, local_steps, x64):
    problem, rows, targets = regression(sampling=sampling)
    method = MAKERS[name](
        learning_rate=0.05,
        local_steps=local_steps,
        optimizer={"name": "sgd", "momentum": 0.5},
        weight_decay=0.01,
    )
    trace = simulate(Cluster(5, compute=Gamma(1.0, 0.7)), method.synchrony, updates=200, seed=4)
    done = replay(trace, problem, method, seed=7, execution=path, record=Record(updates=200))
    expected, gaps = slow_replay(trace, rows, targets, 5, 7, 0.05, sampling, momentum=0.5, decay=0.01)
    np.testing.assert_allclose(as_row(done.params), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(done.history["mean_gap"].iloc[-1], gaps.mean(), rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_updates_of_unequal_size_are_replayed_too(path, x64):
    """A measured trace, in which an update averages one, two or three messages."""
    problem, rows, targets = regression()
    full = simulate(Cluster(4, compute=Exponential()), KBatchAsync(1), updates=120, seed=1).messages
    full = full[full["fate"] == "used"].sort_values("update")
    sizes = np.resize([1, 2, 3], 60)
    update = np.repeat(np.arange(60), sizes)[:120]
    last = np.array([np.flatnonzero(update == u)[-1] for u in range(update.max() + 1)])
    times = full["receive_time"].to_numpy()[last]
    read = np.searchsorted(times, full["read_time"].to_numpy(), side="right")
    table = full.assign(update=update, read_version=read, staleness=update - read)
    counts = np.bincount(update)
    trace = Trace(table, {"time": times, "messages": counts, "gradients": counts}).verify()
    assert lower(trace).messages_per_update is None
    done = replay(trace, problem, methods.async_(learning_rate=0.05), seed=7, execution=path)
    expected, _ = slow_replay(trace, rows, targets, 5, 7, 0.05, "epochs")
    np.testing.assert_allclose(as_row(done.params), expected, rtol=0, atol=1e-12)


# Reductions, bit for bit

MLP = Problem("mlp", "fashion-mnist-small", batch_size=16, hidden=[16])


@functools.cache
def plain_sgd(problem, updates, batches_per_update, seed, learning_rate):
    """Plain SGD as anybody would write it, on the mini-batches in their order: no slots, no schedule."""
    objective = problem.objective()
    init_key, loss_key = jax.random.split(jax.random.key(seed))
    trace = simulate(Cluster(1), KBatchSync(batches_per_update), updates=updates)
    count = updates * batches_per_update
    draw = sampler("epochs", objective.examples, problem.batch_size, seed, lower(trace), 1)
    ids = jnp.asarray(draw(0, count)[:, 0]).reshape(updates, batches_per_update, -1)
    rate = jnp.float32(learning_rate)

    @jax.jit
    def train(w, ids, train):
        def update(w, batches):
            total = jax.tree.map(jnp.zeros_like, w)
            for ids_of_one in batches:
                batch = jax.tree.map(lambda a, i=ids_of_one: a[i], train)
                gradient = jax.grad(objective.loss, has_aux=True)(w, objective.stats, batch, loss_key)[0]
                total = jax.tree.map(jnp.add, total, gradient)
            return jax.tree.map(lambda p, g: p - rate * (g / batches_per_update), w, total), None

        return jax.lax.scan(update, w, ids)[0]

    return train(objective.init(init_key), ids, objective.train)


def same_bits(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("synchrony", [Async(), Sync(), KAsync(1), KBatchAsync(1), KSync(1)], ids=repr)
def test_one_worker_is_plain_sgd_bit_for_bit(synchrony):
    trace = simulate(Cluster(1, compute=Exponential()), synchrony, updates=100)
    done = replay(trace, MLP, methods.async_(learning_rate=0.1), seed=3)
    assert same_bits(done.params, plain_sgd(MLP, 100, 1, 3, 0.1))


@pytest.mark.parametrize("synchrony", [Sync(), KSync(4), KAsync(4)], ids=repr)
def test_k_equal_to_the_workers_is_plain_sgd_on_k_batches_bit_for_bit(synchrony):
    trace = simulate(Cluster(4, compute=Exponential()), synchrony, updates=40)
    done = replay(trace, MLP, methods.sync(learning_rate=0.1), seed=3)
    assert same_bits(done.params, plain_sgd(MLP, 40, 4, 3, 0.1))


def test_k_batch_async_with_k_1_is_async_bit_for_bit():
    cluster = Cluster(6, compute=Exponential())
    a = replay(simulate(cluster, Async(), updates=80), MLP, methods.async_(), seed=1)
    b = replay(simulate(cluster, KBatchAsync(1), updates=80), MLP, methods.k_batch_async(k=1), seed=1)
    assert same_bits(a.params, b.params)
    pd.testing.assert_frame_equal(a.history, b.history)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (methods.async_(), "scan"),
        (methods.async_(), "windows"),
        pytest.param(methods.k_async(k=3), "scan", marks=pytest.mark.slow),
        (methods.sync(), "scan"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_chunk_length_cadence_and_progress_change_no_bit(method, path, monkeypatch):
    trace = simulate(Cluster(6, compute=Exponential()), method.synchrony, updates=90)
    reference = replay(trace, MLP, method, record=Record(updates=90), execution=path)
    for chunk in (1, 16):
        monkeypatch.setattr(scan, "CHUNK", chunk)
        done = replay(trace, MLP, method, record=Record(updates=90), execution=path)
        assert same_bits(done.params, reference.params)
    monkeypatch.undo()
    told = []
    for cadence in (Record(updates=13), Record(gradients=70), Record(wallclock=1.37, gap=False)):
        done = replay(trace, MLP, method, record=cadence, execution=path, progress=told.append)
        assert same_bits(done.params, reference.params)
    assert sum(told) == 3 * 90


def test_both_executions_agree():
    method = methods.k_async(k=3, learning_rate=0.05, optimizer="adam", weight_decay=1e-3)
    trace = simulate(Cluster(6, compute=Exponential()), method.synchrony, updates=60)
    a, b = (replay(trace, MLP, method, execution=path) for path in PATHS)
    assert (a.execution, b.execution) == ("scan", "loop")
    np.testing.assert_allclose(values(a.params), values(b.params), rtol=0, atol=2e-5)
    np.testing.assert_allclose(a.history["mean_gap"], b.history["mean_gap"], rtol=1e-3, equal_nan=True)


@given(seed=st.integers(0, 2**31), other=st.integers(0, 2**31))
@settings(max_examples=5, deadline=None)
def test_a_seed_decides_everything(seed, other):
    problem, *_ = regression()
    trace = simulate(Cluster(3, compute=Exponential()), Async(), updates=20)
    one, two, three = (replay(trace, problem, methods.async_(), seed=s) for s in (seed, seed, other))
    assert same_bits(one.params, two.params)
    assert seed == other or not same_bits(one.params, three.params)


# Details


def test_the_users_initial_arrays_survive():
    start = jnp.arange(3.0)
    problem = Problem.from_functions(lambda key: start, lambda w, batch, key: jnp.sum(w**2))
    trace = simulate(Cluster(3), Async(), updates=10)
    first = replay(trace, problem, methods.async_())
    second = replay(trace, problem, methods.async_())
    assert start.tolist() == [0.0, 1.0, 2.0]
    assert same_bits(first.params, second.params)


def test_keys_given_to_the_loss_are_fresh_for_every_gradient_and_the_same_in_both_executions(x64):
    def loss(w, batch, key):
        return jnp.vdot(w, jax.random.normal(key, w.shape))

    problem = Problem.from_functions(lambda key: jnp.zeros(2), loss)
    trace = simulate(Cluster(2, compute=Exponential()), KAsync(2, local_steps=2), updates=5)
    record = Record(updates=1, fn=lambda w: {"w": w[0]})
    method = methods.k_async(k=2, local_steps=2, learning_rate=1.0)
    scan_, loop = (replay(trace, problem, method, record=record, execution=path).history["w"] for path in PATHS)
    np.testing.assert_allclose(scan_, loop, atol=1e-12)
    assert len(set(np.diff(scan_))) == 5


def test_convolutions_on_cpu_take_the_loop():
    def loss(w, batch, key):
        out = jax.lax.conv_general_dilated(batch, w, (1, 1), "SAME")
        return jnp.mean(out**2)

    images = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    problem = Problem.from_functions(lambda key: jnp.ones((2, 1, 3, 3)), loss, train=images, batch_size=4)
    trace = simulate(Cluster(3, compute=Exponential()), Async(), updates=12)
    chosen = replay(trace, problem, methods.async_(learning_rate=1e-3))
    assert chosen.execution == ("loop" if jax.default_backend() == "cpu" else "scan")
    forced = replay(trace, problem, methods.async_(learning_rate=1e-3), execution="scan")
    np.testing.assert_allclose(values(chosen.params), values(forced.params), rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="measured on CPU")
def test_small_problems_of_many_workers_take_windows_on_cpu():
    small, *_ = regression()
    large = Problem("mlp", "fashion-mnist-small", batch_size=64, hidden=[16])
    for workers, problem, path in [(40, small, "windows"), (2, small, "scan"), (40, large, "scan")]:
        trace = simulate(Cluster(workers, compute=Exponential()), Async(), updates=60)
        done = replay(trace, problem, methods.async_(learning_rate=1e-3))
        assert done.execution == path
        single = replay(trace, problem, methods.async_(learning_rate=1e-3), execution="scan")
        np.testing.assert_allclose(values(done.params), values(single.params), rtol=1e-6)


@pytest.mark.parametrize("method", [methods.sync(), methods.k_async(k=2), methods.easgd()], ids=lambda m: m.name)
def test_windows_are_refused_where_gradients_depend_on_more_than_what_is_read(method):
    trace = simulate(Cluster(4, compute=Exponential()), method.synchrony, updates=8)
    with pytest.raises(ValueError, match=f'execution = "windows" is not allowed for {method.name}'):
        replay(trace, quadratic(), method, execution="windows")


def test_a_diverging_run_is_a_result():
    trace = simulate(Cluster(3), Async(), updates=400)
    done = replay(trace, quadratic(), methods.async_(learning_rate=50.0), record=Record(updates=10))
    assert done.diverged_at == done.history["wallclock"].iloc[-1]
    assert done.diverged_at < trace.end
    assert np.isfinite(done.history["train_loss"].iloc[:-1]).all()
    assert not np.isfinite(done.history["train_loss"].iloc[-1])


def test_learning_rates_follow_their_schedule_in_epochs():
    problem, *_ = regression(examples=50, batch_size=5)
    rate = StepDecay(0.4, [2.0, 3.0], factor=0.5, unit="epochs", warmup=1.0, warmup_from=0.25)
    trace = simulate(Cluster(2), Async(), updates=40)
    history = replay(trace, problem, methods.async_(learning_rate=rate), record=Record(updates=1)).history
    applied = history["learning_rate"].to_numpy()[1:]  # row u + 1 shows the rate of update u
    assert applied[0] == pytest.approx(0.1)
    assert applied[5] == pytest.approx(0.1 + 0.5 * 0.3)
    assert applied[10:20] == pytest.approx([0.4] * 10)
    assert applied[20:30] == pytest.approx([0.2] * 10)
    assert applied[30:] == pytest.approx([0.1] * 10)


def test_history_rows_at_a_wallclock_cadence_hold_the_last_update_up_to_then():
    trace = simulate(E1, Async(), wallclock=4.0)
    record = Record(wallclock=0.5, fn=lambda w: {"w": w[0]})
    history = replay(trace, quadratic(), methods.async_(), record=record).history
    assert history["wallclock"].tolist() == [0.5 * i for i in range(9)]
    times = trace.updates["time"].to_numpy()
    assert history["update"].tolist() == [(times <= t).sum() for t in history["wallclock"]]
    every = replay(trace, quadratic(), methods.async_(), record=Record(updates=1, fn=record.fn)).history
    assert history["w"].tolist() == [every["w"][u] for u in history["update"]]
    assert history["max_staleness"].dropna().max() == trace.staleness.max()


def test_a_program_is_traced_once_per_shape():
    """Other seeds, learning rates and hyper-parameters of the same shape reuse the compiled code."""
    traced = []

    def loss(w, batch, key):
        traced.append(1)
        return jnp.sum((w - 1.0) ** 2)

    problem = Problem.from_functions(lambda key: jnp.zeros(3), loss)
    cluster = Cluster(4, compute=Exponential())
    counts = []
    for seed, rate, decay in [(0, 0.1, 0.1), (1, 0.1, 0.1), (2, 0.2, 0.1), (3, 0.2, 0.3)]:
        method = methods.async_(learning_rate=rate, weight_decay=decay)
        replay(simulate(cluster, Async(), updates=64, seed=seed), problem, method, seed=seed)
        counts.append(len(traced))
    assert counts[0] > 0
    assert counts[1:] == [counts[0]] * 3


@pytest.mark.parametrize("unknown", ["speed", "Updates"])
def test_path_and_cadence_are_checked(unknown):
    trace = simulate(Cluster(2), Async(), updates=4)
    with pytest.raises(ValueError, match="execution"):
        replay(trace, quadratic(), methods.async_(), execution=unknown)
    with pytest.raises(ValueError, match="one cadence"):
        Record(updates=1, wallclock=1.0)


def test_batches_must_fit_the_data():
    rows = np.zeros((8, 2))
    with pytest.raises(ValueError, match="batch_size = 9"):
        Problem.from_functions(jnp.zeros, lambda w, b, k: 0.0, train=rows, batch_size=9).objective()
    sharded = Problem.from_functions(
        lambda key: jnp.zeros(2), lambda w, b, k: jnp.sum(w * b), train=rows, batch_size=4, sampling="sharded"
    )
    trace = simulate(Cluster(3), Async(), updates=4)
    with pytest.raises(ValueError, match="sharded over 3 workers"):
        replay(trace, sharded, methods.async_())


def test_the_training_loss_may_be_that_of_some_examples_evenly_spaced():
    problem, rows, targets = regression()
    trace = simulate(Cluster(3, compute=Exponential()), Async(), updates=12)
    method = methods.async_(learning_rate=0.05)
    whole, some = (replay(trace, problem, method, record=Record(train_examples=n)) for n in (None, 20))
    assert same_bits(whole.params, some.params)
    w, chosen = some.params, np.arange(20) * 3
    residual = rows[chosen] @ np.asarray(w["slope"]) + float(w["offset"]) - targets[chosen]
    np.testing.assert_allclose(some.history["train_loss"].iloc[-1], 0.5 * np.mean(residual**2), rtol=1e-5)
    assert some.history["train_loss"].iloc[-1] != whole.history["train_loss"].iloc[-1]
