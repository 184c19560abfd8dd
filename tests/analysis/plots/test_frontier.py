"""Pictures of the frontier: a staircase, all points, names."""

import math

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import plot_pareto

K = pd.DataFrame(
    {"wallclock": [9.0, 4.0, 5.0, math.nan], "test_error": [0.1, 0.2, 0.3, 0.05]},
    index=["k=1", "k=4", "k=8", "k=9"]
)  # fmt: skip


def test_the_picture_shows_all_points_and_the_staircase() -> None:
    ax = plot_pareto(K)
    staircase, *points = ax.lines
    assert staircase.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(staircase.get_xydata(), [[4, 0.2], [9, 0.1]])
    drawn = {tuple(line.get_xydata()[0]): line.get_alpha() for line in points}
    assert drawn.keys() == {(5, 0.3), (4, 0.2), (9, 0.1)}
    assert drawn[5, 0.3] < drawn[4, 0.2] == drawn[9, 0.1] == 1
    assert sorted(text.get_text() for text in ax.texts) == ["k=1", "k=4", "k=8"]
    assert ax.get_xlabel() == "wallclock (simulated s)"
    ax.figure.draw_without_rendering()


def test_of_many_points_only_the_frontier_is_named() -> None:
    table = pd.DataFrame({"wallclock": range(30), "test_error": [1.0, *range(2, 31)]})
    assert [text.get_text() for text in plot_pareto(table).texts] == ["0"]


def test_points_that_cannot_be_drawn_are_named() -> None:
    with pytest.raises(ValueError, match="no row has a finite 'wallclock' and 'test_error'"):
        plot_pareto(K.loc[["k=9"]])
