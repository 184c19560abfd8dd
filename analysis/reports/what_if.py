"""Report on a job under other synchronies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from stalegrad._core.protocols import WhatIfLike
from stalegrad.analysis.plots.axes import axis_label
from stalegrad.analysis.plots.curves import plot_curves
from stalegrad.analysis.plots.what_if import plot_what_if
from stalegrad.analysis.reports.page import (
    heading,
    hundredths,
    number,
    page,
    paragraph,
    percent,
    picture,
    table,
)
from stalegrad.analysis.reports.report import Report
from stalegrad.analysis.statistics.curves import shown_column

WORKERS = 10
"""Largest number of workers in the list, the slowest first."""

FIRST = 4
"""Number of sentences before the table; the others describe how it was computed."""

Columns: TypeAlias = dict[str, tuple[str, Callable[[Any], str]]]
"""Columns of a table on the page: their titles, and the formats of their values."""

COLUMNS: Columns = {
    "throughput": ("gradients per s", number), "speedup": ("over sync", hundredths),
    "low": ("low", hundredths), "high": ("high", hundredths), "time_per_update": ("s per update", number),
    "idle": ("idle", percent), "wasted": ("wasted", percent), "staleness": ("mean staleness", hundredths),
    "staleness_p99": ("99 %", number),
}  # fmt: skip


def what_if_report(answer: WhatIfLike) -> Report:
    """Return the report: sentences, table, picture, the slowest workers, and how the numbers were computed."""
    title = f"What if? {answer.name}"
    columns = dict(COLUMNS)
    if answer.histories:
        column = shown_column([run for runs in answer.histories.values() for run in runs])
        columns[column] = (axis_label(column).split(" (")[0], number)
    body = [heading(title, 1), *map(paragraph, answer.words[:FIRST])]
    body += [
        heading("Synchronies"),
        table(answer.table, columns),
        paragraph(
            "Gradients per second counts used gradients; over sync is its ratio to that of the synchronous job, "
            "with a 95 % interval. Idle and wasted (cancelled or discarded) are shares of the workers' time. "
            "Staleness is in updates; the column 99 % is the staleness that 99 % of the used gradients do not "
            "exceed.",
            "under",
        ),
        picture(
            plot_what_if(answer.table),
            "Speed-up over the synchronous job against mean staleness: faster at the top, less stale at the left.",
        ),
    ]
    if answer.histories:
        label = axis_label(column)
        log = all((run[column] > 0).all() for runs in answer.histories.values() for run in runs)
        caption = f"{label} against wallclock on the recorded times."
        body.append(picture(plot_curves(answer.histories, y=column, log=log), caption[0].upper() + caption[1:]))
    body += [*_workers(answer), heading("How this was computed"), *map(paragraph, answer.words[FIRST:])]
    return Report(page(title, "".join(body)))


def _workers(answer: WhatIfLike) -> list[str]:
    slowest = answer.workers.sort_values("slowdown", ascending=False, kind="stable")[:WORKERS]
    slowest = slowest.assign(slow=np.where(slowest["slow"], "yes", "no"))
    few = f"The {WORKERS} slowest of {len(answer.workers)}. " if len(answer.workers) > WORKERS else ""
    columns: Columns = {
        "mean": ("mean time (s)", number),
        "slowdown": ("S alone", hundredths),
        "slow": ("always slow", str),
    }
    return [
        heading("Workers"),
        paragraph(
            f"{few}S alone is the time of the synchronous job if all other workers took the mean time of each "
            f"step, over that of the ideal job. For the measured times of all workers it is "
            f"S = {answer.slowdown:.2f}."
        ),
        table(slowest, columns),
    ]
