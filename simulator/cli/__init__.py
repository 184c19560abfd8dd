"""The command line: ``stalegrad demo | init | run | trace | report | check | list``.

Exit codes: 0 ok, 1 a check failed, 2 usage or bad input.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from jax.errors import JaxRuntimeError
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from stalegrad._core.specs import changed_fields
from stalegrad.simulator.cli.checks import app as check_app
from stalegrad.simulator.cli.example import EXAMPLE
from stalegrad.simulator.cli.lists import LISTS, rows
from stalegrad.simulator.experiments.experiment import load_experiment
from stalegrad.simulator.experiments.result import Result, load_results
from stalegrad.simulator.experiments.run import run
from stalegrad.simulator.replays.compiling import keep_compiled
from stalegrad.simulator.sweeps.axes import Run, load_sweep
from stalegrad.simulator.timing.engine import simulate


class Commands(TyperGroup):
    """The commands; an interrupt of any of them is one sentence and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                str(interrupt) or "interrupted", markup=False
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    help="Simulate asynchronous training: when every gradient arrives, and what it is worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(check_app, name="check")
console = Console()

Spec = Annotated[Path, typer.Argument(help="A TOML file; `stalegrad init` writes one.")]


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2."""
    say = Console(stderr=True, highlight=False, soft_wrap=True, style="red", markup=False).print
    try:
        keep_compiled()
        app()
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        raise SystemExit(2) from None
    except JaxRuntimeError as error:
        say(f"error: JAX cannot do this, for want of memory perhaps: {str(error).strip().splitlines()[0]}")
        raise SystemExit(2) from None
    except MemoryError:
        say("error: there is not enough memory for this")
        raise SystemExit(2) from None


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to put pictures and table.")] = Path(
        "results/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs per method.")] = 3,
) -> None:
    """Race five methods on 16 straggling workers; ends with a table and pictures."""
    from stalegrad.simulator.cli.demo import demo

    demo(out, seeds, console)


@app.command("init")
def init_command(
    spec: Annotated[Path, typer.Argument(help="The TOML file to write.")] = Path("spec.toml"),
) -> None:
    """Write a commented example of an experiment."""
    _check_new(spec)
    spec.write_text(EXAMPLE, encoding="utf-8")
    console.print(f"Wrote {spec}. Run it: stalegrad run {spec} -o results/first", highlight=False, soft_wrap=True)


@app.command("run")
def run_command(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new directory for the result.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the spec's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Of a sweep: processes.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Of a sweep: run on the Dask cluster of this address, tcp://HOST:PORT.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Only say what would be run, and about how long it takes.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option(help="Of a sweep: stop at the first run that raises.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Of a sweep: run again what has raised.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option(min=0.0, help="Of a single run: seconds of real time between two checkpoints.")
    ] = 60.0,
) -> None:
    """Run an experiment: simulate, train, and write tables and pictures.

    A spec with a table ``sweep`` is a sweep: every combination of its lists is run once and kept in the directory;
    the same command goes on where it was interrupted, and so it does with a single experiment.
    """
    from stalegrad.simulator.cli import sweeps
    from stalegrad.simulator.cli.pictures import draw_result

    planned = load_sweep(spec)
    if planned.axes and seed is not None:
        raise ValueError(
            f"--seed = {seed} is not allowed: the spec is a sweep; write seed = [{seed}] in its [sweep]"
        )
    if scheduler is not None and (jobs > 1 or not planned.axes):
        raise ValueError(f"--scheduler = {scheduler} is not allowed: it is for sweeps, instead of --jobs")
    experiment = planned.base if seed is None else planned.base.but(seed=seed)
    if dry_run:
        sweeps.dry_run(planned.runs if planned.axes else [Run({}, experiment)], out, jobs, console)
        return
    if planned.axes:
        if not sweeps.run_sweep(planned.runs, out, console, jobs, scheduler, fail_fast, retry_failed):
            raise typer.Exit(1)
        return
    Result.check_free(out)
    sweeps.say_functions([Run({}, experiment)], console, "importing")
    checkpoint = out.parent / f"{out.name}.checkpoint"
    result = run(experiment, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    try:
        result.save(out)
    except OSError as error:
        elsewhere = result.save(Path(tempfile.mkdtemp(prefix="stalegrad-")) / out.name)
        raise OSError(f"{out} cannot be written: {error}; the result is in {elsewhere}") from None
    checkpoint.unlink(missing_ok=True)
    _print_summary(f"{experiment.method.name}, seed {experiment.seed}", result.summary())
    _print_written([out / "spec.toml", out / "trace", out / "history.parquet"])
    try:
        _print_written(draw_result(result, out))
    except Exception as error:
        raise ValueError(f"the result is in {out}, but cannot be drawn: {type(error).__name__}: {error}") from None


@app.command("trace")
def trace_command(
    spec: Spec,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Save the trace in this directory.")] = None,
    perfetto: Annotated[
        Path | None, typer.Option(help="A new JSON file for ui.perfetto.dev or chrome://tracing.")
    ] = None,
) -> None:
    """Simulate an experiment's timing only: no model, no training."""
    from stalegrad.simulator.cli.sweeps import say_functions

    experiment = load_experiment(spec)
    if perfetto is not None:
        _check_new(perfetto)
    say_functions([Run({}, experiment)], console, "importing")
    if experiment.method.adaptive:
        console.print("The timing of this method depends on the loss, so the training runs too.")
        trace = run(experiment).trace
    else:
        trace = simulate(
            experiment.cluster,
            experiment.method.synchrony,
            seed=experiment.seed,
            **changed_fields(experiment.budget),
        )
    _print_summary(f"Trace of {experiment.method.synchrony.name}, seed {experiment.seed}", trace.summary())
    if out is not None:
        _print_written([trace.save(out)])
    if perfetto is not None:
        from stalegrad.analysis import to_perfetto

        _print_written([to_perfetto(trace, perfetto)])


