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
"""Allowed content of a CSV file of step times."""


class StepTimes(NamedTuple):
    """Times in the order of their steps.

    Attributes:
        times: one array per worker, in seconds.
        own: whether every worker has its own times; otherwise one record is for all.
    """

    times: tuple[Floats, ...]
    own: bool


def from_csv(text: str, file: str) -> StepTimes:
    """Return the step times of a CSV text.

    Args:
        text: a header, then rows; comma, semicolon or tab between columns.
        file: path of the file, for errors.

    Raises:
        ValueError: for a value that is not allowed; it names the file, the line and the value.
    """
    return step_times(csv_table(text, file, ALLOWED))


def from_frame(frame: Any) -> StepTimes:
    """Return the step times of a DataFrame; rows are counted from 0 in errors.

    Raises:
        ValueError: for a value that is not allowed; it names the row and the value.
    """
    return step_times(frame_table(frame, "step times"))


def step_times(table: LogTable) -> StepTimes:
    """Return the step times of a table, read by :func:`sorted_steps`; workers are 0, 1, ... or names.

    Raises:
        ValueError: for a value that is not allowed or a missing worker; it names the row and value, or the worker.
    """
    found = sorted_steps(table)
    check_workers(found.worker, table)
    first = np.flatnonzero(np.diff(found.worker, prepend=0))
    return StepTimes(tuple(np.split(found.seconds, first)), found.own)


class SortedSteps(NamedTuple):
    """Steps sorted by worker, then step.

    Attributes:
        worker: index of the worker, (rows,).
        step: number of the step, (rows,); counted from 0 for every worker if the table has no such column.
        seconds: duration of the step in seconds, (rows,).
        own: whether the table has a column of workers.
        names: names of the workers, if these are not whole numbers.
        column: column of the times in the table.
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
    """Return the steps of a table whose rows may be in any order.

    Without a column of workers the table is one record for all. Without a column of steps the rows are in order.
    Workers that are whole numbers are counted from 0; others are numbered in the order of their names. Every
    worker must have the first steps without a gap, so that equal steps belong together; it may end before others.

    Args:
        table: table with the columns ``worker``, ``step`` and ``seconds``, or aliases of them.
        columns: names of columns in the table, by meaning.
        unit: unit of the times; by default that in the column's name, or else seconds.

    Raises:
        ValueError: for a value that is not allowed; it names the row and the value.
    """
    named = Columns(table, columns, unit, COLUMNS)
    column = named.require("seconds", ALLOWED)
    seconds = durations(column, table)
    if not len(seconds):
        raise ValueError(f"{table.name} has no rows: give at least one")
    numbered, own = named.find("step"), named.find("worker")
    worker, names = workers(own, table) if own else (np.zeros(len(seconds), np.int64), [])
    step = np.zeros(len(seconds)) if numbered is None else numbers(numbered, table)
    order = np.lexsort((step, worker))  # stable
    worker, step = worker[order], step[order] if numbered else place_of(worker[order]).astype(np.float64)
    check_steps(worker, step, order, table)
    return SortedSteps(worker, step, seconds[order], own is not None, names, column)


def place_of(worker: Ints) -> Ints:
    """Return the number of earlier rows of the same worker for each row, of rows sorted by worker."""
    return np.arange(len(worker)) - np.searchsorted(worker, worker)


def check_steps(worker: Ints, step: Floats, rows: Ints, table: LogTable) -> None:
    """Check that no worker has a step twice or lacks a step before its last.

    Args:
        worker: worker of every step, in ascending order, (rows,).
        step: number of every step, ascending for each worker, (rows,).
        rows: row of every step in the table, (rows,).
        table: the table.

    Raises:
        ValueError: for a step that is given twice or missing; it names the row.
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
