"""The picture of a what-if: where the points are, and what is named."""

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import plot_what_if


def table(**changes):
    columns = {
        "speedup": [1.0, 1.5, 2.0], "low": [1.0, 1.4, 1.7], "high": [1.0, 1.6, 2.4], "staleness": [0.0, 0.9, 31.0]
    }  # fmt: skip
    return pd.DataFrame(columns | changes, index=["sync", "k-batch-async (k = 4)", "async"])


def points(ax):
    return [line.get_xydata()[0].tolist() for line in ax.lines if line.get_linestyle() == "None"]


def test_points_are_speedups_against_staleness_with_their_intervals():
    ax = plot_what_if(table())
    assert points(ax) == [[0.0, 1.0], [0.9, 1.5], [31.0, 2.0]]
    bars = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.0]
    assert [list(bar) for bar in bars] == [[1.0, 1.0], [1.4, 1.6], [1.7, 2.4]]
    named = {artist.get_text() for artist in ax.get_children() if hasattr(artist, "get_text")}
    assert {"sync", "k-batch-async (k = 4)", "async"} <= named
    low, high = ax.get_xlim()
    assert low < 0
    assert high > 31.0


def test_what_made_no_update_is_left_out():
    ax = plot_what_if(table(staleness=[0.0, np.nan, 31.0]))
    assert points(ax) == [[0.0, 1.0], [31.0, 2.0]]


def test_only_fresh_ones_can_be_drawn():
    ax = plot_what_if(table(staleness=[0.0, 0.0, 0.0]))
    ax.figure.canvas.draw()
    assert ax.get_xticks().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("bad", "said"),
    [(table().drop(columns="low"), "no column 'low'"), (table(speedup=np.nan), "nothing can be drawn")],
)
def test_a_table_without_numbers_is_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        plot_what_if(bad)
