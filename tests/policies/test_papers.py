"""Elastic averaging, downpour and delayed averaging against their papers, transcribed as event loops in NumPy.

The loops have clocks of their own: nothing but the mini-batch of each gradient comes from the package.
"""

import functools
import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, StepDecay, methods
from stalegrad.simulator import Cluster, Record, replay, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower

UPDATES, SIZE = 90, 4
ROWS = np.random.default_rng(3).normal(size=(60, SIZE))
CURVATURE = np.linspace(0.3, 2.0, SIZE)
START = np.linspace(-1.0, 2.0, SIZE)
RATE = StepDecay(0.1, (40.0,), 0.5, unit="updates")
CLOCKS = {
    "unequal": [1.0, 1.01, 1.37, 2.9, 0.61],
    "ties": [1.0, 1.5, 0.75, 2.0, 1.0],  # seconds of one gradient: exact in binary, so that many end together
}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def eta(update):
    return 0.1 if update < 40 else 0.05


@functools.cache  # one problem, and so one compilation, for runs of the same structure and shape
def problem():
    """0.5 <w, C w> - <mean row, w>: the gradient is C w - mean row."""
    return Problem.from_functions(
        lambda key: jnp.asarray(START),
        lambda w, batch, key: 0.5 * jnp.sum(jnp.asarray(CURVATURE) * w**2) - jnp.mean(batch @ w),
        train=ROWS,
        batch_size=3,
    )


def trajectory(method, seconds, path):
    """What the package makes of it: the server's parameters after every update, and the mini-batches."""
    trace = simulate(Cluster(compute=seconds), method.synchrony, updates=UPDATES).verify()
    record = Record(updates=1, fn=lambda w: {f"w{i}": w[i] for i in range(SIZE)})
    history = replay(trace, problem(), method, record=record, execution=path).history
    schedule = lower(trace)
    rows = sampler("epochs", len(ROWS), 3, 0, schedule, len(seconds))(0, UPDATES)
    return history[[f"w{i}" for i in range(SIZE)]].to_numpy()[1:], rows


def jobs(seconds, steps):
    """The update that each worker's j-th message makes: messages in the order of (time, worker)."""
    ends = [(j * steps * s, worker, j - 1) for worker, s in enumerate(seconds) for j in range(1, UPDATES + 1)]
    order = sorted(ends)[:UPDATES]
    return {(worker, j): update for update, (_, worker, j) in enumerate(order)}