@app.command("report")
def report_command(
    directory: Annotated[Path, typer.Argument(help="A result of `stalegrad run`, or a directory of such.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file; by default DIRECTORY/report.html.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="Error to reach; by default one that all reach.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write results as one HTML file: curves, tables, staleness, specs; several are compared."""
    from stalegrad.analysis import report

    file = directory / "report.html" if out is None else out
    if not force:
        _check_new(file, ", or --force to replace it")
    _print_written([report(load_results(directory), target).save(file, overwrite=force)])


@app.command("list")
def list_command(
    what: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(LISTS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what there is: methods, synchronies, delays, models, datasets, schedules, optimizers."""
    chosen = {name: rows(name) for name in ([what] if what else LISTS)}
    if as_json:
        print(json.dumps(chosen[what] if what else chosen, indent=2))
        return
    for name, entries in chosen.items():
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        for column in entries[0]:
            table.add_column(column, overflow="fold", no_wrap=column == "name")
        shared = _shared(entries)
        for entry in entries:
            table.add_row(*(_cell(value, shared) for value in entry.values()))
        console.print(table)
        if shared:
            console.print(f"and all have {_cell(shared)}")
        console.print()


def _check_new(file: Path, else_do: str = "") -> None:
    if file.exists():
        raise FileExistsError(f"{file} exists already: choose another name{else_do}")


def _shared(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the parameters that all of several entries have, with the same defaults."""
    first, *others = (entry.get("parameters", {}) for entry in entries)
    return {k: v for k, v in first.items() if others and all(k in other and other[k] == v for other in others)}


def _cell(value: Any, besides: Iterable[str] = ()) -> str:
    if isinstance(value, dict):
        own = {k: v for k, v in value.items() if k not in besides}
        return ", ".join(f"{k}={v!r}" if v is not None else k for k, v in own.items())
    return str(value)


def _print_summary(title: str, summary: dict[str, Any]) -> None:
    from stalegrad.simulator.cli.sweeps import short

    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), short(value))
    console.print(table)


def _print_written(paths: list[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
