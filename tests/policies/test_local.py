"""Delayed averaging and downpour, whose workers keep models of their own; elastic averaging: test_papers.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, DelayedAveraging, DelayedAveragingGeneral, Sync, methods
from stalegrad.simulator import Cluster, Exponential, Gamma, Record, replay, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower

RATE = 0.05
ROWS = np.random.default_rng(3).normal(size=(60, 4))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@functools.cache  # one problem, and so one compilation, for runs of the same structure and shape
def curved(batch_size):
    """0.5 |w|^2 - <mean row, w>, so that the gradient is w - mean row."""
    return Problem.from_functions(
        lambda key: jnp.ones(ROWS.shape[1]),
        lambda w, batch, key: 0.5 * jnp.sum(w**2) - jnp.mean(batch @ w),
        train=ROWS,
        batch_size=batch_size,
    )


def batches(trace, size, seed=0, sampling="epochs", examples=60):
    """Mini-batches of every used message, with the worker that computed it, in the order of gradient ids."""
    schedule = lower(trace)
    draw = sampler(sampling, examples, size, seed, schedule, trace.workers)
    return list(zip(schedule.worker, draw(0, len(schedule.worker)), strict=True))


# Delayed averaging


def delayed_averaging(trace, problem_rows, size, start):
    """Algorithm 2 in its cycle form, worker by worker, from the prose; returns y_j and x_w after each reset."""
    jobs = batches(trace, size)
    workers = trace.workers
    y, x_init = start.copy(), np.tile(start, (workers, 1))
    ys, resets = [y], []
    for cycle in range(len(trace.updates)):
        x = x_init.copy()
        for worker, steps in jobs[cycle * workers : (cycle + 1) * workers]:
            for ids in steps:
                x[worker] -= RATE * (x[worker] - problem_rows[ids].mean(0))
        d = x - x_init
        x_init = ys[-1] + d  # boundary: the newest model is the one that lacks exactly this cycle
        resets.append(x_init.copy())
        ys.append(ys[-1] + d.mean(0))
    return ys, resets


@pytest.mark.parametrize("path", ["scan", "loop"])
@pytest.mark.parametrize("tau", [2, 6])
def test_delayed_averaging_follows_algorithm_2(tau, path):
    cluster = Cluster(4, compute=Gamma(1.0, 0.5), uplink=0.5, downlink=0.7)
    trace = simulate(cluster, DelayedAveraging(tau=tau), updates=30, seed=1).verify()
    method = methods.delayed_averaging(tau=tau, learning_rate=RATE)
    record = Record(updates=1, fn=lambda w: {f"w{i}": w[i] for i in range(4)})
    done = replay(trace, curved(3), method, record=record, execution=path)
    ys, resets = delayed_averaging(trace, ROWS, 3, np.ones(4))
    np.testing.assert_allclose(done.history[[f"w{i}" for i in range(4)]], ys, rtol=0, atol=1e-12)
    for y, reset in zip(ys[1:], resets, strict=True):  # Lemma 3.1: y_{j+1} is the mean right after the reset at j
        np.testing.assert_allclose(y, reset.mean(0), atol=1e-12)


def test_delayed_averaging_gives_the_numbers_of_the_specification():
    """Spec 6, E3: W = 3, beta = 2, g_w(x) = a_w x, a = (0.5, 1, 1.5), eta = 0.1, x_0 = 1."""
    trace = simulate(Cluster(3, compute=1.0), DelayedAveraging(tau=4), updates=3)
    owner = {worker: ids[0, 0] for worker, ids in batches(trace, 1, sampling="sharded", examples=3)}
    a = np.empty(3)
    a[[owner[0], owner[1], owner[2]]] = [0.5, 1.0, 1.5]
    problem = Problem.from_functions(
        lambda key: jnp.ones(()),
        lambda w, batch, key: 0.5 * batch[0] * w**2,
        train=a,
        batch_size=1,
        sampling="sharded",
    )
    method = methods.delayed_averaging(tau=4, learning_rate=0.1)
    history = replay(trace, problem, method, record=Record(updates=1, fn=lambda w: {"y": w})).history
    np.testing.assert_allclose(history["y"], [1.0, 0.81166667, 0.66420417, 0.54249275], atol=5e-9)


@pytest.mark.parametrize(("tau", "idle"), [(2, 1.0), (4, 0.0), (6, 0.0)])
def test_workers_idle_only_when_the_bound_is_reached(tau, idle):
    """C4: a cycle takes max(beta t_g, T_c); idle max(0, T_c - beta t_g), 0 if tau >= 2 T_c / t_g."""
    cluster = Cluster(5, compute=1.0, uplink=0.75, downlink=1.25)  # T_c = 2, t_g = 1
    trace = simulate(cluster, DelayedAveraging(tau=tau), updates=40).verify()
    cycle = max(tau / 2, 2.0)
    np.testing.assert_allclose(np.diff(trace.update_times)[1:], cycle)
    ends = trace.messages.query("worker == 0")["finish_time"].to_numpy()
    starts = trace.messages.query("worker == 0")["read_time"].to_numpy()
    np.testing.assert_allclose((starts[2:] - ends[1:-1])[:35], idle, atol=1e-9)


def test_every_update_merges_one_release_of_each_worker_and_staleness_is_one():
    cluster = Cluster(6, compute=Exponential(), uplink=0.1, downlink=0.1)
    trace = simulate(cluster, DelayedAveraging(tau=4), updates=50, seed=2)
    used = trace.messages.query("update >= 0")
    assert (used.groupby("update")["worker"].nunique() == 6).all()
    assert set(used.query("update > 0")["staleness"]) == {1}
    assert set(used["steps"]) == {2}


def test_the_discrepancy_between_workers_stays_under_its_bound_however_many_there_are():
    """C5, Lemma 3.3: after a reset ||x_w - x_w'|| <= L tau eta, L the largest gradient norm; any W."""
    for workers in (4, 32):
        trace = simulate(Cluster(workers, compute=Exponential()), DelayedAveraging(tau=8), updates=60)
        _, resets = delayed_averaging(trace, ROWS, 3, np.ones(4))
        largest = np.linalg.norm(ROWS, axis=1).max() + 4.0
        for x in resets:
            spread = max(np.linalg.norm(x[i] - x[0]) for i in range(workers))
            assert spread <= largest * 8 * RATE


