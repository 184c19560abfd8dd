"""Bars of the Gantt chart against the rows of the trace."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.text import Annotation

from stalegrad.analysis import plot_timeline
from stalegrad.analysis.plots.timeline import DENSE, HALF, default_end
from stalegrad.policies import Async
from stalegrad.simulator import Cluster, Events, simulate
from stalegrad.simulator.timing.trace import Trace


def bars(ax: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """Return begin, end and row of every bar, by fate."""
    found = {}
    for collection in ax.collections:
        if isinstance(collection, PolyCollection):
            corners = np.array([path.vertices[:4] for path in collection.get_paths()])
            assert np.ptp(corners[:, :, 1], axis=1) == pytest.approx(2 * HALF)
            low, high = corners[:, :, 0].min(axis=1), corners[:, :, 0].max(axis=1)
            rows = corners[:, :, 1].mean(axis=1).round(9)
            found[collection.get_label()] = sorted(zip(low.tolist(), high.tolist(), rows.tolist(), strict=True))
    return found


def lines(ax: Axes) -> list[float]:
    (collection,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [segment[0][0] for segment in collection.get_segments()]


def many(messages: int, workers: int = 8) -> Trace:
    """Return an asynchronous trace of equal workers that are one after the other."""
    j = np.arange(messages)
    start = np.where(j < workers, 0.0, (j - workers + 1) / workers)
    finish = (j + 1) / workers
    version = np.maximum(j - workers + 1, 0)
    table = {
        "worker": j % workers, "read_version": version, "read_time": start, "finish_time": finish,
        "receive_time": finish, "update": j, "staleness": j - version, "steps": 1, "fate": "used",
    }  # fmt: skip
    ones = np.ones(messages, int)
    updates = {"time": finish, "messages": ones, "gradients": ones}
    return Trace(pd.DataFrame(table), updates, workers=workers).verify()


def test_bars_are_the_rows_of_the_trace(trace: Trace) -> None:
    assert bars(plot_timeline(trace, end=5.0)) == {
        "used": [(0, 1, 0), (0, 3, 1), (1, 2, 0), (2, 3, 0)],
        "cancelled": [(3, 4, 1)],
        "pending": [(3, 5, 0)],
    }


def test_fates_differ_in_hatch_and_luminance(trace: Trace) -> None:
    looks = {c.get_label(): c for c in plot_timeline(trace).collections if isinstance(c, PolyCollection)}
    assert looks["cancelled"].get_hatch()
    assert not looks["pending"].get_hatch()
    red, green, blue, _ = looks["used"].get_facecolor()[0]
    assert 0.3 * red + 0.59 * green + 0.11 * blue < 0.8
    assert looks["pending"].get_facecolor()[0].tolist() == [1, 1, 1, 1]


def test_updates_are_marked_and_numbered(trace: Trace) -> None:
    ax = plot_timeline(trace, end=5.0)
    assert lines(ax) == [1, 2, 3, 3]
    assert [text.get_text() for text in ax.texts if isinstance(text, Annotation)] == ["0", "1", "2"]


def test_bars_carry_their_staleness_where_there_is_room(trace: Trace) -> None:
    def written(ax: Axes) -> dict[tuple[float, float], str]:
        return {tuple(t.get_position()): t.get_text() for t in ax.texts if not isinstance(t, Annotation)}

    ax = plot_timeline(trace, end=5.0)
    assert written(ax) == {(0.5, 0): "0", (1.5, 0): "0", (1.5, 1): "3", (2.5, 0): "0"}
    assert not written(plot_timeline(trace, end=5000.0))


def test_window_and_workers_choose_what_is_drawn(trace: Trace) -> None:
    ax = plot_timeline(trace, start=3.0, end=4.5, workers=[1])
    assert bars(ax) == {"cancelled": [(3, 4, 0)]}
    assert ax.get_xlim() == (3.0, 4.5)
    ax.figure.draw_without_rendering()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1"]


def test_first_worker_is_on_top_and_axes_have_units(trace: Trace) -> None:
    ax = plot_timeline(trace)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("wallclock (simulated s)", "worker")
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["used (staleness)", "cancelled", "pending", "update"]


def test_default_window_is_six_messages_of_a_worker() -> None:
    assert default_end(many(800), 0.0) == pytest.approx(6.0, rel=0.01)
    assert default_end(many(800), 50.0) == pytest.approx(56.0)
    assert default_end(many(16), 0.0) == 2.0


def test_default_window_holds_five_updates_at_least(fresh: Trace) -> None:
    times = [10.0 * (j + 1) for j in range(9)]
    rows = {
        "worker": 0, "read_version": range(9), "read_time": [0.0, *times[:-1]], "receive_time": times,
        "finish_time": [t - 9.0 for t in times], "update": range(9), "staleness": 0, "steps": 1, "fate": "used",
    }  # fmt: skip
    ones = [1] * 9
    trace = Trace(pd.DataFrame(rows), {"time": times, "messages": ones, "gradients": ones}).verify()
    assert default_end(trace, 0.0) == 50.0


def test_thousands_of_bars_are_a_handful_of_artists() -> None:
    ax = plot_timeline(many(20_000), end=2500.0)
    assert len(bars(ax)["used"]) == 20_000
    assert len(ax.collections) == 2
    assert len(ax.texts) < 100
    assert len(lines(ax)) == 20_000


def test_many_workers_are_cut_and_the_axis_says_so() -> None:
    ax = plot_timeline(many(2000, workers=100))
    assert ax.get_ylabel() == "worker (32 of 100)"
    assert {row for _, _, row in bars(ax)["used"]} == set(range(32))
    assert plot_timeline(many(2000, workers=100), workers=range(100)).get_ylabel() == "worker"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"start": 5.0}, "start is 5.0: give seconds from 0 to below 5"),
        ({"start": -1.0}, "start is -1.0"),
        ({"start": 2.0, "end": 2.0}, "end is 2.0: give seconds after start, 2"),
        ({"workers": [2]}, r"workers is \[2\]: give at least one number from 0 to 1, none twice"),
        ({"workers": [0, 0]}, "none twice"),
        ({"workers": []}, "at least one"),
    ],
)
def test_bad_windows_and_workers_are_named(trace: Trace, arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        plot_timeline(trace, **arguments)  # type: ignore[arg-type]


def test_bars_too_many_to_tell_apart_have_neither_edge_nor_hatch() -> None:
    def look(messages: int) -> tuple[str | None, float]:
        table = many(messages).messages
        table.loc[3, ["fate", "update", "staleness"]] = ["discarded", -1, -1]
        ones = np.ones(messages, int)
        trace = Trace(table, {"time": table["finish_time"], "messages": ones, "gradients": ones})
        ax = plot_timeline(trace, end=trace.end)
        (wasted,) = [c for c in ax.collections if c.get_label() == "discarded"]
        return wasted.get_hatch(), wasted.get_linewidth()[0]

    assert look(DENSE) == ("////", 0.6)
    assert look(DENSE + 1) == (None, 0.0)


def test_absences_are_drawn_where_workers_are_away() -> None:
    away = Events([2.5, 4.0, 3.0], [1, 1, 0], ["leave", "join", "leave"])
    trace = simulate(Cluster(3, 1.0, availability=away), Async(), wallclock=5.0)
    found = bars(plot_timeline(trace))
    assert found["absent"] == [(2.5, 4.0, 1), (3.0, 5.0, 0)]
    assert (2.0, 2.5, 1) in found["lost"]
    assert "absent" not in bars(plot_timeline(trace, end=2.0))
