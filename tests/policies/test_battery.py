"""One battery that every registered method must pass, as optax does for its optimizers."""

import functools
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import (
    SSP,
    Async,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Sequential,
    StepDecay,
    Sync,
    methods,
)
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.optimizers import build_optimizer
from stalegrad.simulator import Cluster, Gamma, Record, replay, simulate
from stalegrad.simulator.replays import scan
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.plan import check_rule

_spec = importlib.util.spec_from_file_location("slow_methods", Path(__file__).with_name("slow_methods.py"))
slow_methods = importlib.util.module_from_spec(_spec)
sys.modules["slow_methods"] = slow_methods
_spec.loader.exec_module(slow_methods)
SLOW = slow_methods.SLOW
_spec = importlib.util.spec_from_file_location("slow_servers", Path(__file__).with_name("slow_servers.py"))
slow_servers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slow_servers)

WORKERS, UPDATES, SIZE = 5, 420, 7
CLUSTER = Cluster(compute=[Gamma(mean, 0.4) for mean in (0.5, 0.8, 1.0, 1.3, 2.0)])
CURVATURE = np.linspace(0.2, 2.0, SIZE)
ROWS = np.random.default_rng(1).normal(size=(64, SIZE))
START = np.linspace(-1.0, 2.0, SIZE)
SCHEDULE = StepDecay(0.02, [150, 300], factor=0.3, unit="updates", warmup=20, warmup_from=0.2)
REQUIRED = {
    "k-sync": {"k": 2},
    "k-batch-sync": {"k": 2},
    "k-async": {"k": 2},
    "adasync": {"k": 2},
    "k-batch-async": {"k": 2},
    "ssp": {"bound": 3},
    "delayed-averaging": {"tau": 4},
    "delayed-averaging-general": {"tau": 4},
    "backup-workers": {"backups": 1},
    "bounded-staleness": {"bound": 3},
    "ringmaster": {"threshold": 3},
    "ringmaster-lmo": {"threshold": 3},
    "fedbuff": {"k": 2},
    "fadas": {"k": 2},
    "ca2fl": {"k": 2},
    "malenia": {"batch": 7},
    "mindflayer": {"trials": 2, "limit": 1.5},
    "dropcompute": {"limit": 1.5},
    "dylu": {"seconds": (0.5, 0.8, 1.0, 1.3, 2.0), "local_steps": 2},
    "constant-delay": {"delay": 2},
}

OPTIONS = [
    ("async", {}),
    ("sgd", {"momentum": 0.8, "weight_decay": 0.01}),
    ("gap-limited", {"threshold": 2e-3}),
    ("gap-limited", {"threshold": 2e-3, "weight_decay": 0.01}),
    ("mindthestep", {"warmup": 50}),
    ("mindthestep", {"warmup": 50, "damping": 0.4, "clip": None, "drop_above": 8}),
    ("mindthestep", {"warmup": 60, "model": "cmp", "nu": 0.7, "refresh": 90}),
    ("mindthestep", {"warmup": 50, "model": "geometric", "target_momentum": 0.6}),
    ("mindthestep", {"warmup": 50, "model": "geometric", "damping": 0.5, "clip": None}),
    ("mindthestep", {"warmup": 50, "model": "uniform", "mean": 6.0}),
    ("tail", {}),
    ("tail", {"cdf": "strict", "amplitude": 0.5}),
    ("inverse", {"weight_decay": 0.01}),
    ("fleet", {}),
    ("fleet", {"integer_division": True}),
    ("delay-adaptive", {}),
    ("nag-asgd", {"weight_decay": 0.01}),
    ("nag-asgd", {"nesterov": False}),
    ("multi-asgd", {"weight_decay": 0.01}),
    ("multi-asgd", {"nesterov": False}),
    ("dc-asgd", {"strength": 0.5, "weight_decay": 0.01}),
    ("dc-asgd", {"strength": 0.5, "adaptive": True, "momentum": None}),
    ("dc-asgd", {"strength": 0.5, "buffer": "per-worker"}),
    ("lwp", {}),
    ("lwp", {"horizon": 2.5, "weight_decay": 0.01}),
    ("dana-zero", {"weight_decay": 0.01}),
    ("dana-slim", {"weight_decay": 0.01}),
    ("dana-dc", {"strength": 0.1, "weight_decay": 0.01}),
    ("gap-aware", {"weight_decay": 0.01}),
    ("gap-aware", {"granularity": "layer", "running_peak": True}),
    ("gap-aware", {"granularity": "global", "penalise_weight_decay": False, "weight_decay": 0.01}),
    ("gap-aware", {"momentum": None, "gap_decay": 0.9}),
    ("gap-aware", {"momentum": None, "gap_decay": 0.9, "weight_decay": 0.1}),
    ("gap-aware", {"momentum": None, "gap_decay": 0.9, "weight_decay": 0.1, "penalise_weight_decay": False}),
    ("gap-aware", {"optimizer": "adam", "weight_decay": 0.01}),
    ("gap-aware", {"optimizer": "adam", "weight_decay": 0.01, "penalise_weight_decay": False, "gap_decay": 0.95}),
    ("staleness-aware", {"weight_decay": 0.01}),
    ("staleness-aware", {"offset": 1, "momentum": None}),
    ("dana-ga", {"weight_decay": 0.01}),
    ("dana-sa", {"weight_decay": 0.01}),
    ("smega2", {"weight_decay": 0.01}),
    ("smega2", {"naive": True}),
    ("fasgd", {}),
    ("fasgd", {"eps": 1e-3, "floor": 1e-2}),
    ("fasgd", {"spread": "magnitude", "floor": 1e-3}),
    ("spectrain", {"weight_decay": 0.01}),
]

