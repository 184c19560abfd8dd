"""Measure what `stalegrad check` detects: planted faults, harmless changes, false alarms.

.venv/bin/python scripts/validate_checks.py --out evidence.md
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from stalegrad.analysis.statistics.convergence import METRICS, lost
from stalegrad.analysis.statistics.regression import TOLERANCE, compare_runs
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Record, ShiftedExponential
from stalegrad.simulator.experiments import traces
from stalegrad.simulator.regression import Plan, Recording, compare, record
from stalegrad.simulator.replays import batches, lanes, loop, scan

SEEDS = list(range(5))
TRUTH = list(range(100, 130))
"""Other seeds, by which the true effect of a change is measured."""
RATE = 0.02

METHODS = {
    "sync": methods.sync(learning_rate=0.1),
    "k-async": methods.k_async(k=4, learning_rate=0.1),
    "nag-asgd": methods.nag_asgd(learning_rate=0.004, weight_decay=0.03),
    "staleness-aware": methods.staleness_aware(learning_rate=0.1),
    "dana-zero": methods.dana_zero(learning_rate=RATE),
    "dc-asgd": methods.dc_asgd(learning_rate=0.004),
    "gap-aware": methods.gap_aware(learning_rate=RATE),
}


class Fault(NamedTuple):
    """A change of one expression in the source of one function.

    Attributes:
        what: description in words.
        method: method with which it is tested.
        function: ``module:function`` or ``module:Class.method``, below ``stalegrad``.
        old, new: the expression before and after the change.
        harmless: whether the check must not call it worse.
    """

    what: str
    method: str
    function: str
    old: str
    new: str
    harmless: bool = False


MOMENTUM = "policies.rules.momentum:nag_asgd"
FAULTS = [
    Fault("momentum 0.9 -> 0.88", "nag-asgd", MOMENTUM, ".momentum(momentum,", ".momentum(momentum - 0.02,"),
    Fault("momentum 0.9 -> 0.8", "nag-asgd", MOMENTUM, ".momentum(momentum,", ".momentum(momentum - 0.1,"),
    Fault(
        "look-ahead with the wrong sign", "dana-zero", "policies.rules.parts.look_ahead:dana",
        "p - learning_rate", "p + learning_rate",
    ),
    Fault(
        "staleness off by one", "staleness-aware", "simulator.replays.lowering:lower",
        "staleness=(update - read)", "staleness=(update - read + 1)",
    ),
    Fault("weight decay dropped", "nag-asgd", MOMENTUM, "decayed(weight_decay)", "None"),
    Fault(
        "learning rate x 0.9", "k-async", "simulator.replays.training:Training.plan",
        "learning_rate = self", "learning_rate = 0.9 * self",
    ),
    Fault(
        "the same batch order in every epoch", "sync", "simulator.replays.batches:_stream",
        "(*key, int(e))", "(*key, 0)",
    ),
    Fault(
        "the sum of K gradients divided by K + 1", "k-async", "simulator.replays.step:Step.apply",
        "leaf / count", "leaf / (count + 1)",
    ),
    Fault(
        "a worker is never refreshed", "k-async", "simulator.timing.worker:Worker.compute",
        "= version = self.version", "= version = self.version if self.index else 0",
    ),
    Fault(
        "gap normaliser without bias correction", "gap-aware", "policies.rules.parts.corrections:gap_aware",
        "correction = 1 - decay ** count.astype(peak.dtype)", "correction = 1.0",
    ),
    Fault(
        "delay compensation with the wrong sign", "dc-asgd", "policies.rules.parts.corrections:delay_compensation",
        "g + strength", "g - strength",
    ),
    Fault(
        "all workers share the first one's momentum", "dana-zero",
        "policies.rules.parts.momentum:per_worker_momentum",
        "old = at_worker(state.velocity, worker)", "old = at_worker(state.velocity, 0 * worker)",
    ),
    Fault(
        "the last of K gradients is lost", "sync", "simulator.replays.scan:_Body.several",
        "lax.fori_loop(0, count, add", "lax.fori_loop(0, count - 1, add",
    ),
    Fault(
        "an update waits for K + 1 workers", "k-async", "policies.synchrony.asynchronous:KAsync.serve",
        "< self.k", "< self.k + 1",
    ),
    Fault("one label in ten is wrong", "sync", "script:labels", "return known", "return known * (known != 3)"),
    Fault("inputs are not standardised", "sync", "script:standard", "(x - mean) / deviation", "x"),
    Fault("Nesterov's form lost", "nag-asgd", MOMENTUM, "nesterov=nesterov", "nesterov=False"),
    Fault(
        "mini-batches summed in another order", "k-async", "simulator.replays.batches:_epochs",
        "steps, -1)", "steps, -1)[..., ::-1]", True,
    ),
    Fault(
        "learning rate x 1.001", "sync", "simulator.replays.training:Training.plan",
        "learning_rate = self", "learning_rate = 1.001 * self", True,
    ),
    Fault(
        "another stream of mini-batches", "k-async", "simulator.replays.batches:_rng",
        "(purpose, *key)", "(purpose + 1000, *key)", True,
    ),
    Fault(
        "another stream of compute times", "k-async", "simulator.timing.worker:Worker.__init__",
        "(engine.seed, index)", "(engine.seed + 1000, index)", True,
    ),
    Fault(
        "runs in four lanes of one program", "k-async", "simulator.sweeps.lanes:default_lanes",
        "return 1 if", "return 4 if", True,
    ),
]  # fmt: skip


def standard(x: Any, mean: Any, deviation: Any) -> Any:
    """Return standardised inputs."""
    return (x - mean) / deviation


def labels(known: Any) -> Any:
    """Return the labels for training."""
    return known


def problem(hidden: int = 16) -> Problem:
    """Return an MLP 49-16-10 on a fifth of the embedded Fashion-MNIST, averaged over 4 x 4 pixels for speed."""
    train, test = _images()
    inputs = train[0]
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    data = (standard(inputs, mean, deviation), labels(train[1]))
    return Problem.from_functions(
        functools.partial(_init, hidden), _loss, train=data, test=(standard(test[0], mean, deviation), test[1]),
        batch_size=16, evaluate=_evaluate,
    )  # fmt: skip


@functools.cache
def _images() -> Any:
    objective = Problem("softmax-regression", "fashion-mnist-small").objective()

    def pooled(data: Any, count: int) -> Any:
        images = np.asarray(data[0][:count, :, :, 0]).reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4))
        return images.reshape(-1, 49), np.asarray(data[1][:count])

    return pooled(objective.train, 2000), pooled(objective.test, 2000)


def _init(hidden: int, key: jax.Array) -> Any:
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (49, hidden)) / 7.0, "b1": jnp.zeros(hidden),
        "w2": jax.random.normal(second, (hidden, 10)) / hidden**0.5, "b2": jnp.zeros(10),
    }  # fmt: skip


def _logits(params: Any, inputs: Any) -> Any:
    return jax.nn.relu(inputs @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def _loss(params: Any, batch: Any, key: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, batch[0]), batch[1]).mean()


def _evaluate(params: Any, data: Any) -> Any:
    wrong = jnp.argmax(_logits(params, data[0]), axis=1) != data[1]
    return {"loss": _loss(params, data, None), "error": wrong.mean()}


def plan(method: str, seeds: list[int], updates: int = 400) -> Plan:
    """Return the plan of the runs of one method."""
    base = Experiment(
        problem=problem(),
        cluster=Cluster(workers=8, compute=ShiftedExponential(shift=1.0, scale=1.0)),
        method=METHODS[method],
        updates=updates,
        record=Record(updates=updates // 20, gap=False),
    )
    return Plan(base, [{}], seeds)


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Change a function everywhere it is used, and discard the code compiled from it."""
    module_name, _, path = fault.function.partition(":")
    module = (
        sys.modules[__name__] if module_name == "script" else importlib.import_module(f"stalegrad.{module_name}")
    )
    owner_name, _, name = path.rpartition(".")
    owner = getattr(module, owner_name) if owner_name else module
    original = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(original))
    if fault.old not in source:
        raise ValueError(f"{fault.function} has no {fault.old!r}")
    future = "from __future__ import annotations\n"  # as in every module of the package
    code = compile(future + source.replace(fault.old, fault.new), f"<{fault.what}>", "exec")
    made: dict[str, Any] = {}
    exec(code, vars(module), made)
    places: list[tuple[Any, str]] = [(owner, name)]
    if not owner_name:
        loaded = [m for key, m in list(sys.modules.items()) if key.startswith("stalegrad.") and m is not module]
        places += [(m, key) for m in loaded for key, value in list(vars(m).items()) if value is original]
        places += [(info, "rule") for info in methods.REGISTRY.values() if info.rule is original]
    forget()
    with ExitStack() as patches:
        for place, key in places:
            patches.enter_context(mock.patch.object(place, key, made[name]))
        yield
    forget()