def gradient_of(seconds, steps, rows):
    """``(worker, t, point) -> (gradient, learning rate)`` of a worker's t-th gradient."""
    update_of = jobs(seconds, steps)

    def gradient(worker, t, point):
        update = update_of.get((worker, t // steps))
        if update is None:  # beyond the end
            return np.zeros(SIZE), 0.0
        return CURVATURE * point - ROWS[rows[update, t % steps]].mean(0), eta(update)

    return gradient


def elastic_averaging(seconds, tau, alpha, delta, gradient):
    """Algorithms 1 and 2 of Zhang, Choromanska, LeCun; returns the center after every exchange from t = tau on."""
    x, v = [START.copy() for _ in seconds], [np.zeros(SIZE) for _ in seconds]
    center, centers = START.copy(), []
    clock = [(0.0, worker, 0) for worker in range(len(seconds))]
    while len(centers) < UPDATES:
        _, i, t = heapq.heappop(clock)
        x_before = x[i].copy()
        if t % tau == 0:
            pull = alpha * (x_before - center)
            x[i] = x[i] - pull
            center = center + pull
            if t > 0:
                centers.append(center.copy())
        if delta is None:
            g, rate = gradient(i, t, x_before)
            x[i] = x[i] - rate * g
        else:
            g, rate = gradient(i, t, x_before + delta * v[i])
            v[i] = delta * v[i] - rate * g
            x[i] = x[i] + v[i]
        heapq.heappush(clock, ((t + 1) * seconds[i], i, t + 1))
    return np.array(centers)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("delta", [None, 0.9])
@pytest.mark.parametrize("tau", [1, 4])
@pytest.mark.parametrize("path", ["scan", "loop"])
def test_elastic_averaging_follows_algorithms_1_and_2(clocks, delta, tau, path):
    seconds = CLOCKS[clocks]
    method = methods.easgd(local_steps=tau, alpha=0.15, momentum=delta, learning_rate=RATE)
    got, rows = trajectory(method, seconds, path)
    expected = elastic_averaging(seconds, tau, 0.15, delta, gradient_of(seconds, tau, rows))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_elastic_averaging_gives_the_center_of_its_authors_code():
    """f(x) = x^2 / 2, x_0 = 1, eta = 0.1, alpha = 0.3, delta = 0.9: center -0.256 after 40 exchanges."""
    parabola = Problem.from_functions(lambda key: jnp.ones(()), lambda w, batch, key: 0.5 * w**2)
    trace = simulate(Cluster(compute=[1.0, 1.01, 1.02, 1.03]), Async(), updates=40)
    method = methods.easgd(alpha=0.3, momentum=0.9, learning_rate=0.1)
    assert float(replay(trace, parabola, method).params) == pytest.approx(-0.256, abs=5e-4)


def test_a_worker_that_joins_late_starts_at_the_center():
    """Worker 1 joins at t = 2.5, after two exchanges of worker 0; f(x) = x^2 / 2, eta = alpha = 0.5."""
    parabola = Problem.from_functions(lambda key: jnp.ones(()), lambda w, batch, key: 0.5 * w**2)
    trace = simulate(Cluster(compute=1.0, workers=2, join=[0.0, 2.5]), Async(), updates=4)
    done = replay(trace, parabola, methods.easgd(alpha=0.5, learning_rate=0.5), record=Record(updates=1)).history
    center = np.sqrt(2 * done["train_loss"].to_numpy())
    x, c, e = 1.0, 1.0, 0.0
    centers = [c]
    for _ in range(3):  # worker 0 at t = 1, 2, 3
        x = x - 0.5 * x - e
        e = 0.5 * (x - c)
        c = c + e
        centers.append(c)
    late = centers[2] - 0.5 * centers[2]  # read at 2.5, at the receive time 3.5 the center is that of t = 3
    centers.append(c + 0.5 * (late - c))
    np.testing.assert_allclose(center, np.abs(centers), rtol=0, atol=1e-12)


def downpour(seconds, n_push, n_fetch, gradient):
    """Downpour's client, Dean et al. 2012: its own model moves on by its gradients; their sum is pushed."""
    server, versions = START.copy(), []
    local, accrued = [START.copy() for _ in seconds], [np.zeros(SIZE) for _ in seconds]
    clock = [(s, worker, 0) for worker, s in enumerate(seconds)]
    heapq.heapify(clock)
    while len(versions) < UPDATES:  # at the end of a step
        _, i, t = heapq.heappop(clock)
        g, rate = gradient(i, t, local[i])
        accrued[i] = accrued[i] + g
        local[i] = local[i] - rate * g
        if (t + 1) % n_push == 0:
            server = server - rate * accrued[i]
            accrued[i] = np.zeros(SIZE)
            versions.append(server.copy())
        if (t + 1) % n_fetch == 0:
            local[i] = server.copy()
        heapq.heappush(clock, ((t + 2) * seconds[i], i, t + 1))
    return np.array(versions)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("fetch_every", [1, 3])
@pytest.mark.parametrize("n_push", [1, 4])
@pytest.mark.parametrize("path", ["scan", "loop"])
def test_downpour_follows_its_paper(clocks, n_push, fetch_every, path):
    seconds = CLOCKS[clocks]
    method = methods.downpour(local_steps=n_push, fetch_every=fetch_every, learning_rate=RATE)
    got, rows = trajectory(method, seconds, path)
    expected = downpour(seconds, n_push, n_push * fetch_every, gradient_of(seconds, n_push, rows))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


# Delayed averaging: without data, so that no gradient needs to be told which of the run's it is

TARGET = np.array([3.0, -2.0, 0.5, 1.0])


@functools.cache
def bowl():
    return Problem.from_functions(
        lambda key: jnp.asarray(START), lambda w, batch, key: jnp.sum(jnp.log(jnp.cosh(w - jnp.asarray(TARGET))))
    )


def slope(point):
    return np.tanh(point - TARGET)


def merged(method, seconds, path):
    trace = simulate(Cluster(compute=seconds), method.synchrony, updates=UPDATES).verify()
    record = Record(updates=1, fn=lambda w: {f"w{i}": w[i] for i in range(SIZE)})
    history = replay(trace, bowl(), method, record=record, execution=path).history
    return trace.update_times, history[[f"w{i}" for i in range(SIZE)]].to_numpy()[1:]


def cycles(seconds, tau):
    """Algorithm 2 of Talyansky et al. without link times: the time and the model of every merge."""
    beta, workers = tau // 2, range(len(seconds))
    y, x = START.copy(), [START.copy() for _ in seconds]
    x_init, ready = [START.copy() for _ in seconds], [0.0 for _ in seconds]
    model_at, times, models = 0.0, [], []
    while len(models) < UPDATES:
        released = []
        for w in workers:
            for _ in range(beta):
                x[w] = x[w] - 0.1 * slope(x[w])
            boundary = max(ready[w] + beta * seconds[w], model_at)  # waits for y_j, idle only here
            d = x[w] - x_init[w]
            x[w] = y + d
            x_init[w] = x[w].copy()
            ready[w] = boundary
            released.append(d)
        y = y + sum(released) / len(seconds)
        model_at = max(ready)
        times.append(model_at)
        models.append(y)
    return times, np.array(models)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("tau", [2, 6])
@pytest.mark.parametrize("path", ["scan", "loop"])
def test_delayed_averaging_follows_algorithm_2(clocks, tau, path):
    times, got = merged(methods.delayed_averaging(tau=tau, learning_rate=0.1), CLOCKS[clocks], path)
    expected_times, expected = cycles(CLOCKS[clocks], tau)
    np.testing.assert_allclose(times, expected_times, rtol=1e-12)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


class Thread:
    """A worker of Algorithm 1: thread 1 computes, thread 2 releases."""

    def __init__(self):
        self.x, self.x_init = START.copy(), START.copy()
        self.unreleased = self.beyond = 0
        self.arrived, self.idle, self.released = None, False, None

    def take_in(self):
        if self.arrived is not None:
            d = self.x - self.x_init
            self.x_init, self.x = self.arrived, self.arrived + d
            self.beyond, self.arrived = self.unreleased, None

    def release(self):
        self.released = self.x - self.x_init
        self.x_init, self.unreleased = self.x.copy(), 0


def threads(seconds, tau):
    """Algorithm 1 of Talyansky et al. without link times: the time and the model of every merge."""
    team, y, asked = [Thread() for _ in seconds], START.copy(), False
    clock = [(s, worker) for worker, s in enumerate(seconds)]
    heapq.heapify(clock)
    times, models = [], []
    while len(models) < UPDATES:
        now, i = heapq.heappop(clock)
        me = team[i]
        me.x = me.x - 0.1 * slope(me.x)
        me.unreleased += 1
        me.beyond += 1
        me.take_in()
        if not asked and all(t.unreleased for t in team):
            asked = True
            for other in team:
                if other.idle:
                    other.release()
        if asked and me.released is None:
            me.release()
        me.idle = me.beyond >= tau
        if not me.idle:  # it goes on at once; a model that is merged now comes in while it computes
            heapq.heappush(clock, (now + seconds[i], i))
        if asked and all(t.released is not None for t in team):
            y, asked = y + sum(t.released for t in team) / len(team), False
            times.append(now)
            models.append(y)
            for t in team:
                t.released, t.arrived = None, y
        for worker, t in enumerate(team):
            if t.idle:
                t.take_in()
                t.idle = t.beyond >= tau
                if not t.idle:
                    heapq.heappush(clock, (now + seconds[worker], worker))
    return times, np.array(models)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("tau", [1, 2, 7])
@pytest.mark.parametrize("path", ["scan", "loop"])
def test_the_general_form_of_delayed_averaging_follows_algorithm_1(clocks, tau, path):
    times, got = merged(methods.delayed_averaging_general(tau=tau, learning_rate=0.1), CLOCKS[clocks], path)
    expected_times, expected = threads(CLOCKS[clocks], tau)
    np.testing.assert_allclose(times, expected_times, rtol=1e-12)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
