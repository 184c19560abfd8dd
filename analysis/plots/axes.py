"""Axes of all plots: figures without pyplot, labels of columns with their units, and notes."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stalegrad._core.text import plain
from stalegrad.analysis.plots.style import GREY

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
"""Labels of the columns of a history, with their units."""


class NotebookFigure(Figure):
    """A figure that is not registered with pyplot, and that a notebook shows (``axes.figure``)."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


class NotebookAxes(Axes):
    """Axes whose figure a notebook shows if they are the value of a cell."""

    def _repr_png_(self) -> bytes | None:
        figure = self.figure
        return figure._repr_png_() if isinstance(figure, NotebookFigure) else None


def new_axes(ax: Axes | None, aspect: float = 0.62) -> Axes:
    """Return ``ax``, or the axes of a new figure that is not registered with pyplot; hide two spines.

    Args:
        ax: existing axes, or None.
        aspect: height over width of the new figure, whose width is ``rcParams["figure.figsize"][0]``.
    """
    if ax is None:
        width = mpl.rcParams["figure.figsize"][0]
        figure = NotebookFigure(figsize=(width, aspect * width), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot(axes_class=NotebookAxes)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def axis_label(column: str) -> str:
    """Return the label of a column on an axis; a column without a label keeps its name."""
    return LABELS.get(column) or plain(column)


def note(ax: Axes, text: str) -> None:
    """Write a note in small grey letters above the axes."""
    ax.set_title(text, loc="right", fontsize="small", color=GREY)


def plain_number(value: float, _: object = None) -> str:
    """Return the label of a tick without padding, and without an exponent if possible: 0.2, 1, 50."""
    return f"{value:g}"
