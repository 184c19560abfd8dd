"""``stalegrad what-if``: a job under other synchronies, from its measured step times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stalegrad.simulator.cli.arguments import named, pair
from stalegrad.simulator.cli.console import print_plainly, print_written

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.policies import Method
    from stalegrad.policies.synchrony import Synchrony
    from stalegrad.simulator import Experiment

NAMES = {
    "throughput": "grad/s", "speedup": "over sync", "time_per_update": "s/update", "idle": "idle",
    "wasted": "wasted", "staleness": "stale", "staleness_p99": "99 %",
}  # fmt: skip
"""Columns of the table, and their names on the terminal."""


def what_if_command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Step times: CSV or Parquet with worker, step, seconds; or alibaba-job-1 to -4."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new directory for the page, the picture and the tables.")
    ] = None,
    synchrony: Annotated[
        list[str] | None,
        typer.Option(
            "--synchrony",
            "-s",
            help="Synchrony to compare, e.g. k-async:k=4 (see `stalegrad list synchronies`), or a method with its "
            "own rate, e.g. async:learning_rate=0.02; may be repeated.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Name of a column, e.g. worker=host; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only rows with this value, e.g. job=SE; may be repeated.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the times: s, ms, us or ns.")] = None,
    skip: Annotated[int, typer.Option(min=0, help="Number of first steps to leave out (warm-up).")] = 0,
    compute_only: Annotated[
        bool, typer.Option("--compute-only", help="Take times as computing alone, even if all workers agree.")
    ] = False,
    message_bytes: Annotated[float, typer.Option(min=0.0, help="Bytes of a gradient, and of a model.")] = 0.0,
    link: Annotated[
        list[str] | None,
        typer.Option(
            help="upload, download, ingress, egress (bytes/s); uplink, downlink (s): e.g. upload=1.25e9."
        ),
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Train the problem of this TOML file, at its method's learning rate; it needs no cluster."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of a training.")] = 1,
) -> None:
    """Print what waiting costs a job, which workers are slow, and how other synchronies would do.

    Without --spec the answer is about time only: an upper bound on what they would gain.
    """
    from stalegrad.simulator import what_if
    from stalegrad.simulator.experiments.result import Result
    from stalegrad.simulator.replays.compiling import keep_compiled

    if out is not None:
        Result.check_free(out)
    experiment = None if spec is None else _experiment(spec)
    if experiment is not None:
        keep_compiled()
    answer = what_if(
        _rows(file, only or ()),
        None if not synchrony else [_contestant(text) for text in synchrony],
        None if experiment is None else experiment.problem,
        message_bytes,
        None if not link else dict(_number(text, "--link") for text in link),
        learning_rate=0.1 if experiment is None else experiment.method.learning_rate,
        seeds=seeds,
        columns=None if not column else dict(pair(text, "--column") for text in column),
        unit=unit,
        skip=skip,
        compute_only=compute_only,
    )
    print_plainly(shown(answer.table))
    for words in answer.words:
        print_plainly(f"\n{words}")
    if out is not None:
        print_written(sorted(answer.save(out).iterdir()))


def shown(table: pd.DataFrame) -> str:
    """Return the table of an answer as the terminal shows it: intervals beside the speed-up, shares in percent."""
    found = table.drop(columns=["low", "high", "exact"]).rename(columns=NAMES)
    ends = zip(table["speedup"], table["low"], table["high"], strict=True)
    found["over sync"] = [f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in ends]
    for name in ("idle", "wasted"):
        found[name] = found[name].map("{:.0%}".format)
    found["stale"] = found["stale"].map("{:.3g}".format)
    return found.rename_axis(None).to_string(float_format="{:.4g}".format)


def _rows(file: str, only: Sequence[str]) -> object:
    """Return a file, or the rows of it that have certain values."""
    if not only:
        return file
    import pandas as pd

    from stalegrad._core.specs import unknown_name
    from stalegrad.simulator.timing.delays.step_times import ALLOWED
    from stalegrad.simulator.timing.logs.sources import load

    found = load(file, "a log of step times", ALLOWED)
    kept = pd.DataFrame({name: list(values) for name, values in found.columns.items()})
    for text in only:
        name, value = pair(text, "--only")
        if name not in kept:
            raise ValueError(f"{file}: {unknown_name('column', name, kept.columns)}")
        rows = kept[name].astype(str) == value
        if not rows.any():
            known = ", ".join(kept[name].astype(str).unique()[:10])
            raise ValueError(f"{file}: no row has {name} = {value}; there are {known}")
        kept = kept[rows]
    return kept.reset_index(drop=True)


def _contestant(text: str) -> Synchrony | Method:
    """Return the synchrony of a text like ``k-async:k=4``; with a learning rate, the method of that name."""
    from stalegrad.policies.methods import method
    from stalegrad.policies.synchrony import SYNCHRONIES

    name, parameters = named(text, "--synchrony")
    if "learning_rate" in parameters:
        return method(name, parameters)
    found: Synchrony = SYNCHRONIES.from_table({"name": name, **parameters})
    return found


def _experiment(spec: Path) -> Experiment:
    """Return the experiment of a TOML file, of which only the problem and the learning rate are used.

    Cluster and budget come from the log, so the file may lack them.
    """
    from stalegrad.simulator.experiments.experiment import read_experiment, read_toml
    from stalegrad.simulator.timing.budget import Budget

    table = read_toml(spec)
    unused: dict[str, object] = {"cluster": {"workers": 1}}
    if not {field.name for field in fields(Budget)} & set(table):
        unused["updates"] = 1
    try:
        return read_experiment({**unused, **table})
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from None


def _number(text: str, option: str) -> tuple[str, float | str]:
    name, value = pair(text, option)
    try:
        return name, float(value)
    except ValueError:
        return name, value
