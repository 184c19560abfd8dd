"""Compare simulations with a real parameter server: a section of docs/validation.md.

    python scripts/validate_real.py [--quick] [--out docs/validation.md]

Workers are processes that sleep on loopback (``real_server.py``). Every run is compared with simulations of its
nominal delay and of its measured times, and its parameters with those of a replay of the recorded trace.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from numpy.typing import NDArray
from real_server import CLASSES, INPUTS, Settings

from stalegrad.models import Problem
from stalegrad.policies import KAsync, methods
from stalegrad.simulator import (
    Cluster,
    Delay,
    Empirical,
    Exponential,
    Gamma,
    Network,
    Recorded,
    Trace,
    replay,
    simulate,
)

TITLE, NEXT = "## A real parameter server", "## Theory against simulation"
SERVER = Path(__file__).parent / "real_server.py"
MESSAGES = 6_000
SEEDS = 8
"""Number of simulations of each kind; distances are means over them."""


class Case(NamedTuple):
    """A run: its name, its workers, their delay, and the settings of the server."""

    name: str
    workers: int
    delay: Delay
    k: int = 1
    server: float = 0.0
    link: float = 0.0

    @property
    def cluster(self) -> Cluster:
        """The cluster with the nominal delay."""
        network = Network(message_bytes=self.link, ingress=1.0) if self.link else None
        return Cluster(self.workers, self.delay, server=self.server, network=network)

    def settings(self, messages: int) -> Settings:
        """Return the settings of the server, with times drawn from the delay as in a simulation."""
        each = messages // self.workers * 3
        blocks = [self.cluster.compute_times(2_000, worker) for worker in range(self.workers)]
        sleeps = [[next(times) for _ in range(each)] for times in blocks]
        return Settings(sleeps, self.k, messages // self.k, server=self.server, link=self.link)


JOB = "alibaba-job-4"
CASES = (
    Case("async, exponential", 8, Exponential(0.04)),
    Case("async, exponential", 64, Exponential(0.25)),
    Case("async, gamma, cv 0.5", 16, Gamma(0.08, 0.5)),
    Case("async, job 4", 10, Recorded.measured(JOB, scale=0.04)),
    Case("4-async, gamma, cv 0.5", 16, Gamma(0.08, 0.5), k=4),
    Case("5-async, job 4", 10, Recorded.measured(JOB, scale=0.04), k=5),
    Case("sync, exponential", 8, Exponential(0.03), k=8),
    Case("async, server 4 ms", 16, Exponential(0.08), server=0.004),
    Case("async, shared link 4 ms", 16, Exponential(0.08), link=0.004),
)


def real_run(settings: Settings, out: Path) -> tuple[Trace, dict[str, NDArray[np.float64]]]:
    """Run the server in its own process; return the trace and the arrays that it wrote."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(settings._asdict()), encoding="utf-8")
    command = [sys.executable, str(SERVER), str(out / "settings.json"), str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(out / "run.npz") as arrays:
        return Trace.load(out / "trace"), dict(arrays)


def measured_cluster(case: Case, trace: Trace, busy: NDArray[np.float64]) -> Cluster:
    """Return a cluster with the measured times of computing, by worker and in order if the delay is recorded."""
    spent = trace.column("finish_time") - trace.column("read_time")
    owner, used = trace.column("worker"), trace.column("update") >= 0
    if isinstance(case.delay, Recorded):
        compute: Delay = Recorded([spent[used & (owner == w)].tolist() for w in range(case.workers)])
    else:
        compute = Empirical.thinned(spent[used])
    return replace(case.cluster, compute=compute, server=Empirical.thinned(busy))


def distance(first: Trace, second: Trace) -> float:
    """Return the Bhattacharyya distance between two histograms of staleness, -ln sum sqrt(p q)."""
    longest = int(max(first.staleness.max(), second.staleness.max())) + 1
    p, q = (np.bincount(t.staleness, minlength=longest) / len(t.staleness) for t in (first, second))
    return abs(float(np.log(np.minimum(np.sqrt(p * q).sum(), 1.0))))


def reproduced(case: Case, trace: Trace, arrays: dict[str, NDArray[np.float64]], learning_rate: float) -> float:
    """Return the largest difference between a parameter of the server and that of a replay, in float64."""

    def loss(weights: jax.Array, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(batch[0] @ weights, batch[1]).mean()

    with jax.enable_x64(True):
        data = arrays["inputs"], arrays["labels"]
        start, batches = np.zeros((INPUTS, CLASSES)), arrays["batches"]
        problem = Problem.from_functions(lambda key: start, loss, train=data, batch_size=batches.shape[-1])
        method = methods.k_async(k=case.k, learning_rate=learning_rate)
        found = replay(trace, problem, method, params=start, batches=batches).params
        return float(np.abs(np.asarray(found) - arrays["weights"]).max())


def simulations(cluster: Cluster, case: Case, updates: int, first: int) -> list[Trace]:
    """Return one simulation per seed."""
    if isinstance(cluster.compute, Recorded):
        cluster = replace(cluster, compute=replace(cluster.compute, start="random"))
    return [simulate(cluster, KAsync(case.k), updates=updates, seed=first + i) for i in range(SEEDS)]


class Found(NamedTuple):
    """The results of a run.

    Attributes:
        line: row of the table.
        distance: mean distance to simulations with measured times.
        of_seeds: largest distance between two seeds.
        told: relative error of the throughput of a simulation with the times that workers were told to sleep.
        measured: relative error of the throughput with measured times.
        replayed: largest difference of a parameter from the replay.
    """

    line: str
    distance: float
    of_seeds: float
    told: float
    measured: float
    replayed: float


def found_in(case: Case, messages: int, out: Path) -> Found:
    """Run a case, simulate it, and compare."""
    settings = case.settings(messages)
    trace, arrays = real_run(settings, out)
    load = os.getloadavg()[0]
    nominal = simulations(case.cluster, case, settings.updates, 0)
    exact = simulate(case.cluster, KAsync(case.k), updates=settings.updates, seed=2_000)
    measured = simulations(measured_cluster(case, trace, arrays["busy"]), case, settings.updates, 100)
    between = [distance(nominal[i], nominal[i + 1]) for i in range(0, SEEDS, 2)]
    fresh, rate = (lambda t: float((t.staleness == 0).mean())), (lambda t: t.throughput()["gradients_per_second"])
    apart = float(np.mean([distance(trace, t) for t in measured]))
    rates = rate(trace), rate(exact), float(np.mean([rate(t) for t in measured]))
    replayed = reproduced(case, trace, arrays, settings.learning_rate)
    cells = [
        case.name, str(case.workers), f"{settings.updates:,}",
        f"{distance(trace, exact):.4f}",
        f"{apart:.4f}",
        f"{np.mean(between):.4f} ({min(between):.4f} to {max(between):.4f})",
        *(f"{value:.1f}" for value in rates),
        f"{fresh(trace):.3f}", f"{np.mean([fresh(t) for t in measured]):.3f}",
        f"{trace.staleness.mean():.2f}", f"{np.mean([t.staleness.mean() for t in measured]):.2f}",
        f"{replayed:.0e}",
        f"{load:.1f}",
    ]  # fmt: skip
    errors = rates[1] / rates[0] - 1, rates[2] / rates[0] - 1
    return Found(f"| {' | '.join(cells)} |", apart, max(between), *errors, replayed)


COLUMNS = (
    "run", "workers", "updates", "distance, same times", "measured times", "two seeds", "gradients/s",
    "same times", "measured times", "P(fresh)", "measured times", "mean staleness", "measured times", "replayed",
    "load",
)  # fmt: skip

HEAD = f"""\
{TITLE}

`make validate-real` printed this section on {os.cpu_count()} shared cores. Worker processes on loopback sleep for
their computing times, and a server process with a `TraceRecorder` applies real gradients. *Distances* are
Bhattacharyya distances between histograms of staleness. *Same times* compares the real run with a simulation of
exactly the times that its workers were told to sleep. *Measured times* compares it with simulations that draw from
the measured times (of computing, and of the server per message), mean of {SEEDS}. *Two seeds* compares two
simulations, mean and range. *Replayed* is the largest difference between a parameter of the server and that of a
replay of the recorded trace, in float64. *Load* is the load of the machine (1 minute) at the end of the run: other
jobs ran on it.

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
"""


def summary(found: Sequence[Found]) -> str:
    """Return a summary of the table in a few lines."""
    within = sum(run.distance <= run.of_seeds for run in found)
    told, measured = (max(abs(getattr(run, name)) for run in found) for name in ("told", "measured"))
    return f"""
* In {within} of {len(found)} runs the distance between the real run and simulations with measured times does not
  exceed the largest distance between two seeds.
* Throughput differs by up to {told:.0%} from that of simulations with the times that workers were told to sleep:
  waking up and sending take time on a busy machine, and matter most if sleeps are short (job 4: fast workers
  sleep for less than 20 ms). With measured times it differs by up to {measured:.0%}: fit the measured times
  (`fit_delays(trace)`), not the intended ones.
* The emulated link accumulates up to 4 ms of tokens, unlike a fair link: some messages arrive close together, so
  that more of them are fresh, and the throughput is a little higher.
* Parameters equal those of the replay up to {max(run.replayed for run in found):.0e}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs of the first case of each kind")
    parser.add_argument("--out", type=Path, help="file whose section is replaced; default: print")
    arguments = parser.parse_args()
    cases, messages = (CASES[::4], 600) if arguments.quick else (CASES, MESSAGES)
    found = []
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(cases):
            found.append(found_in(case, messages, Path(place) / str(number)))
            print(found[-1].line, file=sys.stderr, flush=True)
    text = HEAD + "".join(f"{run.line}\n" for run in found) + summary(found)
    if arguments.out is None:
        print(text)
        return
    before, _, after = arguments.out.read_text(encoding="utf-8").partition(NEXT)
    before = before.partition(TITLE)[0]
    arguments.out.write_text(f"{before}{text}\n{NEXT}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
