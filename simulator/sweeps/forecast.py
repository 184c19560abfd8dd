"""A forecast of the cost of a sweep, from a short trial of each kind of run: ``stalegrad run --dry-run``."""

from __future__ import annotations

import functools
import math
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import jax

from stalegrad._core.specs import changed_fields
from stalegrad._core.types import Table
from stalegrad.models import Problem
from stalegrad.policies import Method
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.run import run
from stalegrad.simulator.experiments.traces import trace_text
from stalegrad.simulator.replays.evaluation import evaluate
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.record import cadence_of, points
from stalegrad.simulator.replays.step import Layout, Step
from stalegrad.simulator.replays.training import Snapshot
from stalegrad.simulator.sweeps.axes import Run
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

ENOUGH = 0.5
"""Smallest duration of a trial, in seconds of real time, if the run is that long."""

SAMPLE_WORKERS, SAMPLE_MESSAGES = 1_000, 20_000
"""Approximate largest numbers of workers and messages of a trace that are simulated; the rest is extrapolated."""

WORKER_BYTES, MESSAGE_BYTES = 5_000, 400
"""Measured main memory of a simulation per worker and per message, including the trace, in bytes."""


class Size(NamedTuple):
    """The amount of work in a run.

    Attributes:
        gradients: number of used mini-batch gradients.
        rows: number of rows of the history, each with an evaluation.
        versions: largest number of versions of the parameters that are alive at once.
        seconds: real time of the simulation of the trace, in seconds.
        bytes: main memory of the simulation of the trace.
        sampled: whether a part of the trace was simulated and the rest extrapolated.
    """

    gradients: int
    rows: int
    versions: int
    seconds: float
    bytes: int = 0
    sampled: bool = False


class Cost(NamedTuple):
    """The cost of a kind of run in seconds of real time, and the bytes of one version of its parameters."""

    compiling: float
    run: float
    gradient: float
    row: float
    version: int


class Forecast(NamedTuple):
    """The forecast of the cost of runs.

    Attributes:
        traces: number of traces to simulate.
        seconds: real time in seconds, for one run after another in one process.
        memory: main memory of one process, in bytes.
        kinds: number of kinds of runs that were tried.
        sampled: whether some traces were extrapolated from a part of them.
    """

    traces: int
    seconds: float
    memory: int
    kinds: int
    sampled: bool


def distinct_traces(runs: Sequence[Run]) -> int:
    """Return the number of traces for these runs; runs that differ only in the rule share a trace."""
    return len({trace_text(r.experiment) or f"of run {i}" for i, r in enumerate(runs)})


def forecast(runs: Sequence[Run]) -> Forecast:
    """Estimate real time and memory of runs by trying the beginning of one run of each kind.

    A kind is a problem and a method's name; it is compiled again for each synchrony and number of workers. For
    each combination of cluster, synchrony and budget one trace, or its beginning, is simulated to count gradients
    and rows; changes of k by a controller are ignored. The estimate itself takes about a second and a few hundred
    MB for each kind, for runs of any size.
    """
    sizes: dict[object, Size] = {}
    costs: dict[object, Cost] = {}
    compiled: set[object] = set()
    traces: dict[str, float] = {}
    seconds, most = 0.0, 0
    for i, r in enumerate(runs):
        e = r.experiment
        shape, kind = (e.timed_cluster, e.method.synchrony, e.budget, e.record), (e.problem, e.method.name)
        if shape not in sizes:
            sizes[shape] = size_of(e)
        size = sizes[shape]
        if kind not in costs:
            costs[kind] = trial(e, size.gradients)
        cost, program = costs[kind], (kind, e.method.synchrony, e.cluster.size)
        seconds += cost.compiling * (program not in compiled)
        compiled.add(program)
        seconds += cost.run + size.gradients * cost.gradient + size.rows * cost.row
        most = max(
            most, size.versions * cost.version + size.bytes + state_bytes(e.problem, e.method, e.cluster.size)
        )
        traces[trace_text(e) or f"of run {i}"] = size.seconds
    sampled = any(size.sampled for size in sizes.values())
    return Forecast(len(traces), seconds + sum(traces.values()), peak_memory() + most, len(costs), sampled)


def peak_memory() -> int:
    """Return the peak main memory of this process, in bytes; 0 if the system does not report it."""
    with suppress(OSError):  # getrusage on Linux starts with the peak of the parent process
        if found := re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def size_of(experiment: Experiment) -> Size:
    """Return the amount of work in a run, from its trace or the beginning of the trace."""
    e = _with_fewer_workers(experiment)
    scale = experiment.cluster.size / e.cluster.size
    _, beginning = _timed(e, {"updates": 1})
    updates, spent = 4, 0.0
    while True:
        budget, whole = _at_most(e, updates)
        trace, seconds = _timed(e, budget)
        spent += seconds
        if e.wallclock is not None and trace.update_times[-1] > e.wallclock:
            whole = True
            trace, seconds = _timed(e, changed_fields(e.budget))
        if whole or len(trace.column("worker")) >= SAMPLE_MESSAGES or spent > ENOUGH:
            break
        updates *= 4
    lowered = lower(trace)
    gradients, made = int(lowered.gradients_before[-1]), max(lowered.updates, 1)
    messages = len(trace.column("worker"))
    if whole and scale == 1:
        rows = len(points(e.record, e.budget, lowered, trace.end).update)
        return Size(gradients, rows, lowered.bucket, seconds, _bytes(e.cluster.size, messages))
    # Gradients per update grow with the number of workers only where an update uses one of every worker.
    wide = scale if gradients / made >= e.cluster.size else 1.0
    part = {
        "updates": lambda: experiment.updates / made,  # type: ignore[operator]
        "gradients": lambda: experiment.gradients / (gradients * wide),  # type: ignore[operator]
        "wallclock": lambda: experiment.wallclock / trace.end * scale / wide,  # type: ignore[operator]
    }[next(iter(changed_fields(experiment.budget)))]()
    all_updates, all_gradients = made * part, gradients * part * wide
    end = trace.end * part / (scale / wide)
    return Size(
        gradients=_whole(all_gradients),
        rows=_rows(experiment, all_updates, all_gradients, end),
        versions=_whole(min(lowered.bucket * (1.0 if lowered.always_fresh else scale), all_updates + 1)),
        seconds=beginning * scale + max(seconds - beginning, 0.0) * part * wide,
        bytes=_bytes(experiment.cluster.size, messages * part * wide),
        sampled=True,
    )


