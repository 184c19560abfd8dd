"""Plot of observed staleness and the models fitted to it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from stalegrad.analysis.fits.staleness import ALL, StalenessFit
from stalegrad.analysis.fits.staleness_models import MODELS, Floats
from stalegrad.analysis.plots.axes import new_axes
from stalegrad.analysis.plots.style import STYLES, curve_style

BARS = 100
"""Largest number of bars of a histogram; beyond it, bars combine several values."""


def plot_staleness_fit(fit: StalenessFit, ax: Axes | None = None, worker: int | str = ALL) -> Axes:
    """Plot the histogram of observed staleness and the fitted models over it.

    Args:
        fit: the fitted models.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.
        worker: worker whose staleness is drawn, which must have been fitted; by default all workers together.

    Returns:
        The axes. The legend lists the models by Bhattacharyya distance, the nearest first.
    """
    ax = new_axes(ax)
    counts = fit.counts[worker]
    top = int(np.searchsorted(np.cumsum(counts), 0.9995 * counts.sum()))
    width = top // BARS + 1
    edges = np.arange(0, top + width + 1, width) - 0.5
    values = np.arange(width * (len(edges) - 1))
    height = _binned(np.append(counts, np.zeros(len(values), int))[: len(values)] / counts.sum(), width)
    ax.stairs(height, edges, fill=True, color="0.85", linewidth=0, label="observed")
    ax.stairs(height, edges, color="0.6", linewidth=0.8)
    rows = fit.table if "worker" not in fit.table else fit.table[fit.table["worker"] == worker]
    distances = rows.set_index("model")["bhattacharyya"].sort_values()
    looks = dict(zip(MODELS, STYLES, strict=False))  # each model has its own style, like a method
    for model, distance in zip(distances.index, distances, strict=True):
        ax.plot(
            edges[:-1] + width / 2, _binned(fit.pmf(model, values, worker), width),
            label=f"{model}, distance {distance:.2g}", **curve_style(looks[model], len(height), 16),
        )  # fmt: skip
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, min(ax.get_ylim()[1], 2 * float(height.max())))
    ax.set_xlabel("staleness (updates)")
    ax.set_ylabel("share of messages (per unit)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _binned(values: Floats, width: int) -> Floats:
    return np.asarray(values.reshape(-1, width).mean(axis=1))
