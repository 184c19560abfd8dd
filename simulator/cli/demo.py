"""``stalegrad demo``: the main job, on the embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from stalegrad.analysis import comparison, plot_curves, plot_staleness, plot_timeline
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator.cli.pictures import save
from stalegrad.simulator.replay.record import Record
from stalegrad.simulator.sweeps.experiment import Experiment
from stalegrad.simulator.sweeps.result import Result, run
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import ShiftedExponential

TARGET = 0.22
LEARNING_RATE = 0.02


def demo(out: Path, seeds: int, console: Console) -> None:
    """Race five methods on a straggling cluster; write a table and pictures to ``out``."""
    base = Experiment(
        problem=Problem("mlp", "fashion-mnist-small", batch_size=2),
        cluster=Cluster(workers=16, compute=ShiftedExponential(shift=1.0, scale=1.0)),
        method=methods.sync(learning_rate=LEARNING_RATE),
        wallclock=1500.0,
        record=Record(wallclock=30.0),
    )
    contestants = [
        methods.sync(learning_rate=LEARNING_RATE),
        methods.k_sync(k=4, learning_rate=LEARNING_RATE),
        methods.async_(learning_rate=LEARNING_RATE),
        methods.k_async(k=4, learning_rate=LEARNING_RATE),
        methods.k_batch_async(k=4, learning_rate=LEARNING_RATE),
    ]
    results: dict[str, list[Result]] = {}
    for method in contestants:
        runs = results.setdefault(method.name, [])
        for seed in range(seeds):
            runs.append(run(base.but(method=method, seed=seed)))

    histories = {name: [r.history for r in runs] for name, runs in results.items()}
    table = comparison({name: [(r.trace, r.history) for r in runs] for name, runs in results.items()}, TARGET)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "table.csv")
    pictures = [
        save(plot_curves(histories), out / "error-against-wallclock.png"),
        save(
            plot_staleness({name: [r.trace for r in runs] for name, runs in results.items()}),
            out / "staleness.png",
        ),
        *(
            save(plot_timeline(results[name][0].trace), out / f"timeline-{name}.png")
            for name in ("sync", "k-sync", "async", "k-async")
        ),
    ]
    console.print(_shown(table))
    for path in [out / "table.csv", *pictures]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _shown(frame: Any) -> Table:
    table = Table(title="16 workers, 1 s + exponential(1 s) a gradient", title_justify="left")
    table.add_column("method")
    for column in frame.columns:
        table.add_column(str(column).replace("_", " "), justify="right")
    for name, row in frame.iterrows():
        table.add_row(str(name), *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    return table
