"""The timeline of a run: a Gantt chart of the workers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.plots.axes import new_axes
from stalegrad.analysis.plots.style import GREY, USED, WASTED

ROWS = 32
"""Number of workers that are drawn by default."""

MESSAGES, UPDATES = 6.0, 5
"""Number of messages of a worker, and least number of updates, in the default window."""

LINES = 40
"""Largest number of updates that are drawn as lines across all workers; more are ticks at the top."""

NUMBER = 7.0
"""Font size of update numbers, in points."""

DENSE = 5000
"""Number of bars above which they are plain areas in the colour of their edges: edges and hatches would overlap,
and drawing a hundred thousand hatched bars takes minutes."""

AWAY = "0.85"
"""Colour of absences."""

HALF = 0.38
"""Half the height of a bar, in rows."""


class _Look(NamedTuple):
    name: str
    fates: tuple[str, ...]
    face: str
    edge: str
    hatch: str | None


LOOKS = (
    _Look("used", ("used",), "#a9bfd9", USED, None),
    _Look("wasted", ("cancelled", "discarded", "lost"), "white", WASTED, "////"),
    _Look("pending", ("pending",), "white", "0.55", None),
)


def plot_timeline(
    trace: TraceLike,
    start: float = 0.0,
    end: float | None = None,
    workers: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the work of each worker as bars from read to finish; blank is idle (or waiting for the network).

    Filled bars were used, and show their staleness if there is room; hatched bars were cancelled, discarded or
    lost; hollow bars were pending when the trace ended. Grey areas are absences. Vertical lines are updates (ticks
    at the top if there are more than 40), numbered if there is room. More than 5000 bars are drawn without edges
    and hatches, the used ones darkest.

    Args:
        trace: the run.
        start: start of the window, in simulated seconds.
        end: end of the window, in simulated seconds; by default it contains about six messages of a worker and at
            least five updates after ``start``, but ends with the trace.
        workers: indices of the workers, from top to bottom; by default the first 32.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes; the first worker is the top row.

    Raises:
        ValueError: if the window is empty or outside the trace, or there is no such worker.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_timeline
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_timeline(trace, end=5.0)
        >>> ax.get_xlabel()
        'wallclock (simulated s)'
    """
    chosen = _workers(trace, workers)
    if not 0 <= start < trace.end:
        raise ValueError(f"start is {start!r}: give seconds from 0 to below {trace.end:g}, the trace's end")
    end = default_end(trace, start) if end is None else end
    if not start < end:
        raise ValueError(f"end is {end!r}: give seconds after start, {start:g}")
    ax = new_axes(ax, aspect=max(0.35, min(1.1, 0.2 + 0.02 * len(chosen))))
    ax.set_xlim(start, end)
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    handles: list[Patch | Line2D] = []

    row = np.full(trace.workers, -1)
    row[chosen] = np.arange(len(chosen))
    place = row[trace.column("worker")]
    begin = trace.column("read_time")
    finish = np.fmin(trace.column("finish_time"), trace.end)
    seen = (place >= 0) & (finish > start) & (begin < end)
    fate, staleness = trace.column("fate"), trace.column("staleness")
    dense = np.count_nonzero(seen) > DENSE
    for look in LOOKS:
        rows = seen & np.isin(fate, look.fates)
        if not rows.any():
            continue
        shape: dict[str, Any] = {
            "facecolor": look.edge if dense else look.face, "edgecolor": look.edge,
            "linewidth": 0.0 if dense else 0.6, "hatch": None if dense else look.hatch,
            "label": " or ".join(name for name in look.fates if (fate[rows] == name).any()),
        }  # fmt: skip
        ax.add_collection(PolyCollection(_bars(begin[rows], finish[rows], place[rows]), **shape), autolim=False)
        handles.append(Patch(**shape))
    rows = np.flatnonzero(seen & (fate == "used"))
    numbered = _annotate(
        ax, np.maximum(begin[rows], start), np.minimum(finish[rows], end), place[rows], staleness[rows]
    )
    if numbered:
        handles[0].set_label("used (staleness)")

    handles += _absences(ax, trace, row, start, end)

    times = trace.update_times
    numbers = np.flatnonzero((times >= start) & (times <= end))
    if len(numbers):
        handles.append(_updates(ax, times[numbers], numbers))

    count = f"{len(chosen)} of {trace.workers}" if workers is None and len(chosen) < trace.workers else ""
    _label(ax, chosen, count, handles, above=bool(len(numbers)))
    return ax


def default_end(trace: TraceLike, start: float) -> float:
    """Return the end of a window from ``start`` that shows about six messages of a worker, in seconds."""
    spent = np.fmin(trace.column("finish_time"), trace.end) - trace.column("read_time")
    later = spent[(trace.column("read_time") >= start) & (spent > 0)]
    times = trace.update_times[trace.update_times > start]
    reach = start + MESSAGES * float(later.mean()) if len(later) else trace.end
    if len(times):
        reach = max(reach, float(times[min(UPDATES, len(times)) - 1]))
    return min(reach, trace.end)


