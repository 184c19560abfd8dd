"""Metrics of convergence of histories; smaller values are better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stalegrad._core.specs import unknown_name
from stalegrad.analysis.statistics.curves import Floats, diverged, shown_column
from stalegrad.analysis.statistics.targets import arrival

KINDS = ("final", "best", "mean")
ARRIVALS = {"wallclock_to_target": "wallclock", "updates_to_target": "update"}
METRICS = ("final_train_loss", "mean_train_loss", "final_test_error", "wallclock_to_target")
"""Metrics that are compared by default."""

PROGRESS = 0.9
"""Share of a method's progress, from its start to its end, at which the default target lies."""

FEW = 8
"""Least number of gaps; fewer could be multiples of a common spacing by chance."""


class Target(NamedTuple):
    """A column and the value that it must reach or fall below."""

    column: str
    value: float


class Measure(NamedTuple):
    """A metric of one run.

    Attributes:
        value: value of the metric; inf if the run never reached the target.
        start: value of the column at the start (0 for times).
        limit: value that replaces inf: the start for a loss or an error, the end of the run for a time.
        step: spacing of the history's rows at a time; 0 for values of a column.
    """

    value: float
    start: float
    limit: float
    step: float


def measure(history: pd.DataFrame, metric: str, target: Target | None = None) -> Measure | None:
    """Return a metric of one run, or None if it is unknown (no target, or no finite value at the start).

    ``final_<column>`` is the last value, ``best_<column>`` the least, ``mean_<column>`` the mean over wallclock of
    the history as a step function; ``wallclock_to_target`` and ``updates_to_target`` are those of the first row at
    or below the target. All metrics of a lost run (see :func:`lost`) are inf.

    Args:
        history: history of a run.
        metric: name of the metric.
        target: target of the arrival times.

    Raises:
        ValueError: for an unknown metric or column.
    """
    if metric in ARRIVALS:
        return None if target is None else _time(history, ARRIVALS[metric], target)
    kind, _, column = metric.partition("_")
    if kind not in KINDS or column not in history:
        columns = [c for c in history.columns if c not in ("wallclock", "update")]
        raise ValueError(
            unknown_name("metric", metric, [*ARRIVALS, *(f"{k}_{c}" for k in KINDS for c in columns)])
        )
    values = history[column].to_numpy(float)
    if not np.isfinite(values[0]):
        return None
    if lost(history):
        value = np.inf
    elif kind == "mean":
        held = np.diff(history["wallclock"].to_numpy(float))
        value = float(np.average(values[:-1], weights=held)) if held.sum() > 0 else float(values[-1])
    else:
        value = float(values[-1] if kind == "final" else np.nanmin(values))
    return Measure(value if np.isfinite(value) else np.inf, float(values[0]), float(values[0]), 0.0)


def _time(history: pd.DataFrame, x: str, target: Target) -> Measure:
    ticks = history[x].to_numpy(float)
    time = np.inf if lost(history) else arrival(history, target.value, target.column, x).time
    place = len(ticks) - 1 if np.isinf(time) else int(np.searchsorted(ticks, time))
    return Measure(time, 0.0, float(ticks[-1]), float(ticks[place] - ticks[max(place - 1, 0)]))


def lost(history: pd.DataFrame) -> bool:
    """Return whether a run is lost: its training loss ends above its start, or is not finite."""
    losses = history["train_loss"].to_numpy(float)
    return diverged(history) or bool(losses[-1] > losses[0])


def default_target(histories: Sequence[pd.DataFrame]) -> Target | None:
    """Return a target that a method's own runs reach late: 90 % of their mean progress in :func:`shown_column`.

    It is rounded to three digits, towards the start. None if all runs are lost or make no progress.
    """
    runs = [history for history in histories if not lost(history)]
    if not runs:
        return None
    column = shown_column(runs[:1])
    start, end = (float(np.mean([history[column].iloc[row] for history in runs])) for row in (0, -1))
    if not end < start:
        return None
    value = start + PROGRESS * (end - start)
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 2) if value else 1.0
    return Target(column, float(f"{min(np.ceil(value / unit) * unit, start):.6g}"))


def lattice(values: Floats) -> float:
    """Return the lattice spacing of values, such as errors on a finite test set; 0 if there is none.

    The spacing starts as the least gap and is refined with each larger gap, because values are rounded.
    """
    gaps = np.sort(np.diff(np.unique(values[np.isfinite(values)])))
    if len(gaps) < FEW:
        return 0.0
    spacing, steps = float(gaps[0]), 0
    for count, total in enumerate(np.cumsum(gaps)):
        if gaps[count] > 50 * spacing:  # the number of steps is no longer certain
            break
        here = round(gaps[count] / spacing)
        if abs(gaps[count] / spacing - here) > 0.1:
            return 0.0
        steps += here
        spacing = float(total / steps)
    return spacing
