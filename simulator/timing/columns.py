"""The parts of a trace, checked and converted: columns, numbers and a spec."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from stalegrad._core.specs import builtin
from stalegrad._core.types import Columns, Table
from stalegrad.simulator.timing.clock import are_seconds
from stalegrad.simulator.timing.limits import MOST_WORKERS

MESSAGE_COLUMNS: dict[str, type | str] = {
    "worker": np.int32,
    "read_version": np.int64,
    "read_time": np.float64,
    "finish_time": np.float64,
    "receive_time": np.float64,
    "update": np.int64,
    "staleness": np.int64,
    "steps": np.int32,
    "fate": "U9",
}
ABSENCE_COLUMNS: dict[str, type | str] = {"worker": np.int32, "leave_time": np.float64, "return_time": np.float64}
UPDATE_COLUMNS: dict[str, type | str] = {"time": np.float64, "messages": np.int64, "gradients": np.int64}
START_COLUMN: dict[str, type | str] = {"start": np.float64}
"""The column of the updates that exists only if updates take time."""

DEEPEST = 32
"""Largest number of levels of nested tables and lists in the spec of a trace."""


class TraceError(ValueError):
    """A trace that cannot be read or is inconsistent.

    Example:
        >>> from stalegrad.simulator import Trace, TraceError
        >>> try:
        ...     Trace(messages={"worker": [0]}, updates={})
        ... except TraceError:
        ...     print("a column is missing")
        a column is missing
    """


class Fate(StrEnum):
    """The fate of a message."""

    USED = "used"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    LOST = "lost"
    PENDING = "pending"


def checked_columns(table: object, dtypes: Mapping[str, type | str], name: str) -> Columns:
    """Return the columns of a DataFrame, or of a mapping of sequences, as arrays of these dtypes.

    Args:
        table: the table; other columns are ignored.
        dtypes: dtype of each column, by name; a string dtype stands for fates.
        name: name of the table in errors.

    Raises:
        TraceError: if a column is missing or has a wrong type or value; it names the column, and the row (counted
            from 0) and value that are not allowed.
    """
    if not isinstance(table, pd.DataFrame | Mapping):
        raise TraceError(f"the {name} table is a {type(table).__name__}: give a DataFrame or a mapping of columns")
    if missing := [column for column in dtypes if column not in table]:
        raise TraceError(f"the {name} table lacks the columns {missing}; it needs {list(dtypes)}")
    arrays = {}
    for column, dtype in dtypes.items():
        where = f"column {column} of the {name} table"
        values = _array(table[column], where)
        if np.dtype(dtype).kind == "U":
            arrays[column] = _fates(values, where)
        else:
            arrays[column] = _numbers(values, np.dtype(dtype), where)
    if len({len(array) for array in arrays.values()}) > 1:
        raise TraceError(f"the columns of the {name} table differ in length")
    return arrays


def _array(column: Any, where: str) -> np.ndarray:
    """Return a column as a one-dimensional array; a missing value of pandas becomes NaN."""
    extension = isinstance(getattr(column, "dtype", None), pd.api.extensions.ExtensionDtype)
    try:
        if extension and pd.api.types.is_numeric_dtype(column.dtype):
            column = column.astype(np.float64) if column.isna().any() else column.to_numpy(column.dtype.type)
        values = np.asarray(column)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{where} is no column of numbers or text: {error}") from None
    if values.ndim != 1:
        raise TraceError(f"{where} has {values.ndim} dimensions: give a sequence of one value per row")
    return values


def _numbers(values: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    if values.dtype == dtype or not len(values):
        return values.astype(dtype)
    if values.dtype.kind not in "iuf":
        raise TraceError(f"{where} must hold numbers, not {values.dtype}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    info = np.iinfo(dtype)
    if values.dtype.kind == "f":
        whole = (values == np.floor(values)) & (values >= float(info.min)) & (values < float(info.max))
    else:
        whole = (values >= info.min) & (values <= info.max)
    if not whole.all():
        row = int(np.argmin(whole))
        raise TraceError(
            f"{where} must hold whole numbers from {info.min} to {info.max}; row {row} has {values[row].item()!r}"
        )
    return values.astype(dtype)


def _fates(values: np.ndarray, where: str) -> np.ndarray:
    known = np.zeros(len(values), bool)
    if values.dtype.kind in "UOT":
        for fate in Fate:
            known |= values == str(fate)
    if not known.all():
        row = int(np.argmin(known))
        raise TraceError(f"row {row} of {where} is {values[row]!s:.40}: fate is one of {', '.join(Fate)}")
    return values.astype(MESSAGE_COLUMNS["fate"])


def read_only(columns: Columns) -> Columns:
    """Make the arrays of columns read-only and return the columns."""
    for name, values in columns.items():
        columns[name] = values.view()
        columns[name].flags.writeable = False
    return columns


def labels_of(table: object) -> pd.Index | None:
    """Return the index of a DataFrame, or None if its rows are numbered from 0 or the table is none."""
    if not isinstance(table, pd.DataFrame) or table.index.equals(pd.RangeIndex(len(table))):
        return None
    return table.index


def checked_workers(workers: object) -> int:
    """Return a number of workers.

    Raises:
        TraceError: unless it is a whole number from 0 to :data:`MOST_WORKERS`.
    """
    workers = builtin(workers)
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= MOST_WORKERS:
        raise TraceError(
            f"workers of a trace = {_brief(workers)} is not allowed: give a whole number from 0 to {MOST_WORKERS}"
        )
    return int(workers)


def checked_seconds(name: str, value: object) -> float:
    """Return a number of seconds.

    Raises:
        TraceError: unless it is a finite number of at least 0.
    """
    seconds = builtin(value)
    if not are_seconds(seconds):
        raise TraceError(
            f"{name} of a trace = {_brief(seconds)} is not allowed: give finite seconds of at least 0"
        )
    return float(seconds)


def checked_spec(spec: object) -> Table:
    """Return the spec of a trace as tables, lists, strings, numbers, truth values and None, which JSON can hold.

    Raises:
        TraceError: for a key that is not a string, or a value that JSON cannot hold; it names the key.
    """
    if not isinstance(spec, Mapping):
        raise TraceError(f"spec of a trace = {_brief(spec)} is not allowed: give a mapping")
    plain: Table = _plain(spec, "spec", 0)
    return plain


def _plain(value: Any, key: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise TraceError(f"{key:.60} of a trace is nested deeper than the {DEEPEST} levels that are allowed")
    value = builtin(value)
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise TraceError(f"{key} of a trace has the key {wrong[0]!r:.60}: keys must be strings")
        return {str(name): _plain(each, f"{key}.{name}", depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{key}[{i}]", depth + 1) for i, each in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and value.bit_length() <= 1024:
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TraceError(
        f"{key} of a trace = {_brief(value)} is not allowed: give strings, numbers, truth values, None, lists or "
        "mappings of them"
    )


def _brief(value: object) -> str:
    """Return a short text for a value of any kind, large whole numbers included."""
    if isinstance(value, int) and value.bit_length() > 1024:
        return f"a whole number of {value.bit_length()} bits"
    return f"{' '.join(repr(value).split()):.60}"