EXAMPLES = {name: options for name, options in reversed(OPTIONS)}
"""The first options of each method: those of the tests that take one example of it."""


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def once_per_precision(function):
    """Cache a function's results, apart for 32 and 64 bits: arrays are of the type that was enabled."""

    @functools.cache
    def cached(x64, *arguments):
        return function(*arguments)

    return lambda *arguments: cached(jax.config.jax_enable_x64, *arguments)


@once_per_precision
def quadratic():
    """A quadratic with noise: 0.5 <w, C w> + <noise row, w>, in two arrays (so that layers differ).

    One problem for all tests: methods and runs of the same structure and shape share their compiled code.
    """

    def loss(w, batch, key):
        vector = jnp.concatenate([w["a"], w["b"]])
        return 0.5 * jnp.sum(jnp.linspace(0.2, 2.0, SIZE) * vector**2) + jnp.mean(batch @ vector)

    def init(key):
        return {"a": jnp.asarray(START[:3]), "b": jnp.asarray(START[3:])}

    return Problem.from_functions(init, loss, train=ROWS, batch_size=2)


def vector(params):
    return np.concatenate([params["a"], params["b"]])


def example(name, **options):
    return REGISTRY[name](**{"learning_rate": SCHEDULE, **REQUIRED.get(name, {}), **options})


@functools.cache
def timing(synchrony, updates=UPDATES):
    return simulate(CLUSTER, synchrony, updates=updates, seed=2)


def entries(params):
    return {f"w{i}": value for i, value in enumerate(vector(params))}


@once_per_precision
def whole_run(name, options, execution):
    """A method's run on the whole trace, with the parameters after every six updates; one for all tests."""
    method, record = example(name, **dict(options)), Record(updates=6, fn=entries)
    return replay(timing(method.synchrony), quadratic(), method, seed=5, record=record, execution=execution)


def slow_run(name, options, trace, problem, seed):
    """Walk over the trace's updates in order, one message each."""
    from stalegrad.simulator.replays.batches import sampler
    from stalegrad.simulator.replays.lowering import lower

    ids = sampler("epochs", len(ROWS), 2, seed, lower(trace), trace.workers)(0, UPDATES)[:, 0]
    layers = [slice(0, 3), slice(3, SIZE)]
    state = SLOW[name](START, trace.workers, **{"momentum": 0.9, **options}, peak=0.02, layers=layers)
    for update, worker in enumerate(trace.messages.query("update >= 0").sort_values("update")["worker"]):
        position = np.array([float(update)])
        eta = float(SCHEDULE.values(position, position)[0])
        noise = ROWS[ids[update]].mean(0)
        state.event(worker, lambda w, noise=noise: CURVATURE * w + noise, eta)
    return state


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_trajectory_equals_the_slow_float64_implementation(name, options, x64):
    trace = timing(example(name, **options).synchrony)
    done = whole_run(name, tuple(options.items()), "scan")
    slow = slow_run(name, options, trace, quadratic(), seed=5)
    assert slow.seen == trace.staleness.tolist()
    assert np.abs(vector(done.params)).max() > 1e-3
    np.testing.assert_allclose(vector(done.params), slow.theta, rtol=0, atol=1e-10)


