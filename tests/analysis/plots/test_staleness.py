"""Histograms of staleness."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from matplotlib.patches import StepPatch

from stalegrad.analysis import plot_staleness, staleness_table
from stalegrad.analysis.plots.staleness import HEIGHT, bin_edges
from stalegrad.simulator.timing.trace import Trace


@given(st.integers(0, 5000))
def test_bins_cover_whole_numbers_and_widen_slowly(top: int) -> None:
    edges = bin_edges(top)
    widths = np.diff(edges)
    assert edges[0] == -0.5
    assert edges[-2] <= top < edges[-1]
    assert (widths[:8] == 1).all()
    assert (np.diff(widths) >= 0).all()
    assert (edges % 1 == 0.5).all()


def test_rows_are_histograms_scaled_to_their_peak(trace: Trace, fresh: Trace) -> None:
    ax = plot_staleness({"async": trace, "sync": fresh})
    steps = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)][::2]
    np.testing.assert_allclose(steps[0].values, 1 + HEIGHT * np.array([1, 0, 0, 1 / 3]))
    np.testing.assert_allclose(steps[0].edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    assert (steps[0].baseline, steps[1].baseline) == (1, 0)
    np.testing.assert_allclose(steps[1].values, [HEIGHT])


def test_wide_bins_show_the_share_per_unit_of_staleness() -> None:
    j = np.arange(20)
    table = {
        "worker": j, "read_version": 0, "read_time": 0.0, "finish_time": j + 1.0, "receive_time": j + 1.0,
        "update": j, "staleness": j, "steps": 1, "fate": "used",
    }  # fmt: skip
    updates = {"time": j + 1.0, "messages": np.ones(20, int), "gradients": np.ones(20, int)}
    ax = plot_staleness({"flat": Trace(pd.DataFrame(table), updates).verify()})
    height, edges, _ = ax.patches[0].get_data()
    assert np.diff(edges).max() == 2
    np.testing.assert_allclose(height[edges[1:] < 19.6], HEIGHT)


def test_names_means_and_units_are_written(trace: Trace, fresh: Trace, empty: Trace) -> None:
    ax = plot_staleness({"async": trace, "sync": [fresh], "none": empty})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["none", "sync", "async"]
    assert [text.get_text() for text in ax.texts] == ["mean 0.75", "always 0", "none used"]
    assert ax.get_xlabel() == "staleness (updates)"
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "^"] == [0.75, 0.0]
    assert ax.get_xticks().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("traces", "match"),
    [
        ({}, "traces is an empty mapping"),
        ({"a": []}, "traces of 'a' must be a Trace or a list"),
        ({"a": 3}, "traces of 'a' must be a Trace or a list"),
    ],
)
def test_bad_traces_are_named(traces: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        staleness_table(traces)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=match):
        plot_staleness(traces)  # type: ignore[arg-type]
