"""Pictures that commands write beside their results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from stalegrad.analysis import plot_curves, plot_staleness, plot_timeline
from stalegrad.analysis.statistics.curves import shown_column
from stalegrad.simulator.experiments.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_result(result: Result, out: Path) -> list[Path]:
    """Draw error against wallclock, staleness and the workers' timeline of one run."""
    name = result.experiment.method.name
    y = shown_column([result.history])
    return [
        save(plot_curves({name: [result.history]}, y=y), out / "error.png"),
        save(plot_staleness({name: result.trace}), out / "staleness.png"),
        save(plot_timeline(result.trace), out / "timeline.png"),
    ]


def save(ax: Axes, path: Path) -> Path:
    """Write the figure of an Axes as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cast("Figure", ax.figure).savefig(path, dpi=160, bbox_inches="tight", metadata={"Software": None})
    return path
