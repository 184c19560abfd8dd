"""``stalegrad check record | run | power``: check whether a change makes convergence worse."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stalegrad.simulator.cli.console import print_functions

if TYPE_CHECKING:
    from stalegrad.simulator.regression import Plan, Recording

app = typer.Typer(help="Check whether a change makes convergence worse.", no_args_is_help=True)

Baseline = Annotated[Path, typer.Argument(help="A file that `stalegrad check record` wrote.")]
Jobs = Annotated[int, typer.Option(min=1, help="Number of processes.")]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Worsening that is tolerated, relative to the baseline's mean; default 0.02."),
]
Alpha = Annotated[float | None, typer.Option(help="Probability that a check says worse by chance; default 0.01.")]
Metric = Annotated[list[str] | None, typer.Option(help="Compare this metric instead; may be repeated.")]


@app.command("record")
def record_command(
    spec: Annotated[
        Path, typer.Argument(help="A TOML file; run with five seeds unless its table `sweep` gives others.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; commit it.")],
    target: Annotated[
        float | None, typer.Option(help="Test error to reach; default: for each method, 90 % of its decrease.")
    ] = None,
    jobs: Jobs = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Run a spec over its seeds and write the results as a baseline."""
    from stalegrad.simulator.cli.sweep import executor_of
    from stalegrad.simulator.regression import Plan, record
    from stalegrad.simulator.regression.recording import check_new
    from stalegrad.simulator.replays.compiling import keep_compiled
    from stalegrad.simulator.sweeps.axes import load_sweep

    keep_compiled()
    check_new(out, force)
    plan = Plan.of_sweep(load_sweep(spec))
    _import_functions(plan)
    with executor_of(jobs, None) as executor:
        recording = _ended_well(lambda: record(plan, target=target, executor=executor, progress=_watched()))
    recording.save(out, force=force)
    print(f"wrote {out}: {len(recording.runs)} runs of {', '.join(recording.histories)}")
    for words in recording.lost():
        print(f"warning: {words}")
    print(f"`stalegrad check power {out}` prints the smallest worsening that these runs detect")


@app.command("run")
def run_command(
    baseline: Baseline,
    spec: Annotated[Path | None, typer.Option(help="Check that the baseline is of this spec.")] = None,
    tolerance: Tolerance = None,
    alpha: Alpha = None,
    metric: Metric = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also if anything differs.")] = False,
    jobs: Jobs = 1,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw the metrics that are worse into this directory.")
    ] = None,
    annotate: Annotated[
        bool | None,
        typer.Option("--github/--no-github", help="Print GitHub annotations; default: if GITHUB_ACTIONS is true."),
    ] = None,
) -> None:
    """Run a baseline's spec again, with the same seeds, and compare.

    Exits with 0 if everything is the same, or different but not worse; with 1 if something is worse; with 2 if the
    input is bad.
    """
    from stalegrad.simulator.cli.sweep import executor_of
    from stalegrad.simulator.regression import Plan, Recording, compare, record
    from stalegrad.simulator.regression.outputs import github, junit, pictures, text
    from stalegrad.simulator.regression.verdict import check_plan
    from stalegrad.simulator.replays.compiling import keep_compiled
    from stalegrad.simulator.sweeps.axes import load_sweep

    keep_compiled()
    before = Recording.load(baseline)
    plan = before.plan
    if spec is not None:
        check_plan(before, Plan.of_sweep(load_sweep(spec)), str(baseline))
    settings = _settings(tolerance, alpha, metric)
    compare(before, before, **settings)  # report wrong settings before any run
    _import_functions(plan)
    with executor_of(jobs, None) as executor:
        after = _ended_well(lambda: record(plan, executor=executor, progress=_watched()))
    check = compare(before, after, **settings)
    print(text(check))
    if os.environ.get("GITHUB_ACTIONS") == "true" if annotate is None else annotate:
        print("\n".join(github(check, str(baseline))))
    if junit_file is not None:
        junit_file.parent.mkdir(parents=True, exist_ok=True)
        junit_file.write_text(junit(check, baseline.stem), encoding="utf-8")
    for picture in pictures(check, plots) if plots is not None else ():
        print(f"wrote {picture}")
    if not check.passed(strict):
        raise typer.Exit(1)


@app.command("power")
def power_command(
    baseline: Baseline,
    tolerance: Tolerance = None,
    alpha: Alpha = None,
    metric: Metric = None,
    power: Annotated[float, typer.Option(help="Probability that the worsening is detected.")] = 0.8,
    correlation: Annotated[
        float, typer.Option(help="Correlation of a seed's values before and after a change; 0: none.")
    ] = 0.0,
    seeds: Annotated[list[int] | None, typer.Option(max=100_000, help="Number of seeds; may be repeated.")] = None,
) -> None:
    """Print the smallest worsening that a number of seeds detects, by the scatter of the baseline's runs."""
    from stalegrad.analysis.statistics.regression import ALPHA, TOLERANCE, power_table
    from stalegrad.simulator.regression import Recording

    recording, counts = Recording.load(baseline), tuple(seeds or (3, 5, 10, 20))
    tolerance, alpha = TOLERANCE if tolerance is None else tolerance, ALPHA if alpha is None else alpha
    settings = _settings(tolerance, alpha, metric) | {"power": power, "correlation": correlation}
    table = power_table(recording.histories, recording.targets, seeds=counts, **settings)
    shown = table.assign(mean=table["mean"].map("{:.4g}".format)).rename(
        columns={n: f"{n} seeds" for n in table.columns[4:]}
    )
    for column in shown.columns[3:]:
        shown[column] = shown[column].map("{:.2%}".format)
    print(
        f"smallest worsening called worse with probability {power:g}, tolerance {tolerance:.2%}, alpha {alpha:g}"
    )
    print(shown.to_string(index=False))


def _settings(tolerance: float | None, alpha: float | None, metrics: list[str] | None) -> dict[str, Any]:
    """Return the settings of a comparison that were given."""
    given = {"tolerance": tolerance, "alpha": alpha, "metrics": tuple(metrics) if metrics else None}
    return {name: value for name, value in given.items() if value is not None}


def _import_functions(plan: Plan) -> None:
    """Print and import the functions that a plan names: one that is missing ends the command before any run."""
    from stalegrad._core.functions import import_function

    for name in print_functions([run for _, run in plan.runs], Console(stderr=True)):
        import_function(name)


def _watched() -> bool:
    """Return whether stderr is a terminal, which shows a progress bar."""
    return sys.stderr.isatty()


def _ended_well(make: Callable[[], Recording]) -> Recording:
    """Return a recording; if a run raises, print the error and exit with 1."""
    try:
        return make()
    except RuntimeError as error:
        print(error)
        raise typer.Exit(1) from None
