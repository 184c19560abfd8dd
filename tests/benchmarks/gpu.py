"""Correctness and speed on an accelerator: ``make bench-gpu`` writes docs/benchmarks-gpu.md, without a network.

It runs in any Python environment with JAX for the accelerator (0.10 or newer) and the other dependencies;
stalegrad need not be installed. ``--size tiny`` is a test run for a CPU, without convolutions.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]


def make_importable():
    """Let ``import stalegrad`` find this checkout, also in child processes, if the package is not installed."""
    if importlib.util.find_spec("stalegrad") is not None:
        return
    place = Path(tempfile.mkdtemp()) / "stalegrad"
    place.mkdir()
    for part in (
        *(ROOT / "root").iterdir(),
        *(ROOT / name for name in ("simulator", "models", "policies", "analysis")),
    ):
        (place / part.name).symlink_to(part)
    sys.path.insert(0, str(place.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place.parent), os.environ.get("PYTHONPATH")]))


make_importable()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from bench import (  # noqa: E402
    RATE,
    SILENT,
    clock,
    make_problem,
    mlp,
    overhead,
    softmax_regression,
    table,
    without_evaluation,
)

from stalegrad.models import Problem  # noqa: E402
from stalegrad.models.networks import NETWORKS  # noqa: E402
from stalegrad.models.objective import prediction  # noqa: E402
from stalegrad.policies import Async, methods  # noqa: E402
from stalegrad.simulator import Cluster, Exponential, Record, replay, simulate  # noqa: E402
from stalegrad.simulator.replays.lowering import lower  # noqa: E402
from stalegrad.simulator.replays.run import Request, replay_together  # noqa: E402

SIZES = {
    "tiny": {
        "gradients": 24,
        "repeats": 1,
        "lanes": (1, 2),
        "batches": (2, 4),
        "workers": 4,
        "images": 64,
        "agreement": 8,
        "models": ("softmax 784x10", "MLP 784-64-10"),
    },
    "full": {
        "agreement": 50,
        "models": ("softmax 784x10", "MLP 784-64-10", "cnn-mindthestep", "ResNet-20"),
        "gradients": 4_096,
        "repeats": 5,
        "lanes": (1, 8, 32, 128),
        "batches": (16, 32, 64, 128),
        "workers": 32,
        "images": 10_000,
    },
}
"""Settings by size. ``agreement``: number of updates after which executions are compared, few enough that rounding
errors stay small."""


def residual(images, batch, norm="batch"):
    """Return ResNet-20 on random images of the shape of CIFAR-10."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (images, 32, 32, 3), np.uint8), rng.integers(0, 10, images).astype(np.int32)
    network = NETWORKS["resnet-20"]((32, 32, 3), 10, norm=norm)
    few = tuple(array[:8] for array in data)
    objective = prediction(network, data, few, lambda x: x.astype(np.float32) / 255)
    return without_evaluation(Problem("resnet-20", "cifar-10", batch_size=batch, norm=norm), objective)


def problems(size, batch=32):
    """Return the problems by name, without evaluation."""
    made = {
        "softmax 784x10": lambda: make_problem(softmax_regression, 784, batch),
        "MLP 784-64-10": lambda: make_problem(mlp, 784, batch),
        "cnn-mindthestep": lambda: without_evaluation(
            Problem("cnn-mindthestep", "fashion-mnist-small", batch_size=batch)
        ),
        "ResNet-20": lambda: residual(size["images"], batch),
    }
    return {name: made[name]() for name in size["models"]}


def flat(params):
    """Return parameters as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def runs(size):
    """Return parameters after a few updates, by problem and execution."""
    trace = simulate(Cluster(size["workers"], Exponential()), Async(), updates=size["agreement"], seed=1)
    method, record, found = methods.async_(learning_rate=RATE), Record(updates=10**9, gap=False), {}
    for name, problem in problems(size, 8).items():
        executions = ("scan", "loop") if name == "ResNet-20" else ("scan", "windows", "loop")
        for execution in executions:
            with contextlib.suppress(NotImplementedError):
                done = replay(trace, problem, method, record=record, execution=execution)
                found[f"{name}, {execution}"] = flat(done.params)
        requests = [Request(trace, problem, method, record, 0)] * 2
        found[f"{name}, lanes"] = flat(next(iter(replay_together(requests, 2))).params)
    return found


def correctness(size):
    """Compare executions with the CPU, and repeats byte for byte, with matrix products at full precision."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "reference.npz"
        command = [sys.executable, __file__, "--reference", str(file), "--size", size["name"]]
        subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
        reference = np.load(file)
        with jax.default_matmul_precision("highest"):
            found, again = runs(size), runs(size)
    rows = []
    for name, params in found.items():
        expected = reference[name]
        distance = np.abs(params - expected).max() / np.abs(expected).max()
        rows.append([name, f"{distance:.1e}", "yes" if params.tobytes() == again[name].tobytes() else "NO"])
        if not distance < 1e-3:
            raise AssertionError(f"{name}: parameters differ from those on the CPU by {distance:.1e}")
    return rows


