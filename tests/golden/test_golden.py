"""Recorded traces, histories and parameters: a refactoring changes no byte of them."""

import importlib
import inspect
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad import models, policies, simulator
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Trace

sys.path.insert(0, str(Path(__file__).resolve().parent))
digests = importlib.import_module("digests")

SPECS = digests.specs()
RECORDED = json.loads(digests.RECORDED.read_text(encoding="utf-8"))
HERE = RECORDED["bytes"].get(digests.key_of(digests.fingerprint()), {"digests": {}})["digests"]
RUNS = [name for name, spec in SPECS.items() if not spec.timing]

QUICK = {
    "dana-zero", "windows", "loop", "lanes-k-async", "image-folder", "quadratic-16-bit", "noise",
    "interrupted-adasync", "dirichlet", "by-message",
}  # fmt: skip
"""Runs of every execution; the others take long to compile, and are slow."""


def test_traces_are_the_recorded_ones():
    traces = {name: spec.traces() for name, spec in SPECS.items()}
    found = {name: digests.digest_of_trace(made) for name, made in traces.items() if made is not None}
    assert sorted(found) == sorted(RECORDED["traces"])
    assert [name for name, digest in found.items() if digest != RECORDED["traces"][name]] == []


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_histories_and_parameters_are_the_recorded_ones(name):
    trace, found, shown = SPECS[name].record()
    assert trace == RECORDED["traces"].get(name)
    assert digests.differences(shown, RECORDED["numbers"][name]) == []
    if name in HERE:  # recorded with these packages on such a machine
        assert found == HERE[name]


def test_every_spec_is_recorded():
    assert sorted(RECORDED["numbers"]) == sorted(RUNS)
    assert set(RUNS) >= QUICK


# What the specs cover.


def classes(package, base):
    found = (getattr(package, name) for name in package.__all__)
    return {c for c in found if inspect.isclass(c) and issubclass(c, base) and c is not base}


def test_every_method_synchrony_and_schedule_has_a_spec():
    methods = [spec.experiment.method for name, spec in SPECS.items() if name in RUNS]
    assert {method.name for method in methods} == {name for name, info in REGISTRY.items() if info.built_in}
    for kind, used in ((policies.Synchrony, "synchrony"), (policies.Schedule, "learning_rate")):
        assert {type(getattr(method, used)) for method in methods} == classes(policies, kind)


def test_every_synchrony_and_delay_has_a_trace():
    experiments = [spec.experiment for spec in SPECS.values() if spec.timing]
    assert {type(e.method.synchrony) for e in experiments} == classes(policies, policies.Synchrony)
    delays = [e.cluster.compute for e in experiments]
    assert {type(delay) for delay in delays} - {tuple} == classes(simulator, simulator.Delay)
    kinds = {type(e.cluster.availability) for e in experiments}
    assert kinds - {type(None)} == classes(simulator, simulator.Availability)


def test_every_execution_sampling_partition_and_fate_has_a_spec():
    executions = {numbers["execution"] for numbers in RECORDED["numbers"].values()}
    assert {name.split("-")[0] for name in executions} == {"scan", "windows", "loop", "lanes"}
    assert {SPECS[name].experiment.problem.sampling for name in RUNS} == {"epochs", "iid", "sharded"}
    partitions = {type(SPECS[name].experiment.problem.partition) for name in RUNS}
    assert partitions - {type(None)} == classes(models, models.Partition)
    assert {SPECS[name].experiment.problem.batches for name in RUNS} == {"by-gradient", "by-message"}
    fates = set()
    for spec in SPECS.values():
        for trace in spec.traces() or []:
            fates |= set(digests.tables_of(trace)[0][digests.MESSAGES["fate"]])
    assert fates == {"used", "discarded", "cancelled", "lost", "pending"}


# A difference is found.


@pytest.mark.parametrize("table", [0, 1])
def test_the_smallest_change_of_a_time_changes_the_digest_of_a_trace(table):
    (trace,) = SPECS["timing-k-sync"].traces()
    name = (digests.MESSAGES["finish_time"], digests.UPDATES["time"])[table]
    tables = [each.copy() for each in digests.tables_of(trace)]
    same = Trace(*tables, workers=trace.workers, end=trace.end)
    tables[table].loc[3, name] = np.nextafter(tables[table][name][3], np.inf)
    other = Trace(*tables, workers=trace.workers, end=trace.end)
    assert digests.digest_of_trace([same]) == digests.digest_of_trace([trace])
    assert digests.digest_of_trace([other]) != digests.digest_of_trace([trace])


def test_values_types_and_shapes_of_parameters_change_their_digest():
    params = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4)}
    others = [
        params | {"b": jnp.zeros(4).at[1].set(1e-38)},
        params | {"b": jnp.zeros(4, jnp.bfloat16)},
        params | {"b": jnp.zeros((2, 2))},
        {"a": params["b"], "b": params["a"]},
    ]
    assert len({digests.digest_of_arrays([tree]) for tree in [params, *others]}) == 5


def test_numbers_that_are_missing_or_differ_are_named():
    expected = {"execution": "scan", "train_loss": 1.0, "test_error": 0.5}
    assert digests.differences({**expected, "train_loss": 1.0005, "test_error": 0.51}, expected) == []
    wrong = {"execution": "loop", "train_loss": 1.01, "params_norm": 2.0}
    assert [text.split(" = ")[0] for text in digests.differences(wrong, expected)] == [
        "execution",
        "params_norm",
        "test_error",
        "train_loss",
    ]
