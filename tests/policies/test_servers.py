"""Methods whose servers choose, keep tables or mix models: against an independent event loop, limits, promises."""

import importlib.util
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from optax.contrib import muon

from stalegrad.models import Problem
from stalegrad.policies import (
    Async,
    AsyncAfterAll,
    BoundedStaleness,
    KAsync,
    KBatchAsync,
    KSync,
    Malenia,
    Ringleader,
    Ringmaster,
    StepDecay,
    Sync,
    methods,
    parts,
)
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import (
    Cluster,
    Exponential,
    Gamma,
    Record,
    Recorded,
    Renewal,
    from_toml,
    replay,
    simulate,
)

_spec = importlib.util.spec_from_file_location("slow_servers", Path(__file__).with_name("slow_servers.py"))
slow_servers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slow_servers)

WORKERS, SIZE, JOBS, STEPS, UPDATES = 4, 6, 1_500, 3, 60
CURVATURE = np.linspace(0.3, 1.5, SIZE)
START = np.linspace(-1.0, 2.0, SIZE)
RNG = np.random.default_rng(3)
TIMES = RNG.gamma(4.0, np.array([[0.1], [0.2], [0.25], [0.7]]), (WORKERS, JOBS))
ROWS = RNG.normal(size=(WORKERS, JOBS, STEPS, SIZE)) + np.linspace(-1, 1, WORKERS)[:, None, None, None]
SCHEDULE = StepDecay(0.05, [20, 40], factor=0.5, unit="updates")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def loss(w, batch, key):
    vector = jnp.concatenate([w["a"], w["b"]])
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE, vector.dtype) * vector**2) + jnp.mean(batch @ vector)


def problem():
    def init(key):
        return {"a": jnp.asarray(START[:2]), "b": jnp.asarray(START[2:])}

    return Problem.from_functions(init, loss, train=ROWS.reshape(-1, SIZE), batch_size=1)


def flat(params):
    return np.concatenate([params["a"], params["b"]])


def batches_of(trace, steps):
    """Return the row of each used message: that of its worker's job, whatever became of the others."""
    worker = trace.column("worker")
    job = np.zeros(len(worker), int)
    for i in range(trace.workers):
        job[worker == i] = np.arange((worker == i).sum())
    used = trace.used
    first = (worker[used] * JOBS + job[used]) * STEPS
    return (first[:, None] + np.arange(steps))[:, :, None]


def both(name, options, updates=UPDATES, times=TIMES, execution=None, synchrony=None):
    """Return the run of the package, its trace, and the slow server after as many updates."""
    options = dict(options)
    method = REGISTRY.find(name)(learning_rate=SCHEDULE, **options)
    steps = options.pop("local_steps", 1)
    cluster = Cluster(len(times), Recorded(times.tolist()))
    trace = simulate(cluster, method.synchrony, updates=updates).verify()
    record = Record(updates=1, gap=False, params=True)
    done = replay(trace, problem(), method, batches=batches_of(trace, steps), record=record, execution=execution)

    def gradient(i, k, h, x):
        return CURVATURE * x + ROWS[i, k, h]

    def rate(update):
        return float(SCHEDULE.values(np.array([float(update)]), np.array([0.0]))[0])

    if "backups" in options:
        options = {"k": len(times) - options["backups"], "cancel": False}
    server = slow_servers.SERVERS[method.name](START, times, gradient, rate, steps, **options)
    return done, trace, server.run(updates)


def contributions(trace):
    """Return (time, [(worker, staleness), ...]) of every update, contributions in the order of their ids."""
    used, update = trace.used, trace.column("update")[trace.used]
    worker, staleness = trace.column("worker")[used], trace.staleness
    return [
        (time, [(int(w), int(s)) for w, s in zip(worker[update == u], staleness[update == u], strict=True)])
        for u, time in enumerate(trace.update_times)
    ]


