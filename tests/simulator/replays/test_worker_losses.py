"""Losses of the workers in the history: against closed forms, and against the loss of the whole set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Assigned, Dirichlet, Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, Result, replay, run, simulate
from stalegrad.simulator.replays.run import Request, replay_together
from stalegrad.simulator.sweeps.lanes import planned_lanes, run_together

SMALL = "fashion-mnist-small"
METHOD = methods.async_(learning_rate=0.05)


def columns(workers):
    return [f"worker_loss[{worker}]" for worker in range(workers)]


def weighted(history, problem, workers, seed=0):
    """Return the mean of the workers' losses, weighted by the sizes of their shards."""
    sizes = np.array([len(shard) for shard in problem.split(workers, seed)])
    return history[columns(workers)].to_numpy() @ sizes / sizes.sum()


@pytest.mark.parametrize(("model", "options"), [("mlp", {"hidden": (8,)}), ("softmax-regression", {"l2": 0.01})])
def test_their_mean_is_the_training_loss_and_the_run_is_the_same(model, options):
    problem = Problem(model, SMALL, batch_size=8, partition=Dirichlet(0.1), **options)
    e = Experiment(problem, Cluster(5, Exponential()), METHOD, updates=30, seed=3)
    plain = run(e.but(record=Record(updates=10)), progress=False)
    told = run(e.but(record=Record(updates=10, worker_losses=True)), progress=False)
    np.testing.assert_allclose(weighted(told.history, problem, 5, 3), told.history["train_loss"], rtol=1e-6)
    np.testing.assert_allclose(told.history["train_loss"], plain.history["train_loss"], rtol=1e-6)
    for name in ("wallclock", "test_loss", "test_error", "mean_gap"):
        np.testing.assert_array_equal(told.history[name], plain.history[name])
    jax.tree.map(np.testing.assert_array_equal, told.params, plain.params)
    assert list(told.history.columns) == [*plain.history.columns, *columns(5)]
    assert np.ptp(told.history[columns(5)].to_numpy()[-1]) > 0.1  # skewed shards: the workers differ


def test_each_is_that_of_the_workers_examples():
    problem = Problem("softmax-regression", SMALL, l2=0.01, partition=Dirichlet(0.1))
    cluster = Cluster(4, Exponential())
    trace = simulate(cluster, METHOD.synchrony, updates=12)
    done = replay(trace, problem, METHOD, record=Record(updates=12, worker_losses=True))
    x, y = map(np.asarray, problem.objective().train)
    bias, kernel = sorted(map(np.asarray, jax.tree.leaves(done.params)), key=np.ndim)
    logits = (x.reshape(len(x), -1) @ kernel + bias).astype(float)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    for worker, shard in enumerate(problem.split(4)):
        expected = losses[shard].mean() + 0.01 * (kernel.astype(float) ** 2).sum()
        assert done.history[f"worker_loss[{worker}]"].iloc[-1] == pytest.approx(expected, rel=1e-5)


def quadratics(**options):
    """Return 1/2 the mean squared distance to rows of two workers: two of them around 0, four around 10."""
    rows = np.array([[-1.0], [1.0], [9.0], [9.0], [11.0], [11.0]])
    return Problem.from_functions(
        lambda key: jnp.zeros(1), lambda w, batch, key: 0.5 * jnp.mean((batch - w) ** 2), train=rows, batch_size=2,
        partition=Assigned([0, 0, 1, 1, 1, 1]), **options,
    )  # fmt: skip


def test_losses_of_your_own_functions_are_those_on_the_workers_rows():
    with jax.enable_x64(True):
        problem = quadratics()
        trace = simulate(Cluster(2, Exponential()), METHOD.synchrony, updates=9)
        record = Record(updates=3, worker_losses=True, params=True)
        done = replay(trace, problem, METHOD, record=record)
        w = done.snapshots["params"][:, 0]
        np.testing.assert_allclose(done.history["worker_loss[0]"], 0.5 * (w**2 + 1), rtol=1e-12)
        np.testing.assert_allclose(done.history["worker_loss[1]"], 0.5 * ((w - 10) ** 2 + 1), rtol=1e-12)
        np.testing.assert_allclose(weighted(done.history, problem, 2), done.history["train_loss"], rtol=1e-12)
        own = quadratics(evaluate=lambda w, rows: {"loss": jnp.max(rows) + 0 * w[0]})
        found = replay(trace, own, METHOD, record=record).history
        assert found[columns(2)].to_numpy().tolist() == [[1.0, 11.0]] * 4


