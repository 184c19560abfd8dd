"""Deadlines, DiLoCo and its asynchronous forms, AdaComm, constant and pipeline delay: NumPy twins, limits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.models import Problem
from stalegrad.policies import (
    Async,
    ConstantDelay,
    DropCompute,
    Dylu,
    MindFlayer,
    Sequential,
    StepDecay,
    Sync,
    methods,
)
from stalegrad.policies.controllers import AdaComm, Observation
from stalegrad.simulator import Cluster, Experiment, Exponential, Gamma, Record, Recorded, replay, run, simulate

SIZE, RATE = 5, 0.05
START = np.linspace(-1.0, 2.0, SIZE)
CURVATURE = np.linspace(0.3, 1.5, SIZE)
ROWS = np.random.default_rng(1).normal(size=(400, SIZE))
CLUSTER = Cluster(compute=[Gamma(mean, 0.6) for mean in (0.5, 1.0, 1.5)])


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@functools.cache
def problem():
    def loss(w, batch, key):
        return 0.5 * jnp.sum(jnp.asarray(CURVATURE) * w**2) + jnp.mean(batch @ w)

    return Problem.from_functions(lambda key: jnp.asarray(START), loss, train=ROWS, batch_size=1)


def gradient(w, row):
    return CURVATURE * w + ROWS[row]


def batches_for(trace):
    """Return a row of its own for every local gradient of every used message: (messages, steps, 1)."""
    steps = int(trace.column("steps")[trace.used].max(initial=1))
    rows = np.random.default_rng(7).integers(0, len(ROWS), (len(trace.used), steps))
    return rows[:, :, None]


def jobs(trace):
    """Return, update by update, (worker, version, rows of its gradients) of the messages, in their order."""
    used, rows = trace.used, batches_for(trace)[:, :, 0]
    columns = (trace.column(name)[used] for name in ("update", "worker", "read_version", "steps"))
    made = [[] for _ in trace.updates.index]
    for update, worker, version, steps, own in zip(*columns, rows, strict=True):
        made[update].append((int(worker), int(version), own[:steps]))
    return made


def points(trace, method):
    """Return the parameters after every update, as the package has them."""
    done = replay(
        trace, problem(), method, batches=batches_for(trace), record=Record(updates=1, gap=False, params=True)
    )
    return done.snapshots["params"]


# Deadlines


def test_mindflayer_divides_by_the_expected_number():
    method = methods.mindflayer(trials=3, limit=1.2, expected=5.5, learning_rate=RATE)
    trace = simulate(CLUSTER, method.synchrony, updates=30, seed=1).verify()
    versions = [START]
    for messages in jobs(trace):
        total = sum(gradient(versions[version], rows[0]) for _, version, rows in messages)
        versions.append(versions[-1] - RATE * total / 5.5)
    np.testing.assert_allclose(points(trace, method), versions, rtol=0, atol=1e-12)
    assert (trace.messages["fate"] == "cancelled").any()


def test_the_expected_number_of_successes_makes_mindflayer_unbiased():
    """B = sum_i p_i B_i, p_i = P(time <= limit): the mean number of gradients of a round is B."""
    trials, limits, scales = (4, 3, 1), (1.0, 0.5, 2.0), (1.0, 0.7, 3.0)
    cluster = Cluster(compute=[Exponential(scale) for scale in scales])
    trace = simulate(cluster, MindFlayer(trials, limits), updates=20_000)
    chances = [1 - np.exp(-limit / scale) for limit, scale in zip(limits, scales, strict=True)]
    expected = np.dot(trials, chances)
    variance = sum(b * p * (1 - p) for b, p in zip(trials, chances, strict=True))
    # Rounds without any gradient are repeated and make no update, so the mean is that of the others.
    nobody = np.prod([(1 - p) ** b for b, p in zip(trials, chances, strict=True)])
    mean = trace.updates["messages"].mean() * (1 - nobody)
    assert mean == pytest.approx(expected, abs=4 * np.sqrt(variance / 20_000))


def test_a_trial_that_succeeds_ends_before_its_limit_and_others_at_it():
    trace = simulate(CLUSTER, MindFlayer((2, 3, 1), (0.6, 0.9, 4.0)), updates=200, seed=3).verify()
    messages = trace.messages
    took = messages["finish_time"] - messages["read_time"]
    limit = np.array([0.6, 0.9, 4.0])[messages["worker"]]
    done = messages["fate"] == "used"
    assert (took[done] <= limit[done] + 1e-12).all()
    np.testing.assert_allclose(took[messages["fate"] == "cancelled"], limit[messages["fate"] == "cancelled"])
    by_round = messages.groupby(["read_version", "worker"]).size()
    assert set(by_round.xs(0, level="worker") % 2) == {0}


def test_a_round_without_any_success_is_repeated_at_the_same_version():
    times = Recorded([[5.0, 5.0, 1.0], [5.0, 5.0, 5.0]])
    trace = simulate(Cluster(2, times), MindFlayer(1, 2.0), updates=1).verify()
    assert trace.update_times.tolist() == [6.0]
    assert trace.messages["fate"].tolist().count("cancelled") == 5


@pytest.mark.parametrize("limit", [1.0, 3.0, 1e9])
def test_dropcompute_takes_the_mean_of_the_gradients_that_were_computed(limit):
    method = methods.dropcompute(limit=limit, local_steps=4, learning_rate=RATE)
    trace = simulate(CLUSTER, method.synchrony, updates=25, seed=2).verify()
    versions = [START]
    for messages in jobs(trace):
        all_rows = [(version, row) for _, version, rows in messages for row in rows]
        mean = sum(gradient(versions[version], row) for version, row in all_rows) / len(all_rows)
        versions.append(versions[-1] - RATE * mean)
    np.testing.assert_allclose(points(trace, method), versions, rtol=0, atol=1e-12)
    steps = trace.column("steps")[trace.used]
    assert (steps == 4).all() == (limit == 1e9)
    assert np.diff([0.0, *trace.update_times]).max() <= limit or limit < 1.5


# DiLoCo


class Adam:
    """AdamW of the paper, with the constants of optax."""

    def __init__(self):
        self.m = self.v = np.zeros(SIZE)
        self.t = 0

    def step(self, w, g):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g * g
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return w - RATE * (m / (np.sqrt(v) + 1e-8) + 1e-4 * w)


def displacements(messages, versions, inner):
    """Return x^v - y of every message, after local steps of each worker's own optimizer."""
    found = []
    for worker, version, rows in messages:
        y = versions[version]
        for row in rows:
            y = inner[worker].step(y, gradient(y, row))
        found.append(versions[version] - y)
    return found


