"""Columns of logs: found by their names or aliases, and read as numbers and workers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.specs import builtin, shown, unknown_name
from stalegrad._core.types import Ints
from stalegrad.simulator.timing.logs.sources import LogTable

Unit = Literal["s", "ms", "us", "ns"]

UNITS: dict[str, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Units of time, and the number of them in a second."""

SPELT = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms", "millis": "ms",
    "milliseconds": "ms", "us": "us", "µs": "us", "usec": "us", "micros": "us", "microseconds": "us", "ns": "ns",
    "nanos": "ns", "nanoseconds": "ns",
}  # fmt: skip
"""Units by the endings of column names: ``duration_ms``, ``start (us)``."""

ALIASES = {
    "worker": (
        "worker", "worker_id", "rank", "dp_rank", "global_rank", "node", "device", "gpu", "machine", "instance",
    ),
    "step": ("step", "iteration", "iter"),
    "time": ("time", "timestamp", "event_time"),
    "event": ("event", "action"),
    "seconds": ("seconds", "duration", "time", "elapsed", "step_time", "compute", "compute_time", "dur"),
    "start": ("start", "start_time", "begin", "begin_time", "ts"),
    "end": ("end", "end_time", "stop", "stop_time"),
    "read_version": ("read_version", "version", "model_version"),
    "read_time": ("read_time", "read", "pull_time", "start", "start_time", "begin"),
    "finish_time": ("finish_time", "finish", "end", "end_time", "stop"),
    "receive_time": ("receive_time", "receive", "received", "push_time", "arrival", "arrival_time"),
    "apply_time": ("apply_time", "apply", "applied", "update_time"),
    "apply_start": ("apply_start", "update_start"),
    "update": ("update", "update_index"),
    "staleness": ("staleness",),
    "steps": ("steps", "local_steps"),
    "fate": ("fate",),
}  # fmt: skip
"""Allowed names of each column; names of times may also end with a unit."""

UNTIMED = ("worker", "step", "event", "read_version", "update", "staleness", "steps", "fate")
"""Columns that hold no times."""

STEMS = {"seconds": ("step", "iteration", "batch", "")}
"""Further names of a column, if a unit follows: ``step_ms``, ``ms``."""

MISSING = ("", "nan", "NaN", "None", "NaT", "<NA>", "null")
"""Texts of empty cells."""

_BOOLS = (bool, np.bool_)


class Column(NamedTuple):
    """A column of a log.

    Attributes:
        name: meaning of the column, e.g. ``read_time``.
        spelt: name of the column in the log.
        cells: values, one per row.
        unit: unit of its times, if its name or the user gives one.
        sure: whether the user gives the unit.
    """

    name: str
    spelt: str
    cells: Sequence[object] | np.ndarray
    unit: Unit | None = None
    sure: bool = False


class Columns:
    """The columns of a log, by their meaning.

    Args:
        table: the log.
        given: names of columns in the log, by meaning, as given by the user.
        unit: unit of times, as given by the user.
        known: meanings of the columns of such a log.

    Raises:
        ValueError: for an unknown column or unit.
    """

    def __init__(
        self, table: LogTable, given: Mapping[str, str] | None, unit: str | None, known: Sequence[str]
    ) -> None:
        self.table, self.unit, self.given = table, unit, dict(given or {})
        if unit is not None and unit not in UNITS:
            raise ValueError(unknown_name("unit", unit, UNITS))
        for name, spelt in self.given.items():
            if name not in known:
                raise ValueError(unknown_name("column of a log", name, known))
            if spelt not in table.columns:
                raise ValueError(f"{table.name}: {unknown_name('column', spelt, table.columns)}")

    def find(self, name: str) -> Column | None:
        """Return a column by the user's choice, else by its name, else by its only alias, else None."""
        table = self.table
        if name in self.given:
            spelt = self.given[name]
            return self._column(name, spelt, None if name in UNTIMED else _parts(spelt)[1])
        found: dict[int, list[tuple[str, Unit | None]]] = {}
        for spelt in table.columns:
            plain, (stem, unit) = spelt.strip().lower(), _parts(spelt)
            if plain in ALIASES[name]:
                found.setdefault(int(plain != name), []).append((spelt, None))
            elif unit and name not in UNTIMED and stem in (*ALIASES[name], *STEMS.get(name, ())):
                found.setdefault(int(stem != name), []).append((spelt, unit))
        if not found:
            return None
        best = found[min(found)]
        if len(best) > 1:
            names = " and ".join(spelt for spelt, _ in best)
            raise ValueError(f"{table.name} has the columns {names}: rename the right one to {name}")
        return self._column(name, *best[0])

    def require(self, name: str, allowed: str) -> Column:
        """Return a column that the log must have."""
        if (column := self.find(name)) is None:
            raise ValueError(f"{self.table.name} has no column {name}, but {self.names}: give {allowed}")
        return column

    @property
    def names(self) -> str:
        """The names of all columns, for errors."""
        return shown(", ".join(self.table.columns) or "nothing").strip("'")

    def _column(self, name: str, spelt: str, unit: Unit | None) -> Column:
        if None not in (unit, self.unit) and unit != self.unit:
            raise ValueError(
                f"column {spelt} of {self.table.name} is in {unit}, but unit = {self.unit!r} is given"
            )
        sure = self.unit is not None
        return Column(name, spelt, self.table.columns[spelt], self.unit or unit, sure)  # type: ignore[arg-type]


