"""``stalegrad run`` of a spec with a table ``[sweep]``, and the plan of a spec."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from stalegrad.simulator.cli.console import console, print_functions, print_plainly, short
from stalegrad.simulator.experiments.identity import canonical, canonical_text, functions_in
from stalegrad.simulator.sweeps.axes import Run
from stalegrad.simulator.sweeps.executors import ExecutorLike, dask_client, processes
from stalegrad.simulator.sweeps.forecast import distinct_traces, forecast, format_duration
from stalegrad.simulator.sweeps.results import SweepResult, label
from stalegrad.simulator.sweeps.store import Store
from stalegrad.simulator.sweeps.sweep import execute

SHOWN = 20
"""Runs of a plan that are listed."""


def dry_run(runs: Sequence[Run], out: Path, jobs: int) -> None:
    """Print the runs of a plan, how many are done, and an estimate of time and memory for the rest."""
    # Compared by specs: keys would need the functions that specs name to be imported.
    specs = Store(out).specs().values() if (out / "store.json").exists() else ()
    done = set(map(canonical_text, specs))
    missing = [run for run in runs if canonical(run.experiment) not in done]
    print_functions(runs, what="a run imports")
    print_plainly(
        f"{_count(len(runs), 'run')}, {len(runs) - len(missing)} of them done already",
        "; to be run:" if missing else "",
    )
    for run in missing[:SHOWN]:
        print_plainly(f"  {label(run) or run.experiment.method.name}")
    if len(missing) > SHOWN:
        print_plainly(f"  and {len(missing) - SHOWN} more")
    if not missing:
        return
    print_plainly(
        f"{_count(distinct_traces(missing), 'distinct trace')}: runs that differ in the rule only share one"
    )
    if any(functions_in(run.experiment) for run in missing):
        print_plainly("no estimate of time and memory: a trial would import these functions")
        return
    with console.status("running the first gradients of one run of each kind"):
        costs = forecast(missing)
    processes = f", by {jobs} processes at best {format_duration(costs.seconds / jobs)}" if jobs > 1 else ""
    print_plainly(f"about {format_duration(costs.seconds)} of real time one after the other{processes}")
    print_plainly(f"about {costs.memory / 2**30:.3g} GiB of memory", " for each process" if jobs > 1 else "")
    tried = _count(costs.kinds, "run")
    print_plainly(f"(an estimate from the first gradients of {tried}, one of each problem and method)")
    if costs.sampled:
        print_plainly("(long or wide traces were simulated in part and extrapolated)")


def run_sweep(
    runs: Sequence[Run],
    out: Path,
    jobs: int,
    scheduler: str | None,
    fail_fast: bool,
    retry_failed: bool,
) -> bool:
    """Run a sweep into a store and print a table; return whether every run finished."""
    try:
        print_functions(runs)
        with executor_of(jobs, scheduler) as executor:
            result = execute(runs, store=out, executor=executor, fail_fast=fail_fast, retry_failed=retry_failed)
    except RuntimeError as error:  # fail_fast, or a broken executor
        console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return False
    show(result)
    print_plainly(f"wrote {out}")
    return not result.failed


@contextmanager
def executor_of(jobs: int, scheduler: str | None) -> Iterator[ExecutorLike | None]:
    """Give the executor of a sweep; end its processes on an interrupt."""
    if scheduler is not None:
        with dask_client(scheduler) as client:
            yield client
    elif jobs > 1:
        with processes(jobs) as pool:
            try:
                yield pool
            except BaseException:
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    else:
        yield None


def show(result: SweepResult) -> None:
    """Print means over runs that differ in the seed only, and the runs that failed."""
    if len(result):
        means = result.means()
        same = [
            c for c in means.columns if c != "method" and len(means) > 1 and means[c].nunique(dropna=False) == 1
        ]
        table = Table(
            title="Means over runs", title_justify="left", box=None, pad_edge=False, collapse_padding=True
        )
        for column in means.columns.drop(same):
            table.add_column(column.replace("_", " "), no_wrap=column == "method", overflow="fold")
        for row in means.drop(columns=same).itertuples(index=False):
            table.add_row(*map(short, row))
        console.print(table)
        if same:
            console.print(
                "in all rows:", ", ".join(f"{c.replace('_', ' ')} {short(means[c].iloc[0])}" for c in same)
            )
    for point, said in result.failed.items():
        console.print(f"failed: {point}: {said}", style="red", highlight=False, markup=False, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
