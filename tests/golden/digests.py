"""Digests of what the experiments of specs.toml give: their traces, histories and final parameters.

    python tests/golden/digests.py --record            write digests.json
    python tests/golden/digests.py --out FILE          write this machine's digests to another file

A digest covers values under fixed names and types, so it survives a new name of a column, a table or a key.
Where a name of the package changes, one line of this file (or of specs.toml) changes; digests.json does not.

Keys of a spec's ``how``:

* ``execution``: scan, windows or loop; by default chosen by the package;
* ``lanes`` and ``seeds``: the runs of these seeds are executed side by side;
* ``functions``: the problem is made of functions of this file;
* ``measured``: compute times are measured ones that come with the package;
* ``saved``: the result is saved and loaded;
* ``replayed``: the trace is saved, loaded, built from its columns and replayed;
* ``interrupted``: the run is stopped at a checkpoint and continued.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from stalegrad.models import Problem
from stalegrad.simulator import (
    Cluster,
    Empirical,
    Experiment,
    Result,
    Trace,
    from_toml,
    replay,
    run,
    simulate,
    sweep,
)

HERE = Path(__file__).resolve().parent
SPECS, RECORDED = HERE / "specs.toml", HERE / "digests.json"
sys.path.insert(0, str(HERE))  # golden_functions, which specs name

import golden_functions  # noqa: E402

RTOL, ATOL = 1e-3, 1e-5
"""How closely numbers agree between machines whose fingerprints differ. A run has at most 120 updates, so rounding
(1e-7) grows to less than 1e-4; a wrong sign, weight or mini-batch changes a loss by more than 1e-3."""

ERROR = 0.02
"""The same of a test error, a multiple of 1/1000: twenty examples near the decision boundary may change sides."""

# Fixed names, types and order: canonical name -> name in this revision. Only the names on the right may change.

MESSAGES = {
    "worker": "worker", "read_version": "read_version", "read_time": "read_time", "finish_time": "finish_time",
    "receive_time": "receive_time", "update": "update", "staleness": "staleness", "steps": "steps", "fate": "fate",
}  # fmt: skip
UPDATES = {"time": "time", "messages": "messages", "gradients": "gradients"}
ABSENCES = {"worker": "worker", "leave_time": "leave_time", "return_time": "return_time"}
HISTORY = {
    "epoch": "epoch", "gradients": "gradients", "learning_rate": "learning_rate",
    "max_staleness": "max_staleness", "mean_gap": "mean_gap", "mean_staleness": "mean_staleness",
    "test_error": "test_error", "test_loss": "test_loss", "train_loss": "train_loss", "update": "update",
    "wallclock": "wallclock",
}  # fmt: skip
PER_GRADIENT = {
    "effective_step": "effective_step", "gap": "gap", "gradient_norm": "gradient_norm",
    "learning_rate": "learning_rate", "staleness": "staleness", "update": "update", "wallclock": "wallclock",
    "worker": "worker",
}  # fmt: skip
OWN = ("largest", "total", *(f"worker_loss[{worker}]" for worker in range(4)))
"""Columns of golden_functions, and those that only some records have."""

NUMBERS = ("wallclock", "update", "train_loss", "test_loss", "test_error", "mean_staleness", "mean_gap")
"""Columns whose last value is written out, for comparison with tolerance."""

TIMED = ("timing", "away", "link", "law")
"""Tables of specs whose traces are digested, and nothing else."""

WHOLE = {"worker", "read_version", "update", "staleness", "steps", "messages", "gradients"}
"""Columns of a trace that are hashed as int64; the fate is hashed as text, the others as float64."""


def tables_of(trace):
    """Return the tables of messages and of updates of a trace."""
    return trace.messages, trace.updates


def execution_of(result):
    """Return how a run was executed: scan, windows, loop or lanes-N."""
    return re.sub(r"(\d+) lanes", r"lanes-\1", result.execution)


# What is digested.


class Digest:
    """A SHA-256 over named values."""

    def __init__(self):
        self.sha = hashlib.sha256()

    def add(self, name, content):
        """Add bytes, an array or a text under a name."""
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, bytes):
            array = np.ascontiguousarray(content)
            name, content = f"{name} {array.dtype} {np.shape(content)}", array.tobytes()
        self.sha.update(f"{name} {len(content)}\n".encode())
        self.sha.update(content)

    def text(self):
        """Return the digest in hexadecimal."""
        return self.sha.hexdigest()


def digest_of_trace(traces):
    """Return the digest of traces: their tables (absences, starts of updates if any), number of workers, end."""
    digest = Digest()
    for trace in traces:
        for name, table, columns in zip("mu", tables_of(trace), (MESSAGES, UPDATES), strict=True):
            for canonical, current in columns.items():
                if canonical == "fate":
                    values = "\n".join(map(str, table[current]))
                else:
                    values = numbers(table[current], np.int64 if canonical in WHOLE else np.float64)
                digest.add(f"{name}.{canonical}", values)
        if "start" in trace.updates:
            digest.add("u.start", numbers(trace.updates["start"], np.float64))
        for canonical, current in ABSENCES.items() if len(trace.absences) else ():
            values = numbers(trace.absences[current], np.int64 if canonical in WHOLE else np.float64)
            digest.add(f"a.{canonical}", values)
        digest.add("workers", numbers([trace.workers], np.int64))
        digest.add("end", numbers([trace.end], np.float64))
    return digest.text()


def digest_of_table(tables, columns):
    """Return the digest of columns of tables, each as float64; columns of the specs' own functions follow."""
    digest = Digest()
    for table in tables:
        own = {name: name for name in OWN if name in table}
        for canonical, current in (columns | own).items():
            digest.add(canonical, numbers(table[current], np.float64))
    return digest.text()


