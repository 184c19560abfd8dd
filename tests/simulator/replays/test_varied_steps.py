"""Messages that differ in their number of local steps, against an independent loop."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, KAsync, methods
from stalegrad.policies.synchrony import AWAIT, Compute
from stalegrad.simulator import Cluster, Empirical, Record, Trace, mini_batches, replay, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import Request, replay_together

WORKERS, EXAMPLES, BATCH, RATE, UPDATES = 3, 40, 3, 0.05, 30


@dataclass(frozen=True)
class DropCompute(KAsync):
    """K-async whose workers send what they have after ``seconds``, at most ``steps`` local steps."""

    steps: int = 4
    seconds: float = 2.0

    def work(self, worker):
        job = Compute(self.steps, at_most=self.seconds, send=True)
        while True:
            yield job
            while worker.unanswered:
                yield AWAIT


def trace_of(k):
    """Return a trace whose messages have 1 to 4 local steps."""
    cluster = Cluster(WORKERS, Empirical((0.3, 0.7, 1.1)), speeds=[1.0, 1.5, 0.9])
    trace = simulate(cluster, DropCompute(k), updates=UPDATES, seed=4).verify()
    assert set(trace.column("steps")[trace.used]) >= {2, 3, 4}
    return trace


def problem_of(sampling):
    """Return a regression whose mini-batches have gradients of their own, and its rows and targets."""
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(EXAMPLES, 2)), rng.normal(size=EXAMPLES)

    def loss(w, batch, key):
        x, y = batch
        return 0.5 * jnp.mean((x @ w - y) ** 2)

    made = Problem.from_functions(
        lambda key: jnp.asarray(rows[0]), loss, train=(rows, targets), batch_size=BATCH, sampling=sampling
    )
    return made, rows, targets


def draws_by_hand(sampling, seed):
    """Return ``(worker) -> indices`` of the next mini-batch, drawn as the specification says."""

    def rng(*key):
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    def epochs(count, *key):
        epoch = 0
        while True:
            yield from rng(*key, epoch).permutation(count)
            epoch += 1

    if sampling == "epochs":
        stream = epochs(EXAMPLES, 100)
        return lambda worker: [next(stream) for _ in range(BATCH)]
    shards = np.array_split(rng(102).permutation(EXAMPLES), WORKERS)
    streams = [epochs(len(shard), 102, worker) for worker, shard in enumerate(shards)]
    return lambda worker: shards[worker][[next(streams[worker]) for _ in range(BATCH)]]


def by_hand(trace, rows, targets, draw):
    """Return the parameters after every update: local SGD from what was read, the sum of its gradients sent."""
    versions = [rows[0]]
    used = trace.messages.loc[trace.used]
    for _, messages in used.groupby("update", sort=True):
        total = np.zeros(2)
        for message in messages.itertuples():
            point = versions[message.read_version]
            for _ in range(message.steps):
                batch = draw(message.worker)
                slope = rows[batch].T @ (rows[batch] @ point - targets[batch]) / BATCH
                total, point = total + slope, point - RATE * slope
        versions.append(versions[-1] - RATE * total / len(messages))
    return versions


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("sampling", ["epochs", "sharded"])
def test_every_execution_does_what_a_plain_loop_does(k, sampling):
    with jax.enable_x64(True):
        trace, (problem, rows, targets) = trace_of(k), problem_of(sampling)
        expected = by_hand(trace, rows, targets, draws_by_hand(sampling, 7))[-1]
        method, record = methods.async_(learning_rate=RATE), Record(updates=10)
        found = [replay(trace, problem, method, record=record, seed=7, execution=way) for way in ("scan", "loop")]
        found += replay_together([Request(trace, problem, method, record, 7)] * 2, 2)
        for done in found:
            np.testing.assert_allclose(done.params, expected, rtol=1e-12)
            steps = trace.column("steps")[trace.used]
            gradients = np.cumsum(np.bincount(trace.column("update")[trace.used], steps))[[9, 19, 29]]
            assert done.history.gradients.tolist() == [0, *gradients]
            assert done.history.epoch.tolist() == pytest.approx([0, *gradients * BATCH / EXAMPLES])


def test_lanes_that_end_at_different_times_are_as_if_alone():
    with jax.enable_x64(True):
        problem, *_ = problem_of("epochs")
        method, record = methods.async_(learning_rate=RATE), Record(updates=10)
        cluster = Cluster(WORKERS, Empirical((0.3, 0.7, 1.1)), speeds=[1.0, 1.5, 0.9])
        traces = [simulate(cluster, DropCompute(1), updates=n, seed=n) for n in (20, 40)]
        together = replay_together([Request(trace, problem, method, record, 0) for trace in traces], 2)
        for trace, done in zip(traces, together, strict=True):
            np.testing.assert_allclose(
                done.params, replay(trace, problem, method, record=record).params, rtol=1e-12
            )


def test_a_worker_with_a_model_of_its_own_takes_its_own_number_of_steps():
    """EASGD: after its local steps x and the center pull each other; the first step that follows takes e off."""
    with jax.enable_x64(True):
        trace, (problem, rows, targets) = trace_of(1), problem_of("epochs")
        method = methods.easgd(learning_rate=RATE, alpha=0.1)
        varied = replay(trace, problem, method, seed=7)
        again = replay(trace, problem, method, seed=7, execution="loop")
        np.testing.assert_allclose(varied.params, again.params, rtol=1e-12)
        draw, versions, models, pulls = draws_by_hand("epochs", 7), [rows[0]], {}, {}
        for message in trace.messages.loc[trace.used].itertuples():
            point, pull = (
                models.get(message.worker, versions[message.read_version]),
                pulls.get(message.worker, 0.0),
            )
            for _ in range(message.steps):
                batch = draw(message.worker)
                slope = rows[batch].T @ (rows[batch] @ point - targets[batch]) / BATCH
                point, pull = point - RATE * slope - pull, 0.0
            models[message.worker], pulls[message.worker] = point, 0.1 * (point - versions[-1])
            versions.append(versions[-1] + pulls[message.worker])
        np.testing.assert_allclose(varied.params, versions[-1], rtol=1e-12)


@pytest.mark.parametrize("sampling", ["epochs", "iid", "sharded"])
def test_equal_numbers_of_steps_draw_what_they_always_drew(sampling):
    """Told of each message's steps, the sampler gives the same examples as told that all have the same."""
    lowered = lower(simulate(Cluster(WORKERS, Empirical((0.5, 1.0))), Async(local_steps=3), updates=50))
    told = lowered._replace(steps_of=np.full(50, 3, np.int32))
    same = sampler(sampling, EXAMPLES, BATCH, 1, lowered, WORKERS)(5, 50)
    found = sampler(sampling, EXAMPLES, BATCH, 1, told, WORKERS)(5, 50)
    if sampling == "iid":  # drawn in blocks of messages: other draws, the same shape
        assert found.shape == same.shape
    else:
        assert np.array_equal(found, same)
    assert np.array_equal(lowered.gradients_before, told.gradients_before)