def forget() -> None:
    """Discard compiled code (which is cached by the method's name and numbers), traces and mini-batches."""
    for cache in (
        scan.start_of,
        scan.compiled,
        loop.compiled,
        lanes.compiled,
        batches._permutation,
    ):
        cache.cache_clear()
    traces.forget()


def part(recording: Recording, seeds: list[int]) -> Recording:
    """Return the runs of these seeds."""
    return replace(recording, runs=tuple(run for run in recording.runs if run.seed in seeds))


@functools.cache
def baseline(method: str, seeds: tuple[int, ...]) -> Recording:
    """Return the runs without a fault."""
    return record(plan(method, list(seeds)), progress=False)


def effect(before: Recording, after: Recording) -> pd.Series:
    """Return the metric that many seeds show to be hurt most, with its relative change and its standard error."""
    table = compare_runs(before.histories, after.histories, before.targets)
    table = table[table["metric"] != "lost_runs"]
    half = (table["high"] - table["low"]) / 2 / 1.699  # t quantile 0.95 on 29 degrees of freedom
    beyond = (table["difference"] - table["margin"]) / half.clip(lower=1e-12)
    worst = beyond.idxmax()
    return pd.Series(
        {
            "metric": table.loc[worst, "metric"],
            "change": table.loc[worst, "difference"],
            "error": half[worst],
            "beyond": beyond[worst],
            "lost": sum(lost(run.curve) for run in after.runs),
        }
    )


