"""Plot of the Pareto frontier."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import axis_label, new_axes, note
from stalegrad.analysis.plots.style import GREY, marker_style, styles
from stalegrad.analysis.statistics.curves import LARGEST
from stalegrad.analysis.statistics.frontier import pareto

LABELLED = 12
"""Largest number of points that are all labelled, and of names that have their own styles."""

BEATEN = 0.45
"""Opacity of points that are not on the frontier."""


def plot_pareto(table: pd.DataFrame, x: str = "wallclock", y: str = "test_error", ax: Axes | None = None) -> Axes:
    """Draw all rows, and the frontier as a staircase: points above or to the right of it are dominated.

    Up to 12 different names have their own markers, those of their methods; dominated points are paler.

    Args:
        table: table as for :func:`pareto`; its index names the points.
        x: column of the abscissa.
        y: column of the ordinate.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: as :func:`pareto`, or if no row has both values.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import plot_pareto
        >>> table = pd.DataFrame({"wallclock": [1.0, 2.0, 3.0], "test_error": [0.3, 0.1, 0.2]}, index=list("abc"))
        >>> ax = plot_pareto(table)
        >>> ax.get_xlabel()
        'wallclock (simulated s)'
    """
    marked = pareto(table, x, y)
    shown = marked[(np.abs(marked[[x, y]].to_numpy(float)) <= LARGEST).all(axis=1)]
    if shown.empty:
        raise ValueError(f"no row has a finite {x!r} and {y!r}: nothing can be drawn")
    ax = new_axes(ax)
    best, names = shown[shown["frontier"]].sort_values(x), table.index.map(_name).unique()
    looks = styles(names) if len(names) <= LABELLED else {}
    ax.step(best[x], best[y], where="post", color=GREY, linewidth=1.0)
    small = {"markersize": 2.0} if len(shown) > 5 * LABELLED else {}
    for (name, frontier), points in shown.groupby([shown.index.map(_name), "frontier"], sort=False):
        look = marker_style(looks[name]) if looks else {"color": "black", "marker": "o", "markersize": 4.0}
        ax.plot(points[x], points[y], linestyle="none", alpha=1.0 if frontier else BEATEN, **look | small)
    previous: list[str] = []
    for (x0, y0), points in (shown if len(shown) <= LABELLED else best).groupby([x, y]):
        here = list(dict.fromkeys(map(_name, points.index)))
        if here != previous:  # consecutive points of the same name are labelled once
            color = looks[here[0]].color if looks and len(here) == 1 else "black"
            ax.annotate(
                "; ".join(here), (x0, y0), xytext=(4, 3), textcoords="offset points", fontsize="small",
                color=color if points["frontier"].all() else GREY, annotation_clip=False,
            )  # fmt: skip
        previous = here
    ax.set_xlabel(axis_label(x))
    ax.set_ylabel(axis_label(y))
    note(ax, "line: Pareto frontier")
    return ax


def _name(index: object) -> str:
    return plain(", ".join(map(str, index)) if isinstance(index, tuple) else index)