def test_a_message_draws_the_same_whatever_is_asked_for_at_once():
    lowered = lower(trace_of(1))
    for sampling in ("epochs", "iid", "sharded"):
        draw = sampler(sampling, EXAMPLES, BATCH, 1, lowered, WORKERS)
        whole = draw(0, UPDATES)
        assert np.array_equal(whole, np.concatenate([draw(0, 7), draw(7, 8), draw(8, UPDATES)]))
        assert draw(UPDATES, UPDATES + 1).shape == whole[:1].shape  # a lane that is over
    told = mini_batches(trace_of(1), problem_of("epochs")[0], seed=1)
    assert ((told >= 0).sum(axis=1) == lowered.steps_of[:, None]).all()


def test_a_measured_trace_with_varied_steps_replays():
    columns = {
        "worker": [0, 1], "read_version": [0, 0], "read_time": [0.0, 0.0], "finish_time": [1.0, 2.0],
        "receive_time": [1.0, 2.0], "update": [0, 1], "staleness": [0, 1], "steps": [1, 4],
        "fate": ["used", "used"],
    }  # fmt: skip
    trace = Trace(columns, {"time": [1.0, 2.0], "messages": [1, 1], "gradients": [1, 4]})
    lowered = lower(trace)
    assert (lowered.steps, lowered.steps_of.tolist(), lowered.batch.tolist()) == (4, [1, 4], [0, 1])
    assert lowered.gradients_before.tolist() == [0, 1, 5]
    problem, *_ = problem_of("epochs")
    assert replay(trace, problem, methods.async_(learning_rate=RATE)).history.gradients.tolist() == [0, 1, 5]


@pytest.mark.parametrize("sampling", ["epochs", "sharded"])
def test_by_message_every_message_has_as_many_mini_batches_set_aside_as_the_largest_has_steps(sampling):
    with jax.enable_x64(True):
        trace, (problem, rows, targets) = trace_of(2), problem_of(sampling)
        problem, draw = problem.but(batches="by-message"), draws_by_hand(sampling, 7)
        begun = [[draw(worker) for _ in range(4)] for worker in trace.column("worker")]
        steps = trace.column("steps")[trace.used]
        told = np.where(np.arange(4)[:, None] < steps[:, None, None], np.array(begun)[trace.used], -1)
        assert np.array_equal(mini_batches(trace, problem, seed=7), told)
        taken = (batch for message, own in zip(told, steps, strict=True) for batch in message[:own])
        expected = by_hand(trace, rows, targets, lambda worker: next(taken))[-1]
        method = methods.async_(learning_rate=RATE)
        found = [replay(trace, problem, method, seed=7, execution=way) for way in ("scan", "loop")]
        found += replay_together([Request(trace, problem, method, Record(), 7)] * 2, 2)
        for done in found:
            np.testing.assert_allclose(done.params, expected, rtol=1e-12)