def _parts(spelt: str) -> tuple[str, Unit | None]:
    """Return the name of a column without its unit, and the unit: ``start (ms)`` -> ``start``, ``ms``."""
    plain = spelt.strip().lower()
    match = re.fullmatch(r"(|.*?[\s_]*[\s_(\[])([a-zµ]+)[)\]]?", plain)
    if match is None or match[2] not in SPELT:
        return plain, None
    return match[1].rstrip(" _(["), SPELT[match[2]]  # type: ignore[return-value]


# Numbers and names


def refused(column: Column, table: LogTable, row: int, allowed: str) -> ValueError:
    """Return the error for a cell that is not allowed."""
    return ValueError(
        f"{table.place(row)}: {column.spelt} = {shown(builtin(column.cells[row]))} is not allowed: give {allowed}"
    )


def numbers(column: Column, table: LogTable, *, least: float = -math.inf, missing: bool = False) -> Floats:
    """Return a column of numbers; NaN where a cell is empty, if that is allowed.

    Raises:
        ValueError: for a cell that is not a finite number of at least ``least``; it names the row.
    """
    values = column.cells
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        found = values.astype(np.float64)
    else:
        found = np.array([_float(value) for value in values], np.float64)
    empty = np.isnan(found)
    if empty.any() and missing:
        rows = np.flatnonzero(empty)
        empty[rows] = [is_missing(values[int(row)]) for row in rows]
    elif empty.any():
        empty[:] = False
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~(empty | (np.isfinite(found) & (found >= least))))
    if len(wrong):
        allowed = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
        raise refused(column, table, int(wrong[0]), allowed)
    return found


def _float(value: object) -> float:
    try:
        return math.nan if isinstance(value, _BOOLS) or "_" in str(value) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def is_missing(value: object) -> bool:
    """Return whether a cell is empty."""
    return str(value).strip() in MISSING


def whole(column: Column, table: LogTable, *, least: int, missing: int | None = None) -> Ints:
    """Return a column of whole numbers; ``missing`` where a cell is empty, if that is allowed.

    Raises:
        ValueError: for a cell that is not a whole number of at least ``least``; it names the row.
    """
    found = numbers(column, table, least=least, missing=missing is not None)
    if missing is not None:
        found = np.where(np.isnan(found), missing, found)
    wrong = np.flatnonzero((found != np.floor(found)) | (found > 2.0**53))
    if len(wrong):
        raise refused(column, table, int(wrong[0]), f"a whole number of at least {least}")
    return found.astype(np.int64)


def names(column: Column, table: LogTable) -> list[int] | list[str]:
    """Return the names of the workers of all rows: whole numbers if all are whole numbers, else texts.

    Raises:
        ValueError: for an empty cell; it names the row.
    """
    texts = [str(value).strip() for value in column.cells]
    for row, text in enumerate(texts):
        if text in MISSING:
            raise refused(column, table, row, "a number or a name")
    plain = {text: text.removesuffix(".0") for text in set(texts)}
    if all(text.isascii() and text.isdigit() for text in plain.values()):
        return [int(plain[text]) for text in texts]
    return texts


def workers(column: Column, table: LogTable) -> tuple[Ints, list[str]]:
    """Return the index of the worker of every row, and the workers' names if these are not whole numbers.

    Workers that are whole numbers are counted from 0; others are numbered in the order of their names.
    """
    cells = column.cells
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iu" and len(cells) and cells.min() >= 0:
        return cells.astype(np.int64), []
    found = names(column, table)
    if found and isinstance(found[0], str):
        known = sorted(set(map(str, found)))
        index = {name: i for i, name in enumerate(known)}
        return np.array([index[str(name)] for name in found], np.int64), known
    return np.array(found, np.int64), []
