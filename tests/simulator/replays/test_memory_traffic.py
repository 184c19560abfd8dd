"""The compiled loop updates slots and per-worker state in place, whatever the method."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Cluster, Exponential, Record, replay, simulate
from stalegrad.simulator.replays import scan

WORKERS = 12
REQUIRED = {
    **{
        name: {"k": 3}
        for name in ("k-sync", "k-batch-sync", "k-async", "k-batch-async", "adasync", "fedbuff", "fadas", "ca2fl")
    },
    "backup-workers": {"backups": 2},
    "bounded-staleness": {"bound": 3},
    "ringmaster": {"threshold": 3},
    "ringmaster-lmo": {"threshold": 3},
    "malenia": {"batch": 3},
    "mindflayer": {"trials": 2, "limit": 1.5},
    "dropcompute": {"limit": 1.5},
    "dylu": {"seconds": (1.0,) * WORKERS},
    "constant-delay": {"delay": 2},
    "ssp": {"bound": 3},
    "delayed-averaging": {"tau": 4},
    "delayed-averaging-general": {"tau": 4},
}


@functools.cache
def problem():
    """One for all methods: its evaluation is compiled once."""

    def loss(w, batch, key):
        return jnp.mean((jnp.tanh(batch @ w["a"]) @ w["b"]) ** 2)

    return Problem.from_functions(
        lambda key: {"a": jnp.ones((17, 19)), "b": jnp.ones(19)},
        loss,
        train=np.ones((40, 17), np.float32),
        batch_size=3,
    )


class Compiled(Exception):
    """All that is looked at is there: the replay need not go on."""


@functools.cache
def large(kind):
    """Matrices that are not fetched ahead: multiplied, or used number by number."""
    shape = (300, 200)
    assert np.prod(shape) >= scan.LARGE
    losses = {
        "multiplied": lambda w, batch, key: jnp.mean(jnp.tanh(batch @ w["a"]) ** 2),
        "number by number": lambda w, batch, key: jnp.mean(w["a"] ** 4) + 0 * jnp.sum(batch),
    }
    train = np.ones((40, 300), np.float32)
    return Problem.from_functions(lambda key: {"a": jnp.ones(shape)}, losses[kind], train=train, batch_size=3)


def compiled_text(method, record, monkeypatch, path="scan", trained=None):
    """Return the compiled code of the first chunk of a replay."""
    start_of, compiled = scan.start_of, scan.compiled

    def only_compiled(program):
        def run(*arguments):
            raise Compiled(compiled(program).lower(*arguments).compile().as_text())

        return run

    def only_shaped(program):
        def start(*arguments):
            shapes = jax.eval_shape(start_of(program), *arguments)
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        return start

    monkeypatch.setattr(scan, "start_of", only_shaped)
    monkeypatch.setattr(scan, "compiled", only_compiled)
    trace = simulate(Cluster(WORKERS, compute=Exponential()), method.synchrony, updates=64)
    with pytest.raises(Compiled) as found:
        replay(trace, trained or problem(), method, record=record, execution=path)
    return str(found.value)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the code of XLA's CPU compiler")
@pytest.mark.parametrize("gap", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REGISTRY)
def test_no_step_copies_the_slots_or_the_state_of_all_workers(name, gap, monkeypatch):
    method = REGISTRY[name](**REQUIRED.get(name, {}))
    copied_nowhere(compiled_text(method, Record(updates=64, gap=gap), monkeypatch))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the code of XLA's CPU compiler")
@pytest.mark.parametrize("name", ["async", "gap-aware", "dc-asgd", "dana-zero", "gap-limited"])
def test_no_window_copies_the_slots(name, monkeypatch):
    record = Record(updates=64, gap=True)
    copied_nowhere(compiled_text(REGISTRY[name](), record, monkeypatch, path="windows"))


def copied_nowhere(text):
    """Raise AssertionError if a loop's body copies a whole stack of versions."""
    text = text[: text.index("\nENTRY ")]  # what stands there is done once per chunk
    stacks = re.findall(r"f32\[\d+,(?:17,)?19\]\S* copy\(", text)
    whole = [stack for stack in stacks if not stack.startswith(("f32[17,19]", "f32[1,"))]  # of one version
    assert not whole, f"copied at every step: {whole}"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the code of XLA's CPU compiler")
@pytest.mark.parametrize("kind", ["multiplied", "number by number"])
@pytest.mark.parametrize("name", ["async", "gap-aware", "easgd"])
@pytest.mark.parametrize("gap", [True, False])
def test_no_step_copies_a_stack_of_large_matrices(name, kind, gap, monkeypatch):
    text = compiled_text(REGISTRY[name](), Record(updates=64, gap=gap), monkeypatch, trained=large(kind))
    text = text[: text.index("\nENTRY ")]
    assert "f32[300,200]" in text
    assert not re.findall(r"f32\[\d+,300,200\]\S* copy\(", text)
