"""Sentences on the meaning and the certainty of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from stalegrad.simulator.whatif.grid import Grid
from stalegrad.simulator.whatif.rows import Sample, blocks_of
from stalegrad.simulator.whatif.training import Histories

LITTLE = 1.05
"""Largest speed-up, including its interval, that counts as no gain."""

SHORT = 100
"""Number of steps below which a sentence calls the intervals rough."""

NAMED = 4
"""Largest number of workers whose share of the slow-down a sentence names."""


class Facts(NamedTuple):
    """The facts behind the sentences.

    Attributes:
        grid: the measured times.
        sample: steps that were simulated.
        slowdown: S, the factor by which waiting lengthens the synchronous job.
        workers: S_w of every worker, and whether it is slow.
        imbalance: sentence on whether slowness is random or persistent.
        table: table of the answer.
        histories: histories of the training; empty without a problem.
        linked: whether communication takes time.
    """

    grid: Grid
    sample: Sample
    slowdown: float
    workers: pd.DataFrame
    imbalance: str
    table: pd.DataFrame
    histories: Histories
    linked: bool


def sentences(facts: Facts) -> Iterator[str]:
    """Yield the sentences, the most important first."""
    yield _job(facts)
    yield _who(facts)
    yield _gain(facts)
    yield _meaning(facts)
    yield _method(facts)
    yield _certainty(facts)


def _job(facts: Facts) -> str:
    grid = facts.grid
    seconds = float(grid.seconds.max(axis=1).sum())
    left = f" ({grid.left_out:,} at the end, which not all have made, are left out)" if grid.left_out else ""
    return (
        f"{len(grid.workers):,} workers, {grid.steps:,} steps{left}: computing takes a synchronous job "
        f"{seconds:,.6g} s, S = {facts.slowdown:.2f} times as long as if every worker took the mean time of each "
        "step."
    )


def _who(facts: Facts) -> str:
    slow = facts.workers[facts.workers["slow"]].sort_values("slowdown", ascending=False, kind="stable")
    named = ", ".join(f"{share:.2f} by worker {worker}" for worker, share in slow["slowdown"][:NAMED].items())
    alone = f" S caused by a slow worker alone, if all others took the mean time: {named}." if named else ""
    return f"{facts.imbalance}{alone}"


def _gain(facts: Facts) -> str:
    table = facts.table
    row = table.sort_values("speedup", kind="stable").iloc[-1]
    row = table[table["speedup"] == row["speedup"]].iloc[0]
    interval = f"{row['speedup']:.2f} times (95 % interval {row['low']:.2f} to {row['high']:.2f})"
    if max(row["high"], row["speedup"]) <= LITTLE:
        return (
            f"There is nothing to gain: no synchrony uses more than {interval} as many gradients per second as "
            "sync does."
        )
    stale = (
        f" These gradients are stale by {row['staleness']:.3g} updates in the mean, 99 % of them by at most "
        f"{row['staleness_p99']:.0f}."
        if row["staleness"] > 0 else ""
    )  # fmt: skip
    fresh = table[table["staleness_p99"] == 0]["speedup"]
    without = ""
    if row["staleness"] > 0 and len(fresh) and fresh.max() > LITTLE:
        without = f" Without any staleness it is at most {fresh.max():.2f} times, by {fresh.idxmax()}."
    return f"Most gradients per second are used by {row.name}: {interval} as many as by sync.{stale}{without}"


def _meaning(facts: Facts) -> str:
    if not facts.histories:
        return (
            "This is an upper bound, not advice to switch: no problem was given, so the cost in accuracy of "
            "stale, dropped or fewer gradients per update is not known."
        )
    column = facts.table.columns[-1]
    seconds, name = facts.sample.wallclock, column.replace("_", " ")
    finite = facts.table[column].dropna()
    said = ", ".join(f"{label} {value:.4g}" for label, value in finite.sort_values().items()) or "none is finite"
    runs = len(next(iter(facts.histories.values())))
    seeds = "one seed" if runs == 1 else f"{runs} seeds"
    return (
        f"Trained on these events for {seconds:,.6g} s ({seeds}), the {name} is: {said}. This holds for this "
        "problem and these learning rates: tune the learning rate of each method before you decide."
    )


def _method(facts: Facts) -> str:
    grid, sample, exact = facts.grid, facts.sample, facts.table["exact"]
    communication = "as long as the links take" if facts.linked else "no time"
    steps = (
        "all steps" if sample.steps == grid.steps
        else f"steps {sample.start + 1:,} to {sample.start + sample.steps:,} of {grid.steps:,}, chosen because "
        "waiting costs as much there as in all,"
    )  # fmt: skip
    simulated = f"the others are simulated on {steps}" if exact.any() else f"All rows are simulated on {steps}"
    exactly = f"{', '.join(map(str, exact[exact].index))}: exact, from all steps; " if exact.any() else ""
    scaled = " and scaled by their speed-up over sync there" if exact.any() and sample.steps < grid.steps else ""
    every = "Throughputs of " if exact.any() and not exact.all() else ""
    rows = (
        f"{every}{exactly}{simulated}{scaled}."
        if not exact.all()
        else "All throughputs are exact, from all steps."
    )
    return (
        "The model is a parameter server whose workers compute in the measured times, in this order, under every "
        f"synchrony. Times are of computing alone; communication takes {communication}. A job with all-reduce is "
        f"the row sync. {rows}"
    )


def _certainty(facts: Facts) -> str:
    steps = facts.grid.steps
    rough = f" With {steps} steps they are rough." if steps < SHORT else ""
    return (
        f"Intervals come from a bootstrap over {blocks_of(steps)} blocks of consecutive steps: they cover "
        f"variation within this log, not differences to another job or another day.{rough}"
    )
