"""Pictures of the anatomy of staleness against numbers worked out by hand and the tables of the trace."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from stalegrad.analysis import plot_anatomy, plot_dropped
from stalegrad.policies import Async, KSync
from stalegrad.simulator import Cluster, Exponential, Gamma, Uniform, simulate
from stalegrad.simulator.timing.trace import Trace


def heights(ax: Axes) -> dict[str, list[float]]:
    """Return the heights of the bars of every part, and check that the parts stand on one another."""
    below: np.ndarray | float = 0.0
    found = {}
    for bars in ax.containers:
        height = np.array([bar.get_height() for bar in bars])
        np.testing.assert_allclose([bar.get_y() for bar in bars], np.zeros(len(bars)) + below, atol=1e-12)
        below = below + height
        found[bars.get_label()] = height.tolist()
    return found


def names(ax: Axes) -> list[str]:
    """Return the texts beside the last bar."""
    return [text.get_text() for text in ax.texts if text.get_text() != "\N{BLACK SQUARE}"]


def test_bars_are_the_parts_of_every_worker_and_of_all(trace: Trace) -> None:
    # Worker 1's one used message, read at 0 and finished at 3 s, lacks the updates at 1, 2 and 3 s.
    ax = plot_anatomy(trace)
    assert heights(ax) == {"computing": [0.0, 3.0, 0.75]}
    assert names(ax) == ["computing 0.75"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "all"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("worker", "mean staleness (updates)")
    assert ax.get_ylim()[1] > 3.0


def test_parts_are_stacked_in_the_order_of_a_message_s_life() -> None:
    cluster = Cluster(5, Exponential(1.0), uplink=0.3, downlink=0.4, server=0.2)
    run = simulate(cluster, Async(), updates=300)
    ax = plot_anatomy(run)
    found, table = heights(ax), run.anatomy().messages
    assert list(found) == ["before reading", "computing", "travelling", "waiting"]
    for name, height in found.items():
        means = table.groupby("worker")[name.replace(" ", "_")].mean()
        np.testing.assert_allclose(height, [*means, table[name.replace(" ", "_")].mean()])
    assert [name.rsplit(" ", 1)[0] for name in names(ax)] == list(found)
    ax.figure.draw_without_rendering()
    centres = [text.get_window_extent().y0 for text in ax.texts[1::2]]
    assert np.diff(centres).min() >= 0.8 * ax.texts[0].get_window_extent().height


def test_many_workers_are_drawn_in_groups_by_speed() -> None:
    run = simulate(Cluster(1000, Exponential(1.0), speeds=Uniform(0.3, 2.0)), Async(), updates=20_000)
    ax = plot_anatomy(run)
    (bars,) = ax.containers
    assert len(bars) == 65
    slow, fast = (np.mean([bar.get_height() for bar in part]) for part in (bars[:8], bars[56:64]))
    assert slow > 3 * fast
    assert bars[-1].get_height() == pytest.approx(run.staleness.mean())
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["1", "126"]
    assert ax.get_xlabel() == "worker, by speed: the slowest is 1 (64 groups)"


def test_fresh_messages_and_none_at_all_are_said(fresh: Trace, empty: Trace) -> None:
    for run, said in ((fresh, "always 0"), (empty, "no message was used")):
        ax = plot_anatomy(run)
        assert ax.get_title(loc="right") == said
        assert (len(ax.containers), len(ax.texts)) == (0, 0)
        ax.figure.draw_without_rendering()


def test_dropped_workers_are_low_and_slow() -> None:
    # By hand: the workers need 1, 2 and 4 s, rounds take 2 s; what worker 2 needs is not seen: 2 s or more.
    ax = plot_dropped(simulate(Cluster(compute=[1.0, 2.0, 4.0]), KSync(2), updates=10))
    known, bound = (line for line in ax.lines if line.get_marker() != "None")
    assert known.get_xydata().tolist() == [[1.0, 1.0], [0.5, 1.0]]
    assert bound.get_xydata().tolist() == [[0.5, 0.0]]
    assert [text.get_text() for text in ax.texts] == ["2", "1", "0"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["speed", "speed at most"]
    (line,) = (line for line in ax.lines if line.get_marker() == "None")
    assert line.get_ydata()[0] == pytest.approx((10 + 20) / (10 + 20 + 20))
    assert "gradients per simulated s" in ax.get_xlabel()


def test_of_many_workers_none_is_numbered() -> None:
    run = simulate(Cluster(100, Gamma(1.0, 0.5), speeds=Uniform(0.3, 2.0)), KSync(60), updates=50)
    ax = plot_dropped(run)
    assert len(ax.texts) == 0
    drawn = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() != "None")
    assert drawn == 100


def test_where_nothing_was_closed_the_picture_says_so(empty: Trace) -> None:
    ax = plot_dropped(empty)
    assert ax.get_title(loc="right") == "no message was closed"
    ax.figure.draw_without_rendering()


def test_axes_given_are_drawn_into_and_returned(trace: Trace) -> None:
    from matplotlib.figure import Figure

    one, other = Figure(layout="constrained").subplots(1, 2)
    assert plot_anatomy(trace, one) is one
    assert plot_dropped(trace, ax=other) is other
