"""Mini-batches: what is drawn, and that nothing about execution changes it."""

import re
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.models import ClassesPerWorker, Dirichlet, Problem
from stalegrad.policies import Async, KSync, Sync, methods
from stalegrad.simulator import (
    Cluster,
    Experiment,
    Exponential,
    Record,
    Trace,
    mini_batches,
    replay,
    run,
    simulate,
)
from stalegrad.simulator.replays.batches import key_of, sampler
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import Request, replay_together

WORKERS = 4


@pytest.fixture(scope="module", params=[1, 3])
def schedule(request):
    synchrony = Async(local_steps=request.param)
    return lower(simulate(Cluster(WORKERS, compute=Exponential()), synchrony, updates=300))


@pytest.mark.parametrize("kind", ["epochs", "iid", "sharded"])
def test_a_draw_does_not_depend_on_how_it_is_cut(schedule, kind):
    draw = sampler(kind, 50, 8, 1, schedule, WORKERS)
    whole = draw(0, 300)
    cuts = [0, 1, 7, 64, 65, 200, 300]
    pieces = np.concatenate([draw(a, b) for a, b in pairwise(cuts)])
    assert np.array_equal(whole, pieces)
    assert whole.shape == (300, schedule.steps, 8)
    assert np.array_equal(whole, sampler(kind, 50, 8, 1, schedule, WORKERS)(0, 300))
    assert not np.array_equal(whole, sampler(kind, 50, 8, 2, schedule, WORKERS)(0, 300))


def test_iid_draws_do_not_depend_on_how_blocks_are_cut(schedule):
    draw = sampler("iid", 50, 2, 0, schedule, WORKERS)
    assert np.array_equal(draw(1000, 1100), np.concatenate([draw(1000, 1024), draw(1024, 1100)]))


