"""Parameters of every floating type, and mixtures: what is kept of them has their types, in every execution."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Cluster, Gamma, Record, replay, simulate
from stalegrad.simulator.replays import lanes, loop, scan
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import Request, replay_together

REQUIRED = {
    **{
        name: {"k": 2}
        for name in ("k-sync", "k-batch-sync", "k-async", "adasync", "k-batch-async", "fedbuff", "fadas", "ca2fl")
    },
    "ssp": {"bound": 3},
    "bounded-staleness": {"bound": 1},
    "backup-workers": {"backups": 1},
    "ringmaster": {"threshold": 2},
    "ringmaster-lmo": {"threshold": 2},
    "malenia": {"batch": 3},
    "mindflayer": {"trials": 2, "limit": 2.0},
    "dropcompute": {"limit": 2.0},
    "dylu": {"seconds": (1.0, 1.0, 2.0), "local_steps": 2},
    "constant-delay": {"delay": 1},
    "diloco": {"inner": "sgd"},  # the second moments of its AdamW are below the rounding of bfloat16
    "delayed-averaging": {"tau": 4},
    "delayed-averaging-general": {"tau": 4},
}
OPTIONS = [
    *((name, {}) for name in REGISTRY),
    ("easgd", {"momentum": 0.9, "local_steps": 2}),
    ("async", {"optimizer": "adam", "local_steps": 2, "weight_decay": 0.1}),
    ("async", {"optimizer": "fromage"}),
    ("k-async", {"optimizer": {"name": "rmsprop", "momentum": 0.9}, "k": 2}),
    ("downpour", {"optimizer": "adagrad", "fetch_every": 2}),
    ("dc-asgd", {"adaptive": True, "buffer": "per-worker", "weight_decay": 0.1}),
    ("gap-aware", {"momentum": None, "weight_decay": 0.1}),
    ("gap-aware", {"optimizer": "adam", "granularity": "layer"}),
    ("dana-ga", {"granularity": "global", "running_peak": True}),
    ("multi-asgd", {"nesterov": False}),
    ("fasgd", {"spread": "magnitude"}),
]
TYPES = {
    "float16": ["float16"],
    "bfloat16": ["bfloat16"],
    "float32": ["float32"],
    "float64": ["float64"],
    "mixed": ["bfloat16", "float32", "float16"],
    "mixed with float64": ["float64", "float32", "bfloat16"],
}


def parameters(kinds):
    return {kind: jnp.linspace(0.5, 1.5, 4).astype(kind) for kind in kinds}


@functools.cache
def problem(*kinds, traced=False):
    """One for all tests, and one for those under ``only_traced``, whose evaluation is traced only and kept."""

    def loss(params, batch, key):
        return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(params))

    return Problem.from_functions(lambda key: parameters(kinds), loss)


def example(name, options):
    return REGISTRY[name](**{"learning_rate": 0.01, **REQUIRED.get(name, {}), **options})


def traced(function, **_):
    """In place of ``jax.jit``: trace the function and return zeros of the shapes and types that it gives."""
    return lambda *arguments: jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *arguments)
    )


@pytest.fixture
def only_traced(monkeypatch):
    """Whatever would be compiled is traced instead, where an array of a wrong type is an error."""
    for module, names in ((scan, ("start_of", "compiled")), (loop, ("compiled",)), (lanes, ("compiled",))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)
    monkeypatch.setattr(jax, "jit", traced)
    monkeypatch.setattr(lanes, "memory", lambda device: float("inf"))
    monkeypatch.setattr(lanes.Group, "bytes", lambda self: 0)


def assert_types_of(params, kinds):
    assert {name: str(leaf.dtype) for name, leaf in params.items()} == {kind: kind for kind in kinds}


QUICK = ("bfloat16", "mixed", "mixed with float64")


@pytest.mark.parametrize(
    "kinds", [kinds if kinds in QUICK else pytest.param(kinds, marks=pytest.mark.slow) for kinds in TYPES]
)
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_every_method_keeps_the_types_of_its_parameters_in_every_execution(name, options, kinds, only_traced):
    kinds, method = TYPES[kinds], example(name, options)
    trace = simulate(Cluster(3, compute=Gamma(1.0, 0.5)), method.synchrony, updates=7)
    record = Record(updates=7, per_gradient=True)
    single = lower(trace).messages_per_update == 1
    windows = single and trace.staleness.any() and method.rule(3).work is None
    with jax.enable_x64("float64" in kinds):
        ours = problem(*kinds, traced=True)
        for path in ("scan", "loop", "windows") if windows else ("scan", "loop"):
            assert_types_of(replay(trace, ours, method, record=record, execution=path).params, kinds)
        if single:
            for done in replay_together([Request(trace, ours, method, record, seed) for seed in (0, 1)], 2):
                assert_types_of(done.params, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", sorted(set(TYPES) - {"float32"}))
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_every_type_gives_the_numbers_of_float32_up_to_its_own_rounding(name, options, kinds):
    kinds, method = TYPES[kinds], example(name, options)
    trace = simulate(Cluster(3, compute=Gamma(1.0, 0.5)), method.synchrony, updates=30)
    reference = replay(trace, problem("float32"), method, execution="scan").params["float32"]
    with jax.enable_x64("float64" in kinds):
        done = replay(trace, problem(*kinds), method, execution="scan")
    for leaf in done.params.values():
        np.testing.assert_allclose(np.asarray(leaf, float), np.asarray(reference, float), rtol=0.15, atol=0.05)


@pytest.mark.parametrize("name", ["dana-ga", "gap-aware", "easgd", "k-async", "smega2"])
def test_bfloat16_descends_as_float32_does(name):
    """Decays such as 0.999, which is 1 in bfloat16, keep their meaning."""
    method = example(name, {})
    trace = simulate(Cluster(3, compute=Gamma(1.0, 0.5)), method.synchrony, updates=30)
    low, high = (replay(trace, problem(kind), method).history["train_loss"] for kind in ("bfloat16", "float32"))
    np.testing.assert_allclose(low, high, rtol=0.02, atol=0.02 * high[0])


@pytest.mark.parametrize("name", ["dana-zero", "k-async"])
def test_gaps_and_losses_of_bfloat16_are_measured_in_float32(name):
    method = example(name, {})
    trace = simulate(Cluster(3, compute=Gamma(1.0, 0.5)), method.synchrony, updates=12)
    done = replay(trace, problem("bfloat16"), method, record=Record(updates=12, per_gradient=True))
    norms = done.gradients["gradient_norm"].to_numpy()
    assert (norms != norms.astype(jnp.bfloat16).astype(float)).any()


def test_a_checkpoint_of_bfloat16_goes_on_where_it_was(tmp_path):
    method = example("dana-zero", {})
    trace = simulate(Cluster(3, compute=Gamma(1.0, 0.5)), method.synchrony, updates=40)
    whole = replay(trace, problem("bfloat16", "float32"), method, execution="loop")
    checkpoint = Checkpoint(tmp_path / "state", {"run": "this"}, every=0.0)
    checkpoint.stopping = True
    with pytest.raises(KeyboardInterrupt):
        replay(trace, problem("bfloat16", "float32"), method, execution="loop", checkpoint=checkpoint)
    again = Checkpoint(tmp_path / "state", {"run": "this"}, every=1e9)
    done = replay(trace, problem("bfloat16", "float32"), method, execution="loop", checkpoint=again)
    for kind in ("bfloat16", "float32"):
        assert np.asarray(done.params[kind]).tobytes() == np.asarray(whole.params[kind]).tobytes()


SPEC = """
updates = 20
[problem]
model = "softmax-regression"
dataset = "fashion-mnist-small"
batch_size = 4
[cluster]
workers = 3
compute = { delay = "exponential", scale = 1.0 }
[method]
name = "dana-zero"
learning_rate = 0.01
"""


def test_a_named_problem_runs_from_the_command_line_with_64_bits(tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    command = [Path(sys.executable).with_name("stalegrad"), "run", "spec.toml", "-o", "out"]
    environment = {**os.environ, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "history.parquet").exists()