def test_of_a_sample_they_are_over_the_workers_part_of_it():
    with jax.enable_x64(True):
        trace = simulate(Cluster(2, Exponential()), METHOD.synchrony, updates=2)
        record = Record(updates=2, worker_losses=True, train_examples=2)  # rows 0 and 3
        history = replay(trace, quadratics(), METHOD, record=record).history
        assert history.loc[0, columns(2)].tolist() == [0.5, 40.5]
        record = Record(updates=2, worker_losses=True, train_examples=1)  # row 0
        history = replay(trace, quadratics(), METHOD, record=record).history
        assert history.loc[0, "worker_loss[0]"] == history.loc[0, "train_loss"] == 0.5
        assert history["worker_loss[1]"].isna().all()
    problem = Problem("softmax-regression", SMALL, sampling="sharded")
    record = Record(updates=2, worker_losses=True, train_examples=100)
    history = replay(trace, problem, METHOD, record=record).history
    owner = np.empty(10_000, int)
    for worker, shard in enumerate(problem.split(2)):
        owner[shard] = worker
    sizes = np.bincount(owner[::100])
    mean = history[columns(2)].to_numpy() @ sizes / 100
    np.testing.assert_allclose(mean, history["train_loss"], rtol=1e-6)


class Rows:
    """The rows of an array as a stream."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def fetch(self, indices):
        return self.rows[indices]


def test_of_a_stream_they_are_those_of_its_rows():
    rows = np.random.default_rng(0).normal(size=(600, 1)).astype(np.float32)
    owner = np.arange(600) % 3

    def problem_of(train):
        return Problem.from_functions(
            lambda key: jnp.zeros(1), lambda w, batch, key: jnp.mean((batch - w) ** 2), train=train, batch_size=2,
            partition=Assigned(owner),
        )  # fmt: skip

    trace = simulate(Cluster(3, Exponential()), METHOD.synchrony, updates=10)
    record = Record(updates=5, worker_losses=True)
    held, streamed = (replay(trace, problem_of(t), METHOD, record=record).history for t in (rows, Rows(rows)))
    np.testing.assert_allclose(streamed[columns(3)], held[columns(3)], rtol=1e-5)


def test_runs_in_lanes_record_them_alone_and_are_the_same():
    problem = Problem("softmax-regression", SMALL, batch_size=8, partition=Dirichlet(0.5))
    record = Record(updates=5, worker_losses=True)
    e = Experiment(problem, Cluster(3, Exponential()), METHOD, updates=10, record=record)
    assert planned_lanes(e, 4) is None
    assert planned_lanes(e.but(record=Record(updates=5)), 4) == 4
    alone = run(e, progress=False)
    beside = run_together([e, e.but(record=Record(updates=5))], 2)
    assert [result.lanes for result in beside] == [None, 2]
    assert beside[0].history.equals(alone.history)
    requests = [Request(alone.trace, problem, METHOD, r, 0) for r in (Record(updates=5), record)]
    plain, told = replay_together(requests, 2)
    assert told.history.equals(alone.history)
    assert "worker_loss[0]" not in plain.history


def test_they_are_stored_and_loaded(tmp_path):
    problem = Problem("softmax-regression", SMALL, batch_size=8, partition=Dirichlet(0.5), batches="by-message")
    record = Record(updates=5, worker_losses=True)
    result = run(Experiment(problem, Cluster(3, Exponential()), METHOD, updates=10, record=record), progress=False)
    again = Result.load(result.save(tmp_path / "result"))
    assert again.history.equals(result.history)
    assert again.experiment == result.experiment


def test_they_need_shards():
    problem = Problem("softmax-regression", SMALL)
    said = "worker_losses of record: with sampling = 'epochs' all workers draw from the same examples"
    with pytest.raises(ValueError, match=said):
        Experiment(problem, Cluster(2), METHOD, updates=2, record=Record(worker_losses=True))
    trace = simulate(Cluster(2), METHOD.synchrony, updates=2)
    with pytest.raises(ValueError, match=said):
        replay(trace, problem, METHOD, record=Record(worker_losses=True))
    record = Record(worker_losses=True, fn=lambda params: {"worker_loss": 1.0})
    with pytest.raises(ValueError, match="'worker_loss', which worker_losses of record makes"):
        replay(trace, quadratics(), METHOD, record=record)
