"""``stalegrad run`` of a spec with a table ``[sweep]``."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stalegrad.simulator.sweeps.axes import SweepSpec, experiments
from stalegrad.simulator.sweeps.store import Store, key_of
from stalegrad.simulator.sweeps.sweep import SweepResult, label, sweep

COLUMNS = ("wallclock", "updates", "mean_staleness", "idle", "train_loss", "test_loss", "test_error")


def run_sweep(
    planned: SweepSpec,
    out: Path,
    console: Console,
    jobs: int,
    dry_run: bool,
    fail_fast: bool,
    retry_failed: bool,
) -> bool:
    """Run a sweep into a store and print a table; return whether every run finished."""
    base, mode = planned.base, planned.mode
    axes: dict[str, Any] = planned.axes
    if dry_run:
        todo = experiments(base, axes, mode)
        done = {key for key in Store(out)} if (out / "store.json").exists() else set()
        missing = [point for point, experiment in todo if key_of(experiment) not in done]
        console.print(f"{len(todo)} runs, {len(todo) - len(missing)} of them done already; to be run:")
        for point in missing:
            console.print(f"  {label(point)}", highlight=False, soft_wrap=True)
        return True
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if jobs > 1 else nullcontext()
    with pool as executor:
        result = sweep(
            base, store=out, mode=mode, executor=executor, fail_fast=fail_fast, retry_failed=retry_failed, **axes
        )
    show(result, console)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)
    return not result.failed


def show(result: SweepResult, console: Console) -> None:
    """Print the mean over what is otherwise equal, and what raised."""
    by = [column for column in result.runs.columns if column in ("method", *result.axes) and column != "seed"]
    if len(result):
        mean = result.runs.assign(**{c: result.runs[c].astype(str) for c in by}).groupby(by, sort=False)
        numbers = mean[list(COLUMNS)].mean().assign(runs=mean.size()).reset_index()
        table = Table(title="Means over runs", title_justify="left", box=None, pad_edge=False)
        for column in numbers.columns:
            table.add_column(column.replace("_", " "), no_wrap=column == "method")
        for row in numbers.itertuples(index=False):
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
        console.print(table)
    for point, said in result.failed.items():
        console.print(f"failed: {point}: {said}", style="red", highlight=False, markup=False, soft_wrap=True)
