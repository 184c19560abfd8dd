"""Histograms of the staleness of used messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory

from stalegrad._core.protocols import TraceLike
from stalegrad._core.text import plain
from stalegrad.analysis.plots.axes import new_axes, note, plain_number
from stalegrad.analysis.plots.style import styles
from stalegrad.analysis.statistics.staleness import pooled_staleness

FINE = 8
"""Staleness below which every bar of a histogram is one update wide."""

GROWTH = 1.12
"""Factor by which bars widen above ``FINE``, so that they stay visible on the logarithmic axis."""

HEIGHT = 0.8
"""Height of the highest bar, in rows."""


def plot_staleness(traces: Mapping[str, TraceLike | Sequence[TraceLike]], ax: Axes | None = None) -> Axes:
    """Plot the staleness histogram of every method, one above the other.

    The abscissa is logarithmic in 1 + staleness, so that methods whose means differ by an order of
    magnitude, and methods without staleness, are legible in one picture. The height is the share of
    messages per unit of staleness, each row scaled to its own maximum; bars above 8 updates combine several
    values. A triangle and a number mark the mean.

    Args:
        traces: trace of each label, or several traces, whose messages are pooled.
        ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.

    Returns:
        The axes; the first method is the top row.

    Raises:
        ValueError: if the mapping is empty or a value is not a trace.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import plot_staleness
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> ax = plot_staleness({"async": trace})
        >>> ax.get_xlabel()
        'staleness (updates)'
    """
    staleness = pooled_staleness(traces)
    ax = new_axes(ax, aspect=max(0.3, min(1.2, 0.1 * len(staleness) + 0.12)))
    top = max((int(values.max()) for values in staleness.values() if len(values)), default=0)
    beside = blended_transform_factory(ax.transAxes, ax.transData)
    looks = styles(staleness)
    for index, (label, values) in enumerate(staleness.items()):
        base, look = len(staleness) - 1 - index, looks[label]
        ax.axhline(base, color="0.75", linewidth=0.6, zorder=1)
        text = "none used"
        if len(values):
            edges = bin_edges(int(values.max()))
            density = np.histogram(values, edges)[0] / np.diff(edges)
            height = HEIGHT * density / density.max()
            ax.stairs(base + height, edges, baseline=base, fill=True, color=look.color, alpha=0.3, linewidth=0)
            ax.stairs(base + height, edges, baseline=base, color=look.color, linewidth=0.9)
            mean = float(values.mean())
            ax.plot(mean, base, "^", color="black", markersize=4.5, clip_on=False, zorder=4)
            text = ("mean " + (f"{mean:.3g}" if mean < 100 else f"{mean:.0f}")) if values.any() else "always 0"
        ax.text(1.01, base + HEIGHT / 4, text, transform=beside, va="center", ha="left", fontsize="small")
    ax.set_xscale("function", functions=(_squeeze, _stretch))
    ax.set_xlim(-0.5, bin_edges(top)[-1])
    ticks = _ticks(top)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(plain_number))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(-0.12, len(staleness) - 1 + 1.15 * HEIGHT)
    ax.set_yticks([row + HEIGHT / 4 for row in range(len(staleness))], [plain(label) for label in staleness][::-1])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("staleness (updates)")
    ax.set_ylabel("share of used messages")
    note(ax, "each row scaled to its maximum")
    return ax


def bin_edges(top: int) -> npt.NDArray[np.float64]:
    """Return histogram edges half-way between whole numbers that cover 0 to ``top``."""
    edges = [-0.5]
    while edges[-1] <= top:
        start = edges[-1] + 0.5
        width = 1 if start < FINE else max(1, round(start * (GROWTH - 1)))
        edges.append(edges[-1] + width)
    return np.array(edges)


def _squeeze(staleness: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log1p(np.maximum(staleness, -0.999))


def _stretch(place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.expm1(place)


def _ticks(top: int) -> list[int]:
    ticks = [0, 1, 2, 5]
    while ticks[-1] < top:
        ticks += [ticks[-3] * 10, ticks[-2] * 10, ticks[-1] * 10]
    return [tick for tick in ticks if tick <= max(top, 1)]
