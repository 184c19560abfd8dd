"""Error against wallclock: mean and band over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from stalegrad._core.text import plain
from stalegrad.analysis.plots.style import EndLabels, axis_label, marker_style, new_axes, note, plain_number, style
from stalegrad.analysis.statistics.checks import check_all_histories, check_histories

Floats = npt.NDArray[np.float64]
Histories = Mapping[str, Sequence[pd.DataFrame]]
"""Label (method) -> one history per seed."""

LARGEST = 1e100
"""Larger values are left out of means and pictures like infinite ones: sums and axes of them would overflow."""

MARKERS = 7
"""Markers along a curve, about."""


def on_grid(
    histories: Sequence[pd.DataFrame], x: str, y: str, grid: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Read histories off a common grid, without inventing anything.

    A history is a step function: its value at t is that of the last row with ``x <= t`` (of several rows
    with the same x, the last). It is known from its first row to its last, and NaN outside: before the
    first nothing was measured, and after the last the run was no longer watched, because its budget was
    spent or because it diverged. A value is never carried on beyond a run's end. Whoever averages should
    do so only where all seeds have a value: a mean over the survivors would leap, and flatter a method,
    each time a seed diverges.

    Args:
        histories: one DataFrame per seed, rows in the order of x.
        x: column of the abscissa, ``wallclock`` (simulated seconds), ``update``, ``gradients`` or ``epoch``.
        y: column of the values.
        grid: points (points,), in the unit of x; by default every x that occurs in any history, which
            loses nothing.

    Returns:
        The grid (points,) and the values (seeds, points).

    Raises:
        ValueError: if there is no history, a column is missing, or x goes backwards or is not finite.
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
        histories: label -> one history per seed.
        x: column of the abscissa.
        y: column of the values.

    Returns:
        Columns ``x`` and ``y`` by their names, one row per point of :func:`on_grid`, indexed by method.

    Raises:
        ValueError: if the mapping is empty or a column is unknown or without a finite value.
    """
    check_all_histories(histories, (x, y))
    curves = []
    for label, runs in histories.items():
        grid, values = on_grid(runs, x, y)
        known = (np.abs(values) <= LARGEST).all(axis=0)
        index = pd.Index([label] * int(known.sum()), name="method")
        curves.append(pd.DataFrame({x: grid[known], y: values[:, known].mean(axis=0)}, index=index))
    return pd.concat(curves)


def plot_curves(
    histories: Histories,
    x: str = "wallclock",
    y: str = "test_error",
    ax: Axes | None = None,
    *,
    log: bool = False,
    band: Literal["minmax", "std"] | None = "minmax",
) -> Axes:
    """Plot the mean over seeds of every method against wallclock, with a band.

    The points are those of :func:`on_grid`, joined by straight lines, and reach as far as *all* seeds of
    a method have a finite value (up to 1e100). A cross ends a curve that stops because a seed diverged (its last
    ``train_loss`` is not finite); the label counts such seeds. Names stand at the line ends, to the right
    of the axes: use a figure with ``layout="constrained"``, or leave room there.

    Args:
        histories: label -> one history per seed.
        x: column of the abscissa, ``wallclock`` (simulated seconds), ``update``, ``gradients`` or ``epoch``.
        y: column of the ordinate.
        ax: where to draw; by default a new figure, which a notebook shows as ``ax.figure``.
        log: logarithmic ordinate.
        band: ``minmax`` (range over seeds), ``std`` (mean +- sample standard deviation) or None; there is
            no band around a single seed.

    Returns:
        The axes.

    Raises:
        ValueError: if the mapping is empty, a column is unknown or without a finite value, or band is
            none of the three.
    """
    check_all_histories(histories, (x, y))
    if band not in ("minmax", "std", None):
        raise ValueError(f"band is {band!r}: allowed are 'minmax', 'std' and None")
    ax = new_axes(ax)
    if log:
        ax.set_yscale("log", nonpositive="mask")
    labels = EndLabels(ax)
    for index, (label, runs) in enumerate(histories.items()):
        grid, values = on_grid(runs, x, y)
        known = (np.abs(values) <= LARGEST).all(axis=0)
        grid, values = grid[known], values[:, known]
        lost = sum(map(diverged, runs))
        if not len(grid):
            continue
        look, mean = style(index), values.mean(axis=0)
        every = max(1, len(grid) // MARKERS)
        ax.plot(
            grid, mean, label=plain(label), linestyle=look.linestyle, linewidth=1.2,
            markevery=(index * every // 5 % every, every), **marker_style(look),
        )  # fmt: skip
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


def diverged(history: pd.DataFrame) -> bool:
    """Tell whether a run diverged: its last training loss is not finite."""
    return "train_loss" in history and not np.isfinite(history["train_loss"].to_numpy(float)[-1])


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
