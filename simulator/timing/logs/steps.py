"""Logs of steps: the duration of each (step times), or its start and end (intervals)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, validate
from stalegrad._core.types import Ints
from stalegrad.simulator.timing.clock import TOLERANCE
from stalegrad.simulator.timing.delays.step_times import ALLOWED, check_steps, place_of, sorted_steps
from stalegrad.simulator.timing.logs.cells import Columns, numbers, refused, workers
from stalegrad.simulator.timing.logs.sources import LogTable, load
from stalegrad.simulator.timing.logs.times import check_plausible, durations, moments

if TYPE_CHECKING:
    import pandas as pd

INTERVALS = "a table with the columns worker, start and end (or seconds), a header first"
"""Allowed content of a log of intervals."""


def read_step_times(
    source: pd.DataFrame | str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    skip: int = 0,
    whole_steps: bool = False,
) -> pd.DataFrame:
    """Read a log of step times.

    Rows may be in any order. A worker may end before others, but must have all earlier steps, so that equal steps
    belong together.

    Args:
        source: a DataFrame or a file (CSV of at most 64 MiB, gzipped CSV, Parquet). Columns: the time, called
            ``seconds``, ``duration``, ``time``, ``compute_seconds``, ``step_ms``, ...; ``worker``, also ``rank``,
            ``worker_id``, ``device``, ... (without it: one worker); ``step``, also ``iteration`` (without it: rows
            in order). A name may end with the unit of the column (``duration_ms``).
        columns: names of columns in the log, by meaning, e.g. ``{"worker": "host", "seconds": "fwd_bwd"}``.
        unit: unit of the times: ``s``, ``ms``, ``us`` or ``ns``. Default: that in the column's name, or seconds.
        skip: number of first steps of every worker that are left out as warm-up.
        whole_steps: whether to leave out the last steps that not all workers have made.

    Returns:
        Columns ``worker`` (whole numbers, or names), ``step`` and ``seconds``, sorted by worker and step, as
        :class:`Recorded` and ``fit_delays`` take them.

    Raises:
        ValueError: for a cell that is not allowed, or a step that is given twice or missing (it names the row);
            for a missing column; if the median step is not between 1e-6 and 1e5 s and ``unit`` is not given.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.simulator import read_step_times
        >>> log = pd.DataFrame({"rank": [1, 0, 0, 1], "iter": [0, 1, 0, 1], "duration_ms": [250, 300, 900, 200]})
        >>> read_step_times(log, skip=1)
           worker  step  seconds
        0       0     1      0.3
        1       1     1      0.2
    """
    table = load(source, "a log of step times", ALLOWED)
    found = sorted_steps(table, columns, unit)
    check_plausible(found.seconds, found.column, table)
    kept = _kept(found.worker, table, skip, whole_steps)
    return _frame(found.names, found.worker[kept], found.step[kept], {"seconds": found.seconds[kept]})


def read_intervals(
    source: pd.DataFrame | str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    skip: int = 0,
    whole_steps: bool = False,
    resolution: float = 0.0,
) -> pd.DataFrame:
    """Read a log of intervals: the start and end of each step of each worker.

    Args:
        source: a DataFrame or a file, as for :func:`read_step_times`. Columns: ``worker``; ``start``, also
            ``begin``, ``start_time``, ``ts``, ...; ``end``, or else ``seconds``, ``duration``, ``dur``, ...;
            ``step``, if steps have numbers. Times are ISO 8601 texts or datetimes, or numbers with any origin.
        columns: names of columns in the log, by meaning.
        unit: unit of numeric times: ``s``, ``ms``, ``us`` or ``ns``. Default: that in the columns' names, or
            seconds.
        skip: number of first steps of every worker that are left out as warm-up.
        whole_steps: whether to leave out the last steps that not all workers have made.
        resolution: seconds to which times are rounded; steps of a worker may then overlap by up to twice that.

    Returns:
        Columns ``worker, step, start, end, seconds, idle``, sorted by worker and start. The first start is at 0 s.
        ``idle`` is the time since the worker's previous step, NaN for its first. The table can also be used as a
        table of step times.

    Raises:
        ValueError: for a cell that is not allowed, an end before its start, or steps of a worker that overlap (it
            names the row); otherwise as for :func:`read_step_times`.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.simulator import read_intervals
        >>> log = pd.DataFrame({"worker": ["a", "a"], "start_ms": [1000, 1500], "end_ms": [1400, 2000]})
        >>> read_intervals(log)
          worker  step  start  end  seconds  idle
        0      a     0    0.0  0.4      0.4   NaN
        1      a     1    0.5  1.0      0.5   0.1
    """
    table = load(source, "a log of intervals", INTERVALS)
    named = Columns(table, columns, unit, ("worker", "step", "start", "end", "seconds"))
    owner, begin, stop = named.require("worker", INTERVALS), named.require("start", INTERVALS), named.find("end")
    length = named.require("seconds", INTERVALS) if stop is None else None
    times = moments([begin, stop] if stop else [begin], table, first="start")
    seconds = durations(length, table) if length else times["end"] - times["start"]
    end = times["start"] + seconds if length else times["end"]
    early = np.flatnonzero(seconds < 0)
    if stop and len(early):
        row = int(early[0])
        raise refused(stop, table, row, f"a time that is not before the {begin.spelt}, {begin.cells[row]!s}")
    check_plausible(seconds, length or begin, table)
    worker, names = workers(owner, table)
    numbered = named.find("step")
    step = numbers(numbered, table) if numbered else None
    found = Intervals(table, worker, names, step, times["start"], end, seconds)
    return found.frame(skip, whole_steps, validate("resolution", NonNegativeFloat, resolution))


class Intervals:
    """Steps of workers, in the order of the rows of a log.

    Args:
        table: the log.
        worker: index of the worker, (rows,).
        names: names of the workers, if these are not whole numbers.
        step: numbers of the steps, (rows,); None: steps are counted in the order of their starts.
        start: start of each step in seconds, (rows,).
        end: end of each step in seconds, (rows,).
        seconds: duration of each step in seconds, (rows,).
    """

    def __init__(
        self,
        table: LogTable,
        worker: Ints,
        names: Sequence[str],
        step: Floats | None,
        start: Floats,
        end: Floats,
        seconds: Floats,
    ) -> None:
        if not len(start):
            raise ValueError(f"{table.name} has no rows: give at least one")
        self.table, self.names = table, names
        self.rows = order = np.lexsort((end, start, worker))
        self.worker, self.start, self.end, self.seconds = worker[order], start[order], end[order], seconds[order]
        self.step = place_of(self.worker).astype(np.float64) if step is None else step[order]

    def frame(self, skip: int, whole_steps: bool, resolution: float) -> pd.DataFrame:
        """Return the table that :func:`read_intervals` returns.

        Raises:
            ValueError: if steps of a worker overlap, are given twice or missing; it names the row.
        """
        by_step = np.lexsort((self.step, self.worker))
        check_steps(self.worker[by_step], self.step[by_step], self.rows[by_step], self.table)
        self._check_overlaps(resolution)
        before = np.concatenate([[np.nan], self.end[:-1]])
        before[place_of(self.worker) == 0] = np.nan
        idle = np.maximum(self.start - before, 0.0)
        kept = _kept(self.worker, self.table, skip, whole_steps)
        start, end = (times[kept] - self.start[kept].min() for times in (self.start, self.end))
        values = {"start": start, "end": end, "seconds": self.seconds[kept], "idle": idle[kept]}
        return _frame(self.names, self.worker[kept], self.step[kept], values)

    def _check_overlaps(self, resolution: float) -> None:
        end, start = self.end[:-1], self.start[1:]
        over = end - start - TOLERANCE * end
        wrong = np.flatnonzero((self.worker[1:] == self.worker[:-1]) & (over > 2.0 * resolution))
        if len(wrong):
            at = int(wrong[0])
            worker = self.names[self.worker[at]] if self.names else self.worker[at]
            place = self.table.place
            raise ValueError(
                f"{place(int(self.rows[at + 1]))}: a step of worker {worker} begins {over[at]:.3g} s before the "
                f"end of another one, {place(int(self.rows[at]))}: a worker computes one step at a time; give "
                "different names to workers that compute at the same time, or a resolution if times are rounded"
            )


def _kept(worker: Ints, table: LogTable, skip: int, whole_steps: bool) -> Ints:
    """Return the rows that are kept, sorted by worker."""
    skip, place = validate("skip", NonNegativeInt, skip), place_of(worker)
    counts = np.unique(worker, return_counts=True)[1]
    last = counts.min() if validate("whole_steps", bool, whole_steps) else counts.max()
    kept = np.flatnonzero((place >= skip) & (place < last))
    if not len(kept):
        raise ValueError(f"{table.name} has {last} steps of a worker: skip = {skip} leaves none")
    return kept


def _frame(names: Sequence[str], worker: Ints, step: Floats, values: Mapping[str, Floats]) -> pd.DataFrame:
    import pandas as pd

    whole = bool((step == np.floor(step)).all()) and float(np.abs(step).max()) < 2.0**53
    labels = np.array(names, object)[worker] if names else worker
    return pd.DataFrame({"worker": labels, "step": step.astype(np.int64) if whole else step, **values})
