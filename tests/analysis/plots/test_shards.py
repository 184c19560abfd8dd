"""The picture of shards against the numbers of the table."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from stalegrad.analysis import plot_shards
from stalegrad.models import Assigned, Problem

TABLE = pd.DataFrame([[3, 0, 1], [1, 6, 1]], index=["ant", "bee"])


def heights(ax, bars):
    """Return what each class adds to the bars, (classes, bars)."""
    parts = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    added = [top - baseline for top, _, baseline in parts]
    return np.array([class_ for class_ in added if len(class_) == bars])


def test_bars_are_the_columns_and_the_last_is_their_mean() -> None:
    ax = plot_shards(TABLE)
    np.testing.assert_allclose(heights(ax, 3), TABLE)
    np.testing.assert_allclose(heights(ax, 1)[:, 0], TABLE.mean(axis=1))
    assert [text.get_text() for text in ax.texts[1::2]] == ["ant (33%)", "bee (67%)"]
    assert ax.get_title(loc="right") == "shards of 2 to 6 examples"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("worker", "training examples")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", "mean"]
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize(("classes", "named"), [(1, 1), (8, 8), (16, 16), (17, 2), (100, 2)])
def test_classes_have_colours_of_their_own_and_up_to_sixteen_have_names(classes: int, named: int) -> None:
    ax = plot_shards(pd.DataFrame(np.ones((classes, 100), int)))
    colours = [to_hex(patch.get_facecolor()) for patch in ax.patches[::2]]
    assert len(set(colours)) == classes
    assert len(ax.texts) == 2 * named
    assert [text.get_color() == "black" for text in ax.texts] == [False, True] * named
    ax.figure.draw_without_rendering()


def test_it_draws_what_a_problem_returns() -> None:
    rows = np.arange(6.0)
    problem = Problem.from_functions(
        lambda key: rows[:1], lambda w, batch, key: (w**2).sum(), train=rows, labels=[0, 0, 1, 1, 1, 1],
        batch_size=1, partition=Assigned([0, 1, 1, 1, 1, 1]),
    )  # fmt: skip
    np.testing.assert_allclose(heights(plot_shards(problem.shards(2)), 2), [[1, 1], [0, 4]])


@pytest.mark.parametrize("wrong", [[], [[-1, 2]], [[0, 0]], [[np.nan, 1.0]]])
def test_what_is_no_table_of_counts_is_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="give a table of counts, a row per class and a column per worker"):
        plot_shards(pd.DataFrame(wrong))