def test_every_registered_method_is_in_the_battery():
    replayed = {
        "adasync",
        "delayed-averaging",
        "delayed-averaging-general",
        "downpour",
        "easgd",
        "ssp",
        "sync",
        "k-sync",
        "k-batch-sync",
        "k-async",
        "k-batch-async",
        "ssgd",
        "async-muon",
        "mindflayer",
        "dropcompute",
        "adacomm",
        "diloco",
        "async-local-sgd",
        "dylu",
        "constant-delay",
        "pipeline",
    }  # see test_{replay,local,papers,adaptive,servers,local_steps}.py
    assert set(REGISTRY) == set(SLOW) | set(slow_servers.SERVERS) | replayed


def windowed(method, trace):
    """Whether its gradients can be computed several at a time."""
    rule = method.rule(WORKERS)
    return lower(trace).messages_per_update == 1 and trace.staleness.any() and rule.work is None


# Both tests of a method look at the same run: they follow one another.


@pytest.mark.parametrize(
    ("name", "bits"),
    [*((name, 64) for name in REGISTRY), *((name, 32) for name in ("k-async", "dana-ga", "easgd"))],
    scope="module",
)
def test_chunking_changes_no_bit(name, bits, monkeypatch):
    options = EXAMPLES.get(name, {})
    method = example(name, **options)
    trace = timing(method.synchrony)
    path, rtol = "windows" if windowed(method, trace) else "scan", 1e-10 if bits == 64 else 1e-5
    with jax.enable_x64(bits == 64):
        a = whole_run(name, tuple(options.items()), path)
        if path == "windows":
            single = whole_run(name, tuple(options.items()), "scan")
            np.testing.assert_allclose(vector(a.params), vector(single.params), rtol=rtol)
            np.testing.assert_allclose(a.history["mean_gap"], single.history["mean_gap"], rtol=rtol)
        monkeypatch.setattr(scan, "CHUNK", 40)
        b = replay(trace, quadratic(), method, seed=5, record=Record(updates=90), execution=path)
    assert vector(a.params).dtype == f"float{bits}"
    assert vector(a.params).tobytes() == vector(b.params).tobytes()


@pytest.mark.parametrize("name", REGISTRY, scope="module")
def test_compiled_and_uncompiled_agree(name, x64):
    """Twelve updates of one message each, or six of several, which hold no fewer messages."""
    options = EXAMPLES.get(name, {})
    method = example(name, **options)
    updates = 12 if lower(timing(method.synchrony)).messages_per_update == 1 else 6
    trace = timing(method.synchrony, updates)
    assert trace.used.sum() >= 12
    compiled = whole_run(name, tuple(options.items()), "scan").history.set_index("update").loc[updates]
    with jax.disable_jit():
        plain = replay(trace, quadratic(), method, seed=5, record=Record(updates=12), execution="loop")
    expected = entries(plain.params)
    np.testing.assert_allclose(compiled[list(expected)], list(expected.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in REGISTRY if example(name).numbers])
def test_numeric_hyper_parameters_are_swept_by_vmap(name, x64):
    """A rule built from tracers gives, lane by lane, what it gives for each number alone."""
    method = example(name)
    numbers = method.numbers
    lanes = {key: jnp.asarray([value * 0.9, value * 0.99]) for key, value in numbers.items()}
    params = {"a": jnp.arange(1.0, 3.0), "b": jnp.ones((2, 2))}
    read = jax.tree.map(lambda p: p * 1.01, params)

    def one(numbers):
        rule = method.rule(3, numbers)
        optimizer = build_optimizer(rule.optimizer).at(1.0)
        state = optimizer.init(params)
        extra = {"worker": jnp.int32(1), "staleness": jnp.int32(2), "learning_rate": jnp.float64(0.1)}
        message = params
        theta, correction_state = params, rule.correction.init(params) if rule.correction else None
        for _ in range(3):
            message = jax.tree.map(lambda p: 0.3 * p, theta)
            if rule.correction is not None:
                message, correction_state = rule.correction.update(
                    message,
                    correction_state,
                    theta,
                    read=read,
                    peak_learning_rate=jnp.float64(0.1),
                    optimizer_state=state,
                    **extra,
                )
            direction, state = optimizer.update(message, state, theta, **extra)
            theta = jax.tree.map(lambda p, d: p + 0.1 * d, theta, direction)
        return theta if rule.look_ahead is None else rule.look_ahead(theta, state, 0.1, jnp.int32(1))

    swept = jax.vmap(one)(lanes)
    for lane in range(2):
        alone = one({key: float(values[lane]) for key, values in lanes.items()})
        for a, b in zip(jax.tree.leaves(swept), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[lane], b, rtol=1e-12)


