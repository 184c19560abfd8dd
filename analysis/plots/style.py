"""What all plots share: axes without pyplot, styles that differ in grey, labels at line ends."""

from __future__ import annotations

import functools
import io
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Affine2D, IdentityTransform, Transform
from scipy.optimize import isotonic_regression

from stalegrad._core.text import plain

LABELS = {
    "wallclock": "wallclock (simulated s)",
    "update": "updates",
    "gradients": "mini-batch gradients used",
    "epoch": "epochs",
    "train_loss": "training loss",
    "test_loss": "test loss",
    "test_error": "test error (fraction)",
    "mean_staleness": "mean staleness (updates)",
    "max_staleness": "maximum staleness (updates)",
    "mean_gap": "mean gap (RMSE over parameters)",
    "learning_rate": "learning rate (per update)",
}
"""What the columns of a history are called on an axis, with their units."""

KEY = 7.0
"""Room for the marker before a label, in points."""

GREY = "0.35"
"""Colour of notes and leaders."""


class Style(NamedTuple):
    """How the lines of one method look; no two of the first eight are alike in grey."""

    color: str
    linestyle: Any
    marker: str
    filled: bool


STYLES = (
    Style("#000000", "-", "o", True),
    Style("#d55e00", (0, (5, 1.5)), "s", False),
    Style("#0b5fa5", "-", "^", False),
    Style("#2f9475", (0, (4, 1.2, 1, 1.2)), "D", True),
    Style("#7b3fa0", (0, (1.2, 1)), "v", False),
    Style("#b58900", "-", "P", False),
    Style("#5a5a5a", (0, (8, 2)), "X", True),
    Style("#b03060", (0, (3, 1, 1, 1, 1, 1)), "p", True),
)


class NotebookFigure(Figure):
    """A figure that pyplot does not know, and that a notebook shows all the same (``axes.figure``)."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


class NotebookAxes(Axes):
    """Axes whose figure a notebook shows where they are the last line of a cell."""

    def _repr_png_(self) -> bytes | None:
        figure = self.figure
        return figure._repr_png_() if isinstance(figure, NotebookFigure) else None


def new_axes(ax: Axes | None, aspect: float = 0.62) -> Axes:
    """Return ``ax``, or the axes of a fresh figure that belongs to no pyplot; hide two spines.

    Args:
        ax: axes of the caller's, or None.
        aspect: height over width of the fresh figure, whose width is ``rcParams["figure.figsize"][0]``.
    """
    if ax is None:
        width = mpl.rcParams["figure.figsize"][0]
        figure = NotebookFigure(figsize=(width, aspect * width), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot(axes_class=NotebookAxes)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def style(index: int) -> Style:
    """Return the style of the method at this place in a mapping."""
    return STYLES[index % len(STYLES)]


def axis_label(column: str) -> str:
    """Return what a history's column is called on an axis; a column of the user's own keeps its name."""
    return LABELS.get(column) or plain(column)


def note(ax: Axes, text: str) -> None:
    """Say in small grey letters above the axes what the marks mean."""
    ax.set_title(text, loc="right", fontsize="small", color=GREY)


def plain_number(value: float, _: object = None) -> str:
    """Return a tick's number as people write it: 0.2, 1, 50."""
    return f"{value:g}"


def marker_style(look: Style) -> dict[str, Any]:
    """Return how a method's markers are drawn, as keywords of ``Line2D``."""
    return {
        "color": look.color, "marker": look.marker, "markersize": 3.8, "markeredgewidth": 0.9,
        "markerfacecolor": look.color if look.filled else "white",
    }  # fmt: skip


class _Label(Annotation):
    """A name, the marker before it and a leader to what it names."""

    def __init__(self, text: str, xy: tuple[float, float], slot: Any, look: Style) -> None:
        leader = {
            "arrowstyle": "-", "color": look.color, "linewidth": 0.5, "alpha": 0.6, "relpos": (0.0, 0.5),
            "shrinkA": KEY + 2.0, "shrinkB": 2.0, "patchB": None,
        }  # fmt: skip
        super().__init__(
            text, xy, xytext=(0.0, 0.0), textcoords=slot, va="center", ha="left", color=look.color,
            fontsize="small", clip_on=False, arrowprops=leader,
        )  # fmt: skip
        self.set_path_effects([withStroke(linewidth=2.0, foreground="white")])
        self.key = Line2D([], [], linestyle="none", **marker_style(look))

    def draw(self, renderer: Any) -> None:
        super().draw(renderer)
        ax, figure = self.axes, self.get_figure()
        if ax is None or figure is None or not self.get_visible():
            return
        end: Any = ax.transData.transform(self.xy)
        if ax.contains_point(end):
            x, y = self.get_transform().transform((0.0, 0.0))
            self.key.set_data([x - renderer.points_to_pixels(KEY - 2.0)], [y])
            if self.key.get_figure() is None:
                self.key.set_figure(figure)
            self.key.draw(renderer)


class EndLabels:
    """Names at the ends of lines, moved apart vertically where they would overlap.

    Places are found when the figure is drawn, so they hold for every size, scale and zoom. The labels
    stand to the right of the axes: give your figure ``layout="constrained"``, or leave room there.

    Args:
        ax: where the lines are.
    """

    offset = 16.0
    """Points between a line's end and its label; the last ``KEY`` of them hold the marker."""

    def __init__(self, ax: Axes) -> None:
        """Start without labels."""
        self.ax = ax
        self.labels: list[_Label] = []

    def add(self, text: str, x: float, y: float, look: Style) -> None:
        """Name the line that ends at data coordinates ``(x, y)``, and repeat its marker before the name."""
        slot = functools.partial(self._place, len(self.labels))
        label = _Label(plain(text), (x, y), slot, look)
        label.set_transform(IdentityTransform())
        self.ax.add_artist(label)
        self.labels.append(label)

    def _place(self, index: int, renderer: Any) -> Transform:
        x, y = self.places(renderer)[index]
        return Affine2D().translate(x, y)

    def places(self, renderer: Any) -> Any:
        """Return where the labels stand, as an array (labels, 2) in pixels."""
        ends = np.array([self.ax.transData.transform(label.xy) for label in self.labels])
        size = renderer.points_to_pixels(max(label.get_fontsize() for label in self.labels))
        ends[:, 0] += renderer.points_to_pixels(self.offset)
        width = np.array([0.6 * size * len(label.get_text()) for label in self.labels])
        box = self.ax.bbox
        for group in _columns(ends[:, 0], width):
            ends[group, 1] = spread(ends[group, 1], 1.15 * size, box.y0, box.y1)
        return ends


def _columns(left: Any, width: Any) -> list[Any]:
    """Group labels whose horizontal extents overlap."""
    groups: list[list[int]] = []
    right = -np.inf
    for index in np.argsort(left, kind="stable"):
        if left[index] >= right:
            groups.append([])
            right = -np.inf
        groups[-1].append(int(index))
        right = max(right, left[index] + width[index])
    return [np.array(group) for group in groups]


def spread(heights: Any, gap: float, low: float, high: float) -> Any:
    """Return the heights nearest to these (least squares) that lie ``gap`` apart, within bounds if they fit.

    Args:
        heights: array (n,).
        gap: least distance of neighbours.
        low: bound below.
        high: bound above.
    """
    heights = np.asarray(heights, float)
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    fitted = isotonic_regression(heights[order] - steps).x
    top = max(high - gap * (len(heights) - 1), low)
    result = np.empty_like(heights)
    result[order] = np.clip(fitted, low, top) + steps
    return result
