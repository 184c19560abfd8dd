"""Plots of the anatomy of staleness: its parts by worker, and the workers whose messages are dropped."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.plots.axes import new_axes, note, plain_number
from stalegrad.analysis.plots.labels import spread
from stalegrad.analysis.plots.style import GREY, USED, WASTED

COLOURS = {"before_reading": "#c9a227", "computing": USED, "travelling": "#8fb4d6", "waiting": "0.80"}
"""Colours of the parts, in their order in time."""

BARS = 64
"""Largest number of bars; more workers are grouped by speed."""

NAMED = 16
"""Largest number of workers whose points are labelled."""


def plot_anatomy(trace: TraceLike, ax: Axes | None = None) -> Axes:
    """Draw the parts of the mean staleness of each worker's used messages, as stacked bars.

    The parts are those of ``Trace.anatomy()``: updates made before reading, while computing, while travelling
    and while waiting at the server. A part that is 0 for all workers is left out. The bar at the right is the mean
    over all messages, labelled with the names and means of the parts. More than 64 workers are drawn in 64 groups
    of equal size, by speed, the slowest at the left.

    Args:
        trace: the run.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if the trace fails ``verify()``.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_anatomy
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_anatomy(trace)
        >>> ax.get_ylabel()
        'mean staleness (updates)'
    """
    rows = trace.anatomy().table(BARS)
    ax = new_axes(ax, aspect=0.45)
    bars = len(rows) - 1
    width = max(0.8, 0.05 * bars)
    place = np.append(np.arange(bars), bars + width)
    widths = np.append(np.full(bars, 0.8 if bars <= BARS // 2 else 1.0), width)
    below, middles, labels = np.zeros(len(rows)), [], []
    for name, colour in COLOURS.items():
        height = rows[name].fillna(0.0).to_numpy()
        if not height.any():
            continue
        ax.bar(place, height, widths, below, color=colour, label=name.replace("_", " "))
        middles.append(below[-1] + height[-1] / 2)
        labels.append((f"{name.replace('_', ' ')} {height[-1]:.3g}", colour))
        below += height
    top = 1.05 * float(below.max()) or 1.0
    right = float(place[-1] + width / 2)
    for (text, colour), y in zip(labels, spread(middles, 0.07 * top, 0.035 * top, top), strict=True):
        for what, shift, ink in (("\N{BLACK SQUARE}", 4, colour), (text, 14, "black")):
            ax.annotate(
                what, (right, y), xytext=(shift, 0), textcoords="offset points", va="center", fontsize="small",
                color=ink, annotation_clip=False,
            )  # fmt: skip
    if not labels:
        note(ax, "always 0" if rows["messages"].iloc[-1] else "no message was used")
    ax.set_xlim(-0.6, right)
    ax.set_ylim(0.0, top)
    step = max(1, -(-bars // 8))
    ranks = rows.index.str.split("\N{EN DASH}").str[0]
    ax.set_xticks([*place[:-1:step], place[-1]], [*ranks[:-1:step], "all"])
    ax.tick_params(axis="x", length=0)
    grouped = trace.workers > bars
    ax.set_xlabel(f"worker, by speed: the slowest is 1 ({bars} groups)" if grouped else "worker")
    ax.set_ylabel("mean staleness (updates)")
    return ax


def plot_dropped(trace: TraceLike, ax: Axes | None = None) -> Axes:
    """Draw the used share of each worker's computing against its speed, to show which workers are dropped.

    Both are columns of ``Trace.anatomy().workers``. Hollow triangles are workers whose speed is an upper bound,
    because their longest job was cut off. Workers without a closed message, or whose speed is not known, are left
    out. Up to 16 workers are labelled with their numbers.

    Args:
        trace: the run.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if the trace fails ``verify()``.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_dropped
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_dropped(trace)
        >>> ax.get_ylabel()
        'share of computing that was used'
    """
    rows = trace.anatomy().workers.dropna(subset=["speed", "work_used"])
    ax = new_axes(ax, aspect=0.5)
    dense = 0.5 if len(rows) > BARS else 1.0
    for bound, marker, face, name in ((False, "o", USED, "speed"), (True, "<", "none", "speed at most")):
        some = rows[rows["at_most"] == bound]
        if len(some):
            ax.plot(
                some["speed"], some["work_used"], marker, markersize=5.0, color=USED, markerfacecolor=face,
                alpha=dense, label=name, clip_on=False, zorder=3,
            )  # fmt: skip
    fastest = float(rows["speed"].max()) if len(rows) else 1.0
    ax.set_xlim(0.0, 1.05 * fastest)
    ax.set_ylim(0.0, 1.0)
    ax.axhline(trace.anatomy().pooled["work_used"], color=WASTED, linewidth=0.9, zorder=1)
    if len(rows) <= NAMED:
        near = [(rows["speed"] / fastest * 40).round(), (rows["work_used"] * 20).round()]
        for _, some in rows.groupby(near):
            x, y = some["speed"].max(), some["work_used"].mean()
            ax.annotate(
                ", ".join(map(str, some.index)), (x, y), xytext=(3, -7 if y > 0.5 else 7),
                textcoords="offset points", va="center", fontsize="small", color=GREY,
            )  # fmt: skip
    ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("speed (mini-batch gradients per simulated s of computing)")
    ax.set_ylabel("share of computing that was used")
    if rows["at_most"].any():
        ax.legend(loc="lower right", frameon=False, fontsize="small")
    note(ax, "line: all workers" if len(rows) else "no message was closed")
    return ax
