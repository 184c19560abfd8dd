"""Labels at the ends of lines, moved apart if they would overlap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Affine2D, IdentityTransform, Transform
from scipy.optimize import isotonic_regression

from stalegrad._core.text import plain
from stalegrad.analysis.plots.style import Style, marker_style

KEY = 7.0
"""Width of the space for the marker before a label, in points."""


class _Label(Annotation):
    """A label with the marker before it and a leader to the end of its line."""

    def __init__(
        self, text: str, xy: tuple[float, float], slot: Callable[[RendererBase], Transform], look: Style
    ) -> None:
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

    def draw(self, renderer: RendererBase) -> None:
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
    """Labels at the ends of lines, moved apart vertically if they would overlap.

    Places are computed when the figure is drawn, so that they fit every size, scale and zoom. The labels
    are to the right of the axes: use a figure with ``layout="constrained"``, or leave room there.

    Args:
        ax: axes of the lines.
    """

    offset = 16.0
    """Points between a line's end and its label; the last ``KEY`` of them hold the marker."""

    def __init__(self, ax: Axes) -> None:
        """Start without labels."""
        self.ax = ax
        self.labels: list[_Label] = []

    def add(self, text: str, x: float, y: float, look: Style) -> None:
        """Add a label, with the line's marker before it, for a line that ends at data coordinates ``(x, y)``."""
        slot = functools.partial(self._place, len(self.labels))
        label = _Label(plain(text), (x, y), slot, look)
        label.set_transform(IdentityTransform())
        self.ax.add_artist(label)
        self.labels.append(label)

    def _place(self, index: int, renderer: RendererBase) -> Transform:
        x, y = self.places(renderer)[index]
        return Affine2D().translate(x, y)

    def places(self, renderer: RendererBase) -> np.ndarray:
        """Return the places of the labels, an array (labels, 2) in pixels."""
        ends = np.array([self.ax.transData.transform(label.xy) for label in self.labels])
        size: Any = renderer.points_to_pixels(max(label.get_fontsize() for label in self.labels))
        ends[:, 0] += renderer.points_to_pixels(self.offset)
        width = np.array([0.6 * size * len(label.get_text()) for label in self.labels])
        box = self.ax.bbox
        for group in _columns(ends[:, 0], width):
            ends[group, 1] = spread(ends[group, 1], 1.15 * size, box.y0, box.y1)
        return ends


def _columns(left: np.ndarray, width: np.ndarray) -> list[np.ndarray]:
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


def spread(heights: npt.ArrayLike, gap: float, low: float, high: float) -> np.ndarray:
    """Return the heights nearest to ``heights`` (least squares) that are ``gap`` apart, within bounds if they fit.

    Args:
        heights: array (n,).
        gap: least distance between neighbours.
        low: lower bound.
        high: upper bound.
    """
    heights = np.asarray(heights, float)
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    fitted = isotonic_regression(heights[order] - steps).x
    top = max(high - gap * (len(heights) - 1), low)
    result = np.empty_like(heights)
    result[order] = np.clip(fitted, low, top) + steps
    return result
