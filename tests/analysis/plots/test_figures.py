"""What all plots share: labels that keep apart, figures without pyplot, imports that stay out."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from matplotlib import pyplot
from matplotlib.figure import Figure

from stalegrad.analysis import plot_curves, plot_staleness, plot_timeline
from stalegrad.analysis.plots.labels import spread
from stalegrad.simulator.timing.trace import Trace

NAMES = ["sync", "k-sync", "async", "k-async", "k-batch-async"]


def alike() -> dict[str, list[pd.DataFrame]]:
    """Return five methods whose curves end within a hair of one another."""
    frame = pd.DataFrame({"wallclock": [0.0, 300.0], "test_error": [0.9, 0.2]})
    return {name: [frame.assign(test_error=[0.9, 0.2 + 0.001 * i])] for i, name in enumerate(NAMES)}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_spread_keeps_order_distance_and_bounds(heights: list[float]) -> None:
    result = spread(heights, 10.0, 0.0, 100.0)
    order = np.argsort(heights, kind="stable")
    assert np.diff(result[order]).min(initial=10.0) >= 10.0 - 1e-9
    assert result.min() >= -1e-9
    assert result.max() <= 100.0 + 1e-9


def test_spread_moves_nothing_that_has_room_and_shares_the_way_otherwise() -> None:
    assert spread([50.0, 10.0, 90.0], 10.0, 0.0, 100.0).tolist() == [50.0, 10.0, 90.0]
    assert spread([50.0, 50.0], 10.0, 0.0, 100.0).tolist() == [45.0, 55.0]
    assert spread([0.0, 0.0], 10.0, 0.0, 100.0).tolist() == [0.0, 10.0]


@pytest.mark.parametrize("size", [(3.4, 2.3), (6.5, 4.0)])
@pytest.mark.parametrize("log", [False, True])
def test_end_labels_do_not_overlap_and_stay_in_the_figure(size: tuple[float, float], log: bool) -> None:
    figure = Figure(figsize=size, layout="constrained")
    ax = plot_curves(alike(), ax=figure.subplots(), log=log)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    # The extent of an annotation holds its leader too: compare the letters alone.
    letters = sorted(t.get_transform().transform((0, 0))[1] for t in ax.texts)
    height = ax.texts[0].get_fontsize() * figure.dpi / 72
    assert len(letters) == 5
    assert np.diff(letters).min() >= height
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_labels_repeat_the_marker_of_their_line() -> None:
    ax = plot_curves(alike())
    ax.figure.draw_without_rendering()
    for line, text in zip(ax.lines, ax.texts, strict=True):
        assert text.key.get_marker() == line.get_marker()
        (x,), (y,) = text.key.get_data()
        left, height = text.get_transform().transform((0, 0))
        assert ax.bbox.x1 < x < left
        assert y == height


def test_labels_of_lines_that_end_apart_stay_at_their_lines() -> None:
    frame = pd.DataFrame({"wallclock": [0.0, 10.0], "test_error": [0.9, 0.2]})
    late = pd.DataFrame({"wallclock": [0.0, 300.0], "test_error": [0.9, 0.2]})
    ax = plot_curves({"a": [frame], "b": [late]})
    ax.figure.draw_without_rendering()
    heights = [text.get_transform().transform((0, 0))[1] for text in ax.texts]
    assert heights == pytest.approx([ax.transData.transform((0, 0.2))[1]] * 2)


def test_plots_draw_into_the_axes_given_and_return_them(trace: Trace) -> None:
    figure = Figure(layout="constrained")
    axes = figure.subplots(3)
    assert plot_curves(alike(), ax=axes[0]) is axes[0]
    assert plot_staleness({"async": trace}, axes[1]) is axes[1]
    assert plot_timeline(trace, ax=axes[2]) is axes[2]


def test_axes_of_pyplot_are_welcome(trace: Trace) -> None:
    figure, ax = pyplot.subplots()
    assert plot_timeline(trace, ax=ax) is ax
    pyplot.close(figure)


def test_fresh_figures_show_in_a_notebook_and_survive_pickling(trace: Trace) -> None:
    for ax in (plot_curves(alike(), log=True), plot_staleness({"async": trace}), plot_timeline(trace)):
        assert ax.figure._repr_png_().startswith(b"\x89PNG")
        copy = pickle.loads(pickle.dumps(ax.figure))
        copy.draw_without_rendering()
        assert copy.axes[0].get_xlabel() == ax.get_xlabel()


def test_importing_the_room_brings_in_no_pyplot() -> None:
    code = "import sys; from stalegrad.analysis import *; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "matplotlib.axes" in loaded.split()
    assert "matplotlib.pyplot" not in loaded.split()
