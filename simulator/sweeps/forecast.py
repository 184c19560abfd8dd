"""What a sweep will cost, from a short trial of each kind of run: ``stalegrad run --dry-run``."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from stalegrad.simulator.replay.player import evaluate
from stalegrad.simulator.replay.record import points
from stalegrad.simulator.replay.schedule import lower
from stalegrad.simulator.sweeps.axes import Run
from stalegrad.simulator.sweeps.experiment import Experiment
from stalegrad.simulator.sweeps.result import run
from stalegrad.simulator.sweeps.traces import trace_of, trace_text

ENOUGH = 0.5
"""Seconds of real time that a trial takes at least, if the run is that long."""


class Size(NamedTuple):
    """How much there is to do in a run.

    Attributes:
        gradients: used mini-batch gradients.
        rows: of the history, each an evaluation.
        versions: of the parameters that are alive at once.
        seconds: of real time that simulating its trace took.
    """

    gradients: int
    rows: int
    versions: int
    seconds: float


class Cost(NamedTuple):
    """What a kind of run costs, in seconds of real time, and the bytes of one version of its parameters."""

    compiling: float
    run: float
    gradient: float
    row: float
    version: int


class Forecast(NamedTuple):
    """What runs will cost.

    Attributes:
        traces: how many have to be simulated.
        seconds: of real time, in one process one after the other.
        memory: bytes of main memory of one process.
        kinds: how many kinds of runs were tried.
    """

    traces: int
    seconds: float
    memory: int
    kinds: int


def distinct_traces(runs: Sequence[Run]) -> int:
    """Return how many traces these runs need; those that differ in the rule only share one."""
    return len({trace_text(r.experiment) or f"of run {i}" for i, r in enumerate(runs)})


def forecast(runs: Sequence[Run]) -> Forecast:
    """Estimate real time and memory of runs by trying the beginning of one run of each kind.

    A kind is a problem and a method's name; it is compiled anew for each synchrony and number of workers. Of each
    combination of cluster, synchrony and budget one trace is simulated to count gradients and rows; where a
    controller will change k, as if it never did.
    """
    sizes: dict[object, Size] = {}
    costs: dict[object, Cost] = {}
    compiled: set[object] = set()
    traces: dict[str, float] = {}
    seconds, most = 0.0, 0
    for i, r in enumerate(runs):
        e = r.experiment
        shape, kind = (e.cluster, e.method.synchrony, e.budget, e.record), (e.problem, e.method.name)
        if shape not in sizes:
            sizes[shape] = size_of(e)
        size = sizes[shape]
        if kind not in costs:
            costs[kind] = trial(e, size.gradients)
        cost, program = costs[kind], (kind, e.method.synchrony, e.cluster.size)
        seconds += cost.compiling * (program not in compiled)
        compiled.add(program)
        seconds += cost.run + size.gradients * cost.gradient + size.rows * cost.row
        most = max(most, size.versions * cost.version)
        traces[trace_text(e) or f"of run {i}"] = size.seconds
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Forecast(len(traces), seconds + sum(traces.values()), peak + most, len(costs))


def size_of(experiment: Experiment) -> Size:
    """Return how much there is to do in a run, by simulating its trace."""
    start = time.perf_counter()
    trace = trace_of(experiment)
    seconds = time.perf_counter() - start
    schedule = lower(trace)
    rows = points(experiment.record, experiment.budget, schedule, trace.end).update
    return Size(int(schedule.gradients_before[-1]), len(rows), schedule.bucket, seconds)


def trial(experiment: Experiment, gradients: int) -> Cost:
    """Measure what a kind of run costs by running its first gradients: ever more, until it takes long enough.

    Args:
        experiment: one of the kind.
        gradients: how many it has in all.
    """
    once = replace(experiment.record, updates=10**9, gradients=None, wallclock=None)
    short = experiment.but(updates=None, wallclock=None, gradients=1, record=once)

    def timed(count: int) -> tuple[float, Any]:
        start = time.perf_counter()
        params = jax.block_until_ready(run(short.but(gradients=count), progress=False).params)
        return time.perf_counter() - start, params

    few = many = min(32, max(1, gradients))
    (first, params), (least, _) = timed(few), timed(few)
    longer = least
    while longer - least < ENOUGH and many < gradients:
        many = min(8 * many, gradients)
        timed(many)  # compiles
        longer, _ = timed(many)
    objective = experiment.problem.objective()
    evaluate(objective, params, once)
    start = time.perf_counter()
    evaluate(objective, params, once)
    row = time.perf_counter() - start
    gradient = (longer - least) / (many - few) if many > few else (least - 2 * row) / few
    gradient = max(gradient, 0.0)  # of a run that takes no time to speak of
    fixed = max(least - few * gradient - 2 * row, 0.0)
    version = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return Cost(max(first - least, 0.0), fixed, gradient, row, version)


def told(seconds: float) -> str:
    """Return a length of time as people say it."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
