"""What no other choice beats on both counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stalegrad._core.text import plain
from stalegrad.analysis.plots.curves import LARGEST
from stalegrad.analysis.plots.style import GREY, axis_label, new_axes, note

LABELLED = 12
"""Of up to so many points all are named; of more, those on the frontier."""


def pareto(table: pd.DataFrame, x: str = "wallclock", y: str = "test_error") -> pd.DataFrame:
    """Tell which rows no other row dominates: none is as small in x and in y, and smaller in one of them.

    Any table will do: :func:`~stalegrad.analysis.comparison` over K and learning rate (wallclock to the
    target against final error), or :func:`~stalegrad.analysis.mean_curves` (error against wallclock, the
    best that can be had by any time).

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


def plot_pareto(table: pd.DataFrame, x: str = "wallclock", y: str = "test_error", ax: Axes | None = None) -> Axes:
    """Draw all rows, and the frontier as a staircase: whatever lies above or to the right of it is beaten.

    Args:
        table: as for :func:`pareto`; its index names the points.
        x: column of the abscissa.
        y: column of the ordinate.
        ax: where to draw; by default a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: as :func:`pareto`, or if no row has both values.
    """
    marked = pareto(table, x, y)
    shown = marked[(np.abs(marked[[x, y]].to_numpy(float)) <= LARGEST).all(axis=1)]
    if shown.empty:
        raise ValueError(f"no row has a finite {x!r} and {y!r}: nothing can be drawn")
    ax = new_axes(ax)
    beaten, best = shown[~shown["frontier"]], shown[shown["frontier"]].sort_values(x)
    small = len(shown) > 5 * LABELLED
    ax.plot(beaten[x], beaten[y], "o", color="0.6", markersize=2 if small else 4, markerfacecolor="white")
    ax.step(best[x], best[y], "o-", where="post", color="black", markersize=2 if small else 4.5, linewidth=1.0)
    previous: list[object] = []
    for (x0, y0), points in (shown if len(shown) <= LABELLED else best).groupby([x, y]):
        names = list(dict.fromkeys(points.index))
        if names != previous:  # a curve's stretch of the frontier is named once
            ax.annotate(
                "; ".join(map(_name, names)), (x0, y0), xytext=(4, 3), textcoords="offset points",
                fontsize="small", color="black" if points["frontier"].all() else GREY, annotation_clip=False,
            )  # fmt: skip
        previous = names
    ax.set_xlabel(axis_label(x))
    ax.set_ylabel(axis_label(y))
    note(ax, "line: not beaten on both counts")
    return ax


def _name(index: object) -> str:
    return plain(", ".join(map(str, index)) if isinstance(index, tuple) else index)


def _check(table: pd.DataFrame, columns: tuple[str, str]) -> None:
    if not isinstance(table, pd.DataFrame):
        raise ValueError(f"table is a {type(table).__name__}: give a DataFrame with one row per choice")
    for column in columns:
        if column not in table:
            raise ValueError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