def detect(fault: Fault, truth: bool = True) -> dict[str, Any]:
    """Plant a fault; return the result of the check with five seeds, and the effect with thirty other seeds."""
    seeds = SEEDS + (TRUTH if truth else [])
    before = baseline(fault.method, tuple(seeds))
    with planted(fault):
        after = record(plan(fault.method, seeds), progress=False)
    check = compare(part(before, SEEDS), part(after, SEEDS))
    (label,) = check.methods
    worse = list(check.table.loc[check.table["verdict"] == "worse", "metric"]) if len(check.table) else []
    row = {
        "change": fault.what, "method": fault.method, "harmless": fault.harmless, "outcome": check.outcome,
        "digests": ", ".join(s.partition(":")[0] for s in check.changes(label)) or "same", "worse by": worse,
    }  # fmt: skip
    if truth:
        found = effect(part(before, TRUTH), part(after, TRUTH))
        row |= {f"true {name}": value for name, value in found.items()}
    return row


def false_alarms(checks: int) -> pd.DataFrame:
    """Repeat checks that must not fail: other seeds for the same spec, and two changes of rounding."""
    rows = []
    harmless = {fault.what: fault for fault in FAULTS if fault.harmless}
    kinds = {
        "other seeds": None,
        "mini-batches summed in another order": harmless["mini-batches summed in another order"],
        "runs in four lanes of one program": harmless["runs in four lanes of one program"],
    }
    chosen = ("sync", "k-async", "dana-zero")
    many = {m: record(plan(m, list(range(1000, 1000 + 10 * checks)), 100), progress=False) for m in chosen}
    for kind, change in kinds.items():
        outcomes = []
        if change is not None:
            firsts = [1000 + 10 * i + j for i in range(checks) for j in range(5)]
            with planted(change):
                again = {m: record(plan(m, firsts, 100), progress=False) for m in chosen}
        for i in range(checks):
            first = list(range(1000 + 10 * i, 1005 + 10 * i))
            before = {m: _renumbered(part(many[m], first)) for m in chosen}
            other = [seed + 5 for seed in first]
            now, seeds = (many, other) if change is None else (again, first)
            after = {m: _renumbered(part(now[m], seeds)) for m in chosen}
            outcomes.append(compare(_joined(before), _joined(after)).outcome)
        counts = pd.Series(outcomes).value_counts()
        rows.append({"change": kind, "checks": checks, "worse": int(counts.get("worse", 0)),
                     "different but not worse": int(counts.get("different but not worse", 0)),
                     "same": int(counts.get("same", 0))})  # fmt: skip
    return pd.DataFrame(rows)


def _renumbered(recording: Recording) -> Recording:
    return replace(recording, runs=tuple(replace(run, seed=i) for i, run in enumerate(recording.runs)))


def _joined(recordings: dict[str, Recording]) -> Recording:
    any_of = next(iter(recordings.values()))
    targets = {label: target for r in recordings.values() for label, target in r.targets.items()}
    return replace(any_of, targets=targets, runs=tuple(run for r in recordings.values() for run in r.runs))


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| change | method | digests | check of 5 seeds | by | 30 other seeds: most hurt | change |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        by = ", ".join(name.replace("_", " ") for name in row["worse by"]) or "-"
        truth = f"{row['true metric'].replace('_', ' ')} | {row['true change']:+.1%} +- {row['true error']:.1%}"
        truth += f", {row['true lost']} lost" if row["true lost"] else ""
        lines.append(
            f"| {row['change']} | {row['method']} | {row['digests']} | {row['outcome']} | {by} | {truth} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the tables to this file, too")
    parser.add_argument("--checks", type=int, default=200, help="number of repeated checks for false alarms")
    arguments = parser.parse_args()
    faults = [detect(fault) for fault in FAULTS]
    text = f"Tolerance {TOLERANCE:.0%}, judged: {', '.join(METRICS)}.\n\n{table_of(faults)}\n\n"
    print(text, flush=True)
    alarms = false_alarms(arguments.checks)
    text += alarms.to_string(index=False) + "\n"
    print(alarms.to_string(index=False))
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