# Its general form


def delayed_averaging_general(trace, problem_rows, size, start):
    """Algorithm 1, a worker's thread at a time, from the prose; returns every y_j."""
    used = trace.messages.loc[trace.used]
    jobs = list(zip(used["read_version"], used["update"], batches(trace, size), strict=True))
    x, x_init = (np.tile(start, (trace.workers, 1)) for _ in range(2))
    ys, holds = [start.copy()], [0] * trace.workers
    for update in range(len(trace.updates)):
        for read, goes_into, (w, steps) in jobs:
            if goes_into != update:
                continue
            if read != holds[w]:
                holds[w], d = read, x[w] - x_init[w]
                x_init[w] = ys[read]
                x[w] = ys[read] + d
            x[w] -= RATE * (x[w] - problem_rows[steps[0]].mean(0))
        released = np.zeros_like(start)
        for w in range(trace.workers):
            if holds[w] != update:  # the newest model came in before the release, with no gradient in between
                holds[w], d = update, x[w] - x_init[w]
                x_init[w] = ys[update]
                x[w] = ys[update] + d
            released += x[w] - x_init[w]
            x_init[w] = x[w]
        ys.append(ys[-1] + released / trace.workers)
    return ys


UNEQUAL = {"compute": [Gamma(1.0, 0.5), Gamma(1.5, 0.5), Gamma(0.3, 0.5)]}


@pytest.mark.parametrize("path", ["scan", "loop"])
@pytest.mark.parametrize("links", [{}, {"uplink": 0.5, "downlink": 0.7}], ids=["free", "dear"])
@pytest.mark.parametrize("tau", [1, 2, 7])
def test_the_general_form_follows_algorithm_1(tau, links, path):
    trace = simulate(Cluster(**UNEQUAL, **links), DelayedAveragingGeneral(tau=tau), updates=40, seed=1).verify()
    method = methods.delayed_averaging_general(tau=tau, learning_rate=RATE)
    record = Record(updates=1, fn=lambda w: {f"w{i}": w[i] for i in range(4)})
    done = replay(trace, curved(3), method, record=record, execution=path)
    ys = delayed_averaging_general(trace, ROWS, 3, np.ones(4))
    np.testing.assert_allclose(done.history[[f"w{i}" for i in range(4)]], ys, rtol=0, atol=1e-12)