def digest_of_arrays(trees):
    """Return the digest of pytrees of arrays: leaves in order with their shapes and types."""
    digest = Digest()
    for tree in trees:
        for i, leaf in enumerate(jax.tree.leaves(tree)):
            digest.add(str(i), np.asarray(leaf))
    return digest.text()


def numbers(values, dtype):
    """Return values as an array in little-endian order in which every NaN has the same bytes."""
    array = np.asarray(values).astype(np.dtype(dtype).newbyteorder("<"))
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array


def describe(results):
    """Return the digests of the histories of results, and a few numbers of the last one."""
    histories = [result.history for result in results]
    found = {
        "history": digest_of_table(histories, HISTORY),
        "params": digest_of_arrays(result.params for result in results),
    }
    if jax.tree.leaves(results[-1].stats):
        found["stats"] = digest_of_arrays(result.stats for result in results)
    tables = [result.gradients for result in results if result.gradients is not None]
    if tables:
        found["per_gradient"] = digest_of_table(tables, PER_GRADIENT)
    decisions = [result.trace.spec["decisions"] for result in results if "decisions" in result.trace.spec]
    if decisions:
        found["decisions"] = digest_of_arrays(np.asarray(made, np.float64) for made in decisions)
    last = histories[-1].iloc[-1]
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(results[-1].params)]
    norm = float(np.sqrt(sum((leaf**2).sum() for leaf in leaves)))
    shown = {name: float(last[HISTORY[name]]) for name in NUMBERS} | {"params_norm": norm}
    shown = {name: value for name, value in shown.items() if not np.isnan(value)}
    return found, {"execution": execution_of(results[-1]), "rows": sum(map(len, histories)), **shown}


# What is run.


def quadratic(dtypes, noise):
    """Return a problem without data: half the squared distance to 1, parameters of several types."""

    def init(key):
        return {dtype: jnp.linspace(-1.0, 0.5, 5).astype(dtype) for dtype in dtypes}

    def loss(params, batch, key):
        total = sum(jnp.sum((leaf.astype(jnp.float32) - 1) ** 2) for leaf in params.values())
        return 0.5 * total + noise * jax.random.normal(key) * sum(
            leaf.astype(jnp.float32).sum() for leaf in params.values()
        )

    return Problem.from_functions(init, loss)


def convolution():
    """Return a problem with data and a native convolution: regression on generated images."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((48, 6, 6, 1)).astype(np.float32)
    data = inputs, inputs.mean((1, 2, 3)) + inputs[:, 2, 2, 0]

    def init(key):
        return {"kernel": 0.3 * jax.random.normal(key, (3, 3, 1, 2)), "out": jnp.ones(2)}

    def loss(params, batch, key):
        images, targets = batch
        names = ("NHWC", "HWIO", "NHWC")
        made = jax.lax.conv_general_dilated(images, params["kernel"], (1, 1), "SAME", dimension_numbers=names)
        return jnp.mean((jnp.tanh(made).mean((1, 2)) @ params["out"] - targets) ** 2)

    train, test = ([part[cut] for part in data] for cut in (slice(40), slice(40, 48)))
    return Problem.from_functions(init, loss, train=train, test=test, batch_size=4, sampling="sharded")


def assigned():
    """Return a least-squares problem whose rows are assigned to four workers, unevenly."""
    rng = np.random.default_rng(1)
    rows, owner = (
        rng.standard_normal((40, 3)).astype(np.float32),
        np.sort(np.arange(40) ** 2 % 4 + np.arange(40) % 3),
    )
    targets = rows @ np.array([1.0, -1.0, 0.5], np.float32) + owner.astype(np.float32)

    def loss(w, batch, key):
        x, y = batch
        return 0.5 * jnp.mean((x @ w - y) ** 2)

    partition = {"partition": "assigned", "workers": owner}
    return Problem.from_functions(
        lambda key: jnp.zeros(3), loss, train=(rows, targets), batch_size=2, partition=partition
    )


FUNCTIONS = {
    "assigned": assigned,
    "quadratic": lambda: quadratic(["float32"], 0.0),
    "16-bit": lambda: quadratic(["bfloat16", "float16", "float32"], 0.1),
    "float64": lambda: quadratic(["float64", "float32"], 0.0),
    "noise": lambda: quadratic(["float32"], 0.3),
    "convolution": convolution,
}


def make_images(folder):
    """Write two classes of generated images, of the size that they are read at."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label, name in enumerate(("ant", "bee")):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 156, (9, 9, 3), np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{i}.bmp")