def _label(ax: Axes, chosen: Sequence[int], count: str, handles: list[Patch | Line2D], *, above: bool) -> None:
    """Label the axes and draw the legend, which leaves room for numbers ``above`` the bars."""
    ax.set_ylabel(f"worker ({count})" if count else "worker")
    ax.set_xlabel("wallclock (simulated s)")
    step = max(1, round(len(chosen) / 8))
    ax.yaxis.set_major_locator(FixedLocator(list(range(0, len(chosen), step))))
    ax.yaxis.set_major_formatter(FuncFormatter(functools.partial(_worker_name, chosen)))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.02), ncols=len(handles), frameon=False,
        fontsize="small", handlelength=1.3, handletextpad=0.5, columnspacing=1.2, borderpad=0.2,
        borderaxespad=1.3 if above else 0.2,
    )  # fmt: skip


def _workers(trace: TraceLike, workers: Sequence[int] | None) -> list[int]:
    chosen = list(range(min(ROWS, trace.workers))) if workers is None else [int(w) for w in workers]
    wrong = [worker for worker in chosen if not 0 <= worker < trace.workers]
    if wrong or not chosen or len(set(chosen)) < len(chosen):
        allowed = f"give at least one number from 0 to {trace.workers - 1}, none twice"
        raise ValueError(f"workers is {chosen!r}: {allowed}")
    return chosen


def _worker_name(chosen: Sequence[int], row: float, _: int | None) -> str:
    return str(chosen[round(row)]) if 0 <= row < len(chosen) else ""


def _bars(begin: np.ndarray, finish: np.ndarray, row: np.ndarray) -> Any:
    low, high = row - HALF, row + HALF
    x = np.stack([begin, finish, finish, begin], axis=1)
    y = np.stack([low, low, high, high], axis=1)
    return np.stack([x, y], axis=2)


def _absences(ax: Axes, trace: TraceLike, row: np.ndarray, start: float, end: float) -> list[Patch]:
    """Draw the absences of workers; return their entry of the legend, if there are any."""
    away = trace.absences
    begin, finish = away["leave_time"].to_numpy(), away["return_time"].fillna(trace.end).to_numpy()
    place = row[away["worker"].to_numpy()]
    seen = (place >= 0) & (finish > start) & (begin < end)
    if not seen.any():
        return []
    shape: dict[str, Any] = {"facecolor": AWAY, "linewidth": 0.0, "label": "absent"}
    ax.add_collection(
        PolyCollection(_bars(begin[seen], finish[seen], place[seen]), zorder=0.4, **shape), autolim=False
    )
    return [Patch(**shape)]


def _annotate(ax: Axes, begin: np.ndarray, finish: np.ndarray, row: np.ndarray, staleness: np.ndarray) -> bool:
    """Write the staleness on the bars that have room; return whether there is such a bar."""
    points = 72.0 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    box = ax.get_window_extent()
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    size = min(8.0, 0.8 * 2 * HALF * box.height * points / abs(bottom - top))
    if size < 4.0:
        return False
    before = len(ax.texts)
    room = (finish - begin) * box.width * points / (right - left)
    for x0, x1, y, value, space in zip(begin, finish, row, staleness, room, strict=True):
        if space >= 0.62 * size * len(str(value)) + 2.0:
            ax.text(
                (x0 + x1) / 2, y, str(value), ha="center", va="center_baseline", fontsize=size, clip_on=True,
                color="black",
            )  # fmt: skip
    return len(ax.texts) > before


def _updates(ax: Axes, times: np.ndarray, numbers: np.ndarray) -> Line2D:
    """Draw the updates; return their entry of the legend."""
    few = len(times) <= LINES
    low = 0.0 if few else 1.0
    segments = [[(time, low), (time, 1.02)] for time in times]
    colour, width = ("black", 0.7) if few else (GREY, 0.4)
    lines = LineCollection(
        segments, transform=ax.get_xaxis_transform(), colors=colour, linewidths=width, clip_on=False, zorder=0.5
    )
    ax.add_collection(lines, autolim=False)
    points = 72.0 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    left, right = ax.get_xlim()
    free = -np.inf
    for time, number in zip(times, numbers, strict=True):
        at = (time - left) / (right - left) * ax.get_window_extent().width * points
        half = 0.3 * NUMBER * len(str(number))
        if at - half >= free:
            ax.annotate(
                str(number), (time, 1.02), xycoords=ax.get_xaxis_transform(), xytext=(0, 1),
                textcoords="offset points", ha="center", va="bottom", fontsize=NUMBER, color=GREY,
                annotation_clip=False,
            )  # fmt: skip
            free = at + half + 3.0
    return Line2D([], [], color=colour, linewidth=width, label="update")
