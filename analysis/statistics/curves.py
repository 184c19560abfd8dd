"""Histories as step functions on a common grid, and their means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad.analysis.statistics.inputs import check_all_histories, check_histories

Floats = npt.NDArray[np.float64]
Histories = Mapping[str, Sequence[pd.DataFrame]]
"""Histories of each label (method), one per seed."""

LARGEST = 1e100
"""Larger values are left out of means and pictures, like infinite ones: sums and axes would overflow."""

COLUMNS = ("test_error", "test_loss", "train_loss")
"""Columns by which runs are shown, in order of preference."""


def on_grid(
    histories: Sequence[pd.DataFrame], x: str, y: str, grid: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Evaluate histories on a common grid, without extrapolation.

    A history is a step function: its value at t is that of the last row with ``x <= t`` (of several rows
    with the same x, the last). It is known from its first row to its last, and NaN outside: before the
    first row nothing was measured, and the run ended at the last row, because its budget was spent or because it
    diverged. Average only where all seeds have a value: a mean over the remaining seeds would jump, in favour of
    the method, each time a seed diverges.

    Args:
        histories: one DataFrame per seed, rows in the order of x.
        x: column of the abscissa, ``wallclock`` (simulated seconds), ``update``, ``gradients`` or ``epoch``.
        y: column of the values.
        grid: array (points,), in the unit of x; by default every x that occurs in any history, so that no
            information is lost.

    Returns:
        The grid (points,) and the values (seeds, points).

    Raises:
        ValueError: if there is no history, a column is missing, or x decreases or is not finite.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import on_grid
        >>> history = pd.DataFrame({"wallclock": [0.0, 2.0], "test_error": [0.9, 0.5]})
        >>> on_grid([history], "wallclock", "test_error", grid=[0.0, 1.0, 2.0, 3.0])[1]
        array([[0.9, 0.9, 0.5, nan]])
    """
    check_histories(histories, (x, y))
    xs = [history[x].to_numpy(float) for history in histories]
    points = np.unique(np.concatenate(xs)) if grid is None else np.asarray(grid, float)
    if points.ndim != 1 or np.isnan(points).any():
        raise ValueError(f"grid must be one-dimensional and hold numbers only; its shape is {points.shape}")
    values = np.full((len(histories), len(points)), np.nan)
    for row, known, history in zip(values, xs, histories, strict=True):
        inside = (points >= known[0]) & (points <= known[-1])
        last = np.searchsorted(known, points[inside], side="right") - 1
        row[inside] = history[y].to_numpy(float)[last]
    return points, values


def mean_curves(histories: Histories, x: str = "wallclock", y: str = "test_error") -> pd.DataFrame:
    """Return the mean over seeds of every method, where all of its seeds have a finite value (up to 1e100).

    Args:
        histories: histories of each label, one per seed.
        x: column of the abscissa.
        y: column of the values.

    Returns:
        Columns ``x`` and ``y`` by their names, one row per point of :func:`on_grid`, indexed by method.

    Raises:
        ValueError: if the mapping is empty, or a column is unknown or has no finite value.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import mean_curves
        >>> runs = [pd.DataFrame({"wallclock": [0.0, 1.0], "test_error": [0.9, last]}) for last in (0.25, 0.75)]
        >>> mean_curves({"async": runs})["test_error"].tolist()
        [0.9, 0.5]
    """
    check_all_histories(histories, (x, y))
    curves = []
    for label, runs in histories.items():
        grid, values = on_grid(runs, x, y)
        known = (np.abs(values) <= LARGEST).all(axis=0)
        index = pd.Index([label] * int(known.sum()), name="method")
        curves.append(pd.DataFrame({x: grid[known], y: values[:, known].mean(axis=0)}, index=index))
    return pd.concat(curves)


def diverged(history: pd.DataFrame) -> bool:
    """Return whether a run diverged: its last training loss is not finite."""
    return "train_loss" in history and not np.isfinite(history["train_loss"].to_numpy(float)[-1])


def shown_column(histories: Sequence[pd.DataFrame]) -> str:
    """Return the column by which histories are shown by default.

    It is the first of test error, test loss and training loss that has a finite value in any of the histories; the
    training loss if none has.

    Args:
        histories: histories of one run, or of several that are shown together.
    """
    known = (
        column
        for column in COLUMNS
        if any(column in history and np.isfinite(history[column].to_numpy(float)).any() for history in histories)
    )
    return next(known, COLUMNS[-1])
