"""The console, and what several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.simulator.sweeps.axes import Run

console = Console()

Spec = Annotated[Path, typer.Argument(help="A TOML file; `stalegrad init` writes one.")]


def check_new(file: Path, otherwise: str = "") -> None:
    """Raise FileExistsError if the file exists."""
    if file.exists():
        raise FileExistsError(f"{file} exists already: choose another name{otherwise}")


def print_summary(title: str, summary: Mapping[str, object]) -> None:
    """Print names and values as a table."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), short(value))
    console.print(table)


def print_table(frame: pd.DataFrame) -> None:
    """Print a DataFrame with its index; numbers have four digits."""
    table = Table(box=None, pad_edge=False)
    table.add_column(str(frame.index.name or ""), no_wrap=True)
    for column in frame.columns:
        table.add_column(column.replace("_", " "), justify="right", overflow="fold")
    for row in frame.itertuples():
        table.add_row(*map(short, row))
    console.print(table)


def print_written(paths: Iterable[Path]) -> None:
    """Print the files that were written."""
    for path in paths:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def print_plainly(*words: object, to: Console = console) -> None:
    """Print words without markup or wrapping."""
    to.print(*words, sep="", highlight=False, markup=False, soft_wrap=True)


def print_functions(runs: Sequence[Run], to: Console = console, what: str = "importing") -> list[str]:
    """Print and return the functions that the runs will import, and so execute; import nothing."""
    from stalegrad.simulator.experiments.identity import functions_in

    names = dict.fromkeys(name for run in runs for name in functions_in(run.experiment).values())
    if names:
        print_plainly(f"{what} {', '.join(names)}", to=to)
    return list(names)


def short(value: object) -> str:
    """Return a value as tables on the terminal show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
