"""Tables of step times: columns worker, step and seconds, from a CSV file or a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.types import Ints
from stalegrad.simulator.timing.logs.cells import Column, Columns, numbers, workers
from stalegrad.simulator.timing.logs.sources import LogTable, csv_table, frame_table
from stalegrad.simulator.timing.logs.times import durations

COLUMNS = ("worker", "step", "seconds")

ALLOWED = "a table with the columns worker, step and seconds, comma-separated, a header first; # starts a comment"
"""What a CSV file of step times may hold."""


class StepTimes(NamedTuple):
    """Times in the order of their steps.

    Attributes:
        times: of every worker, in seconds.
        own: whether workers have their own; else there is one record for all.
    """

    times: tuple[Floats, ...]
    own: bool


def from_csv(text: str, file: str) -> StepTimes:
    """Return the step times of a CSV text.

    Args:
        text: a header, then rows; comma, semicolon or tab between columns.
        file: where it comes from, for errors.

    Raises:
        ValueError: naming the file, the line and the value that is not allowed.
    """
    return step_times(csv_table(text, file, ALLOWED))


def from_frame(frame: Any) -> StepTimes:
    """Return the step times of a DataFrame; rows are counted from 0 in errors.

    Raises:
        ValueError: naming the row and the value that is not allowed.
    """
    return step_times(frame_table(frame, "step times"))


def step_times(table: LogTable) -> StepTimes:
    """Return the step times of a table, as :func:`sorted_steps` reads it; workers are 0, 1, ... or names.

    Raises:
        ValueError: naming the row and the value that is not allowed, or the worker that is missing.
    """
    found = sorted_steps(table)
    check_workers(found.worker, table)
    first = np.flatnonzero(np.diff(found.worker, prepend=0))
    return StepTimes(tuple(np.split(found.seconds, first)), found.own)


class SortedSteps(NamedTuple):
    """Steps by worker, then step.

    Attributes:
        worker: index of the worker (rows,).
        step: its number (rows,); counted from 0 for every worker if the table has none.
        seconds: what it took (rows,).
        own: whether the table has a column of workers.
        names: of the workers, if they are no whole numbers.
        column: what the times were.
    """

    worker: Ints
    step: Floats
    seconds: Floats
    own: bool
    names: list[str]
    column: Column


def sorted_steps(
    table: LogTable, columns: Mapping[str, str] | None = None, unit: str | None = None
) -> SortedSteps:
    """Return the steps of a table, whose rows may be in any order.

    Without a column of workers it is one record for all. Without a column of steps rows are in order. Workers that
    are whole numbers are counted from 0; others are numbered in the order of their names. So that steps belong
    together, every worker has the first of them: it may end before others, but lacks none in between.

    Args:
        table: with the columns ``worker``, ``step`` and ``seconds``, or aliases of them.
        columns: what a column is -> its name in the table.
        unit: of the times; by default that in the column's name, or else seconds.

    Raises:
        ValueError: naming the row and the value that is not allowed.
    """
    named = Columns(table, columns, unit, COLUMNS)
    column = named.require("seconds", ALLOWED)
    seconds = durations(column, table)
    if not len(seconds):
        raise ValueError(f"{table.name} has no rows: give one at least")
    numbered, own = named.find("step"), named.find("worker")
    worker, names = workers(own, table) if own else (np.zeros(len(seconds), np.int64), [])
    step = np.zeros(len(seconds)) if numbered is None else numbers(numbered, table)
    order = np.lexsort((step, worker))  # stable
    worker, step = worker[order], step[order] if numbered else place_of(worker[order]).astype(np.float64)
    check_steps(worker, step, order, table)
    return SortedSteps(worker, step, seconds[order], own is not None, names, column)


def place_of(worker: Ints) -> Ints:
    """Return how many rows of its worker are before each row, of rows sorted by worker."""
    return np.arange(len(worker)) - np.searchsorted(worker, worker)


def check_steps(worker: Ints, step: Floats, rows: Ints, table: LogTable) -> None:
    """Check that no worker has a step twice, or lacks one before its last.

    Args:
        worker: of every step, in ascending order.
        step: numbers, ascending for each worker.
        rows: where they are in the table.
        table: the table.

    Raises:
        ValueError: naming the row.
    """
    twice = np.flatnonzero((worker[1:] == worker[:-1]) & (step[1:] == step[:-1]))
    if len(twice):
        at = int(twice[0])
        first, second = sorted((int(rows[at]), int(rows[at + 1])))
        raise ValueError(
            f"{table.place(second)}: worker {worker[at]} has step {step[at]:g} twice, first at "
            f"{table.place(first)}; if the table is of several jobs or stages, keep the rows of one"
        )
    expected = np.unique(step)[place_of(worker)]
    lacking = np.flatnonzero(step != expected)
    if len(lacking):
        at = int(lacking[0])
        raise ValueError(
            f"{table.place(int(rows[at]))}: worker {worker[at]} has step {step[at]:g} but lacks step "
            f"{expected[at]:g}, which others have: steps of workers belong together, and only the last ones may "
            "be missing"
        )


def check_workers(worker: Ints, table: LogTable) -> None:
    """Raise ValueError unless workers are 0, 1, ... without a gap."""
    known = np.unique(worker)
    gaps = np.flatnonzero(known != np.arange(len(known)))
    if len(gaps):
        names = ", ".join(map(str, known[:10]))
        raise ValueError(
            f"{table.name} lacks worker {gaps[0]}: {len(known)} workers are numbered from 0, but it has {names}"
        )
