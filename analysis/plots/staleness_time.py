"""Plots of staleness over time: of all workers together, and of each worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stalegrad._core.protocols import TraceLike
from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import new_axes, note
from stalegrad.analysis.plots.labels import EndLabels
from stalegrad.analysis.plots.style import curve_style, styles
from stalegrad.analysis.statistics.inputs import as_traces, check_mapping

BINS = 100
"""Largest number of intervals of time in a picture."""

PER_BIN, PER_CELL = 20, 2
"""Average number of messages in an interval, and in an interval of one worker."""


def plot_staleness_time(traces: Mapping[str, TraceLike | Sequence[TraceLike]], ax: Axes | None = None) -> Axes:
    """Draw the staleness of used messages against the time of the update that used them.

    Time is divided into at most 100 equal intervals of about 20 messages or more. The line joins their means;
    the band reaches from the 10th to the 90th percentile (observed values).

    Args:
        traces: trace of each label, or several traces, whose messages are pooled.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes.

    Raises:
        ValueError: if the mapping is empty, a value is not a trace, or no message was used.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_staleness_time
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_staleness_time({"async": trace})
        >>> ax.get_xlabel()
        'wallclock (simulated s)'
    """
    check_mapping(traces, "traces", "trace")
    used = {label: pd.concat(map(_used, as_traces(value, label))) for label, value in traces.items()}
    _check_some(used)
    ax = new_axes(ax)
    labels, looks = EndLabels(ax), styles(used)
    for index, (label, rows) in enumerate(used.items()):
        if rows.empty:
            continue
        look, edges = looks[label], _edges(rows, PER_BIN)
        spans = rows.groupby(_span(rows, edges))["staleness"]
        middle = ((edges[:-1] + edges[1:]) / 2)[list(spans.groups)]
        mean = spans.mean()
        low, high = (spans.quantile(q, interpolation="nearest") for q in (0.1, 0.9))
        ax.plot(middle, mean, label=plain(label), **curve_style(look, len(middle), shift=index))
        ax.fill_between(middle, low, high, color=look.color, alpha=0.16, linewidth=0)
        labels.add(label, middle[-1], mean.iloc[-1], look)
    ax.set_xlabel("wallclock (simulated s)")
    ax.set_ylabel("staleness (updates)")
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    note(ax, "mean, and 10th to 90th percentile")
    return ax


def plot_staleness_map(trace: TraceLike, ax: Axes | None = None) -> Axes:
    """Draw the mean staleness of each worker's used messages in each interval of time, as a map.

    Time is divided into at most 100 equal intervals, in which a worker has about two used messages or more; a
    blank cell has none.

    Args:
        trace: the run.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes; the first worker is the top row, and the colour scale is at the right.

    Raises:
        ValueError: if no message was used.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_staleness_map
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_staleness_map(trace)
        >>> ax.get_ylabel()
        'worker'
    """
    rows = _used(trace)
    _check_some({"the trace": rows})
    edges = _edges(rows, PER_CELL * trace.workers)
    place = rows["worker"], _span(rows, edges)
    shape = trace.workers, len(edges) - 1
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, place, rows["staleness"])
    np.add.at(count, place, 1)
    cells = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    ax = new_axes(ax, aspect=max(0.35, min(1.1, 0.2 + 0.02 * trace.workers)))
    image = ax.pcolormesh(
        edges, np.arange(trace.workers + 1) - 0.5, cells, cmap="viridis_r", vmin=0, rasterized=True
    )
    ax.set_ylim(trace.workers - 0.5, -0.5)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.figure.colorbar(image, ax=ax, label="mean staleness (updates)")
    ax.set_xlabel("wallclock (simulated s)")
    ax.set_ylabel("worker")
    return ax


def _used(trace: TraceLike) -> pd.DataFrame:
    """Return worker, staleness and time (of the update) of every used message."""
    rows = trace.used
    columns = {name: trace.column(name)[rows] for name in ("worker", "staleness")}
    return pd.DataFrame(columns | {"time": trace.update_times[trace.column("update")[rows]]})


def _edges(rows: pd.DataFrame, messages: int) -> np.ndarray:
    """Return the edges of equal intervals from 0 to the last message, each with about this number of messages."""
    spans = int(np.clip(len(rows) // messages, 1, BINS))
    return np.linspace(0.0, float(rows["time"].max()) or 1.0, spans + 1)


def _span(rows: pd.DataFrame, edges: np.ndarray) -> np.ndarray:
    """Return the interval of each message; an update on an edge belongs to the interval before the edge."""
    return np.clip(np.searchsorted(edges, rows["time"]) - 1, 0, len(edges) - 2)


def _check_some(used: Mapping[str, pd.DataFrame]) -> None:
    if all(rows.empty for rows in used.values()):
        raise ValueError(f"no message of {', '.join(used)} was used: no staleness can be drawn")