def test_the_general_form_asks_when_all_have_something_and_is_answered_at_gradient_boundaries():
    """Worker 0 takes 1 s, worker 1 takes 2 s: at t = 2 both have some, but worker 0 has just begun its third."""
    trace = simulate(Cluster(compute=[1.0, 2.0]), DelayedAveragingGeneral(tau=4), updates=3).verify()
    assert trace.update_times.tolist() == [3.0, 5.0, 7.0]
    counts = trace.messages.query("update >= 0").groupby(["update", "worker"]).size().unstack()
    assert counts.to_numpy().tolist() == [[3, 1], [2, 1], [2, 1]]


@pytest.mark.parametrize("links", [{}, {"uplink": 0.5, "downlink": 0.7, "server": 0.2}], ids=["free", "dear"])
@pytest.mark.parametrize("tau", [1, 3, 8])
def test_in_the_general_form_a_worker_idles_exactly_when_it_is_tau_gradients_beyond_its_model(tau, links):
    trace = simulate(Cluster(**UNEQUAL, **links), DelayedAveragingGeneral(tau=tau), updates=60, seed=4)
    table = trace.messages[trace.messages["finish_time"].notna()]
    for _, own in table.groupby("worker"):
        into = own["update"].where(own["update"] >= 0, np.inf).to_numpy()  # what is not yet released comes later
        held, start, finish = (own[c].to_numpy() for c in ("read_version", "read_time", "finish_time"))
        for i in range(len(own) - 1):
            beyond = (into[: i + 1] >= held[i]).sum()
            assert beyond <= tau
            # At its end the model may have come while it was computing: judge by the one it held next.
            waited = start[i + 1] > finish[i]
            assert not waited or beyond == tau
            if held[i + 1] == held[i]:
                assert not waited
    assert set(table.query("update >= 0")["staleness"]) <= {0, 1}
    assert (table.query("update >= 0").groupby("update")["worker"].nunique() == 3).all()


def test_the_general_form_without_room_is_synchronous_sgd():
    """tau = 1 and links that take no time: one gradient of each worker per update, at the newest model."""
    trace = simulate(Cluster(**UNEQUAL), DelayedAveragingGeneral(tau=1), updates=30, seed=5)
    twin = simulate(Cluster(**UNEQUAL), Sync(), updates=30, seed=5)
    assert trace.update_times.tolist() == twin.update_times.tolist()
    assert not trace.staleness.any()
    rate = {"learning_rate": RATE}
    got = replay(trace, curved(3), methods.delayed_averaging_general(tau=1, **rate)).params
    np.testing.assert_allclose(got, replay(twin, curved(3), methods.sync(**rate)).params, atol=1e-13)


def test_tau_must_be_even():
    with pytest.raises(ValueError, match="tau of delayed-averaging = 3"):
        DelayedAveraging(tau=3)


# Downpour


def downpour(trace, rows, size, start, fetch_every):
    model, pushes = np.tile(start, (trace.workers, 1)), np.zeros(trace.workers, int)
    versions = [start.copy()]
    read = trace.messages.query("update >= 0").sort_values("update")["read_version"].to_numpy()
    for (worker, steps), version in zip(batches(trace, size), read, strict=True):
        if pushes[worker] % fetch_every == 0:
            model[worker] = versions[version]
        total = 0.0
        for ids in steps:
            g = model[worker] - rows[ids].mean(0)
            model[worker] = model[worker] - RATE * g
            total = total + g
        pushes[worker] += 1
        versions.append(versions[-1] - RATE * total)
    return versions[-1]


@pytest.mark.parametrize("fetch_every", [1, 3])
@pytest.mark.parametrize("local_steps", [1, 4])
def test_downpour_pushes_sums_and_fetches_now_and_then(local_steps, fetch_every):
    trace = simulate(Cluster(3, compute=Exponential()), Async(local_steps=local_steps), updates=120, seed=4)
    method = methods.downpour(local_steps=local_steps, fetch_every=fetch_every, learning_rate=RATE)
    done = replay(trace, curved(3), method, record=Record(updates=120))
    expected = downpour(trace, ROWS, 3, np.ones(4), fetch_every)
    np.testing.assert_allclose(done.params, expected, rtol=0, atol=1e-10)


def test_downpour_that_always_fetches_is_async_bit_for_bit():
    trace = simulate(Cluster(3, compute=Exponential()), Async(local_steps=2), updates=60)
    a = replay(trace, curved(3), methods.downpour(local_steps=2, learning_rate=RATE)).params
    b = replay(trace, curved(3), methods.async_(local_steps=2, learning_rate=RATE)).params
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
