"""Messages under way, against numbers worked out by hand and Little's law."""

import numpy as np
import pytest

from stalegrad.analysis import plot_in_transit
from stalegrad.policies.synchrony import Async, Sync
from stalegrad.simulator import Cluster, Exponential, Network, Renewal, simulate


def steps(ax):
    """Return the counts and times of the line."""
    (line,) = ax.patches
    return line.get_data().values, line.get_data().edges


def test_two_uploads_by_hand():
    cluster = Cluster(compute=[1.0, 2.0], network=Network(2.0, ingress=1.0))
    counts, times = steps(ax := plot_in_transit(simulate(cluster, Sync(), updates=1)))
    assert times.tolist() == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert counts.tolist() == [0, 1, 2, 1]
    assert [text.get_text() for text in ax.texts] == ["mean 1.2"]  # (1 + 2 * 2 + 1) / 5
    assert ax.get_xlim() == (0.0, 5.0)
    assert "simulated" in ax.get_xlabel()


def test_the_mean_is_that_of_littles_law():
    absent = Renewal(Exponential(20.0), Exponential(5.0))
    cluster = Cluster(8, Exponential(1.0), uplink=0.2, network=Network(0.1, ingress=1.0), availability=absent)
    trace = simulate(cluster, Async(), wallclock=200.0)
    counts, times = steps(plot_in_transit(trace))
    table = trace.messages[trace.messages["fate"] != "lost"]
    under_way = table["receive_time"].fillna(trace.end) - table["finish_time"]
    assert counts @ np.diff(times) == pytest.approx(under_way[table["finish_time"] <= trace.end].sum())
    assert counts.min() >= 0


def test_messages_that_take_no_time_are_none():
    ax = plot_in_transit(simulate(Cluster(3, Exponential(1.0)), Async(), updates=10))
    assert not steps(ax)[0].any()
    assert ax.get_title(loc="right") == "messages take no time"
    assert plot_in_transit(simulate(Cluster(3), Async(), updates=10), ax) is ax
