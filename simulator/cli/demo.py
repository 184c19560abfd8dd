"""``stalegrad demo``: methods compared on the embedded data, with pictures and a table."""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from stalegrad.simulator.cli.arguments import named
from stalegrad.simulator.cli.console import console

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.policies import Method
    from stalegrad.simulator import Result

TARGET = 0.25
LEARNING_RATE = 0.0125
WORKERS = 16
FIVE = ("sync", "k-sync", "async", "k-async", "k-batch-async")
TIMELINES = 4
"""Methods whose timelines are drawn: the first ones."""

NEEDED = {
    "k": 4,
    "tau": 8,
    "bound": 4,
    "backups": 4,
    "threshold": WORKERS,
    "batch": WORKERS,
    "trials": 2,
    "limit": 3.0,
    "delay": 4,
    "seconds": (2.0,) * WORKERS,
}
"""Values of parameters that have no default."""


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for pictures and table.")] = Path(
        "results/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs per method.")] = 3,
    chosen: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Compare this method instead: NAME, or NAME:PARAMETER=VALUE,...; may be repeated."
        ),
    ] = None,
) -> None:
    """Compare methods on 16 straggling workers, by default five of them; write a table and pictures.

    Example: stalegrad demo --method async --method ringmaster:threshold=8
    """
    from stalegrad.analysis import comparison, plot_curves, plot_staleness, plot_timeline
    from stalegrad.models import Problem
    from stalegrad.simulator import Cluster, Experiment, Record, ShiftedExponential, run
    from stalegrad.simulator.cli.pictures import save
    from stalegrad.simulator.replays.compiling import keep_compiled

    contestants = dict(map(contestant, chosen or FIVE))
    base = Experiment(
        problem=Problem("mlp", "fashion-mnist-small", batch_size=1),
        cluster=Cluster(workers=WORKERS, compute=ShiftedExponential(shift=1.0, scale=1.0)),
        method=next(iter(contestants.values())),
        wallclock=1500.0,
        record=Record(wallclock=50.0, train_examples=1_000),
    )
    planned = [
        (label, base.but(method=chosen, seed=seed))
        for label, chosen in contestants.items()
        for seed in range(seeds)
    ]
    keep_compiled()
    results: dict[str, list[Result]] = {}
    for label, experiment in track(planned, "running", console=console):
        result = run(experiment, progress=False)
        results.setdefault(label, []).append(result)
        place = out / "runs" / f"{label}-{experiment.seed}"
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
            for name in list(results)[:TIMELINES]
        ),
    ]
    console.print(_shown(table))
    for path in [out / "table.csv", *pictures, out / "runs"]:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    console.print(f"All in one file: stalegrad report {out}", highlight=False, soft_wrap=True)


def contestant(text: str) -> tuple[str, Method]:
    """Return the label of a method, and the method, from ``NAME`` or ``NAME:PARAMETER=VALUE,...``.

    Parameters without a default have the values of ``NEEDED``.

    Raises:
        ValueError: for an unknown method or parameter, a wrong value, or text without ``=``.
    """
    from stalegrad.policies.methods import REGISTRY

    name, given = named(text, "--method")
    info = REGISTRY.find(name)
    required = [key for key, p in inspect.signature(info).parameters.items() if p.default is p.empty]
    arguments: dict[str, Any] = {"learning_rate": LEARNING_RATE, **{key: NEEDED[key] for key in required}, **given}
    settings = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{name}({settings})" if given else name, info(**arguments)


def _shown(frame: pd.DataFrame) -> Table:
    table = Table(
        box=None, title=f"{WORKERS} workers, a gradient takes 1 s + exponential(1 s); medians over seeds"
    )
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
        table.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
    for _, row in frame.iterrows():
        table.add_row(*(show(row) for show in columns.values()))
    return table


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
