"""Times of logs: durations and moments of any unit and origin, converted to seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.specs import builtin
from stalegrad.simulator.timing.logs.cells import UNITS, Column, is_missing, numbers, refused
from stalegrad.simulator.timing.logs.sources import LogTable

EPOCH = 1e11
"""Smallest time that is not taken for seconds: as seconds since 1970 it is 3,000 years away."""

PLAUSIBLE = 1e-6, 1e5
"""Range, in seconds, in which the median of a log's steps is plausible."""


def durations(column: Column, table: LogTable) -> Floats:
    """Return a column of durations in seconds; durations without a unit are seconds.

    Raises:
        ValueError: for a cell that is not a finite number of at least 0; it names the row.
    """
    return numbers(column, table, least=0.0) / UNITS[column.unit or "s"]  # type: ignore[no-any-return]


def check_plausible(seconds: Floats, column: Column, table: LogTable, what: str = "step") -> None:
    """Raise ValueError if the median of durations is implausible and the user has not given their unit."""
    if column.sure or not len(seconds):
        return
    median, unit = float(np.nanmedian(seconds)), column.unit or "s"
    if not (median == 0 or PLAUSIBLE[0] <= median <= PLAUSIBLE[1]):
        others = " or ".join(f'"{other}"' for other in UNITS if other != unit)
        raise ValueError(
            f"{table.name}: the median {what} is {median:.3g} s, if {column.spelt} is in {unit}: give "
            f'unit={others}, or unit="{unit}" if that is right'
        )


def moments(
    columns: Sequence[Column],
    table: LogTable,
    *,
    optional: Sequence[str] = (),
    origin: float | None = None,
    first: str,
) -> dict[str, Floats]:
    """Return columns of times as seconds since a common origin.

    Times are ISO 8601 texts, all with a zone or all without, datetimes, or numbers: seconds unless a unit is
    given, since 1970 or any other origin. Large numbers, like those since 1970, are subtracted as decimals, so
    that no digit is lost.

    Args:
        columns: columns of times.
        table: the log of the columns.
        optional: names of columns that may have empty cells, which become NaN.
        origin: time that becomes 0, in the unit of the numbers; by default the earliest of the column ``first``.
        first: name of the column with the earliest time.

    Raises:
        ValueError: for a cell that is not a time or is before the origin; it names the row.
    """
    raw = {column.name: _raw(column, table, column.name in optional) for column in columns}
    kinds = {column.name: "date" if raw[column.name].dtype.kind == "M" else "number" for column in columns}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"{table.name}: some columns hold dates, others numbers: {kinds}")
    by_name = {column.name: column for column in columns}
    units = {column.unit or "s" for column in columns}
    if len(units) > 1 and kinds[first] == "number":
        raise ValueError(f"{table.name}: times are in {' and '.join(sorted(units))}: give them one unit")
    if origin is not None and kinds[first] == "date":
        raise ValueError(f"origin = {origin!r} is not allowed for dates: leave it out")
    zero = (builtin(raw[first].min()) if len(raw[first]) else 0) if origin is None else origin
    zero = raw[first].min() if kinds[first] == "date" and len(raw[first]) else zero
    found = {name: _since(values, zero, UNITS[by_name[name].unit or "s"]) for name, values in raw.items()}
    for name, seconds in found.items():
        early = np.flatnonzero(seconds < 0)
        if len(early):
            what = "the origin" if origin is not None else f"the earliest {by_name[first].spelt}"
            raise refused(by_name[name], table, int(early[0]), f"a time that is not before {zero!s}, {what}")
    return found


def _since(values: np.ndarray, zero: object, per_second: float) -> Floats:
    """Return the seconds since an origin, for values of the same type as the origin."""
    if values.dtype.kind == "M":
        passed = (values - zero).astype("timedelta64[ns]")  # type: ignore[operator]
        return np.where(np.isnat(passed), np.nan, passed.astype(np.int64) / 1e9)
    if values.dtype.kind == "O":
        scale = Decimal(int(per_second))
        return np.array([float((value - Decimal(zero)) / scale) for value in values], np.float64)  # type: ignore[arg-type]
    plain = float(zero) if isinstance(zero, Decimal) else zero
    return (values - plain).astype(np.float64) / per_second  # type: ignore[operator, no-any-return]


def _raw(column: Column, table: LogTable, missing: bool) -> np.ndarray:
    """Return times without conversion: datetime64, integers, floats, or decimals where floats are too coarse."""
    values = column.cells
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        if not missing and (bad := np.flatnonzero(np.isnat(values))).size:
            raise refused(column, table, int(bad[0]), "a date")
        return values
    if is_date(column):
        return _dates(column, table, missing)
    found = numbers(column, table, missing=missing)
    largest = float(np.nanmax(np.abs(found), initial=0.0))
    if column.unit is None and largest >= EPOCH:
        guess = "ms" if largest < 1e14 else "us" if largest < 1e17 else "ns"
        raise ValueError(
            f"{table.name}: {column.spelt} reaches {largest:.4g}, which is implausible for seconds: give "
            f'unit="{guess}" if it counts {guess} since 1970'
        )
    if isinstance(values, np.ndarray):
        return values.astype(np.int64) if values.dtype.kind == "u" else values
    if largest < 2.0**20:
        return found
    try:  # digits beyond those of a float are kept
        exact = [Decimal("nan") if is_missing(value) else Decimal(str(value).strip()) for value in values]
    except InvalidOperation:
        return found
    return np.array(exact, object)


def is_date(column: Column) -> bool:
    """Return whether a column holds datetimes, or texts that begin with a date."""
    if isinstance(column.cells, np.ndarray):
        return column.cells.dtype.kind == "M"
    some = next((value for value in column.cells if not is_missing(value)), None)
    return re.match(r"\d{4}-\d\d-\d\d", str(some).strip()) is not None


def _dates(column: Column, table: LogTable, missing: bool) -> np.ndarray:
    import pandas as pd

    cells = [None if is_missing(value) else str(value).strip() for value in column.cells]
    texts = pd.Series(cells, dtype="str")
    zoned = texts.str.contains(r"(?:[zZ]|[+-]\d\d(?::?\d\d)?)$", regex=True) & texts.str.contains(
        "[T ]", regex=True
    )
    here = texts.notna()
    if len(mixed := np.flatnonzero(here & (zoned != zoned[here].iloc[0]))):
        row = int(mixed[0])
        raise refused(column, table, row, "a zone with all dates or with none")
    found = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    wrong = np.flatnonzero(found.isna() & (here | (not missing)))
    if len(wrong):
        raise refused(column, table, int(wrong[0]), "a date as in 2026-01-31T23:59:59.123")
    return np.asarray(found.dt.tz_localize(None).astype("datetime64[ns]").to_numpy())
