"""Plot of the shares of the workers' time: used, wasted, idle."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.plots.axes import new_axes
from stalegrad.analysis.plots.style import USED, WASTED

LOOKS = {"used": (USED, None), "wasted": (WASTED, "////"), "idle": ("0.92", None)}
"""Colour and hatch of the parts, from dark to light."""


def plot_busy(trace: TraceLike, ax: Axes | None = None) -> Axes:
    """Draw the shares of each worker's time that were used, wasted and idle.

    The parts are those of ``Trace.busy()``, as shares of the time from a worker's joining to the end. Wasted time
    was spent on messages that were cancelled or discarded; idle time is the rest, including waiting for the
    network. A worker that never joined is blank. The legend gives the means over workers.

    Args:
        trace: the run.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_busy
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_busy(trace)
        >>> ax.get_ylabel()
        'share of its time'
    """
    parts = trace.busy()
    ax = new_axes(ax, aspect=0.4)
    edges = np.arange(trace.workers + 1) - 0.5
    below = np.zeros(trace.workers)
    few = trace.workers <= 64
    for name, (face, hatch) in LOOKS.items():
        mean = parts[name].mean()
        top = below + parts[name].fillna(0.0).to_numpy()
        ax.stairs(
            top, edges, baseline=below, fill=True, facecolor=face, edgecolor="white", hatch=hatch,
            linewidth=0.6 if few else 0.0, label=name if np.isnan(mean) else f"{name} ({mean:.0%})",
        )  # fmt: skip
        below = top
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, 1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("worker")
    ax.set_ylabel("share of its time")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
    return ax
