"""Versions are evaluated while the next updates are made, and the history is the same as if they were not."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Exponential, Record, replay, simulate
from stalegrad.simulator.replays import evaluation, scan

METHOD = methods.async_(learning_rate=0.05)
TRACE = simulate(Cluster(4, compute=Exponential()), METHOD.synchrony, updates=40)


def quadratic(curvature=1.0):
    return Problem.from_functions(
        lambda key: {"w": jnp.ones(3)},
        lambda w, batch, key: curvature * jnp.mean((w["w"] - batch) ** 2),
        train=np.random.default_rng(0).normal(size=(60, 3)),
        batch_size=4,
    )


def test_a_version_is_evaluated_while_the_next_updates_are_made(monkeypatch):
    """Every evaluation but that of version 0 waits until the next ten updates, if any, are under way."""
    advance, evaluate = scan.Scan.advance, evaluation.evaluate_training
    under_way, seen = [threading.Event() for _ in range(4)], []

    def advance_and_tell(self, first, last):
        made = advance(self, first, last)
        under_way[first // 10].set()
        return made

    def wait_and_evaluate(training, snapshot):
        after = under_way[len(seen) :][:1] if seen else []
        seen.append(all(event.wait(timeout=30) for event in after))
        return evaluate(training, snapshot)

    monkeypatch.setattr(scan.Scan, "advance", advance_and_tell)
    monkeypatch.setattr(evaluation, "evaluate_training", wait_and_evaluate)
    done = replay(TRACE, quadratic(), METHOD, record=Record(updates=10), execution="scan")
    assert seen == [True] * 5
    assert list(done.history["update"]) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("curvature", [1.0, 1e12])
def test_the_result_is_that_of_evaluating_at_once(curvature, tmp_path):
    """A record's own function is called between updates, so nothing is evaluated beside them."""
    problem, told = quadratic(curvature), {}
    found = {}
    for name, fn in (("beside", None), ("at once", lambda params: {"own": params["w"][0]})):
        told[name] = []
        record = Record(updates=3, per_gradient=True, params=True, fn=fn)
        found[name] = replay(TRACE, problem, METHOD, record=record, progress=told[name].append)
    beside, at_once = found["beside"], found["at once"]
    assert (at_once.diverged_at is None) == (curvature == 1.0)
    assert beside.diverged_at == at_once.diverged_at
    pd.testing.assert_frame_equal(beside.history, at_once.history.drop(columns="own"), check_exact=True)
    pd.testing.assert_frame_equal(beside.gradients, at_once.gradients, check_exact=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, beside.params, at_once.params))
    assert jax.tree.all(jax.tree.map(np.array_equal, beside.snapshots, at_once.snapshots))
    assert told["beside"] == told["at once"]
    np.testing.assert_array_equal(beside.params["w"], beside.snapshots["params"]["w"][-1])


def test_settings_of_one_thread_hold_for_the_evaluation():
    """In float32 the loss at 1 + 1e-9 is that at 1."""
    with jax.enable_x64(True):
        problem = Problem.from_functions(
            lambda key: {"w": jnp.full(1, 1e-9, jnp.float64)}, lambda w, batch, key: jnp.sum(1 + w["w"])
        )
        done = replay(TRACE, problem, METHOD, record=Record(updates=40))
    w = 1e-9 - 0.05 * 40
    np.testing.assert_allclose(done.history["train_loss"], [1 + 1e-9, 1 + w], rtol=1e-14)
