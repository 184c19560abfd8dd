"""Batch norm in a replay: one set of running statistics, folded in the order of gradient ids."""

import jax
import numpy as np
import pytest
from flax import nnx

from stalegrad.models import Problem
from stalegrad.models.networks import NETWORKS, Architecture
from stalegrad.models.networks.layers import flatten
from stalegrad.models.networks.network import from_module
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Exponential, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import replay


@pytest.fixture
def problem(monkeypatch):
    def tiny(input_shape, classes):
        return from_module(
            lambda rngs: nnx.Sequential(
                flatten,
                nnx.Linear(784, 6, rngs=rngs),
                nnx.BatchNorm(6, momentum=0.9, rngs=rngs),
                nnx.relu,
                nnx.Linear(6, classes, rngs=rngs),
            )
        )

    monkeypatch.setitem(NETWORKS._entries, "tiny", Architecture(tiny))
    return Problem("tiny", "fashion-mnist-small", batch_size=16)


@pytest.mark.parametrize("path", ["scan", pytest.param("loop", marks=pytest.mark.slow)])
@pytest.mark.parametrize("k", [1, 2])
def test_every_gradient_takes_the_statistics_that_the_one_before_left(problem, path, k):
    method = methods.k_async(k=k, learning_rate=0.1)
    trace = simulate(Cluster(workers=4, compute=Exponential(1.0)), method.synchrony, updates=30, seed=0)
    result = replay(trace, problem, method, execution=path, seed=3)

    objective, schedule = problem.objective(), lower(trace)
    init_key, _ = jax.random.split(jax.random.key(3))
    versions, stats = [objective.init(init_key)], objective.stats
    draw = sampler("epochs", objective.examples, 16, 3, schedule, 4)
    slope, evaluate = jax.jit(jax.grad(objective.loss, has_aux=True)), jax.jit(objective.evaluate)
    examples = jax.tree.map(np.asarray, objective.train)
    for u in range(30):
        total = []
        for m in range(schedule.first[u], schedule.first[u + 1]):
            batch = jax.tree.map(lambda array, m=m: array[draw(m, m + 1)[0, 0]], examples)
            gradient, stats = slope(versions[schedule.read_version[m]], stats, batch, jax.random.key(0))
            total.append(gradient)
        mean = jax.tree.map(lambda *leaves: sum(leaves) / k, *total)
        versions.append(jax.tree.map(lambda p, g: p - 0.1 * g, versions[-1], mean))
    for found, expected in zip(jax.tree.leaves(result.params), jax.tree.leaves(versions[-1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    expected = evaluate(versions[-1], stats, objective.test)
    assert result.history["test_loss"].iloc[-1] == pytest.approx(float(expected["loss"]), rel=1e-4)
    for found, wanted in zip(jax.tree.leaves(result.stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    fresh = evaluate(versions[-1], objective.stats, objective.test)
    assert result.history["test_loss"].iloc[-1] != pytest.approx(float(fresh["loss"]), rel=1e-2)


def test_a_replay_starts_at_the_statistics_that_are_given(problem):
    method = methods.sync(learning_rate=0.1)
    trace = simulate(Cluster(2, Exponential()), method.synchrony, updates=5)
    first = replay(trace, problem, method)
    again = replay(trace, problem, method, params=first.params, stats=first.stats)
    for column in ("train_loss", "test_loss"):
        assert again.history[column].iloc[0] == first.history[column].iloc[-1]
    assert (
        again.history["test_loss"].iloc[0]
        != replay(trace, problem, method, params=first.params).history["test_loss"].iloc[0]
    )
    with pytest.raises(ValueError, match=r"of stats has shape \(1, 6\)"):
        replay(trace, problem, method, stats=jax.tree.map(lambda leaf: leaf[None], first.stats))