@functools.cache
def images():
    """Return a folder of images, made once per process and removed when it ends."""
    images.kept = tempfile.TemporaryDirectory()
    make_images(Path(images.kept.name))
    return images.kept.name


class Spec:
    """An experiment of specs.toml and what is done with it."""

    def __init__(self, name, table, base, how):
        self.name, self.how, self.evaluations = name, how, 0
        self.table = {key: value for key, value in base.items() if key not in ("updates", *table)} | table
        if not {"updates", "wallclock", "gradients"} & set(table):
            self.table["updates"] = base["updates"]
        for part in ("cluster", "problem"):
            complete = part == "problem" and "model" in table.get(part, {})
            self.table[part] = table[part] if complete else base[part] | table.get(part, {})
        if isinstance(self.table["cluster"].get("compute"), list):
            self.table["cluster"]["workers"] = len(self.table["cluster"]["compute"])

    @property
    def timing(self):
        """Whether only a trace is simulated."""
        return "method" not in self.table or "name" not in self.table["method"]

    @functools.cached_property
    def experiment(self):
        """The experiment as the package reads it from TOML, apart from what only exists in this process."""
        table = self.table
        if self.timing:  # any rule that takes every synchrony
            synchrony = table.get("method", {}).get("synchrony", {"name": "async"})
            rule = synchrony["name"] if synchrony["name"].startswith("delayed") else "async"
            given = {k: v for k, v in synchrony.items() if k != "name"} if rule != "async" else {}
            method = {"name": rule, **given} if given else {"name": rule, "synchrony": synchrony}
            table = table | {"method": method}
        read: Experiment = from_toml(toml(table))
        if "functions" in self.how:
            return read.but(problem=FUNCTIONS[self.how["functions"]]())
        if "measured" in self.how:
            law = Empirical.measured(self.how["measured"], median=0.5)
            return read.but(cluster=Cluster(workers=read.cluster.workers, compute=law))
        return read

    @property
    def experiments(self):
        """The experiments, one for each seed."""
        return [self.experiment.but(seed=seed) for seed in self.how.get("seeds", [self.experiment.seed])]

    def traces(self):
        """Return the traces; None where they depend on the loss."""
        if self.experiment.method.adaptive:
            return None
        return [
            simulate(
                e.cluster,
                e.method.synchrony,
                updates=e.updates,
                wallclock=e.wallclock,
                gradients=e.gradients,
                seed=e.seed,
            )
            for e in self.experiments
        ]

    def results(self):
        """Return the results of the runs.

        Raises:
            AssertionError: if a result that is loaded, replayed or continued differs from the run's own.
        """
        if "lanes" in self.how:
            seeds = {"seed": self.how["seeds"]}
            return list(sweep(self.experiment, lanes=self.how["lanes"], progress=False, **seeds).results)
        how = {"execution": self.how.get("execution")}
        with golden_functions.countdown(golden_functions.NEVER) as evaluations:
            whole = run(self.experiment, progress=False, **how)
        self.evaluations = evaluations()
        for key, other in (("saved", loaded), ("replayed", replayed), ("interrupted", continued)):
            if self.how.get(key):
                again = other(whole, how, self.evaluations)
                assert digest_of_trace([again.trace]) == digest_of_trace([whole.trace]), (
                    f"{self.name}: trace {key}"
                )
                assert describe([again]) == describe([whole]), f"{self.name}: result {key}"
                return [again]
        return [whole]

    def record(self):
        """Return ``(trace digest, history digests, numbers)``; what does not apply is None."""
        with jax.enable_x64(self.how.get("functions") == "float64"):
            traces = self.traces()
            trace = None if traces is None else digest_of_trace(traces)
            if self.timing:
                return trace, None, None
            results = self.results()
            found, shown = describe(results)
            ran = digest_of_trace(result.trace for result in results)
            if trace is None:
                found["trace"] = ran
            else:
                assert ran == trace, f"{self.name}: the run has another trace than the simulation"
            return trace, found, shown


