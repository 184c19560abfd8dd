"""Tables of step times: columns worker, step and seconds, from a CSV file or a DataFrame."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.specs import builtin, shown

ALIASES = {
    "worker": ("worker", "worker_id", "rank", "dp_rank", "node"),
    "step": ("step", "iteration", "iter"),
    "seconds": ("seconds", "compute_seconds", "step_seconds", "duration", "time"),
}
"""What a column may be called."""

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
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"]
    if not lines:
        raise ValueError(f"{file} has no rows: give {ALLOWED}")
    between = next((mark for mark in ";\t" if mark in lines[0][1]), ",")
    rows = [[cell.strip() for cell in row] for row in csv.reader((line for _, line in lines), delimiter=between)]
    numbers = [number for number, _ in lines]
    if len(rows) != len(lines):
        raise ValueError(f"{file} has cells of several lines: give {ALLOWED}")
    header, rows = rows[0], rows[1:]
    for number, row in zip(numbers[1:], rows, strict=True):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {number}: {len(row)} columns, but the header has {len(header)}")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return step_times(columns, lambda row: f"{file}, line {numbers[row + 1]}", file)


def from_frame(frame: Any) -> StepTimes:
    """Return the step times of a DataFrame; rows are counted from 0 in errors.

    Raises:
        ValueError: naming the row and the value that is not allowed.
    """
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return step_times(columns, lambda row: f"row {row} of the table of step times", "the table of step times")


def step_times(columns: Mapping[str, Sequence[Any]], place: Callable[[int], str], table: str) -> StepTimes:
    """Return the step times of a table, whose rows may be in any order.

    Without a column of workers it is one record for all. Without a column of steps rows are in order. Workers that
    are whole numbers are counted from 0; others are numbered in the order of their names. So that steps belong
    together, every worker has the first of them: it may end before others, but lacks none in between.

    Args:
        columns: by name, or by an alias of it (:data:`ALIASES`).
        place: says where a row is, for errors.
        table: what the table is called in errors.

    Raises:
        ValueError: naming the row and the value that is not allowed.
    """
    named = {name: _column(columns, name, table) for name in ALIASES}
    if named["seconds"] is None:
        raise ValueError(f"{table} has no column seconds, but {', '.join(columns) or 'nothing'}: give {ALLOWED}")
    seconds = [_number(value, "seconds", place, i, least=0.0) for i, value in enumerate(named["seconds"])]
    if not seconds:
        raise ValueError(f"{table} has no rows: give one at least")
    order = range(len(seconds))
    steps = None
    if named["step"] is not None:
        steps = [_number(value, "step", place, i) for i, value in enumerate(named["step"])]
        order = sorted(order, key=steps.__getitem__)  # type: ignore[assignment]
    workers = [0] * len(seconds) if named["worker"] is None else _workers(named["worker"], place, table)
    rows: list[list[int]] = [[] for _ in range(max(workers) + 1)]
    for row in order:
        rows[workers[row]].append(row)
    if steps is not None:
        _check_steps(rows, steps, place)
    return StepTimes(tuple(np.array([seconds[row] for row in own]) for own in rows), named["worker"] is not None)


def _column(columns: Mapping[str, Sequence[Any]], name: str, table: str) -> Sequence[Any] | None:
    """Return a column by its name, or else by its only alias."""
    spelt = {column.strip().lower(): column for column in columns}
    found = [name] if name in spelt else [alias for alias in ALIASES[name] if alias in spelt]
    if len(found) > 1:
        raise ValueError(f"{table} has the columns {' and '.join(found)}: call the one that is meant {name}")
    return columns[spelt[found[0]]] if found else None


def _number(value: Any, name: str, place: Callable[[int], str], row: int, least: float = -math.inf) -> float:
    value = builtin(value)
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= least):
        allowed = "a finite number" if least < 0 else "a finite number of at least 0"
        raise ValueError(f"{place(row)}: {name} = {shown(value)} is not allowed: give {allowed}")
    return number


def _workers(values: Sequence[Any], place: Callable[[int], str], table: str) -> list[int]:
    """Return the index of the worker of every row."""
    texts = [str(value).strip().removesuffix(".0") for value in values]
    for row, text in enumerate(texts):
        if text in ("", "nan", "None", "<NA>"):
            raise ValueError(
                f"{place(row)}: worker = {shown(values[row])} is not allowed: give a number or a name"
            )
    known = set(texts)
    if not all(text.isascii() and text.isdigit() for text in known):
        index = {text: i for i, text in enumerate(sorted(known))}
        return [index[text] for text in texts]
    missing = next(i for i in range(len(known) + 1) if str(i) not in known)
    if missing < len(known):
        names = ", ".join(sorted(known, key=lambda text: (len(text), text))[:10])
        raise ValueError(
            f"{table} lacks worker {missing}: {len(known)} workers are numbered from 0, but it has {names}"
        )
    return [int(text) for text in texts]


def _check_steps(rows: Sequence[Sequence[int]], steps: Sequence[float], place: Callable[[int], str]) -> None:
    """Raise ValueError if a worker has a step twice, or lacks one before its last."""
    everything = sorted(set(steps))
    for worker, own in enumerate(rows):
        for row, before in zip(own[1:], own, strict=False):
            if steps[row] == steps[before]:
                first, second = sorted((row, before))
                raise ValueError(
                    f"{place(second)}: worker {worker} has step {steps[row]:g} twice, first at {place(first)}"
                )
        for row, expected in zip(own, everything, strict=False):
            if steps[row] != expected:
                raise ValueError(
                    f"{place(row)}: worker {worker} has step {steps[row]:g} but lacks step {expected:g}, which "
                    "others have: steps of workers belong together, and only the last ones may be missing"
                )
