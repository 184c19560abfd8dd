"""Comparison of stalegrad with other software: ``make bench-peers`` prints tables and writes results/peers.md.

Every contestant runs in its own process, one at a time, all of them in turn within a repeat. A rate is the median
over repeats; a ratio is the median of the ratios within a repeat. The docstring of the contestant's ``run_*.py``
describes its settings.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
YARDSTICK = ("stalegrad", "fastest")


class Case(NamedTuple):
    """Contestant, setting, and the number of gradients of a timed run on each workload (missing: not run)."""

    contestant: str
    setting: str
    gradients: dict[str, int]
    once: bool = False  # too slow to be repeated


CASES = [
    Case("stalegrad", "defaults", {"w1": 200_000, "mlp": 20_000, "cnn": 2_000}),
    Case("stalegrad", "fastest", {"w1": 200_000, "mlp": 20_000, "cnn": 2_000}),
    Case("stalegrad", "replay", {"w1": 200_000, "mlp": 20_000, "cnn": 2_000}),
    Case("bare", "autograd", {"w1": 20_000, "mlp": 10_000, "cnn": 2_000}),
    Case("bare", "by-hand", {"w1": 100_000, "mlp": 20_000}),
    Case("flgo", "defaults", {"w1": 500, "mlp": 300, "cnn": 150}),
    Case("flgo", "fastest", {"w1": 2_000, "mlp": 1_000, "cnn": 500}),
    Case("flgo", "faithful", {"w1": 1_000}),
    Case("appfl", "defaults", {"w1": 20}, once=True),
    Case("appfl", "fastest", {"w1": 1_000, "mlp": 500, "cnn": 300}),
]
SIZES = [100, 1_000, 10_000]
AT_SIZE = {
    ("stalegrad", "fastest"): 200_000,
    ("bare", "by-hand"): 100_000,
    ("flgo", "fastest"): 200,
    ("appfl", "fastest"): 200,
}
"""Numbers of gradients for the table of memory: every worker has read a version when the first one is applied."""

Result = dict[str, Any]


def run(
    python: dict[str, str], limit: float, case: tuple[str, str], workload: str, workers: int, gradients: int
) -> Result:
    """Run one contestant; return its printed result, or ``{}`` if it made no update within the limit.

    Raises:
        RuntimeError: if it fails.
    """
    contestant, setting = case
    command = [python.get(contestant, python["peers"]), str(HERE / f"run_{contestant}.py")]
    given = {"workload": workload, "setting": setting, "workers": workers, "gradients": gradients, "limit": limit}
    command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command += ["--started", str(time.monotonic())]
    print(f"{contestant} ({setting}), {workload}, {workers} workers ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit + 30, check=False)
    except subprocess.TimeoutExpired:
        return {}
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def number(value: float) -> str:
    """Return a number with three digits, or a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def middle(results: list[Result], key: str) -> str:
    values = [r[key] for r in results if r.get(key) is not None]
    return number(median(values)) if values else "none"


def race(workload: str, workers: int, repeats: int, start: Any, limit: float) -> tuple[str, dict[str, str]]:
    """Return the table of one workload, and the versions of the packages."""
    cases = [case for case in CASES if workload in case.gradients]
    results: dict[tuple[str, str], list[Result]] = {case[:2]: [] for case in cases}
    for repeat in range(repeats):
        for case in cases:
            if not (case.once and repeat):
                results[case[:2]].append(start(case[:2], workload, workers, case.gradients[workload]))
    rows = []
    for case in cases:
        made = [r for r in results[case[:2]] if r]
        if not made:
            rows.append([case.contestant, case.setting, f"no update in {limit:g} s", *[""] * 7])
            continue
        rates = [r["rate"] for r in made if r["rate"]]
        ratios = [
            ours["rate"] / theirs["rate"]
            for ours, theirs in zip(results[YARDSTICK], results[case[:2]], strict=False)
            if ours.get("rate") and theirs.get("rate")
        ]
        rows.append(
            [
                case.contestant,
                case.setting,
                middle(made, "rate"),
                f"{number(min(rates))} to {number(max(rates))}" if rates else "",
                number(median(ratios)) if ratios else "",
                middle(made, "first_from_start"),
                middle(made, "first_from_call"),
                f"{made[0]['updates']:,} / {made[0]['gradients']:,}",
                f"{made[0]['loss']:.2f}",
                same(made),
            ]
        )
    columns = [
        "system",
        "setting",
        "gradients/s",
        "range",
        "rate of stalegrad (fastest) over this rate",
        "first update, s from start",
        "s from call",
        "updates / gradients",
        "loss at the end",
        "same seed, same parameters",
    ]
    versions = {k: v for made in results.values() for r in made for k, v in r.get("versions", {}).items()}
    return table(f"{WORKLOADS[workload].title}; {workers} workers", columns, rows), versions