OPTIONS = [
    ("ringmaster", {"threshold": 3}),
    ("ringmaster", {"threshold": 3, "stops": True}),
    ("ringmaster", {"threshold": 1}),
    ("ringmaster", {"threshold": 1, "stops": True}),
    ("ringmaster", {"threshold": "sqrt"}),
    ("ringmaster", {"threshold": "sqrt", "stops": True}),
    ("ringmaster", {"threshold": 4, "local_steps": 2}),
    ("ringmaster-lmo", {"threshold": 3, "norm": "sign", "averaging": 0.2}),
    ("ringmaster-lmo", {"threshold": 3, "norm": "euclidean", "averaging": 0.2, "nesterov": True}),
    ("ringmaster-lmo", {"threshold": "sqrt", "norm": "euclidean", "averaging": "sqrt", "stops": True}),
    ("clipped-async", {"clip": 0.8}),
    ("m-sync", {"k": 2}),
    ("m-sync", {"k": 3, "cancel": False}),
    ("backup-workers", {"backups": 2}),
    ("rennala", {"k": 5}),
    ("rennala", {"k": 5, "cancel": False}),
    ("rennala", {"k": 1, "cancel": False}),
    ("malenia", {"batch": 4}),
    ("malenia", {"batch": 9}),
    ("malenia", {"batch": 9, "cancel": False}),
    ("ringleader", {}),
    ("ia2sgd", {}),
    ("dude", {}),
    ("fedbuff", {"k": 3, "local_steps": 3, "server_rate": 0.7, "server_momentum": 0.5}),
    ("fedbuff", {"k": 2}),
    ("fedasync", {"local_steps": 3}),
    ("fedasync", {"decay": "hinge", "a": 3.0, "b": 2.0, "mixing": 0.9, "proximal": 0.3, "local_steps": 2}),
    ("ca2fl", {"k": 3, "local_steps": 2}),
    ("ca2fl", {"k": 1, "server_rate": 0.5}),
    ("fadas", {"k": 2, "local_steps": 2, "server_rate": 0.3}),
    ("fadas", {"k": 2, "server_rate": 0.3, "tolerance": 4}),
    ("bounded-staleness", {"bound": 0}),
    ("bounded-staleness", {"bound": 1}),
    ("bounded-staleness", {"bound": 4}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_traces_and_trajectories_equal_the_slow_implementation(name, options, x64):
    done, trace, server = both(name, options)
    found = contributions(trace)
    assert [time for time, _ in found] == pytest.approx([time for time, _ in server.updates], abs=1e-12)
    assert [who for _, who in found] == [who for _, who in server.updates]
    points = np.stack(
        [flat(jax.tree.map(lambda leaf, u=u: leaf[u], done.snapshots["params"])) for u in range(UPDATES + 1)]
    )
    assert np.abs(points[1:]).max() < 50
    np.testing.assert_allclose(points, [START, *server.points], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ringleader", "malenia", "fedasync", "fadas", "ca2fl", "ia2sgd"])
def test_all_executions_agree(name, x64):
    options = dict(next(options for known, options in OPTIONS if known == name))
    runs = [flat(both(name, options, execution=execution)[0].params) for execution in ("scan", "loop")]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-12)


# The values of the specification: P = 3, constant times.

SPECIFIED = Cluster(compute=[0.7, 1.6, 3.3])


@pytest.mark.parametrize("stops", [False, True])
def test_ringmaster_on_the_specified_times(stops):
    trace = simulate(SPECIFIED, Ringmaster(2, stops=stops), updates=6)
    assert contributions(trace) == [(pytest.approx(0.7 * (u + 1)), [(0, 0)]) for u in range(6)]
    messages = trace.messages
    restarted = messages[messages["fate"] == "cancelled"]
    assert sorted(set(restarted["read_version"])) == ([0, 2, 4] if stops else [])
    discarded = messages[messages["fate"] == "discarded"]
    lost = [(1, 1.6), (1, 3.2), (2, 3.3)]  # of workers 2 and 3 in the specification
    found = sorted(zip(discarded["worker"], discarded["receive_time"], strict=True))
    assert found == ([] if stops else [(w, pytest.approx(t)) for w, t in lost])


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (
            methods.fedbuff(k=2, learning_rate=0.1),
            [0.9, 0.81964466, 0.74684262, 0.69286381, 0.63181574, 0.57572852],
        ),
        (
            methods.fedasync(learning_rate=0.1, proximal=0.0),
            [0.94, 0.8836, 0.88928113, 0.84938286, 0.79841988, 0.79908954],
        ),
        (
            methods.fedasync(learning_rate=0.1, proximal=0.0, decay="hinge", b=0.0),
            [0.94, 0.8836, 0.88406857, 0.87922338, 0.82646997, 0.82558974],
        ),
        (methods.ringmaster(threshold=2, learning_rate=0.1), [0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441]),
        (methods.rennala(k=2, learning_rate=0.1), [0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441]),
    ],
    ids=["fedbuff", "polynomial", "hinge", "ringmaster", "rennala"],
)
def test_parameter_values_of_the_specification(method, values, x64):
    bowl = Problem.from_functions(lambda key: jnp.ones(()), lambda w, batch, key: 0.5 * w**2)
    trace = simulate(SPECIFIED, method.synchrony, updates=6)
    history = replay(trace, bowl, method, record=Record(updates=1, fn=lambda w: {"w": w})).history
    np.testing.assert_allclose(history["w"], [1.0, *values], rtol=0, atol=5e-9)


