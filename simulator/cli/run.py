"""``stalegrad run``: an experiment or a sweep."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stalegrad.simulator.cli.console import Spec, print_functions, print_summary, print_written


def run_command(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new directory for the result.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the spec's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes, for a sweep.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Dask cluster to run a sweep on: tcp://HOST:PORT.")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print what would run, with an estimate of time and memory.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option(help="Stop a sweep at the first run that fails.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Run the failed runs of a sweep again.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option(min=0.0, help="Seconds of real time between checkpoints of a single run.")
    ] = 60.0,
) -> None:
    """Run an experiment: simulate, train, and write tables and pictures.

    A spec with a table ``sweep`` is a sweep: every combination of its lists is run once and kept in the directory.
    After an interrupt, the same command continues; this holds for sweeps and for single experiments.
    """
    from stalegrad.simulator import Result, run
    from stalegrad.simulator.cli.sweep import dry_run as print_plan, run_sweep
    from stalegrad.simulator.replays.compiling import keep_compiled
    from stalegrad.simulator.sweeps.axes import Run, load_sweep

    keep_compiled()
    planned = load_sweep(spec)
    if planned.axes and seed is not None:
        raise ValueError(
            f"--seed = {seed} is not allowed: the spec is a sweep; write seed = [{seed}] in its [sweep]"
        )
    if scheduler is not None and (jobs > 1 or not planned.axes):
        raise ValueError(f"--scheduler = {scheduler} is not allowed: it is for sweeps, instead of --jobs")
    experiment = planned.base if seed is None else planned.base.but(seed=seed)
    if dry_run:
        print_plan(planned.runs if planned.axes else [Run({}, experiment)], out, jobs)
        return
    if planned.axes:
        if not run_sweep(planned.runs, out, jobs, scheduler, fail_fast, retry_failed):
            raise typer.Exit(1)
        return
    Result.check_free(out)
    print_functions([Run({}, experiment)])
    checkpoint = out.parent / f"{out.name}.checkpoint"
    result = run(experiment, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    try:
        result.save(out)
    except OSError as error:
        elsewhere = result.save(Path(tempfile.mkdtemp(prefix="stalegrad-")) / out.name)
        raise OSError(f"{out} cannot be written: {error}; the result is in {elsewhere}") from None
    checkpoint.unlink(missing_ok=True)
    print_summary(f"{experiment.method.name}, seed {experiment.seed}", result.summary())
    print_written([out / "spec.toml", out / "trace", out / "history.parquet"])
    from stalegrad.simulator.cli.pictures import draw_result

    try:
        print_written(draw_result(result, out))
    except Exception as error:
        raise ValueError(f"the result is in {out}, but cannot be drawn: {type(error).__name__}: {error}") from None
