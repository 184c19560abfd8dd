"""Plot of the workers' shards: the number of examples of each class at each worker."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import new_axes, note
from stalegrad.analysis.plots.labels import spread
from stalegrad.analysis.plots.style import COLORS

NAMED = 16
"""Largest number of classes that are all labelled."""


def plot_shards(shards: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw each worker's shard as a stacked bar of its classes; the bar at the right is the mean over workers.

    Up to 16 classes are labelled at the right, each with its share of all examples. If there are more, the first
    and the last are labelled, and the colours form a scale.

    Args:
        shards: examples of each class (rows) held by each worker (columns), as returned by
            ``problem.shards(workers)``.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if the table is empty or holds no counts.

    Example:
        >>> from stalegrad.analysis import plot_shards
        >>> from stalegrad.models import ClassesPerWorker, Problem
        >>> problem = Problem("mlp", "fashion-mnist-small", partition=ClassesPerWorker(2))
        >>> ax = plot_shards(problem.shards(workers=5))
        >>> ax.get_ylabel()
        'training examples'
    """
    counts = np.asarray(shards, float)
    if not counts.size or not np.isfinite(counts).all() or counts.min() < 0 or not counts.sum():
        raise ValueError("shards is not allowed: give a table of counts, a row per class and a column per worker")
    classes, workers = counts.shape
    ax = new_axes(ax, aspect=0.45)
    width = max(1.0, 0.05 * workers)
    edges = np.arange(workers + 1) - 0.5
    gap = workers - 0.5 + 0.5 * width
    right = gap + width
    mean = counts.mean(axis=1)
    top, of_mean, middles = np.zeros(workers), 0.0, []
    few = workers <= 64 and classes <= NAMED
    colours = _colours(classes)
    for row, average, colour in zip(counts, mean, colours, strict=True):
        bars = (top + row, edges, top), ([of_mean + average], [gap, right], [of_mean])
        for values, sides, baseline in bars:
            ax.stairs(
                values, sides, baseline=baseline, fill=True, facecolor=colour, edgecolor="white",
                linewidth=0.4 if few else 0.0,
            )  # fmt: skip
        middles.append(of_mean + average / 2)
        top, of_mean = top + row, of_mean + average
    highest = 1.05 * float(top.max())
    named = range(classes) if classes <= NAMED else (0, classes - 1)
    places = spread([middles[k] for k in named], 0.055 * highest, 0.0, highest)
    for k, y in zip(named, places, strict=True):
        share = mean[k] / mean.sum()
        for what, shift, ink in (
            ("\N{BLACK SQUARE}", 4, colours[k]),
            (_name(shards.index[k], share), 14, "black"),
        ):
            ax.annotate(
                what, (right, y), xytext=(shift, 0), textcoords="offset points", va="center", fontsize="small",
                color=ink, annotation_clip=False,
            )  # fmt: skip
    ax.set_xlim(edges[0], right)
    ax.set_ylim(0.0, highest)
    ticks = [
        tick for tick in MaxNLocator(nbins=8, integer=True).tick_values(0, workers - 1) if 0 <= tick < workers
    ]
    ax.set_xticks([*ticks, (gap + right) / 2], [*(f"{tick:g}" for tick in ticks), "mean"])
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel(plain(shards.columns.name or "worker"))
    ax.set_ylabel("training examples")
    sizes = counts.sum(axis=0)
    note(ax, f"shards of {sizes.min():g} to {sizes.max():g} examples")
    return ax


def _name(label: object, share: float) -> str:
    return f"{plain(label)} ({share:.0%})"


def _colours(classes: int) -> list[tuple[float, float, float]]:
    """Return a colour for each class: the package's and lighter ones, or those of a scale if there are many."""
    if classes > NAMED:
        scale = mpl.colormaps["viridis"]
        return [to_rgb(scale(k / (classes - 1))) for k in range(classes)]
    dark = [to_rgb(colour) for colour in COLORS[1:]]
    light = [(0.45 * r + 0.55, 0.45 * g + 0.55, 0.45 * b + 0.55) for r, g, b in dark]
    return [*dark, *light, to_rgb(COLORS[0]), to_rgb("0.7")][:classes]