# Limits, bit for bit

CLUSTER = Cluster(compute=[Gamma(mean, 0.5) for mean in (0.5, 0.8, 1.0, 2.0)])


def same(a, b):
    """Whether two traces have the same rows, to the last bit."""
    return a.messages.equals(b.messages) and a.updates.equals(b.updates)


def run_of(method, cluster=CLUSTER, updates=80):
    trace = simulate(cluster, method.synchrony, updates=updates, seed=4)
    return trace, flat(replay(trace, problem(), method, seed=5).params).tobytes()


@pytest.mark.parametrize(
    ("special", "general"),
    [
        (methods.ringmaster(threshold=10_000), methods.async_()),
        (methods.ringmaster(threshold=10_000, stops=True), methods.async_()),
        (methods.bounded_staleness(bound=10_000), methods.async_()),
        (methods.bounded_staleness(bound=0), methods.sync()),
        (methods.backup_workers(backups=0), methods.sync()),
        (methods.m_sync(k=4, cancel=False), methods.sync()),
        (methods.fedbuff(k=3, decay="constant"), methods.k_batch_async(k=3)),
        (methods.clipped_async(clip=1e9), methods.async_()),
        (methods.rennala(k=1, cancel=True), methods.m_sync(k=1)),
    ],
    ids=lambda method: method.name,
)
def test_limits_are_other_methods_bit_for_bit(special, general):
    (trace, params), (other, expected) = run_of(special), run_of(general)
    assert same(trace, other)
    assert params == expected


def test_malenia_with_one_gradient_of_everybody_is_synchronous(x64):
    """Whoever is early computes a second gradient: with equal times nobody is."""
    equal = Cluster(4, 1.0)
    _, malenia = run_of(methods.malenia(batch=4), equal)
    _, sync = run_of(methods.sync(), equal)
    np.testing.assert_allclose(np.frombuffer(malenia), np.frombuffer(sync), rtol=0, atol=1e-13)


def test_tables_of_equal_workers_in_turn_are_one_gradient_old(x64):
    """Two equal workers: after the first update, that of both, the mean of the last two gradients moves w."""
    trace = simulate(Cluster(2, 1.0), AsyncAfterAll(), updates=5)
    bowl = Problem.from_functions(lambda key: jnp.ones(()), lambda w, batch, key: 0.5 * w**2)
    record = Record(updates=1, fn=lambda w: {"w": w})
    found = replay(trace, bowl, methods.ia2sgd(learning_rate=0.1), record=record).history["w"].to_numpy()
    assert contributions(trace)[:3] == [(1.0, [(0, 0), (1, 0)]), (2.0, [(0, 1)]), (2.0, [(1, 1)])]
    w = [1.0, 0.9]  # versions 0 and 1; worker 0 goes on at version 0, worker 1 at version 1
    rows = [1.0, 1.0]
    for worker, read in ((0, 0), (1, 1), (0, 2), (1, 3)):
        rows[worker] = w[read]
        w.append(w[-1] - 0.1 * sum(rows) / 2)
    np.testing.assert_allclose(found, w, rtol=0, atol=1e-14)


