"""Histories on a grid, against numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import on_grid
from stalegrad.analysis.statistics.curves import shown_column

NAN = math.nan


def history(x: list[float], y: list[float], loss: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": loss or y})


TWO = [history([0, 2, 4], [1.0, 0.5, 0.25]), history([0, 2, 4], [0.8, 0.3, 0.05])]


def test_on_grid_takes_the_last_row_at_or_before_and_invents_nothing_outside() -> None:
    grid, values = on_grid(
        [history([0, 1, 1, 3], [4, 3, 2, 1])], "wallclock", "test_error", [-1, 0, 0.5, 1, 2, 3, 4]
    )
    assert grid.tolist() == [-1, 0, 0.5, 1, 2, 3, 4]
    np.testing.assert_array_equal(values, [[NAN, 4, 4, 2, 2, 1, NAN]])


def test_on_grid_defaults_to_every_abscissa_that_occurs() -> None:
    grid, values = on_grid([history([0, 2], [4, 3]), history([0, 1, 3], [9, 8, 7])], "wallclock", "test_error")
    assert grid.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(values, [[4, 4, 3, NAN], [9, 8, 8, 7]])


@pytest.mark.parametrize("grid", [[[0.0]], [NAN]])
def test_on_grid_refuses_a_grid_that_is_none(grid: object) -> None:
    with pytest.raises(ValueError, match="grid must be one-dimensional"):
        on_grid(TWO, "wallclock", "test_error", grid)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"test_error": 0.5, "test_loss": 1.0, "train_loss": 2.0}, "test_error"),
        ({"test_error": NAN, "test_loss": 1.0, "train_loss": 2.0}, "test_loss"),
        ({"test_loss": 1.0, "train_loss": 2.0}, "test_loss"),
        ({"test_error": NAN, "test_loss": NAN, "train_loss": 2.0}, "train_loss"),
        ({"test_error": NAN, "test_loss": math.inf, "train_loss": 2.0}, "train_loss"),
        ({"test_error": NAN, "test_loss": NAN, "train_loss": NAN}, "train_loss"),
    ],
)
def test_the_column_shown_is_the_first_with_a_finite_value(columns: dict[str, float], shown: str) -> None:
    assert shown_column([pd.DataFrame(columns, index=[0])]) == shown


def test_one_history_with_a_test_error_is_enough_to_show_it() -> None:
    known, unknown = ({"test_error": e, "train_loss": 1.0} for e in (0.5, NAN))
    assert shown_column([pd.DataFrame(unknown, index=[0]), pd.DataFrame(known, index=[0])]) == "test_error"
