"""The grid of measured step times, one row per step and one column per worker."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stalegrad._core.delay import Floats
from stalegrad._core.specs import NonNegativeInt, validate
from stalegrad.simulator.timing.delays import Recorded
from stalegrad.simulator.timing.delays.recorded import JOBS
from stalegrad.simulator.timing.delays.step_times import ALLOWED, COLUMNS
from stalegrad.simulator.timing.logs.cells import Columns
from stalegrad.simulator.timing.logs.sources import load
from stalegrad.simulator.timing.logs.steps import read_intervals, read_step_times

FEWEST = 10
"""Smallest number of steps that every worker must have made."""

EQUAL = 0.002
"""Workers are equal in a step if their times differ by at most this share of the median."""

CLOSE = 0.02, 20.0
"""Workers are also equal if their times differ by at most the first share, and steps differ by at least the second
number times as much."""


class Grid(NamedTuple):
    """Measured times of steps that all workers have made.

    Attributes:
        seconds: time of each step of each worker in seconds, (steps, workers).
        workers: names of the workers.
        first: number of the first step.
        left_out: number of steps at the end that not all workers have made.
        name: name of the times in a title.
    """

    seconds: Floats
    workers: Sequence[Hashable]
    first: int
    left_out: int
    name: str

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.seconds)

    def table(self) -> pd.DataFrame:
        """Return one row per step and one column per worker."""
        return pd.DataFrame(self.seconds, columns=pd.Index(list(self.workers), name="worker"))


def read_grid(
    source: object, *, columns: Mapping[str, str] | None, unit: str | None, skip: int, compute_only: bool
) -> Grid:
    """Return the grid of a log of step times or intervals, or of recorded times.

    Raises:
        ValueError: as for ``read_step_times``; for a single worker, too few steps, a worker without a time above
            0, or times that include a barrier.
        FileNotFoundError: if there is no such file.
    """
    recorded, skip = _recorded(source), validate("skip", NonNegativeInt, skip)
    grid = _of_log(source, columns, unit, skip) if recorded is None else _of_records(recorded, skip)
    steps, workers = grid.seconds.shape
    if workers < 2:
        raise ValueError(
            f"{grid.name} has one worker, or no column of workers: at least 2 are needed; give a column worker "
            "(or rank, device, ...), or its name: columns={'worker': ...}"
        )
    if steps < FEWEST:
        raise ValueError(f"{grid.name} has {steps} steps that all workers have made: give at least {FEWEST}")
    idle = np.flatnonzero(grid.seconds.max(axis=0) == 0)
    if len(idle):
        raise ValueError(f"{grid.name}: all times of worker {grid.workers[idle[0]]} are 0: leave it out")
    if not compute_only:
        check_barrier(grid.seconds, grid.name)
    return grid


def check_barrier(seconds: Floats, name: str) -> None:
    """Raise ValueError if workers take the same time in each step, as if they waited for one another."""
    middle = np.median(seconds, axis=1)
    there = middle > 0
    middle = middle[there]
    if not len(middle):
        return
    within = float(np.median(np.ptp(seconds[there], axis=1) / middle))
    low, high = np.quantile(middle, [0.1, 0.9])
    between = float((high - low) / np.median(middle))
    if within <= EQUAL or (within <= CLOSE[0] and between >= CLOSE[1] * within):
        raise ValueError(
            f"{name}: all workers take the same time in each step (in the median step they differ by "
            f"{within:.2%}), which means that the times include waiting for one another at a barrier, and do not "
            "show which workers are slow: give the times of computing alone, before the all-reduce; if these are "
            "such times, give compute_only=True (--compute-only)"
        )


def _recorded(source: object) -> Recorded | None:
    """Return recorded times from ``Recorded``, lists, or the name of a measured job; else None."""
    if isinstance(source, Recorded):
        return source
    if isinstance(source, list | tuple):
        return Recorded(source)
    if isinstance(source, str | os.PathLike) and str(source) in JOBS and not Path(source).exists():
        return Recorded.measured(str(source))
    return None


def _of_records(recorded: Recorded, skip: int) -> Grid:
    name = recorded.job or recorded.file or "the table of recorded times"
    records = recorded.records
    if not records.own or recorded.worker is not None:
        raise ValueError(f"{name} has one record for all workers: give one per worker")
    lengths = [len(times) for times in records.times]
    kept = slice(skip, min(lengths))
    seconds = np.column_stack([times[kept] for times in records.times]) * recorded.scale
    return Grid(seconds, range(len(lengths)), skip, max(lengths) - min(lengths), str(name))


def _of_log(source: object, columns: Mapping[str, str] | None, unit: str | None, skip: int) -> Grid:
    table = load(source, "a log of step times", ALLOWED)
    named = Columns(table, columns, unit, (*COLUMNS, "start", "end"))
    intervals = named.find("seconds") is None and named.find("start") is not None
    read = read_intervals if intervals else read_step_times
    log = read(source, columns=columns, unit=unit, skip=skip)  # type: ignore[arg-type]
    counts = log.groupby("worker", sort=False).size()
    whole = int(counts.min())
    kept = log.groupby("worker", sort=False).cumcount().to_numpy() < whole
    seconds = log["seconds"].to_numpy(float)[kept].reshape(len(counts), whole).T
    first = int(log["step"].iloc[0])
    name = str(source) if isinstance(source, str | os.PathLike) else table.name
    return Grid(seconds, counts.index.tolist(), first, int(counts.max()) - whole, name)
