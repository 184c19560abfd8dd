"""The breakdown of the workers' time against the numbers of the trace."""

import numpy as np
from matplotlib.patches import StepPatch

from stalegrad.analysis import plot_busy
from stalegrad.simulator.timing.trace import Trace


def test_parts_are_stacked_and_those_of_the_trace(trace: Trace) -> None:
    ax = plot_busy(trace)
    parts = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    heights = np.array([part.values - part.baseline for part in parts])
    np.testing.assert_allclose(heights, [[1.0, 0.6], [0.0, 0.2], [0.0, 0.2]], atol=1e-12)
    np.testing.assert_allclose(parts[0].edges, [-0.5, 0.5, 1.5])
    np.testing.assert_allclose(parts[-1].values, 1.0)


def test_the_legend_gives_means_and_wasted_is_hatched(trace: Trace) -> None:
    ax = plot_busy(trace)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["used (80%)", "wasted (10%)", "idle (10%)"]
    assert [bool(patch.get_hatch()) for patch in ax.patches] == [False, True, False]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("worker", "share of its time")
    ax.figure.draw_without_rendering()


def test_a_worker_that_never_joined_is_blank(trace: Trace) -> None:
    more = Trace(trace.messages, trace.updates, workers=3, end=5.0)
    assert more.busy().loc[2].isna().all()
    assert more.summary()["idle"] == trace.summary()["idle"]
    for patch in plot_busy(more).patches:
        assert patch.get_data().values[2] == 0.0
