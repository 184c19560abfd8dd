"""The Pareto frontier: choices that no other choice beats on both counts."""

from __future__ import annotations

import numpy as np
import pandas as pd


def pareto(table: pd.DataFrame, x: str = "wallclock", y: str = "test_error") -> pd.DataFrame:
    """Mark the rows that no other row dominates: none is as small in x and in y, and smaller in one of them.

    Any table will do: :func:`~stalegrad.analysis.comparison` over K and learning rate (wallclock to the
    target against final error), or :func:`~stalegrad.analysis.mean_curves` (error against wallclock, the
    best error by any time).

    Args:
        table: one row per choice; both columns are to become small.
        x: first column.
        y: second column.

    Returns:
        The table with a further column ``frontier`` (bool). A row without a finite x and y, as where the
        target was not reached, is never on it; equal rows are on it together.

    Raises:
        ValueError: if it is no table or lacks a column.
    """
    _check(table, (x, y))
    points = table[[x, y]].to_numpy(float)
    finite = np.isfinite(points).all(axis=1)
    kinds, kind = np.unique(points[finite], axis=0, return_inverse=True)  # by x, then by y
    best = np.minimum.accumulate(np.concatenate([[np.inf], kinds[:-1, 1]])) if len(kinds) else np.empty(0)
    frontier = np.zeros(len(table), bool)
    frontier[finite] = (kinds[:, 1] < best)[kind.ravel()]
    return table.assign(frontier=frontier)


def _check(table: pd.DataFrame, columns: tuple[str, str]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"table is a {type(table).__name__}: give a DataFrame with one row per choice")
    for column in columns:
        if column not in table:
            raise ValueError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
