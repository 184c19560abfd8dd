"""Cost of an event against bare SimPy, measured in the same run with processes that only wait for timeouts.

It is a part of ``make bench`` (sections ``engine`` and ``crowd``). ``python tests/benchmarks/engine.py`` runs it
alone, without JAX in the process.
"""

import gc
import subprocess
import sys
import time
from statistics import median

import numpy as np
import simpy

from stalegrad.policies.synchrony import (
    SSP,
    SYNCHRONIES,
    Async,
    DelayedAveraging,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Sync,
)
from stalegrad.simulator.timing import blocks
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential
from stalegrad.simulator.timing.engine import Engine, simulate
from stalegrad.simulator.timing.links import Network

COLUMNS = ["synchrony", "workers", "links", "bare SimPy, us per event", "engine, us per gradient", "ratio to bare",
           "blocks, us per gradient", "ratio to bare"]  # fmt: skip
WAYS = {
    "instant": {},
    "with time": {"uplink": 0.01, "downlink": 0.01, "server": 1e-6},
    "random": {"uplink": Exponential(0.01), "downlink": Exponential(0.01), "server": Exponential(1e-6)},
    "shared": {"network": Network(0.01, ingress=1.0)},
    "shared, both ways": {"network": Network(0.01, ingress=1.0, egress=1.0)},
    "shared, slow links": {"network": Network(0.01, upload=[0.5 + i / 100 for i in range(64)], ingress=1.0)},
}
CASES = [
    (Async(), 100, "instant", 100_000),
    (Async(), 1_000, "instant", 100_000),
    (Async(), 10_000, "instant", 100_000),
    (Async(), 1_000, "with time", 50_000),
    (Async(), 1_000, "random", 50_000),
    (Async(), 64, "with time", 50_000),
    (Async(), 64, "shared", 50_000),
    (Async(), 64, "shared, both ways", 50_000),
    (Async(), 64, "shared, slow links", 20_000),
    (KBatchAsync(8), 1_000, "instant", 10_000),
    (KAsync(8), 1_000, "instant", 10_000),
    (SSP(4), 100, "instant", 30_000),
    (Sync(), 128, "instant", 400),
    (KSync(8), 128, "instant", 2_000),
    (KSync(1), 128, "instant", 1_000),
    (KBatchSync(8), 128, "instant", 2_000),
    (DelayedAveraging(8), 128, "instant", 200),
]


def bare(workers, events):
    """Return SimPy's CPU seconds for ``events`` timeouts of ``workers`` processes, which draw times in blocks."""
    env, left = simpy.Environment(), [events]
    done = env.event()

    def live(rng):
        while True:
            for duration in rng.exponential(1.0, 256).tolist():
                yield env.timeout(duration)
                left[0] -= 1
                if not left[0]:
                    done.succeed()

    for worker in range(workers):
        env.process(live(np.random.default_rng(worker)))
    return seconds(lambda: env.run(until=done))


def seconds(function):
    """Return the CPU seconds of a call, after collecting garbage."""
    gc.collect()
    start = time.process_time()
    function()
    return time.process_time() - start


def cost(synchrony, workers, links, updates, repeats):
    """Measure the cost of a used gradient in the event engine and in ``simulate``, which prefers blocks."""
    cluster, budget = Cluster(workers, Exponential(), **links), Budget(updates=updates)
    used = len(simulate(cluster, synchrony, updates=updates).used)
    ways = {
        "bare": lambda: bare(workers, 100_000) / 100_000,
        "engine": lambda: seconds(lambda: Engine(cluster, synchrony, budget, 0).run()) / used,
        "simulate": lambda: seconds(lambda: simulate(cluster, synchrony, updates=updates)) / used,
    }
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(way() * 1e6)
    row = [f"{median(times['bare']):.2f}"]
    for name in ("engine", "simulate"):
        ratio = median(t / b for t, b in zip(times[name], times["bare"], strict=True))
        row += [f"{median(times[name]):.2f}", f"{ratio:.2f}"]
    return row if blocks.run(cluster, synchrony, budget, 0) is not None else [*row[:3], "", ""]


def events(repeats):
    """Return the rows of all cases."""
    rows = []
    for synchrony, workers, how, updates in CASES:
        name = " ".join(str(value) for value in SYNCHRONIES.to_table(synchrony).values())
        rows.append([name, f"{workers:,}", how, *cost(synchrony, workers, WAYS[how], updates, repeats)])
    return rows


CROWD_COLUMNS = ["workers", "updates", "links", "seconds", "peak memory, MB"]


def crowd(repeats):
    """Measure seconds and peak memory of a fresh process that simulates async with 100,000 workers."""
    rows = []
    for links in ({}, {"downlink": 0.01}):
        code = (
            "from stalegrad.simulator.timing.engine import simulate\n"
            "from stalegrad.simulator.timing.cluster import Cluster\n"
            "from stalegrad.simulator.timing.delays import Exponential\n"
            "from stalegrad.policies.synchrony import Async\n"
            "import time\n"
            "start = time.perf_counter()\n"
            f"simulate(Cluster(100_000, Exponential(), **{links!r}), Async(), updates=300_000)\n"
            "print(time.perf_counter() - start)\n"
            # not ru_maxrss, which starts from the peak of the parent process
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        found = [
            [
                float(x)
                for x in subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, check=True
                ).stdout.split()
            ]
            for _ in range(repeats)
        ]
        times, memory = zip(*found, strict=True)
        rows.append(
            [
                "100,000",
                "300,000",
                "downlink" if links else "instant",
                f"{median(times):.1f}",
                f"{median(memory) * 1024 / 1e6:.0f}",
            ]
        )
    return rows


if __name__ == "__main__":
    for columns, found in ((COLUMNS, events(5)), (CROWD_COLUMNS, crowd(3))):
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        print("\n".join("| " + " | ".join(map(str, row)) + " |" for row in found), end="\n\n", flush=True)