def overheads(size):
    """Compare the time of one gradient with plain SGD, for batches of 32 and 128."""
    return [
        overhead(
            name,
            problem,
            size["workers"],
            size["gradients"] // (16 if name == "ResNet-20" else 1),
            size["repeats"],
        )
        for batch in (32, 128)
        for name, problem in problems(size, min(batch, size["images"])).items()
    ]


def lanes(size):
    """Measure gradients per second, over all lanes."""
    rows, method, record = [], methods.async_(learning_rate=RATE), Record(updates=10**9, gap=False)
    for name, problem in problems(size).items():
        if name == "ResNet-20":  # one run fills the device
            continue
        cluster, gradients = Cluster(size["workers"], Exponential()), max(size["gradients"] // 4, 8)
        traces = [simulate(cluster, Async(), updates=gradients, seed=seed) for seed in range(max(size["lanes"]))]
        requests = [Request(trace, problem, method, record, seed) for seed, trace in enumerate(traces)]
        seconds = clock(
            {
                width: lambda r=requests[:width], w=width: [done.params for done in replay_together(r, w)]
                for width in size["lanes"]
            },
            size["repeats"],
        )
        rates = [width * gradients / median(times) for width, times in seconds.items()]
        rows.append([name, *(f"{rate:,.0f}" for rate in rates), f"{rates[-1] / rates[0]:.1f}"])
    return rows


def memory(size):
    """Compare the planned memory of versions with the peak memory that the device reports."""
    device, rows = jax.devices()[0], []
    for name, problem in problems(size).items():
        trace = simulate(Cluster(size["workers"], Exponential()), Async(), updates=64, seed=0)
        lowered, model = lower(trace), problem.parameter_bytes()
        data = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(problem.objective().train))
        before = (device.memory_stats() or {}).get("bytes_in_use", 0)
        jax.block_until_ready(replay(trace, problem, methods.async_(learning_rate=RATE), **SILENT).params)
        stats = device.memory_stats() or {}
        used = f"{(stats['peak_bytes_in_use'] - before) / 1e6:.1f}" if "peak_bytes_in_use" in stats else "unknown"
        rows.append([name, lowered.bucket, f"{lowered.bucket * model / 1e6:.1f}", f"{data / 1e6:.1f}", used])
    return rows


def launches(size):
    """Measure the part of a gradient's time that does not grow with the mini-batch: launches and latencies."""
    rows = []
    for name in size["models"][1:]:
        times = []
        for batch in size["batches"]:
            problem, gradients = problems(size, batch)[name], max(size["gradients"] // 16, 8)
            trace = simulate(Cluster(size["workers"], Exponential()), Async(), updates=gradients, seed=0)
            method = methods.async_(learning_rate=RATE)
            seconds = clock(
                {"run": lambda t=trace, p=problem, m=method: replay(t, p, m, **SILENT).params}, size["repeats"]
            )
            times.append(median(seconds["run"]) / gradients)
        _, fixed = np.polyfit(size["batches"], times, 1)
        share = min(max(fixed / times[-1], 0.0), 1.0)
        rows.append([name, *(f"{t * 1e6:.0f}" for t in times), f"{100 * share:.0f} %"])
    return rows


def report(size):
    """Return the sections of the page: title, columns, function."""
    return {
        "correctness": (
            f"Parameters after {size['agreement']} updates: largest difference to the CPU, in largest parameters",
            ["problem, execution", "difference", "same bytes again"],
            correctness,
        ),
        "overhead": (
            f"One gradient, asynchronous, {size['workers']} workers (microseconds)",
            [
                "model",
                "batch",
                "plain SGD",
                "hand-written",
                "stalegrad",
                "hand/plain",
                "stalegrad/plain",
                "stalegrad/hand",
            ],
            overheads,
        ),
        "lanes": (
            "Runs in lanes, batch 32 (gradients a second, all together)",
            ["model", *(f"{n} lanes" for n in size["lanes"]), "last / first"],
            lanes,
        ),
        "memory": (
            "Memory (MB)",
            ["model", "versions", "planned for versions", "data", "peak of the device"],
            memory,
        ),
        "launches": (
            "Microseconds of a gradient by mini-batch, and the share of the last that does not grow with it",
            ["model", *(f"batch {n}" for n in size["batches"]), "launches and latencies"],
            launches,
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", nargs="+", help="sections (all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks-gpu.md")
    parser.add_argument("--reference", type=Path, help="write the parameters of the comparison to this file")
    a = parser.parse_args()
    size = SIZES[a.size] | {"name": a.size}
    if a.reference:
        np.savez(a.reference, **runs(size))
        return
    start, device = time.perf_counter(), jax.devices()[0]
    lines = [
        "# Benchmarks on an accelerator",
        "",
        f"Written by `make bench-gpu` on {device.device_kind} ({device.platform}), jax {jax.__version__}, Python "
        f"{platform.python_version()}, medians of {size['repeats']}; how the sections are measured: "
        "`tests/benchmarks/gpu.py`.",
        "",
    ]
    for name, (title, columns, measure) in report(size).items():
        if a.only is None or name in a.only:
            lines.append(table(title, columns, measure(size)))
            print(lines[-1], flush=True)
            a.out.write_text("\n".join(lines), encoding="utf-8")  # after every section, for interrupts
    print(f"wrote {a.out} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