# One worker: fresh gradients

PLAIN_ALONE = [
    "async",
    "inverse",
    "fleet",
    "delay-adaptive",
    "gap-limited",
    "k-async",
    "k-sync",
    "k-batch-async",
    "ssp",
    "ringmaster",
    "bounded-staleness",
    "fedbuff",
    "ia2sgd",
    "malenia",
    "ringleader",
]
NAG_ALONE = ["sgd", "nag-asgd", "gap-aware", "staleness-aware", "dc-asgd", "ssgd"]


@once_per_precision
def alone(name):
    extra = {"k": 1} if "k" in REQUIRED.get(name, {}) else REQUIRED.get(name, {})
    extra = {"batch": 1} if name == "malenia" else extra
    method = REGISTRY[name](learning_rate=SCHEDULE, **extra)
    trace = simulate(Cluster(1, compute=Gamma(1.0, 0.3)), method.synchrony, updates=60)
    return vector(replay(trace, quadratic(), method, seed=3).params)


@pytest.mark.parametrize("name", PLAIN_ALONE)
def test_one_worker_is_plain_sgd_bit_for_bit(name):
    assert alone(name).tobytes() == alone("sync").tobytes()


@pytest.mark.parametrize("name", NAG_ALONE)
def test_one_worker_is_nesterov_momentum_bit_for_bit(name):
    assert alone(name).tobytes() == alone("nag-asgd").tobytes()


def test_dana_zero_alone_is_sutskevers_nesterov_momentum(x64):
    """w = theta - eta gamma v; g = grad(w); v <- gamma v + g; theta <- theta - eta v: as multi-asgd alone."""
    np.testing.assert_allclose(alone("dana-zero"), alone("multi-asgd"), rtol=0, atol=1e-13)


# Reductions


def run_on(trace, method, seed=3):
    return vector(replay(trace, quadratic(), method, seed=seed).params)


ASYNC = simulate(CLUSTER, Async(), updates=150, seed=2)


def test_dc_with_strength_0_gap_aware_without_gap_and_lwp_with_horizon_0_reduce_bit_for_bit():
    plain = run_on(ASYNC, methods.nag_asgd(learning_rate=0.01))
    assert run_on(ASYNC, methods.dc_asgd(strength=0.0, learning_rate=0.01)).tobytes() == plain.tobytes()
    heavy = run_on(ASYNC, methods.nag_asgd(nesterov=False, learning_rate=0.01))
    assert run_on(ASYNC, methods.lwp(horizon=0.0, learning_rate=0.01)).tobytes() == heavy.tobytes()
    dana = run_on(ASYNC, methods.dana_zero(learning_rate=0.01))
    assert run_on(ASYNC, methods.dana_dc(strength=0.0, learning_rate=0.01)).tobytes() == dana.tobytes()


def test_dana_zero_and_slim_send_the_same_points_while_the_learning_rate_is_constant(x64):
    """Theta of DANA-Slim is theta - eta gamma S of DANA-Zero; the gaps both record are those of sent points."""
    record = Record(updates=1, gap=False, fn=lambda w: {"w": w["a"][0]})
    slim = replay(ASYNC, quadratic(), methods.dana_slim(learning_rate=0.01), record=record)
    trajectory = np.array(slim.history["w"])
    options = {"momentum": 0.9, "peak": 0.01, "layers": []}
    zero = SLOW["dana-zero"](START, WORKERS, **options)
    sent = [START[0]]
    from stalegrad.simulator.replays.batches import sampler
    from stalegrad.simulator.replays.lowering import lower

    ids = sampler("epochs", len(ROWS), 2, 0, lower(ASYNC), WORKERS)(0, 150)[:, 0]
    for update, worker in enumerate(ASYNC.messages.query("update >= 0").sort_values("update")["worker"]):
        noise = ROWS[ids[update]].mean(0)
        zero.event(worker, lambda w, noise=noise: CURVATURE * w + noise, 0.01)
        sent.append(zero.held[worker][0])
    np.testing.assert_allclose(trajectory, sent, rtol=0, atol=1e-12)