def loaded(whole, how, evaluations):
    """Return a result as it is after saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        whole.save(Path(folder) / "result")
        return Result.load(Path(folder) / "result")


def replayed(whole, how, evaluations):
    """Return a result whose trace has been saved, loaded, built from its columns and replayed."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace.load(whole.trace.save(Path(folder) / "trace"))
    tables = tables_of(trace)
    trace = Trace(*tables, workers=trace.workers, end=trace.end, spec=trace.spec)
    e = whole.experiment
    return Result.of(e, trace, replay(trace, e.problem, e.method, record=e.record, seed=e.seed), {})


def continued(whole, how, evaluations):
    """Return the result of a run that is interrupted in the middle and goes on from its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        how = how | {"checkpoint": Path(folder) / "state", "progress": False}
        with golden_functions.countdown(evaluations // 2) as before:
            try:
                run(whole.experiment, **how)
            except KeyboardInterrupt:
                assert before() < evaluations
            else:
                raise AssertionError("the run was not interrupted")
        with golden_functions.countdown(golden_functions.NEVER) as after:
            again = run(whole.experiment, **how)
        assert after() < evaluations, f"the run began from the start: {after()} of {evaluations} evaluations"
        return again


def toml(value):
    """Return a table as a TOML text; lists may mix tables and numbers."""

    def inline(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(value)

    return "\n".join(f"{json.dumps(key)} = {inline(each)}" for key, each in value.items())


@functools.cache
def specs():
    """Return every spec by its name."""
    text = SPECS.read_text(encoding="utf-8").replace("{here}", HERE.as_posix())
    if "{images}" in text:
        text = text.replace("{images}", Path(images()).as_posix())
    tables = tomllib.loads(text)
    base, found = tables["base"], {}
    timings = [(part.pop("spec"), base | {"method": {}} | part) for part in map(tables.get, TIMED)]
    for given, default in ((tables["spec"], base), *timings):
        for name, table in given.items():
            how = table.pop("how", {})
            found[name] = Spec(name, table, default, how)
    return found


# Under which conditions bytes are comparable.


def fingerprint():
    """Return what the bytes of a history depend on beside the package.

    The number of CPUs decides how XLA splits a native convolution, and so the order of its sums.
    """
    packages = {name: version(name) for name in ("jax", "jaxlib", "numpy", "scipy", "optax", "flax")}
    flags = []
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags = sorted(value.split())
                break
    return packages | {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backend": jax.default_backend(),
        "cpu_flags": hashlib.sha256(" ".join(flags).encode()).hexdigest()[:16] if flags else "unknown",
    }


def key_of(about):
    """Return a short name of a fingerprint."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def differences(found, expected):
    """Return which numbers differ by more than the tolerance, as texts."""
    wrong = [f"{name} = {found.get(name)}, not {expected.get(name)}" for name in found.keys() ^ expected.keys()]
    for name in found.keys() & expected.keys():
        a, b = found[name], expected[name]
        if isinstance(a, str):
            close = a == b
        else:
            close = abs(a - b) <= (ERROR if name == "test_error" else ATOL + RTOL * abs(b))
        if not close:
            wrong.append(f"{name} = {a!r}, not {b!r}")
    return sorted(wrong)


def collect(names=None):
    """Run specs, all by default; return what digests.json holds, with this machine's bytes only."""
    about = fingerprint()
    traces, expected, histories = {}, {}, {}
    for name, spec in specs().items():
        if names is not None and name not in names:
            continue
        trace, found, shown = spec.record()
        traces |= {name: trace} if trace else {}
        if found:
            histories[name], expected[name] = found, shown
        print(name, flush=True)
    return {"traces": traces, "numbers": expected, "bytes": {key_of(about): {"of": about, "digests": histories}}}


def merged(new, old):
    """Return a new recording, with the bytes of other machines where trace and numbers are as before."""
    for key, machine in old["bytes"].items():
        kept = {
            name: digests
            for name, digests in machine["digests"].items()
            if name in new["numbers"]
            and new["traces"].get(name) == old["traces"].get(name)
            and not differences(new["numbers"][name], old["numbers"][name])
        }
        new["bytes"].setdefault(key, {"of": machine["of"], "digests": kept})
    return new


def write(recording, file):
    """Write a recording as JSON with sorted keys."""
    file.write_text(json.dumps(recording, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write digests.json")
    parser.add_argument("--out", type=Path, help="write the digests of this machine to this file")
    parser.add_argument("--only", nargs="+", help="names of specs; with --out")
    options = parser.parse_args()
    if options.record == (options.out is not None) or (options.record and options.only):
        parser.error("give --record, or --out FILE (and --only)")
    recording = collect(options.only)
    if options.record and RECORDED.exists():
        recording = merged(recording, json.loads(RECORDED.read_text(encoding="utf-8")))
    write(recording, RECORDED if options.record else options.out)


if __name__ == "__main__":
    main()
