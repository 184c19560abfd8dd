"""Plot of differences between methods and a baseline: mean and interval over paired seeds."""

from __future__ import annotations

from matplotlib.axes import Axes

from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import axis_label, new_axes, note
from stalegrad.analysis.plots.labels import EndLabels
from stalegrad.analysis.plots.style import GREY, curve_style, styles
from stalegrad.analysis.statistics.paired import SeededHistories, paired_difference


def plot_difference(
    histories: SeededHistories,
    baseline: str,
    x: str = "wallclock",
    y: str = "test_error",
    ax: Axes | None = None,
    *,
    level: float = 0.95,
) -> Axes:
    """Draw :func:`paired_difference` along the curve: a line per method, its interval, and the baseline at 0.

    Args:
        histories: histories as for :func:`paired_difference`.
        baseline: label of the method to subtract.
        x: column of the abscissa.
        y: column of the values.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.
        level: confidence level of the interval, between 0 and 1.

    Returns:
        The axes.

    Raises:
        ValueError: as :func:`paired_difference`.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import plot_difference
        >>> slow = pd.DataFrame({"wallclock": [0.0, 4.0, 8.0], "test_error": [0.9, 0.5, 0.1]})
        >>> fast = slow.assign(wallclock=slow["wallclock"] / 2)
        >>> ax = plot_difference({"sync": [slow], "async": [fast]}, baseline="sync")
        >>> ax.get_ylabel().splitlines()
        ['test error (fraction),', 'minus that of sync']
    """
    table = paired_difference(histories, baseline, x, y, level=level)
    ax = new_axes(ax)
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    labels = EndLabels(ax)
    for index, (label, look) in enumerate(styles(histories).items()):
        rows = table[table["method"] == label]
        if rows.empty:
            continue
        ax.plot(rows[x], rows["difference"], label=plain(label), **curve_style(look, len(rows), shift=index))
        if rows["seeds"].iloc[0] > 1:
            ax.fill_between(rows[x], rows["low"], rows["high"], color=look.color, alpha=0.16, linewidth=0)
        labels.add(label, rows[x].iloc[-1], rows["difference"].iloc[-1], look)
    ax.set_xlabel(axis_label(x))
    ax.set_ylabel(f"{axis_label(y)},\nminus that of {plain(baseline)}")
    ax.margins(x=0)
    low, high = (table["seeds"].min(), table["seeds"].max()) if len(table) else (0, 0)
    seeds = f"{low}" if low == high else f"{low} to {high}"
    note(ax, f"mean and {level:.0%} interval of {seeds} paired seeds" if high > 1 else "one pair of seeds")
    return ax
