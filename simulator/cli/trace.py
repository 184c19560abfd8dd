"""``stalegrad trace``: simulate the timing, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stalegrad.simulator.cli.console import (
    Spec,
    check_new,
    console,
    print_functions,
    print_plainly,
    print_summary,
    print_table,
    print_written,
)

if TYPE_CHECKING:
    from stalegrad.simulator.timing.anatomy import Anatomy


def trace_command(
    spec: Spec,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Save the trace in this directory.")] = None,
    perfetto: Annotated[
        Path | None, typer.Option(help="Write events for ui.perfetto.dev or chrome://tracing to this JSON file.")
    ] = None,
) -> None:
    """Simulate the timing of an experiment, without a model and without training."""
    from stalegrad._core.specs import changed_fields
    from stalegrad.simulator import load_experiment, run, simulate
    from stalegrad.simulator.replays.compiling import keep_compiled
    from stalegrad.simulator.sweeps.axes import Run

    experiment = load_experiment(spec)
    if perfetto is not None:
        check_new(perfetto)
    print_functions([Run({}, experiment)])
    if experiment.method.adaptive:
        console.print("The timing of this method depends on the loss, so the training runs too.")
        keep_compiled()
        trace = run(experiment).trace
    else:
        trace = simulate(
            experiment.timed_cluster,
            experiment.method.synchrony,
            seed=experiment.seed,
            **changed_fields(experiment.budget),
        )
    print_summary(f"Trace of {experiment.method.synchrony.name}, seed {experiment.seed}", trace.summary())
    print_anatomy(trace.anatomy())
    if out is not None:
        print_written([trace.save(out)])
    if perfetto is not None:
        from stalegrad.analysis import to_perfetto

        print_written([to_perfetto(trace, perfetto)])


def print_anatomy(anatomy: Anatomy) -> None:
    """Print, by worker, the parts of staleness, shares of gradients by fate, and speed; leave out columns of 0."""
    from stalegrad.simulator.timing.anatomy import PARTS

    rows = anatomy.table()
    columns = [name for name in (*PARTS, *anatomy.fates) if name == "used" or rows[name].any()]
    print_plainly("\nStaleness and its parts (mean updates), fates of gradients (shares), speed (gradients/s)")
    print_table(rows[["staleness", *columns, "speed"]])
