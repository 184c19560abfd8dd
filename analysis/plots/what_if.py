"""Plot of a job under other synchronies: speed-up against staleness."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from stalegrad.analysis.plots.axes import new_axes, note, plain_number
from stalegrad.analysis.plots.labels import EndLabels
from stalegrad.analysis.plots.style import GREY, marker_style, styles

COLUMNS = ("speedup", "low", "high", "staleness")
"""Columns that are drawn."""

TICKS = (0, 1, 2, 5)
"""Leading digits of the ticks of staleness, per decade."""


def plot_what_if(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the gain of each synchrony against its cost: speed-up over sync against mean staleness.

    The axis of staleness is linear up to 1 update, then logarithmic. Bars are the intervals of the table; the
    horizontal line is the synchronous job.

    Args:
        table: one row per synchrony with the columns ``speedup``, ``low``, ``high`` and ``staleness``, for example
            the table of ``what_if``.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if a column is missing, or no row has a finite speed-up and staleness.

    Example:
        >>> from stalegrad.analysis import plot_what_if
        >>> from stalegrad.policies import Async, Sync
        >>> from stalegrad.simulator import what_if
        >>> ax = plot_what_if(what_if([[1.0] * 20, [1.0, 3.0] * 10], [Sync(), Async()]).table)
        >>> ax.get_xlabel()
        'mean staleness (updates)'
    """
    for column in COLUMNS:
        if column not in table:
            raise ValueError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
    shown = table[np.isfinite(table[["speedup", "staleness"]]).all(axis=1)]
    if shown.empty:
        raise ValueError("no row has a finite speedup and staleness: nothing can be drawn")
    ax = new_axes(ax)
    most = float(shown["staleness"].max())
    ax.set_xscale("symlog", linthresh=1.0, linscale=0.5)
    ticks = [t * 10**d for d in range(max(int(np.log10(max(most, 1.0))) + 1, 1)) for t in TICKS]
    ax.set_xticks(sorted({tick for tick in ticks if tick <= 1.2 * max(most, 1.0)}))
    ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axhline(1.0, color=GREY, linewidth=0.6)
    labels, looks = EndLabels(ax), styles(shown.index)
    for label, row in shown.iterrows():
        look = looks[label]
        x, ends = row["staleness"], row[["low", "high"]].to_numpy(float)
        if np.isfinite(ends).all():
            ax.plot([x, x], ends, color=look.color, linewidth=1.0, solid_capstyle="butt")
        ax.plot([x], [row["speedup"]], linestyle="none", **marker_style(look))
        labels.add(str(label), x, row["speedup"], look)
    ax.set_xlim(-0.08, 1.15 * max(most, 1.0))
    ax.margins(y=0.12)
    ax.set_xlabel("mean staleness (updates)")
    ax.set_ylabel("used gradients per second, over sync")
    note(ax, "bars: 95 % intervals")
    return ax
