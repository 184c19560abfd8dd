"""Real time of sweeps: ``.venv/bin/python tests/benchmarks/sweeps.py`` prints two tables.

The first compares 60 small runs (MLP, 2,000 gradients each; 5 methods x 4 K x 3 seeds) as one sweep with the same
runs one by one, each in a fresh process that ends when its result is saved. The second measures opening and
plotting a store of 1,000 runs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from stalegrad.models import Problem
from stalegrad.policies import KAsync, methods
from stalegrad.simulator import Cluster, Experiment, ShiftedExponential, load, processes, sweep
from stalegrad.simulator.experiments.identity import key_of
from stalegrad.simulator.sweeps.axes import plan
from stalegrad.simulator.sweeps.store import Store

ALONE = "import sys; from stalegrad.simulator import load_experiment, run; "
ALONE += "run(load_experiment(sys.argv[1]), progress=False).save(sys.argv[2])"
OPEN = "import time, sys; start = time.perf_counter(); from stalegrad.simulator import load; "
OPEN += "imported = time.perf_counter(); axes = load(sys.argv[1]).plot(); axes.figure.canvas.draw(); "
OPEN += "print(imported - start, time.perf_counter() - imported)"

SIXTY = Experiment(
    problem=Problem("mlp", "fashion-mnist-small", batch_size=32),
    cluster=Cluster(workers=16, compute=ShiftedExponential(shift=1.0, scale=1.0)),
    method=methods.async_(learning_rate=0.05),
    gradients=2_000,
)
RATE = {"learning_rate": 0.05}
METHODS = [
    method
    for k in (2, 4, 8, 16)
    for method in (
        methods.k_sync(k=k, **RATE),
        methods.k_batch_sync(k=k, **RATE),
        methods.k_async(k=k, **RATE),
        methods.k_batch_async(k=k, **RATE),
        methods.inverse(synchrony=KAsync(k), **RATE),
    )
]


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def sixty(place, alone):
    """Return the real seconds of each way to make the 60 runs; only ``alone`` runs are made one by one."""
    runs = plan(SIXTY, {"method": METHODS, "seed": range(3)})
    axes = {"method": METHODS, "seed": range(3), "progress": False}
    seconds = {"one sweep, in process": timed(lambda: sweep(SIXTY, store=place / "sweep", **axes))}
    with processes(2) as pool:
        seconds["one sweep, two processes"] = timed(
            lambda: sweep(SIXTY, store=place / "pool", executor=pool, **axes)
        )
    chosen = runs[:: len(runs) // alone][:alone]
    one_by_one = 0.0
    for i, run in enumerate(chosen):
        spec = place / f"{i}.toml"
        spec.write_text(run.experiment.to_toml())
        command = [sys.executable, "-c", ALONE, spec, place / "alone" / str(i)]
        one_by_one += timed(lambda command=command: subprocess.run(command, check=True))
    seconds[f"one by one in fresh processes ({len(chosen)} measured)"] = one_by_one * len(runs) / len(chosen)
    return seconds


def thousand(place):
    """Return the real seconds of opening and plotting a store of 1,000 runs: 20 runs saved under 50 seeds each."""
    made = sweep(SIXTY.but(gradients=200), progress=False, method=METHODS)
    store = Store(place)
    for result in made.results:
        for seed in range(50):
            again = replace(result, experiment=result.experiment.but(seed=seed))
            store.save(key_of(again.experiment), again)
    seconds = {"opening without a manifest, which is made": timed(lambda: load(place))}
    assert len(load(place)) == 1_000
    for label in ("opening and plotting", "the same again"):
        said = subprocess.run(
            [sys.executable, "-c", OPEN, place], check=True, capture_output=True, text=True
        ).stdout
        seconds["importing stalegrad"], seconds[label] = map(float, said.split())
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", type=int, default=60, help="number of runs made one by one; default: all")
    parser.add_argument("--only", choices=["sixty", "thousand"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tables = {
            "60 runs": lambda: sixty(Path(place), given.alone),
            "1,000 runs": lambda: thousand(Path(place) / "k"),
        }
        for (title, measure), name in zip(tables.items(), ("sixty", "thousand"), strict=True):
            if given.only in (None, name):
                print(f"\n| {title} | s |\n|---|---|", flush=True)
                for label, seconds in measure().items():
                    print(f"| {label} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