@functools.lru_cache(maxsize=256)
def state_bytes(problem: Problem, method: Method, workers: int) -> int:
    """Return the bytes of the state of workers, table and optimizer, without the server's parameters."""
    objective, layout = problem.objective(), Layout(1, 1, True, (), 1, 1)
    step = Step(objective.loss, method.rule(workers), layout, 1.0, 1.0)
    params = jax.eval_shape(objective.init, jax.random.key(0))
    own, kept, optimizer, _ = jax.eval_shape(step.init, params, objective.stats)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((own, kept, optimizer)))


def _timed(e: Experiment, budget: Table) -> tuple[Trace, float]:
    start = time.perf_counter()
    trace = simulate(e.timed_cluster, e.method.synchrony, seed=e.seed, **budget)
    return trace, time.perf_counter() - start


def _whole(number: float) -> int:
    return round(min(number, 1e300))


def _bytes(workers: int, messages: float) -> int:
    return _whole(workers * WORKER_BYTES + messages * MESSAGE_BYTES)


def _at_most(e: Experiment, updates: int) -> tuple[Table, bool]:
    """Return a budget of at most ``updates`` updates, and whether it is the whole budget."""
    if e.wallclock is not None:
        return {"updates": updates}, False
    ((unit, whole),) = changed_fields(e.budget).items()
    return {unit: min(whole, updates)}, whole <= updates


def _with_fewer_workers(e: Experiment) -> Experiment:
    """Return the experiment with at most ``SAMPLE_WORKERS`` workers."""
    fewer = SAMPLE_WORKERS
    k = getattr(e.method.synchrony, "k", 1)
    if e.cluster.size <= fewer or k > fewer:
        return e
    cluster: Table = {
        f.name: value[:fewer] if isinstance(value := getattr(e.cluster, f.name), tuple) else value
        for f in fields(e.cluster)
    }
    if e.cluster.network is not None:
        cluster["network"] = e.cluster.network.of_part(fewer, fewer / e.cluster.size)
    return e.but(cluster=Cluster(**{**cluster, "workers": fewer}))


def _rows(e: Experiment, updates: float, gradients: float, end: float) -> int:
    cadence = cadence_of(e.record, e.budget)
    if cadence.wallclock is not None:
        return math.ceil(end / cadence.wallclock) + 1
    if cadence.updates is not None:
        return math.ceil(updates / cadence.updates) + 1
    assert cadence.gradients is not None
    return math.ceil(min(gradients / cadence.gradients, updates)) + 1


def trial(experiment: Experiment, gradients: int) -> Cost:
    """Measure the cost of a kind of run by trials of increasing length, until a trial takes long enough.

    Args:
        experiment: an experiment of the kind.
        gradients: number of gradients of the whole run.
    """
    once = replace(experiment.record, updates=10**9, gradients=None, wallclock=None)
    experiment = _with_fewer_workers(experiment)
    short = experiment.but(updates=None, wallclock=None, gradients=1, record=once)

    def timed(count: int) -> tuple[float, Snapshot]:
        start = time.perf_counter()
        result = run(short.but(gradients=count), progress=False)
        snapshot = jax.block_until_ready(Snapshot(result.params, result.stats))
        return time.perf_counter() - start, snapshot

    few = many = min(32, max(1, gradients))
    (first, snapshot), (least, _) = timed(few), timed(few)
    longer = least
    while longer - least < ENOUGH and many < gradients:
        many = min(8 * many, gradients)
        timed(many)  # compiles
        longer, _ = timed(many)
    objective = experiment.problem.objective()
    evaluate(objective, snapshot, once)
    start = time.perf_counter()
    evaluate(objective, snapshot, once)
    row = time.perf_counter() - start
    gradient = (longer - least) / (many - few) if many > few else (least - 2 * row) / few
    gradient = max(gradient, 0.0)  # the difference can be negative for a very short run
    fixed = max(least - few * gradient - 2 * row, 0.0)
    version = sum(leaf.nbytes for leaf in jax.tree.leaves(snapshot.params))
    return Cost(max(first - least, 0.0), fixed, gradient, row, version)


def format_duration(seconds: float) -> str:
    """Return a duration in a readable unit."""
    if seconds > 100 * 365 * 86_400:
        return "more than 100 years"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 3 * 86_400 else f"{seconds / 86_400:.0f} days"
