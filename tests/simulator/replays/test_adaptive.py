"""AdaSync: the engine is advanced, the replay catches up, the controller decides."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import KAsync, KBatchAsync, KBatchSync, KSync, methods
from stalegrad.policies.controllers import AdaSync, Observation
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, from_toml, replay, run

PROBLEM = Problem("softmax-regression", "fashion-mnist-small", batch_size=4)
CLUSTER = Cluster(8, compute=Exponential(1.0))
VARIANTS = [KSync(1), KBatchSync(1), KAsync(1), KBatchAsync(1)]

RATIOS = [2, 4, 9, 16, 36, 100]
ROOTS = {  # spec 1, A7, P = 8: K_0 -> (quadratic, square-root)
    1: (
        [1.3757, 1.8714, 2.6281, 3.2834, 4.3391, 5.7143],
        [1.4142, 2, 3, 4, 6, 10],
    ),
    2: (
        [2.6667, 3.4741, 4.5498, 5.3333, 6.3303, 7.2184],
        [2.8284, 4, 6, 8, 12, 20],
    ),
}


def experiment(synchrony, **changes):
    method = methods.adasync(synchrony=synchrony, interval=10.0, learning_rate=0.004)
    return Experiment(problem=PROBLEM, cluster=CLUSTER, method=method, wallclock=80.0).but(**changes)


@functools.cache
def adaptive(synchrony):
    return run(experiment(synchrony), progress=False)


def same_bits(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in leaves)


@pytest.mark.parametrize("first", ROOTS)
@pytest.mark.parametrize("synchrony", [KSync, KAsync, KBatchSync, KBatchAsync])
def test_roots_of_the_specification(synchrony, first):
    quadratic, square_root = ROOTS[first]
    expected = quadratic if synchrony in (KSync, KAsync) else square_root
    for ratio, root in zip(RATIOS, expected, strict=True):
        seen = Observation(float(ratio), 1.0, 0.1, 0.1, 1)
        assert AdaSync(1.0).root(synchrony(first), 8, seen) == pytest.approx(root, abs=5e-5)
        decided = AdaSync(1.0).decide(synchrony(first), 8, seen)
        assert decided == min(max(round(root), 1), 8)


def test_the_form_can_be_chosen_the_learning_rate_counts_and_k_stays_within_the_workers():
    seen = Observation(4.0, 1.0, 0.1, 0.1, 1)
    assert AdaSync(1.0, "square-root").root(KAsync(2), 8, seen) == pytest.approx(4.0)
    assert AdaSync(1.0).root(KBatchSync(2), 8, seen._replace(learning_rate=0.05)) == pytest.approx(2.0)
    assert AdaSync(1.0, floor=0.5).root(KBatchSync(1), 8, Observation(2.5, 1.0, 0.1, 0.1, 1)) == pytest.approx(2.0)
    assert AdaSync(1.0).decide(KBatchSync(4), 8, Observation(100.0, 1.0, 0.1, 0.1, 1)) == 8
    assert AdaSync(1.0).decide(KBatchSync(1), 8, Observation(1.0, 100.0, 0.1, 0.1, 1)) == 1
    assert AdaSync(1.0).decide(KSync(8), 8, seen) == 8


@pytest.mark.parametrize(
    "synchrony",
    [s if s in (KBatchSync(1), KAsync(1)) else pytest.param(s, marks=pytest.mark.slow) for s in VARIANTS],
    ids=lambda s: s.name,
)
def test_catching_up_piece_by_piece_equals_one_replay_of_the_whole_trace(synchrony):
    e, result = experiment(synchrony), adaptive(synchrony)
    result.trace.verify()
    whole = replay(result.trace, PROBLEM, e.method, record=e.record, seed=e.seed)
    assert same_bits(result.params, whole.params)
    np.testing.assert_array_equal(result.history["train_loss"], whole.history["train_loss"])
    np.testing.assert_allclose(result.history["mean_gap"], whole.history["mean_gap"], rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("synchrony", VARIANTS, ids=lambda s: s.name)
def test_a_decision_holds_from_the_next_update_on(synchrony):
    result = adaptive(synchrony)
    decisions = result.trace.spec["decisions"]
    assert [time for time, _, _ in decisions] == [10.0 * (i + 1) for i in range(7)]
    assert any(k > 1 for _, _, k in decisions)
    updates, k = result.trace.updates, [(0.0, 1)] + [(time, k) for time, _, k in decisions]
    used = result.trace.messages.query("update >= 0").groupby("update")["receive_time"].min()
    for update, begun in used.items():  # k is asked for when the update's first message has come
        assert updates["messages"][update] == [value for time, value in k if time < begun or time == 0][-1]


def test_the_loss_decided_from_is_that_of_the_version_current_at_the_tick():
    result = run(experiment(KAsync(1), record=Record(wallclock=10.0)), progress=False)
    at_ticks = result.history.set_index("wallclock")["train_loss"]
    for time, loss, _ in result.trace.spec["decisions"]:
        assert loss == at_ticks[time]


def test_cadence_budget_and_path_of_recording_change_no_decision():
    reference = adaptive(KAsync(1))
    for record in (Record(updates=7), Record(gradients=50, gap=False), Record(wallclock=33.0)):
        other = run(experiment(KAsync(1), record=record), progress=False)
        assert other.trace.spec["decisions"] == reference.trace.spec["decisions"]
        assert same_bits(other.params, reference.params)
    count = len(reference.trace.updates)
    by_updates = run(experiment(KAsync(1), wallclock=None, updates=count), progress=False)
    assert same_bits(by_updates.params, reference.params)
    assert by_updates.history["update"].iloc[-1] == count


def test_without_a_tick_it_is_the_plain_method():
    e = experiment(KAsync(3))
    calm = e.but(method=methods.adasync(synchrony=KAsync(3), interval=1e6, learning_rate=0.02))
    plain = e.but(method=methods.k_async(k=3, learning_rate=0.02))
    a, b = run(calm, progress=False), run(plain, progress=False)
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)  # k is a constant of one program and not of the other
    assert a.trace.messages.equals(b.trace.messages)


def test_it_stands_in_a_spec_and_refuses_other_synchronies():
    e = experiment(KBatchAsync(2))
    assert from_toml(e.to_toml()) == e
    from stalegrad.policies import Async

    with pytest.raises(ValueError, match="'adasync' cannot work with synchrony 'async'"):
        methods.adasync(synchrony=Async())


@pytest.mark.parametrize(("interval", "most"), [(1e-300, 5), (1e-3, 5)])
def test_a_controller_that_would_decide_for_ever_is_refused(interval, most, monkeypatch):
    monkeypatch.setattr(importlib.import_module("stalegrad.simulator.replays.adaptive"), "DECISIONS", most)
    problem = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w**2))
    method = methods.adasync(k=1, interval=interval, learning_rate=0.01)
    with pytest.raises(
        ValueError, match=f"interval of method 'adasync' = {interval} s is not allowed.*at most {most}"
    ):
        run(Experiment(problem, Cluster(3, Exponential()), method, updates=50), progress=False)