def test_diloco_is_adamw_inside_and_nesterov_outside():
    method = methods.diloco(local_steps=4, learning_rate=RATE)
    trace = simulate(CLUSTER, method.synchrony, updates=15, seed=2)
    versions, inner, m = [START], [Adam() for _ in range(3)], np.zeros(SIZE)
    for messages in jobs(trace):
        d = np.mean(displacements(messages, versions, inner), axis=0)
        m = 0.9 * m + d
        versions.append(versions[-1] - 0.7 * (0.9 * m + d))
    np.testing.assert_allclose(points(trace, method), versions, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("buffer", "share"), [(1, 0.0), (3, 0.0), (3, 0.5), (4, 1.0)])
@pytest.mark.parametrize("dylu", [False, True])
def test_async_local_sgd_with_delayed_nesterov(buffer, share, dylu):
    options = {"outer_rate": 0.3, "buffer": buffer, "share": share, "local_steps": 4, "learning_rate": RATE}
    method = methods.dylu(seconds=(0.5, 1.0, 1.5), **options) if dylu else methods.async_local_sgd(**options)
    trace = simulate(CLUSTER, method.synchrony, updates=30, seed=2)
    versions, inner, m, delta = [START], [Adam() for _ in range(3)], np.zeros(SIZE), np.zeros(SIZE)
    c = share / buffer
    for t, messages in enumerate(jobs(trace)):
        (d,) = displacements(messages, versions, inner)
        d = d / np.sqrt(1 + t - messages[0][1])
        delta = delta + d
        if (t + 1) % buffer == 0:
            m = 0.9 * m + delta / buffer
            step = (1 - c * buffer + c) * 0.9 * m + d / buffer
            delta = np.zeros(SIZE)
        else:
            step = c * 0.9 * m + d / buffer
        versions.append(versions[-1] - 0.3 * step)
    np.testing.assert_allclose(points(trace, method), versions, rtol=0, atol=1e-11)
    worker, steps = trace.column("worker"), trace.column("steps")
    assert [set(steps[worker == w]) for w in range(3)] == ([{4}, {2}, {1}] if dylu else [{4}] * 3)


def test_one_local_step_of_sgd_without_delay_is_asynchronous_nesterov():
    """H = 1, c = 0, N = 1: theta -= eta (gamma v + g) of nag-asgd, the rate inside or outside the momentum."""
    trace = simulate(CLUSTER, Async(), updates=40, seed=2)
    special = methods.async_local_sgd(
        inner="sgd", outer_rate=1.0, outer_momentum=0.8, buffer=1, decay="constant", learning_rate=RATE
    )
    np.testing.assert_allclose(
        points(trace, special),
        points(trace, methods.nag_asgd(momentum=0.8, learning_rate=RATE)),
        rtol=0,
        atol=1e-12,
    )


