"""Runs executed together by vmap: the same numbers as alone, whoever the neighbours are."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Exponential, Record, ShiftedExponential, replay, simulate
from stalegrad.simulator.replays import lanes
from stalegrad.simulator.replays.lanes import Group
from stalegrad.simulator.replays.run import Request, replay_together

CLUSTER = Cluster(workers=5, compute=ShiftedExponential(0.5, 1.0))
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(64, 6)).astype(np.float32), RNG.integers(0, 3, 64).astype(np.int32)


def problem(traces=None, batch_size=4):
    """Softmax regression on 64 examples; ``traces`` counts how often its loss is traced."""

    def loss(w, batch, key):
        if traces is not None:
            traces.append(batch[0].shape)
        inputs, targets = batch
        logits = inputs @ w["kernel"] + w["bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], 1).mean()

    def init(key):
        return {"kernel": jax.random.normal(key, (6, 3)), "bias": jnp.zeros(3)}

    return Problem.from_functions(init, loss, train=DATA, test=DATA, batch_size=batch_size)


SOFTMAX, EVERY_20 = problem(), Record(updates=20)


def request(method, seed=0, problem=SOFTMAX, record=EVERY_20, **budget):
    trace = simulate(CLUSTER, method.synchrony, seed=seed, **(budget or {"updates": 100}))
    return Request(trace, problem, method, record, seed)


def alone(request):
    trace, what, method, record, seed = request
    return replay(trace, what, method, record=record, seed=seed, execution="scan")


def assert_close(found, expected, **tolerance):
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=False, **tolerance)
    assert found.diverged_at == expected.diverged_at
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def same_bytes(a, b):
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a.params, b.params))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: methods.async_(learning_rate=0.1 + 0.05 * seed),
        lambda seed: methods.k_async(k=2, learning_rate=0.1),
        pytest.param(lambda seed: methods.k_sync(k=3, learning_rate=0.1), marks=pytest.mark.slow),
        lambda seed: methods.dana_zero(momentum=0.5 + 0.1 * seed, learning_rate=0.05),
        pytest.param(lambda seed: methods.gap_aware(learning_rate=0.05), marks=pytest.mark.slow),
        pytest.param(lambda seed: methods.easgd(learning_rate=0.05), marks=pytest.mark.slow),
        lambda seed: methods.delayed_averaging(tau=4, learning_rate=0.05),
    ],
    ids=["async", "k-async", "k-sync", "dana-zero", "gap-aware", "easgd", "delayed-averaging"],
)
def test_a_group_gives_what_its_runs_give_alone(make):
    requests = [request(make(seed), seed) for seed in range(3)]
    for found, one in zip(replay_together(requests, 4), requests, strict=True):
        assert found.execution == "4 lanes"
        assert_close(found, alone(one), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "record",
    [
        Record(wallclock=7.0),
        Record(updates=7, train_examples=5),
        Record(gradients=9, per_gradient=True),
    ],
)
def test_runs_may_be_of_different_length(record):
    requests = [
        request(methods.async_(learning_rate=0.1), seed, record=record, wallclock=40.0) for seed in range(3)
    ]
    assert len({len(r.trace.update_times) for r in requests}) > 1
    for found, one in zip(replay_together(requests, 4), requests, strict=True):
        expected = alone(one)
        assert_close(found, expected, rtol=1e-4, atol=1e-6)
        if record.per_gradient:
            pd.testing.assert_frame_equal(found.gradients, expected.gradients, check_exact=False, rtol=1e-3)


def test_a_run_depends_on_the_number_of_lanes_but_on_no_neighbour():
    first, *others = [
        request(methods.async_(learning_rate=rate), seed, wallclock=time, record=Record(wallclock=9.0))
        for seed, (rate, time) in enumerate([(0.1, 30.0), (0.3, 50.0), (0.01, 20.0)])
    ]
    lonely = replay_together([first], 4)[0]
    for company in ([first, others[0]], [others[1], first], [others[0], others[1], first]):
        found = replay_together(company, 4)[company.index(first)]
        same_bytes(found, lonely)


def test_a_run_that_diverges_ends_and_leaves_its_neighbours_alone():
    def blow_up(w, batch, key):
        return -1e3 * jnp.sum(w["kernel"] ** 4) + 0 * jnp.sum(batch[0])

    wild = Problem.from_functions(lambda key: {"kernel": jnp.ones(3)}, blow_up, train=DATA, batch_size=4)
    calm, burst = (request(methods.async_(learning_rate=rate), 1, problem=wild) for rate in (1e-9, 1e-1))
    found = replay_together([burst, calm], 2)
    assert found[0].diverged_at is not None
    assert len(found[0].history) < len(found[1].history)
    assert found[1].diverged_at is None
    for one, expected in zip(found, (alone(burst), alone(calm)), strict=True):
        assert_close(one, expected, rtol=1e-4)


def test_one_compilation_serves_a_whole_shape():
    traced = []
    what = problem(traced)

    def runs(rates, seeds):
        return [request(methods.async_(learning_rate=rate), s, problem=what) for rate in rates for s in seeds]

    replay_together(runs([0.1], [0, 1, 2]), 4)
    once = len(traced)
    assert once > 0
    replay_together(runs([0.1, 0.2, 0.3], range(5)), 4)
    assert len(traced) == once


def test_what_does_not_go_together_is_kept_apart():
    late = Cluster(workers=5, compute=Exponential(1.0), join=[0.0, 0.0, 0.0, 30.0, 30.0])
    growing = methods.delayed_averaging_general(tau=3, learning_rate=0.1)
    uneven = simulate(late, growing.synchrony, updates=60, seed=0)
    assert len(np.unique(uneven.updates["messages"])) > 1
    requests = [
        request(methods.async_(learning_rate=0.1)),
        request(methods.k_async(k=2, learning_rate=0.1)),
        request(methods.async_(learning_rate=0.1), problem=problem(batch_size=8)),
        Request(uneven, SOFTMAX, growing, Record(), 0),
    ]
    found = replay_together(requests, 4)
    assert [r.execution for r in found] == ["4 lanes"] * 3 + ["scan"]
    for one, expected in zip(found, map(alone, requests), strict=True):
        assert_close(one, expected, rtol=1e-4, atol=1e-6)


def test_a_group_too_large_for_the_memory_is_split(monkeypatch):
    sizes = []

    def bytes_of(group):
        sizes.append(original(group))
        return sizes[-1]

    original = Group.bytes
    monkeypatch.setattr(Group, "bytes", bytes_of)
    requests = [request(methods.async_(learning_rate=0.1), seed) for seed in range(5)]
    replay_together(requests, 8)
    assert len(sizes) == 1
    monkeypatch.setattr(lanes, "memory", lambda device: sizes[0] - 1)
    found = replay_together(requests, 8)
    assert [r.execution for r in found] == ["4 lanes"] * 5
    assert sizes[1] == sizes[0]
    assert all(size < sizes[0] for size in sizes[2:])
    for one, expected in zip(found, map(alone, requests), strict=True):
        assert_close(one, expected, rtol=1e-4, atol=1e-6)


def test_devices_share_the_groups_and_change_nothing(tmp_path):
    """Two devices, made of this one CPU, in a process of its own."""
    code = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
from test_lanes import methods, request, same_bytes
from stalegrad.simulator.replays import lanes, run
assert len(jax.local_devices()) == 2
played, original = [], lanes.Group.__init__
def spy(self, program, players, objective, device):
    played.append(device.id)
    original(self, program, players, objective, device)
    assert {d.id for leaf in jax.tree.leaves(objective.train) for d in leaf.devices()} == {device.id}
lanes.Group.__init__ = spy
requests = [request(methods.async_(learning_rate=0.1), seed) for seed in range(6)]
both = run.replay_together(requests, 2)
assert sorted(played) == [0, 0, 1], played
assert {d.id for r in both for leaf in jax.tree.leaves(r.params) for d in leaf.devices()} == {0, 1}
run.jax.local_devices = lambda: jax.devices()[1:]
for a, b in zip(both, run.replay_together(requests, 2)):
    same_bytes(a, b)
assert played[3:] == [1, 1, 1]
"""
    flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here], cwd=tmp_path, env=flags, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
