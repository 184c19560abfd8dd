"""Startup times: entrances of the package, and the first result of a run, in fresh processes.

They are the sections ``start`` and ``first`` of ``make bench``.
"""

import os
import resource
import subprocess
import sys
import tempfile
from statistics import median

from stalegrad.simulator.replays.compiling import LEAST, PLACE

ENTRANCES = {
    "import stalegrad": "import stalegrad",
    "from stalegrad.simulator import run": "from stalegrad.simulator import run",
    "simulate": "from stalegrad.simulator import Cluster, simulate; from stalegrad.policies import Async; "
    "simulate(Cluster(4), Async(), updates=10)",
    **{
        f"stalegrad {words}": f"import sys; sys.argv[1:] = {words.split()!r}; "
        "from stalegrad.__main__ import main; main()"
        for words in ("--help", "list", "list methods")
    },
}


def entrances(repeats):
    """Measure the CPU seconds of fresh processes, and their ratios to ``import jax``."""

    def cpu(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds = {name: [] for name in ("import jax", *ENTRANCES)}
    for _ in range(repeats):
        for name, times in seconds.items():
            times.append(cpu(ENTRANCES.get(name, name)))
    yardstick = seconds["import jax"]
    return [
        [name, f"{median(times):.2f}", f"{median(t / y for t, y in zip(times, yardstick, strict=True)):.2f}"]
        for name, times in seconds.items()
    ]


FIRST = """
import sys, time
import stalegrad as sg
from stalegrad.simulator.experiments import run
from stalegrad.simulator.replays import history

times, init, row = [], history.History.__init__, history.History.row

def noted(function):
    def call(*arguments):
        done = function(*arguments)
        times.append(time.perf_counter() - start)
        return done
    return call

history.History.__init__, history.History.row = noted(init), noted(row)
cluster = sg.Cluster(workers=16, compute=sg.ShiftedExponential(shift=1.0, scale=1.0))
method = sg.methods.k_async(k=4, learning_rate=0.05)
problem = sg.Problem("mlp", "fashion-mnist-small", batch_size=32)
experiment = sg.Experiment(problem=problem, cluster=cluster, method=method, updates=2_000)
start = time.perf_counter()
sg.run(experiment, progress=False)
print(times[0], times[2], time.perf_counter() - start)
"""
"""Program that prints the times at which a run has evaluated its start, has its first row of updates, and ends."""


def first_result(repeats):
    """Measure the seconds from ``run(...)`` on in fresh processes, without and with cached compiled code."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for label, cache in (("cold", ""), ("compiled code kept", place)):
            environment = {**os.environ, PLACE: cache, LEAST: "0.1"}
            command = [sys.executable, "-c", FIRST]
            said = [
                subprocess.run(command, check=True, capture_output=True, env=environment).stdout.split()
                for _ in range(repeats + bool(cache))
            ][bool(cache) :]
            rows.append([label, *(f"{median(map(float, times)):.2f}" for times in zip(*said, strict=True))])
    return rows
