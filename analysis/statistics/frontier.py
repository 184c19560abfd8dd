"""The Pareto frontier: choices that no other choice dominates."""

from __future__ import annotations

import numpy as np
import pandas as pd


def pareto(table: pd.DataFrame, x: str = "wallclock", y: str = "test_error") -> pd.DataFrame:
    """Mark the rows that no other row dominates.

    A row dominates another if both its x and its y are at most as large, and one of them is smaller. Examples of
    tables are :func:`~stalegrad.analysis.comparison` over K and learning rate (wallclock to the target against
    final error) and :func:`~stalegrad.analysis.mean_curves` (the best error up to each wallclock).

    Args:
        table: one row per choice; smaller values of both columns are better.
        x: first column.
        y: second column.

    Returns:
        The table with a further column ``frontier`` (bool). A row without a finite x and y, for example because
        the target was not reached, is never on the frontier. Of equal rows, all or none are on it.

    Raises:
        ValueError: if ``table`` is not a DataFrame or a column is missing.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import pareto
        >>> table = pd.DataFrame({"wallclock": [1.0, 2.0, 3.0], "test_error": [0.3, 0.1, 0.2]})
        >>> pareto(table)["frontier"].tolist()
        [True, True, False]
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
