"""``stalegrad report``: results as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stalegrad.simulator.cli.console import check_new, print_written


def report_command(
    directory: Annotated[Path, typer.Argument(help="A result of `stalegrad run`, or a directory of results.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file; default: DIRECTORY/report.html.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Test error to reach; default: one that all runs reach.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write results as one HTML file with curves, tables, staleness and specs; compare several."""
    from stalegrad.analysis import report
    from stalegrad.simulator.experiments.result import load_results

    file = directory / "report.html" if out is None else out
    if not force:
        check_new(file, ", or --force to replace it")
    print_written([report(load_results(directory), target).save(file, overwrite=force)])