@given(examples=st.integers(1, 40), size=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_every_epoch_holds_every_example_once(examples, size, seed):
    schedule = lower(simulate(Cluster(1), Async(), updates=60))
    stream = sampler("epochs", examples, size, seed, schedule, 1)(0, 60).ravel()
    for epoch in range(len(stream) // examples):
        assert sorted(stream[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_epochs_are_shuffled_anew():
    schedule = lower(simulate(Cluster(1), Async(), updates=4))
    stream = sampler("epochs", 100, 50, 0, schedule, 1)(0, 4).ravel()
    assert not np.array_equal(stream[:100], stream[100:])


def test_shards_are_disjoint_cover_everything_and_stay_with_their_workers(schedule):
    drawn = sampler("sharded", 50, 5, 0, schedule, WORKERS)(0, 300)
    shards = [set(drawn[schedule.worker == w].ravel().tolist()) for w in range(WORKERS)]
    assert set.union(*shards) == set(range(50))
    assert sum(len(s) for s in shards) == 50
    assert {len(s) for s in shards} == {12, 13}


def test_every_worker_goes_through_its_shard_in_epochs(schedule):
    drawn = sampler("sharded", 48, 6, 0, schedule, WORKERS)(0, 300)
    own = drawn[schedule.worker == 2].ravel()
    for epoch in range(len(own) // 12):
        assert len(set(own[12 * epoch : 12 * epoch + 12].tolist())) == 12


def test_iid_draws_are_uniform():
    schedule = lower(simulate(Cluster(1), Async(), updates=2000))
    counts = np.bincount(sampler("iid", 20, 10, 0, schedule, 1)(0, 2000).ravel(), minlength=20)
    assert abs(counts / 1000 - 1).max() < 0.15


# Seeds

SEEDS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**63 + 1, 2**64 - 1]


@pytest.mark.parametrize("bits", [False, True])
def test_every_bit_of_a_seed_counts(bits):
    with jax.enable_x64(bits):
        keys = {seed: tuple(np.asarray(jax.random.key_data(key_of(seed))).tolist()) for seed in SEEDS}
        assert len(set(keys.values())) == len(SEEDS)
        for seed in SEEDS[:5]:
            assert keys[seed] == tuple(np.asarray(jax.random.key_data(jax.random.key(seed))).tolist())


def test_runs_of_seeds_that_differ_in_high_bits_only_start_at_other_parameters():
    problem = Problem.from_functions(lambda key: jax.random.normal(key, (3,)), lambda w, b, k: jnp.sum(w**2))
    cluster, method = Cluster(2, Exponential()), methods.async_(learning_rate=0.1)
    starts = set()
    for seed in (5, 5 + 2**32, 5 + 2**63):
        e = Experiment(problem, cluster, method, updates=1, seed=seed)
        starts.add(run(e, progress=False).history["train_loss"].iloc[0])
    assert len(starts) == 3


@pytest.mark.parametrize("seed", [2**64, 2**70, -1, 1.5, True, "1"])
def test_a_seed_is_a_number_of_64_bits(seed):
    problem = Problem.from_functions(lambda key: jnp.ones(1), lambda w, b, k: jnp.sum(w))
    trace = simulate(Cluster(2), Async(), updates=2)
    where = re.escape(f"seed = {seed!r} is not allowed")
    with pytest.raises(ValueError, match=where):
        simulate(Cluster(2), Async(), updates=2, seed=seed)
    with pytest.raises(ValueError, match=where):
        replay(trace, problem, methods.async_(), seed=seed)
    with pytest.raises(ValueError, match=r"seed of experiment = .* is not allowed"):
        Experiment(problem, Cluster(2), methods.async_(), updates=2, seed=seed)


@pytest.mark.parametrize("sampling", ["epochs", "iid", "sharded"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_examples_told_are_those_that_messages_are_computed_from(sampling, steps):
    """The gradient of a loss that is linear in the parameters is the sum of the examples themselves."""
    with jax.enable_x64(True):
        data = np.random.default_rng(0).normal(size=(30, 2))
        problem = Problem.from_functions(
            lambda key: jnp.zeros(2), lambda w, batch, key: jnp.mean(batch @ w),
            train=data, batch_size=4, sampling=sampling,
        )  # fmt: skip
        trace = simulate(Cluster(3, Exponential()), Async(local_steps=steps), updates=25, seed=2)
        drawn = mini_batches(trace, problem, seed=9)
        assert drawn.shape == (25, steps, 4)
        expected = -0.1 * data[drawn].mean(axis=2).sum(axis=(0, 1))
        params = replay(trace, problem, methods.async_(learning_rate=0.1), seed=9).params
        np.testing.assert_allclose(params, expected, rtol=1e-12)


def test_examples_of_nothing():
    trace = simulate(Cluster(3, Exponential()), Async(), wallclock=1e-9)
    rows = Problem.from_functions(
        lambda key: jnp.zeros(2), lambda w, batch, key: jnp.sum(w), train=np.ones((5, 2)), batch_size=2
    )
    assert mini_batches(trace, rows).shape == (0, 1, 2)
    none = Problem.from_functions(lambda key: jnp.zeros(2), lambda w, batch, key: jnp.sum(w))
    with pytest.raises(ValueError, match="the problem has no data"):
        mini_batches(trace, none)


# Mini-batches keyed by message


def streams_by_hand(sampling, examples, batch_size, seed, shards):
    """Return ``(worker) -> indices`` of the mini-batch that is handed out next, drawn one example at a time."""

    def rng(*key):
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    def epochs(count, *key):
        epoch = 0
        while True:
            yield from rng(*key, epoch).permutation(count)
            epoch += 1

    common = epochs(examples, 100)
    own = [epochs(len(shard), 102, worker) for worker, shard in enumerate(shards)]
    if sampling == "epochs":
        return lambda worker: [next(common) for _ in range(batch_size)]
    return lambda worker: [shards[worker][next(own[worker])] for _ in range(batch_size)]


def dropping_trace(steps=1, updates=40):
    """Return a trace of which many messages are cancelled or discarded."""
    cluster = Cluster(WORKERS, Exponential(), speeds=[1.0, 1.5, 0.5, 2.0])
    return simulate(cluster, KSync(2, local_steps=steps), updates=updates, seed=5)


def linear(sampling, **options):
    """Return a problem whose gradient is the mean of its examples, and these."""
    data = np.random.default_rng(0).normal(size=(37, 2))
    problem = Problem.from_functions(
        lambda key: jnp.zeros(2), lambda w, batch, key: jnp.mean(batch @ w),
        train=data, batch_size=4, sampling=sampling, batches="by-message", **options,
    )  # fmt: skip
    return problem, data


@pytest.mark.parametrize("sampling", ["epochs", "sharded"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_message_that_begins_takes_the_next_mini_batches_whatever_becomes_of_it(sampling, steps):
    trace = dropping_trace(steps)
    problem, _ = linear(sampling)
    shards = problem.split(WORKERS, 9) if sampling == "sharded" else []
    draw = streams_by_hand(sampling, 37, 4, 9, shards)
    begun = [[draw(worker) for _ in range(steps)] for worker in trace.column("worker")]
    assert len(begun) > 1.3 * len(trace.used)  # many lose their data
    found = mini_batches(trace, problem, seed=9)
    assert found.tolist() == np.array(begun)[trace.used].tolist()


@pytest.mark.parametrize("sampling", ["epochs", "iid", "sharded"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_execution_takes_the_examples_that_are_told(sampling, steps):
    with jax.enable_x64(True):
        trace, (problem, data) = dropping_trace(steps), linear(sampling)
        drawn = mini_batches(trace, problem, seed=9)
        expected = -0.1 * data[drawn].mean(axis=2).sum(axis=(0, 1)) / 2
        method = methods.k_sync(k=2, learning_rate=0.1, local_steps=steps)
        found = [replay(trace, problem, method, seed=9, execution=way) for way in ("scan", "loop")]
        found += replay_together([Request(trace, problem, method, Record(), 9)] * 3, 2)
        for done in found:
            np.testing.assert_allclose(done.params, expected, rtol=1e-10)
        e = Experiment(problem, Cluster(WORKERS, Exponential(), speeds=[1.0, 1.5, 0.5, 2.0]), method, 40, seed=5)
        ran = run(e, progress=False)
        told = mini_batches(ran.trace, problem, seed=5)
        np.testing.assert_allclose(ran.params, -0.05 * data[told].mean(axis=2).sum(axis=(0, 1)), rtol=1e-10)


def test_windows_and_saved_traces_take_the_same_examples(tmp_path):
    with jax.enable_x64(True):
        problem, data = linear("sharded")
        trace = simulate(Cluster(WORKERS, [1.0, 1.5, 0.5, 2.0]), Async(), updates=60)
        drawn = mini_batches(trace, problem)
        again = Trace.load(trace.save(tmp_path / "trace"))
        assert np.array_equal(mini_batches(again, problem), drawn)
        for way in ("windows", "scan"):
            done = replay(again, problem, methods.async_(learning_rate=0.1), execution=way)
            np.testing.assert_allclose(done.params, -0.1 * data[drawn].mean(axis=2).sum(axis=(0, 1)), rtol=1e-10)


def test_a_run_that_decides_from_the_loss_takes_the_examples_of_its_final_trace():
    with jax.enable_x64(True):
        problem, data = linear("epochs", evaluate=lambda w, rows: {"loss": 1.0 + jnp.mean(rows @ w) ** 2})
        method = methods.adasync(k=1, interval=2.0, learning_rate=0.1)
        ran = run(Experiment(problem, Cluster(WORKERS, Exponential()), method, updates=60), progress=False)
        assert len(ran.trace.spec["decisions"]) > 5
        used = ran.trace.messages.loc[ran.trace.used]
        weight = 1 / used.groupby("update")["steps"].transform("size").to_numpy()
        drawn = mini_batches(ran.trace, problem)
        expected = -0.1 * (weight[:, None] * data[drawn].mean(axis=2)[:, 0]).sum(axis=0)
        np.testing.assert_allclose(ran.params, expected, rtol=1e-10)


@pytest.mark.parametrize("sampling", ["epochs", "iid", "sharded"])
def test_a_draw_by_message_does_not_depend_on_how_it_is_cut(sampling):
    lowered = lower(dropping_trace(3))
    draw = sampler(sampling, 37, 4, 1, lowered, WORKERS, by_message=True)
    whole = draw(0, 80)
    assert np.array_equal(whole, np.concatenate([draw(a, b) for a, b in pairwise([0, 1, 7, 64, 65, 80])]))
    assert np.array_equal(whole, sampler(sampling, 37, 4, 1, lowered, WORKERS, by_message=True)(0, 80))
    assert whole.shape == (80, 3, 4)


@pytest.mark.parametrize("sampling", ["epochs", "sharded"])
def test_where_every_message_is_used_in_order_the_key_makes_no_difference(sampling):
    trace = simulate(Cluster(3), Sync(), updates=20)
    problem, _ = linear(sampling)
    assert np.array_equal(mini_batches(trace, problem), mini_batches(trace, problem.but(batches="by-gradient")))


def test_iid_draws_by_message_are_rows_of_the_same_table():
    trace, (problem, _) = dropping_trace(), linear("iid")
    rows = np.random.default_rng(np.random.SeedSequence(9, spawn_key=(101, 0))).integers(
        0, 37, (1024, 4), np.int32
    )
    assert np.array_equal(mini_batches(trace, problem, seed=9)[:, 0], rows[trace.used])


def test_a_slow_worker_that_is_always_cancelled_leaves_its_data_unused():
    """Two equal workers and one that never finishes in time: its share of the common stream is lost."""
    trace = simulate(Cluster(3, [1.0, 1.0, 1.5]), KSync(2), updates=30)
    problem, _ = linear("epochs")
    taken = mini_batches(trace, problem).ravel()
    stream = streams_by_hand("epochs", 37, 4, 0, [])
    every = [stream(None) for _ in range(90)]
    kept = [batch for i, batch in enumerate(every) if i % 3 < 2]
    assert taken.tolist() == np.concatenate(kept).tolist()


@pytest.mark.parametrize("partition", [Dirichlet(0.2), Dirichlet(0.2, "equal"), ClassesPerWorker(1)], ids=str)
def test_mini_batches_of_a_worker_come_from_its_shard_and_go_through_it(partition):
    labels = np.arange(40) % 5
    problem = Problem.from_functions(
        lambda key: jnp.zeros(1), lambda w, batch, key: jnp.sum(w), train=np.zeros((40, 1)), batch_size=2,
        labels=labels, partition=partition,
    )  # fmt: skip
    trace = simulate(Cluster(5, Exponential()), Async(), updates=300)
    drawn = mini_batches(trace, problem, seed=3)
    for worker, shard in enumerate(problem.split(5, 3)):
        own = drawn[trace.column("worker")[trace.used] == worker].ravel()
        assert set(own.tolist()) <= set(shard.tolist())
        assert len(own) > len(shard)
        assert sorted(own[: len(shard)]) == sorted(shard)