def test_muon_is_that_of_optax(x64):
    def loss(w, batch, key):
        return 0.5 * jnp.sum((w["matrix"] - 1) ** 2) + jnp.sum(w["vector"] ** 4)

    start = {"matrix": jnp.arange(12.0).reshape(4, 3), "vector": jnp.linspace(-1, 1, 5)}
    problem = Problem.from_functions(lambda key: start, loss)
    method = methods.async_muon(learning_rate=0.02, weight_decay=0.1)
    trace = simulate(Cluster(1, 1.0), Async(), updates=7)
    found = replay(trace, problem, method).params
    optimizer = muon(0.02, weight_decay=0.1)
    params, state = start, optimizer.init(start)
    for _ in range(7):
        updates, state = optimizer.update(jax.grad(loss)(params, None, None), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 4), (3, 3, 2, 5)])
def test_the_spectral_step_has_singular_values_near_one(shape):
    """Five Newton-Schulz steps keep the singular vectors, and bring the values to between 0.65 and 1.25."""
    m = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    step = np.asarray(parts.lmo.dual({"m": jnp.asarray(m), "v": jnp.asarray([2.0, -3.0])}, "spectral")["m"])
    u, _, vt = np.linalg.svd(m.reshape(-1, shape[-1]), full_matrices=False)
    inner = u.T @ step.reshape(-1, shape[-1]) @ vt.T
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-3)
    assert (np.diag(inner) > 0.65).all()
    assert (np.diag(inner) < 1.25).all()


# Promises, on random clusters