def test_a_grace_period_merges_what_arrives_within_it():
    grouped = methods.method("async-local-sgd", {"synchrony": methods.k_async(k=1, grace=0.5).synchrony})
    trace = simulate(Cluster(compute=[1.0, 1.25, 4.0]), grouped.synchrony, updates=2).verify()
    assert trace.updates["messages"].tolist() == [2, 2]
    assert trace.update_times.tolist() == [1.5, 3.0]


def test_dylu_gives_slower_workers_fewer_steps():
    seconds = (0.58, 0.75, 1.51, 3.33)
    found = [Dylu(seconds, local_steps=20, least=5).steps_of(worker) for worker in range(4)]
    assert found == [20, int(20 * 0.58 / 0.75), int(20 * 0.58 / 1.51), 5]
    assert [Dylu((1.0, 2.0, 4.0), local_steps=8).steps_of(worker) for worker in range(3)] == [8, 4, 2]


# AdaComm


def test_adacomm_takes_the_steps_of_the_specification():
    """tau_0 = 20 at loss ratios 1, .7, .5, .3, .1, .05, .01; the first is no decrease, and would be halved."""
    found = []
    for ratio in (0.7, 0.5, 0.3, 0.1, 0.05, 0.01):
        seen = Observation(2.0, 2.0 * ratio, 0.1, 0.1, 100)
        found.append(AdaComm().decide(Sync(local_steps=20), 4, seen))
    assert found == [17, 15, 11, 7, 5, 2]
    assert AdaComm().decide(Sync(local_steps=20), 4, Observation(2.0, 2.0, 0.1, 0.1, 20)) == 10
    assert AdaComm(shrink=0.9).decide(Sync(local_steps=20), 4, Observation(2.0, 2.0, 0.1, 0.1, 11)) == 10
    assert AdaComm().decide(Sync(local_steps=20), 4, Observation(2.0, np.nan, 0.1, 0.1, 6)) == 3
    smaller_rate = Observation(2.0, 0.5, 0.1, 0.025, 21)
    assert AdaComm().decide(Sync(local_steps=20), 4, smaller_rate) == 20


def test_adacomm_decides_while_it_runs_and_its_trace_replays():
    method = methods.adacomm(local_steps=12, interval=20.0, learning_rate=RATE)
    experiment = Experiment(problem(), CLUSTER, method, wallclock=200.0, record=Record(wallclock=20.0))
    result = run(experiment, progress=False)
    decisions = result.trace.spec["decisions"]
    taus = [value for _, _, value in decisions]
    assert taus[0] < 12
    assert all(b < a or a == 1 for a, b in itertools.pairwise(taus))
    first = result.history["train_loss"].iloc[0]
    before = 12
    for _, loss, value in decisions:
        wanted = int(np.ceil(np.sqrt(loss / first) * 12)) if loss > 0 else before
        assert value == max(wanted if wanted < before else int(np.ceil(before / 2)), 1)
        before = value
    steps = result.trace.column("steps")
    assert set(steps[result.trace.used]) == {12, *taus} & set(steps)
    update, used = result.trace.column("update")[result.trace.used], steps[result.trace.used]
    assert all(len(set(used[update == u])) == 1 for u in np.unique(update))
    again = replay(result.trace, problem(), methods.sync(local_steps=12, learning_rate=RATE), seed=experiment.seed)
    np.testing.assert_allclose(again.params, result.params, rtol=0, atol=1e-12)


def test_adacomm_trains_faster_than_its_first_number_of_steps():
    """Links are slow, so that many local steps pay at first."""
    cluster = Cluster(4, Exponential(0.1), uplink=0.5, downlink=0.5)
    trace = run(
        Experiment(
            problem(), cluster, methods.adacomm(local_steps=16, interval=10.0, learning_rate=RATE), wallclock=60.0
        ),
        progress=False,
    ).trace
    gaps = np.diff(trace.update_times)
    assert gaps[-5:].mean() < gaps[:5].mean()


# Constant and pipeline delay


@settings(max_examples=30, deadline=None)
@given(
    means=st.lists(st.floats(0.1, 3.0), min_size=1, max_size=5),
    delay=st.integers(0, 4),
    seed=st.integers(0, 99),
    link=st.sampled_from([0.0, 0.4]),
)
def test_every_gradient_has_the_same_delay(means, delay, seed, link):
    delay = min(delay, len(means) - 1)
    cluster = Cluster(compute=[Gamma(m, 0.8) for m in means], uplink=link, downlink=link)
    trace = simulate(cluster, ConstantDelay(delay), updates=30, seed=seed).verify()
    assert trace.staleness.tolist() == [min(j, delay) for j in range(30)]
    assert trace.column("worker")[trace.used].tolist() == [j % len(means) for j in range(30)]