def test_dana_slim_differs_from_dana_zero_when_the_learning_rate_changes():
    rate = StepDecay(0.02, [75], unit="updates")
    slim, zero = (run_on(ASYNC, m(learning_rate=rate)) for m in (methods.dana_slim, methods.dana_zero))
    assert np.abs(slim - zero).max() > 1e-3


def test_ssp_without_a_bound_is_async_and_with_bound_0_waits_for_all():
    far = simulate(CLUSTER, SSP(10**6), updates=100, seed=1)
    assert far.update_times.tolist() == simulate(CLUSTER, Async(), updates=100, seed=1).update_times.tolist()
    lockstep = simulate(CLUSTER, SSP(0), updates=100, seed=1).messages.query("update >= 0")
    counts = lockstep.sort_values("update")["worker"].to_numpy().reshape(-1, WORKERS)
    assert (np.sort(counts, axis=1) == np.arange(WORKERS)).all()


@pytest.mark.parametrize("bound", [0, 1, 4])
def test_ssp_keeps_workers_within_its_bound(bound):
    trace = simulate(CLUSTER, SSP(bound), updates=300, seed=1)
    starts = trace.messages.sort_values("read_time")
    finished = np.zeros(WORKERS, int)
    used = trace.messages.query("update >= 0").sort_values("update")
    done = list(zip(used["receive_time"], used["worker"], strict=True))
    for worker, time in zip(starts["worker"], starts["read_time"], strict=True):
        while done and done[0][0] <= time:
            finished[done.pop(0)[1]] += 1
        assert finished[worker] - finished.min() <= bound


def test_sequential_trains_worker_0_alone():
    trace = simulate(CLUSTER, methods.sgd().synchrony, updates=20).verify()
    assert set(trace.messages["worker"]) == {0}
    assert trace.staleness.max() == 0


# What a method refuses


def test_a_method_refuses_a_synchrony_it_cannot_work_with():
    with pytest.raises(ValueError, match=r"'dana-zero' cannot work with synchrony 'k-async'.*async"):
        methods.dana_zero(synchrony=KAsync(2))
    assert methods.dana_zero(synchrony=SSP(2)).synchrony == SSP(2)


def test_a_method_that_sends_each_worker_its_own_point_refuses_ssp_before_anything_runs():
    with pytest.raises(ValueError, match=r"'multi-asgd' cannot work with synchrony 'ssp'.*nesterov = false"):
        methods.multi_asgd(synchrony=SSP(2))
    assert methods.multi_asgd(synchrony=SSP(2), nesterov=False).synchrony == SSP(2)


@pytest.mark.parametrize("name", REGISTRY)
def test_whatever_synchrony_a_method_allows_its_replay_takes(name):
    info = REGISTRY[name]
    made = {"async": Async(), "ssp": SSP(0), "sequential": Sequential(), "k-sync": KSync(2), "k-async": KAsync(2)}
    made |= {"k-batch-sync": KBatchSync(2), "k-batch-async": KBatchAsync(2), "sync": Sync()}
    allowed = made.values() if info.allowed is None else [s for s in made.values() if isinstance(s, info.allowed)]
    for synchrony in allowed:
        options = {"nesterov": False} if (name, synchrony) == ("multi-asgd", SSP(0)) else {}
        method = info(learning_rate=0.01, synchrony=synchrony, **options)
        trace = simulate(CLUSTER, synchrony, updates=30, seed=1)
        check_rule(name, method.rule(WORKERS), lower(trace))


def test_a_rule_with_state_per_worker_refuses_a_trace_with_larger_updates():
    trace = simulate(CLUSTER, KAsync(2), updates=10)
    with pytest.raises(ValueError, match="one message each"):
        replay(trace, quadratic(), methods.dana_zero())


def test_a_point_sent_to_one_worker_may_not_be_read_by_another():
    late = Cluster(3, compute=Gamma(1.0, 0.3), join=[0.0, 0.0, 4.0])
    trace = simulate(late, Async(), updates=30)
    with pytest.raises(ValueError, match="'multi-asgd' sends each worker its own point"):
        replay(trace, quadratic(), methods.multi_asgd())
    assert np.isfinite(run_on(trace, methods.multi_asgd(nesterov=False, learning_rate=0.01))).all()
