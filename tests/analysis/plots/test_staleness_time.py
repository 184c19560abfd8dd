"""Staleness in spans of time, against means and percentiles worked out row by row."""

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import plot_staleness_map, plot_staleness_time
from stalegrad.policies.synchrony import KAsync
from stalegrad.simulator import Cluster, Exponential, Trace, simulate


@pytest.fixture
def long() -> Trace:
    return simulate(Cluster(workers=5, compute=Exponential(1.0)), KAsync(k=2), updates=400, seed=0)


def used_rows(trace: Trace) -> pd.DataFrame:
    rows = trace.messages.query("update >= 0")
    return rows.assign(time=trace.update_times[rows["update"]])


def test_the_line_is_the_mean_in_each_span(long: Trace) -> None:
    (line,) = plot_staleness_time({"k-async": long}).lines
    rows = used_rows(long)
    spans = len(rows) // 20
    assert len(line.get_xdata()) == spans == 40
    width = rows["time"].max() / spans
    for x, y in line.get_xydata():
        inside = rows[(rows["time"] > x - width / 2 + 1e-9) & (rows["time"] <= x + width / 2 + 1e-9)]
        assert y == pytest.approx(inside["staleness"].mean())


def test_the_band_is_between_percentiles_that_were_observed(long: Trace) -> None:
    ax = plot_staleness_time({"k-async": long})
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert set(edges.tolist()) <= set(used_rows(long)["staleness"].tolist()) | {0.0}
    assert edges.max() <= long.staleness.max()


def test_several_traces_are_taken_together_and_methods_are_named(long: Trace, fresh: Trace) -> None:
    ax = plot_staleness_time({"k-async": [long, long], "sync": fresh})
    assert [text.get_text() for text in ax.texts] == ["k-async", "sync"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("wallclock (simulated s)", "staleness (updates)")
    assert ax.lines[1].get_xydata().tolist() == [[2.0, 0.0]]
    ax.figure.draw_without_rendering()


def test_the_map_holds_the_mean_of_each_worker_in_each_span(long: Trace) -> None:
    ax = plot_staleness_map(long)
    mesh = ax.collections[0]
    cells, edges = mesh.get_array(), mesh.get_coordinates()[0, :, 0]
    rows = used_rows(long)
    assert cells.shape == (5, 80)
    blank = 0
    for worker, span in np.ndindex(cells.shape):
        inside = rows[
            (rows["worker"] == worker) & (rows["time"] > edges[span]) & (rows["time"] <= edges[span + 1])
        ]
        blank += inside.empty
        assert bool(np.ma.getmaskarray(cells)[worker, span]) == inside.empty
        if not inside.empty:
            assert cells[worker, span] == pytest.approx(inside["staleness"].mean())
    assert 0 < blank < 100
    assert ax.get_ylim() == (4.5, -0.5)
    ax.figure.draw_without_rendering()


def test_without_a_used_message_there_is_nothing_to_draw() -> None:
    none = simulate(Cluster(workers=2, compute=Exponential(1e6)), KAsync(k=2), wallclock=1e-3, seed=0)
    with pytest.raises(ValueError, match="no message of a was used"):
        plot_staleness_time({"a": none})
    with pytest.raises(ValueError, match="no message of the trace was used"):
        plot_staleness_map(none)