def test_constant_delay_0_is_sequential_bit_for_bit():
    trace = simulate(Cluster(1, Exponential()), ConstantDelay(0), updates=40)
    other = simulate(Cluster(1, Exponential()), Sequential(), updates=40)
    assert trace.messages.equals(other.messages)


def test_a_pipeline_of_one_stage_is_sgd_bit_for_bit():
    trace = simulate(Cluster(1, 1.0), Sequential(), updates=40)
    one = points(trace, methods.pipeline(stages=1, optimizer="adam", learning_rate=RATE))
    plain = points(trace, methods.async_(optimizer="adam", learning_rate=RATE))
    assert one.tobytes() == plain.tobytes()


@pytest.mark.parametrize("optimizer", ["sgd", {"name": "sgd", "momentum": 0.5}])
def test_each_stage_of_a_pipeline_has_its_own_delay(optimizer):
    """Three arrays coupled by their product, three stages: delays 2, 1 and 0, kept here as a list of versions."""

    def loss(w, batch, key):
        return 0.5 * (w["a"] * w["b"] * w["c"] - 2.0) ** 2

    start = {"a": jnp.asarray(1.0), "b": jnp.asarray(1.2), "c": jnp.asarray(0.8)}
    coupled = Problem.from_functions(lambda key: start, loss)
    method = methods.pipeline(stages=3, optimizer=optimizer, learning_rate=StepDecay(0.05, [15], unit="updates"))
    trace = simulate(Cluster(1, 1.0), Sequential(), updates=30)
    found = replay(trace, coupled, method, record=Record(updates=1, params=True)).snapshots["params"]
    versions = [np.array([1.0, 1.2, 0.8])]
    velocity, gamma = np.zeros(3), 0.0 if optimizer == "sgd" else 0.5
    for j in range(30):
        w = np.array([versions[max(j - 2, 0)][0], versions[max(j - 1, 0)][1], versions[j][2]])
        g = (w.prod() - 2.0) * w.prod() / w
        velocity = gamma * velocity + g  # of optax: the rate comes after the momentum
        versions.append(versions[-1] - (0.05 if j < 15 else 0.005) * velocity)
    for place, name in enumerate("abc"):
        np.testing.assert_allclose(found[name], np.array(versions)[:, place], rtol=0, atol=1e-12)


def test_nadamw_is_an_optimizer_of_pipelines():
    method = methods.pipeline(stages=2, optimizer={"name": "nadamw", "b1": 0.99}, learning_rate=0.01)
    trace = simulate(Cluster(1, 1.0), Sequential(), updates=20)
    found = points(trace, method)
    assert np.isfinite(found).all()
    optimizer = optax.nadamw(0.01, b1=0.99)  # the one array here is of the first stage: delay 1
    versions, state = [START], optimizer.init(jnp.asarray(START))
    for j, messages in enumerate(jobs(trace)):
        g = gradient(versions[max(j - 1, 0)], messages[0][2][0])
        step, state = optimizer.update(jnp.asarray(g), state, jnp.asarray(versions[-1]))
        versions.append(versions[-1] + np.asarray(step))
    np.testing.assert_allclose(found, versions, rtol=0, atol=1e-12)


# Errors


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: MindFlayer((0, 0), 1.0), "trials of mind-flayer = \\(0, 0\\) is not allowed: somebody"),
        (lambda: MindFlayer(2, 0.0), "limit"),
        (
            lambda: simulate(Cluster(3), MindFlayer((1, 2), 1.0), updates=1),
            "trials of mind-flayer has 2 entries for 3",
        ),
        (lambda: simulate(Cluster(2), ConstantDelay(2), updates=1), "delay = 2 of constant-delay .* at most 1"),
        (lambda: simulate(Cluster(2), Dylu((1.0,)), updates=1), "seconds of dylu has 1 entries for 2 workers"),
        (lambda: DropCompute(-1.0), "limit.*-1"),
        (lambda: methods.adacomm(synchrony=Async()), "cannot work with synchrony 'async'"),
        (lambda: methods.adacomm(shrink=1.0), "shrink of method 'adacomm' = 1.0"),
        (lambda: methods.async_local_sgd(share=1.5), "share of method 'async-local-sgd' = 1.5"),
        (lambda: methods.pipeline(stages=0), "stages of method 'pipeline' = 0"),
        (lambda: methods.diloco(inner="adamm"), "adamm"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
