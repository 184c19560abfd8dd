"""``stalegrad compare``: compare two results or stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stalegrad.simulator.cli.console import check_new, print_plainly, print_written

Side = Annotated[
    Path, typer.Argument(help="A result of `stalegrad run`, a sweep's store, or a directory of results.")
]


def compare_command(
    a: Side,
    b: Side,
    target: Annotated[
        float | None, typer.Option(help="Test error to reach; default: one that both reach.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw error against wallclock into this new PNG file.")] = None,
) -> None:
    """Compare two results or stores; seeds that both have are paired."""
    from stalegrad.simulator import compare
    from stalegrad.simulator.cli.pictures import save

    if plot is not None:
        check_new(plot)
    found = compare(a, b, target=target)
    print_plainly(f"a: {a}\nb: {b}\n")
    print_plainly(found.table.to_string(float_format="{:.4g}".format, na_rep="-"))
    for words in found.words:
        print_plainly(f"\n{words}")
    if plot is not None:
        print_written([save(found.plot(), plot)])