def memory(start: Any, limit: float) -> str:
    """Return the table of peak memory by number of workers."""
    rows = []
    for case, gradients in AT_SIZE.items():
        row = [*case]
        for workers in SIZES:
            result = start(case, "w1", workers, gradients)
            row.append(f"{result['peak_bytes'] / 2**20:,.0f}" if result else f"no update in {limit:g} s")
            row.append(number(result["first_from_call"]) if result else "")
        rows.append(row)
    columns = [text for n in SIZES for text in (f"{n:,} workers: MiB", "first update, s from call")]
    return table("Peak resident memory, W1", ["system", "setting", *columns], rows)


def large_model(start: Any) -> str:
    """Return the memory and rate of stalegrad for the MLP with 10,000 workers and nearly as many live versions."""
    result = start(YARDSTICK, "mlp", 10_000, 100_000)
    peak = f"{result['peak_bytes'] / 2**20:,.0f}" if result else "none"
    return table(
        "stalegrad, MLP 784-64-10, 10,000 workers", ["peak MiB", "gradients/s"], [[peak, middle([result], "rate")]]
    )


def same(results: list[Result]) -> str:
    """Return whether runs with one seed, each in its own process, have the same parameters, bit for bit."""
    prints = [r["fingerprint"] for r in results if r.get("complete")]
    return "" if len(prints) < 2 else "yes" if len(set(prints)) == 1 else "no"


def repeatable(start: Any) -> str:
    """Return the same for contestants too slow to be repeated, with W1, 10 workers and 20 gradients, twice."""
    rows = []
    for case in CASES:
        if case.once:
            results = [start(case[:2], "w1", 10, 20) for _ in range(2)]
            rows.append([case.contestant, case.setting, same(results), middle(results, "rate")])
    columns = ["system", "setting", "same seed, same parameters", "gradients/s"]
    return table("Repeatable? W1 with 10 workers, 20 gradients", columns, rows)


def processor() -> str:
    """Return the processor's name, if the system provides it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="a Python interpreter with torch, flgo and appfl")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats of a median (default 3)")
    parser.add_argument("--workers", type=int, default=100, help="workers of the timed runs (default 100)")
    parser.add_argument("--limit", type=float, default=300, help="seconds allowed for one process (default 300)")
    parser.add_argument("--out", type=Path, default=Path("results/peers.md"))
    a = parser.parse_args()
    python = {"stalegrad": sys.executable, "peers": a.peers}
    parts: list[str] = []

    def start(*arguments: Any) -> Result:
        return run(python, a.limit, *arguments)

    def show(part: str) -> None:
        parts.append(part)
        print(part, flush=True)
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text("\n".join(parts))

    show(
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {a.repeats}; "
        f"at most {a.limit:g} s a process\n"
    )
    versions: dict[str, str] = {}
    for workload in WORKLOADS:
        part, met = race(workload, a.workers, a.repeats, start, a.limit)
        versions |= met
        show(part)
    show(memory(start, a.limit))
    show(large_model(start))
    show(repeatable(start))
    show("Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "\n")
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
