"""The frontier against comparing every row with every other."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from stalegrad.analysis import mean_curves, pareto

VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf])
K = pd.DataFrame(
    {"wallclock": [9.0, 4.0, 5.0, math.nan], "test_error": [0.1, 0.2, 0.3, 0.05]},
    index=["k=1", "k=4", "k=8", "k=9"]
)  # fmt: skip


def beaten(p: np.ndarray, points: np.ndarray) -> bool:
    return any((q <= p).all() and (q < p).any() for q in points)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_the_frontier_is_what_no_row_dominates(points: list[tuple[float, float]]) -> None:
    table = pd.DataFrame(points, columns=["wallclock", "test_error"], dtype=float)
    values = table.to_numpy()
    finite = values[np.isfinite(values).all(axis=1)]
    expected = [bool(np.isfinite(p).all()) and not beaten(p, finite) for p in values]
    assert pareto(table)["frontier"].tolist() == expected


def test_the_table_is_kept_and_not_changed() -> None:
    before = K.copy()
    marked = pareto(K)
    assert marked["frontier"].to_dict() == {"k=1": True, "k=4": True, "k=8": False, "k=9": False}
    pd.testing.assert_frame_equal(K, before)
    pd.testing.assert_frame_equal(marked.drop(columns="frontier"), before)


def test_curves_have_a_frontier_too() -> None:
    histories = {
        "fast": [pd.DataFrame({"wallclock": [0, 1, 4], "test_error": [0.9, 0.5, 0.4]})],
        "good": [pd.DataFrame({"wallclock": [0, 2, 4], "test_error": [0.9, 0.6, 0.1]})],
    }
    marked = pareto(mean_curves(histories)).query("frontier")
    assert marked.reset_index().to_numpy().tolist() == [
        ["fast", 0, 0.9, True], ["fast", 1, 0.5, True], ["good", 0, 0.9, True], ["good", 4, 0.1, True],
    ]  # fmt: skip


def test_bad_tables_are_named() -> None:
    with pytest.raises(ValueError, match="table is a list: give a DataFrame"):
        pareto([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the table has no column 'error': it has wallclock, test_error"):
        pareto(K, y="error")
