"""Plot of error against wallclock: mean and band over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import axis_label, new_axes, note, plain_number
from stalegrad.analysis.plots.labels import EndLabels
from stalegrad.analysis.plots.style import Style, curve_style, styles as styles_of
from stalegrad.analysis.statistics.curves import LARGEST, Floats, Histories, diverged, on_grid
from stalegrad.analysis.statistics.inputs import check_all_histories


def plot_curves(
    histories: Histories,
    x: str = "wallclock",
    y: str = "test_error",
    ax: Axes | None = None,
    *,
    log: bool = False,
    band: Literal["minmax", "std"] | None = "minmax",
    styles: Mapping[str, Style] | None = None,
) -> Axes:
    """Plot the mean over seeds of every method against wallclock, with a band.

    The points are those of :func:`on_grid`, joined by straight lines, and end where a seed of the method has no
    finite value (up to 1e100). A cross marks the end of a curve that stops because a seed diverged (its last
    ``train_loss`` is not finite); the label counts such seeds. Labels are at the ends of lines, to the right of
    the axes: use a figure with ``layout="constrained"``, or leave room there.

    Args:
        histories: histories of each label, one per seed.
        x: column of the abscissa, ``wallclock`` (simulated seconds), ``update``, ``gradients`` or ``epoch``.
        y: column of the ordinate.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.
        log: whether the ordinate is logarithmic.
        band: ``minmax`` (range over seeds), ``std`` (mean +- sample standard deviation) or None; a single seed has
            no band.
        styles: style of each label; by default that of the method, see ``analysis.plots.style``.

    Returns:
        The axes.

    Raises:
        ValueError: if the mapping is empty, a column is unknown or has no finite value, or ``band`` is not one of
            the three.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import plot_curves
        >>> slow = pd.DataFrame({"wallclock": [0.0, 4.0, 8.0], "test_error": [0.9, 0.5, 0.1]})
        >>> fast = slow.assign(wallclock=slow["wallclock"] / 2)
        >>> ax = plot_curves({"sync": [slow], "async": [fast]})
        >>> ax.get_ylabel()
        'test error (fraction)'
    """
    check_all_histories(histories, (x, y))
    if band not in ("minmax", "std", None):
        raise ValueError(f"band is {band!r}: allowed are 'minmax', 'std' and None")
    ax = new_axes(ax)
    if log:
        ax.set_yscale("log", nonpositive="mask")
    labels, looks = EndLabels(ax), styles_of(histories) if styles is None else styles
    for index, (label, runs) in enumerate(histories.items()):
        grid, values = on_grid(runs, x, y)
        known = (np.abs(values) <= LARGEST).all(axis=0)
        grid, values = grid[known], values[:, known]
        lost = sum(map(diverged, runs))
        if not len(grid):
            continue
        look, mean = looks[label], values.mean(axis=0)
        ax.plot(grid, mean, label=plain(label), **curve_style(look, len(grid), shift=index))
        if band and len(runs) > 1:
            low, high = _band(values, band)
            ax.fill_between(grid, low, high, color=look.color, alpha=0.16, linewidth=0)
        if lost:
            ax.plot(
                *grid[-1:], *mean[-1:], "x", color=look.color, markersize=7, markeredgewidth=1.6, clip_on=False
            )
        text = f"{label} ({lost} of {len(runs)} diverged)" if lost else label
        labels.add(text, grid[-1], mean[-1], look)
    ax.set_xlabel(axis_label(x))
    ax.set_ylabel(axis_label(y))
    ax.margins(x=0)
    if log:
        _plain_log_ticks(ax)
    note(ax, _caption([len(runs) for runs in histories.values()], band))
    return ax


def _band(values: Floats, band: str) -> tuple[Floats, Floats]:
    if band == "minmax":
        return values.min(axis=0), values.max(axis=0)
    mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
    return mean - sd, mean + sd


def _caption(seeds: list[int], band: str | None) -> str:
    low, high = min(seeds), max(seeds)
    count = f"{low} to {high}" if low < high else f"{low}"
    what = {"minmax": "mean and range", "std": "mean and sd", None: "mean"}[band]
    return "one seed" if high == 1 else f"{what} of {count} seeds"


def _plain_log_ticks(ax: Axes) -> None:
    low, high = ax.get_ylim()
    few = (1.0, 2.0, 3.0, 5.0) if high / low < 30 else (1.0,)
    ax.yaxis.set_major_locator(LogLocator(subs=few))
    ax.yaxis.set_major_formatter(FuncFormatter(plain_number))
    if len(few) > 1:
        ax.yaxis.set_minor_locator(NullLocator())
