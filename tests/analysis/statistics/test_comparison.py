"""Methods side by side, against numbers worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import comparison
from stalegrad.simulator.timing.trace import Trace


def history(x: list[float], y: list[float], last_loss: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": [1.0] * (len(x) - 1) + [last_loss]})


GOOD = history([0, 2, 4], [0.9, 0.4, 0.2])
BETTER = history([0, 2, 4], [0.9, 0.3, 0.1])
LOST = history([0, 2], [0.9, math.nan], math.nan)


def test_every_number_of_a_row(trace: Trace, fresh: Trace) -> None:
    table = comparison({"async": [(trace, GOOD)], "sync": [(fresh, GOOD), (fresh, BETTER)]}, target=0.3)
    assert table.loc["async"].to_dict() == {
        "seeds": 1, "reached": 1, "diverged": 0, "wallclock": 4.0, "updates": 4, "mean_staleness": 0.75,
        "idle": pytest.approx(0.1), "wasted": pytest.approx(0.1), "test_error": 0.2,
    }  # fmt: skip
    assert table.loc["sync"].to_dict() == {
        "seeds": 2, "reached": 2, "diverged": 0, "wallclock": 3.0, "updates": 2, "mean_staleness": 0.0,
        "idle": pytest.approx(0.25), "wasted": 0.0, "test_error": pytest.approx(0.15),
    }  # fmt: skip


def test_not_reached_is_nan_with_counts_and_divergence_is_the_worst_value(trace: Trace) -> None:
    results = {"most": [GOOD, BETTER, LOST], "half": [GOOD, LOST], "none": [LOST]}
    table = comparison({label: [(trace, h) for h in runs] for label, runs in results.items()}, target=0.3)
    assert table["reached"].tolist() == [2, 1, 0]
    assert table["diverged"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(table["wallclock"], [4.0, math.nan, math.nan])
    np.testing.assert_array_equal(table["test_error"], [0.2, math.nan, math.nan])


def test_another_column_can_be_judged(trace: Trace) -> None:
    table = comparison({"async": [(trace, GOOD)]}, target=1.0, y="train_loss")
    assert table.loc["async", ["wallclock", "train_loss"]].tolist() == [0.0, 1.0]
    assert "test_error" not in table


def test_bad_results_are_named(trace: Trace) -> None:
    with pytest.raises(ValueError, match="results is an empty mapping: give at least one label and its pairs"):
        comparison({}, 0.3)
    with pytest.raises(ValueError, match="results of 'a' must be a list of pairs"):
        comparison({"a": [GOOD]}, 0.3)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="histories of 'a' is empty"):
        comparison({"a": []}, 0.3)
    with pytest.raises(ValueError, match="has no column 'error': it has wallclock, test_error, train_loss"):
        comparison({"a": [(trace, GOOD)]}, 0.3, y="error")
    with pytest.raises(ValueError, match="target is None: give a finite number"):
        comparison({"a": [(trace, GOOD)]}, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="traces of 'a' must be"):
        comparison({"a": [(GOOD, GOOD)]}, 0.3)  # type: ignore[list-item]
