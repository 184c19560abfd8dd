"""``stalegrad demo``: five methods on the embedded data, with pictures and a table."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.table import Table

from stalegrad.simulator.cli.console import console

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.simulator import Result

TARGET = 0.25
LEARNING_RATE = 0.0125


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to put pictures and table.")] = Path(
        "results/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs per method.")] = 3,
) -> None:
    """Race five methods on 16 straggling workers; ends with a table and pictures."""
    from stalegrad.analysis import comparison, plot_curves, plot_staleness, plot_timeline
    from stalegrad.models import Problem
    from stalegrad.policies import methods
    from stalegrad.simulator import Cluster, Experiment, Record, ShiftedExponential, run
    from stalegrad.simulator.cli.pictures import save
    from stalegrad.simulator.replays.compiling import keep_compiled

    keep_compiled()
    base = Experiment(
        problem=Problem("mlp", "fashion-mnist-small", batch_size=1),
        cluster=Cluster(workers=16, compute=ShiftedExponential(shift=1.0, scale=1.0)),
        method=methods.sync(learning_rate=LEARNING_RATE),
        wallclock=1500.0,
        record=Record(wallclock=50.0, train_examples=1_000),
    )
    contestants = [
        methods.sync(learning_rate=LEARNING_RATE),
        methods.k_sync(k=4, learning_rate=LEARNING_RATE),
        methods.async_(learning_rate=LEARNING_RATE),
        methods.k_async(k=4, learning_rate=LEARNING_RATE),
        methods.k_batch_async(k=4, learning_rate=LEARNING_RATE),
    ]
    results: dict[str, list[Result]] = {}
    for method, seed in track(
        [(method, seed) for method in contestants for seed in range(seeds)], "racing", console=console
    ):
        result = run(base.but(method=method, seed=seed), progress=False)
        results.setdefault(method.name, []).append(result)
        place = out / "runs" / f"{method.name}-{seed}"
        if (place / "result.json").exists():  # of an earlier demo
            shutil.rmtree(place)
        result.save(place)

    histories = {name: [r.history for r in runs] for name, runs in results.items()}
    table = comparison({name: [(r.trace, r.history) for r in runs] for name, runs in results.items()}, TARGET)
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "table.csv")
    pictures = [
        save(plot_curves(histories, log=True), out / "error-against-wallclock.png"),
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
    for path in [out / "table.csv", *pictures, out / "runs"]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    console.print(f"All in one file: stalegrad report {out}", highlight=False, soft_wrap=True)


def _shown(frame: pd.DataFrame) -> Table:
    table = Table(box=None, title="16 workers, a gradient takes 1 s + exponential(1 s); medians over the seeds")
    columns: dict[str, Callable[[pd.Series], str]] = {
        "method": lambda row: str(row.name),
        f"to {TARGET:g} (s)": lambda row: _number(row["wallclock"], ".0f"),
        "seeds": lambda row: f"{row['reached']:.0f} of {row['seeds']:.0f}",
        "updates": lambda row: _number(row["updates"], ",.0f"),
        "staleness": lambda row: _number(row["mean_staleness"], ".2f"),
        "idle": lambda row: _number(row["idle"], ".0%"),
        "wasted": lambda row: _number(row["wasted"], ".0%"),
        "error": lambda row: _number(row["test_error"], ".3f"),
    }
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    for _, row in frame.iterrows():
        table.add_row(*(show(row) for show in columns.values()))
    return table


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