MEANS = st.lists(st.floats(0.1, 3.0), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(means=MEANS, seed=st.integers(0, 100), threshold=st.integers(1, 6), stops=st.booleans())
def test_ringmaster_uses_nothing_too_stale(means, seed, threshold, stops):
    trace = simulate(
        Cluster(compute=[Gamma(m, 0.7) for m in means]), Ringmaster(threshold, stops=stops), updates=60, seed=seed
    )
    assert trace.verify().staleness.max() < threshold
    messages = trace.messages
    if stops:
        assert not (messages["fate"] == "discarded").any()
        computing = messages[messages["fate"] == "pending"]
        assert (60 - computing["read_version"] < threshold).all()


@settings(max_examples=40, deadline=None)
@given(
    means=MEANS,
    seed=st.integers(0, 100),
    bound=st.integers(0, 6),
    link=st.sampled_from([0.0, 0.3]),
    away=st.booleans(),
)
def test_staleness_is_bounded_and_nothing_is_discarded(means, seed, bound, link, away):
    availability = Renewal(up=Exponential(4.0), down=Exponential(2.0)) if away else None
    cluster = Cluster(
        compute=[Gamma(m, 0.7) for m in means], uplink=link, downlink=link, availability=availability
    )
    trace = simulate(cluster, BoundedStaleness(bound), updates=60, seed=seed).verify()
    assert trace.staleness.max() <= bound
    assert (link and away) or not (trace.messages["fate"] == "discarded").any()


@settings(max_examples=40, deadline=None)
@given(means=MEANS, seed=st.integers(0, 100))
def test_ringleader_serves_everybody_once_in_a_round_from_one_version_each(means, seed):
    n = len(means)
    trace = simulate(
        Cluster(compute=[Gamma(m, 0.7) for m in means]), Ringleader(), updates=12 * n, seed=seed
    ).verify()
    used, update = trace.used, trace.column("update")[trace.used]
    worker, version = trace.column("worker")[used], trace.column("read_version")[used]
    rows = {}
    for u in range(12 * n):
        here = update == u
        if u % n == 0:
            rows, turns = {}, []
        for w, v in zip(worker[here], version[here], strict=True):
            rows.setdefault(int(w), set()).add(int(v))
        turns.append(int(worker[here][-1]))
        assert set(rows) == set(range(n))
        assert all(len(versions) == 1 for versions in rows.values())
        assert max(u - min(versions) for versions in rows.values()) <= 2 * n - 2
        if u % n == n - 1:
            assert sorted(turns) == list(range(n))


@pytest.mark.parametrize("synchrony", [Ringleader(), Malenia(3), AsyncAfterAll()])
def test_whoever_is_away_is_waited_for(synchrony):
    """The slowest worker joins at 50 s: nothing is updated before its first gradient."""
    trace = simulate(Cluster(compute=[1.0, 1.0, 2.0], join=[0.0, 0.0, 50.0]), synchrony, updates=3).verify()
    assert trace.update_times[0] == 52.0


@pytest.mark.parametrize("cancel", [True, False])
def test_without_cancelling_m_sync_runs_late_jobs_to_their_end(cancel):
    trace = simulate(Cluster(compute=[1.0, 1.5, 4.0]), KSync(2, cancel=cancel), updates=4).verify()
    fates = trace.messages.loc[trace.messages["worker"] == 2, "fate"].tolist()
    assert fates == (["cancelled"] * 4 if cancel else ["discarded", "pending"])


# Names and errors


def test_aliases_name_the_same_methods():
    assert methods.rennala is methods.k_batch_sync
    assert methods.m_sync is methods.k_sync
    assert methods.local_sgd is methods.sync
    assert methods.ace is methods.ia2sgd
    assert methods.method("rennala", {"k": 3}) == methods.k_batch_sync(k=3)
    text = """
    updates = 3
    problem = { model = "mlp", dataset = "fashion-mnist-small" }
    cluster = { workers = 2 }
    method = { name = "rennala", k = 3, cancel = false }
    """
    experiment = from_toml(text)
    assert experiment.method == methods.k_batch_sync(k=3, cancel=False)
    assert from_toml(experiment.to_toml()) == experiment


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: methods.ringmaster(), "method 'ringmaster' needs threshold"),
        (lambda: methods.ringmaster(threshold=0), "threshold.*0"),
        (lambda: methods.ringmaster(threshold="root"), "threshold.*root"),
        (
            lambda: methods.ringleader(synchrony=Async()),
            "cannot work with synchrony 'async': allowed are ringleader",
        ),
        (lambda: methods.ia2sgd(synchrony=KAsync(2)), "allowed are async, async-after-all"),
        (lambda: methods.fedbuff(synchrony=Sync()), "allowed are async, k-async, k-batch-async"),
        (lambda: methods.fedasync(synchrony=KBatchAsync(2)), "cannot work with synchrony 'k-batch-async'"),
        (lambda: methods.fedasync(mixing=0.0), "mixing of method 'fedasync' = 0.0"),
        (lambda: methods.malenia(batch=0), "batch.*0"),
        (lambda: methods.clipped_async(clip=-1.0), "clip of method 'clipped-async' = -1.0"),
        (lambda: methods.ringmaster_lmo(threshold=2, norm="l7"), "norm of method 'ringmaster-lmo' = 'l7'"),
        (lambda: simulate(Cluster(2), methods.backup_workers(backups=2).synchrony, updates=1), "leaves no worker"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_table_without_data_of_the_workers_own_is_warned_of():
    trace = simulate(Cluster(2, 1.0), Ringleader(), updates=2)
    with pytest.warns(UserWarning, match="method 'ringleader' keeps a table .* give the problem a partition"):
        replay(trace, problem(), methods.ringleader())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(trace, problem(), methods.ringleader(), batches=batches_of(trace, 1))
        replay(trace, problem().but(sampling="sharded"), methods.ringleader())
        replay(trace, problem(), methods.async_(synchrony=Ringleader()))
