"""Times to a target, against numbers worked out by hand and the estimator written out."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from stalegrad.analysis import to_target
from stalegrad.analysis.statistics.targets import Arrival, kaplan_meier, median, median_arrival

NAN, INF = math.nan, math.inf


def history(x: list[float], y: list[float], loss: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": loss or y})


TWO = [history([0, 2, 4], [1.0, 0.5, 0.25]), history([0, 2, 4], [0.8, 0.3, 0.05])]
LOST = history([0, 2], [0.8, 0.7], [1.0, NAN])
SHORT = history([0, 2], [0.8, 0.7])


def product_limit(arrivals: list[Arrival], time: float) -> float:
    """Kaplan and Meier's product, written out: the share that is not there at this time."""
    share = 1.0
    for moment in sorted({a.time for a in arrivals if a.reached and a.time <= time}):
        at_risk = sum((a.time if a.reached else a.watched) >= moment for a in arrivals)
        share *= 1 - sum(a.time == moment for a in arrivals) / at_risk
    return share


def test_to_target_takes_the_first_row_at_or_below() -> None:
    table = to_target({"sync": [*TWO, history([0, 1, 2, 3], [0.9, 0.3, 0.6, 0.9])]}, 0.3)
    assert table.loc["sync"].to_dict() == {
        "seeds": 3, "reached": 3, "share": 1.0, "median": 2.0, "mean": pytest.approx(7 / 3),
        "min": 1.0, "max": 4.0,
    }  # fmt: skip


def test_to_target_counts_the_censored_and_makes_up_no_time_for_them() -> None:
    table = to_target({"most": [*TWO, LOST], "half": [TWO[0], LOST], "none": [LOST]}, 0.3)
    assert table["reached"].tolist() == [2, 1, 0]
    assert table["median"].tolist() == [4.0, math.inf, math.inf]
    np.testing.assert_array_equal(table["mean"], [3.0, 4.0, NAN])
    np.testing.assert_array_equal(table["max"], [4.0, 4.0, NAN])


def test_to_target_answers_in_the_unit_of_x() -> None:
    frames = [frame.assign(update=[0, 10, 20]) for frame in TWO]
    assert to_target({"a": frames}, 0.5, x="update").loc["a", "max"] == 10


@pytest.mark.parametrize("target", [None, NAN, math.inf, "0.3", True])
def test_a_target_is_a_finite_number(target: object) -> None:
    with pytest.raises(ValueError, match=r"target is .*: give a finite number"):
        to_target({"a": TWO}, target)  # type: ignore[arg-type]


def test_a_run_that_ended_early_counts_until_then_and_one_that_diverged_for_ever() -> None:
    table = to_target({"stopped": [*TWO, SHORT], "diverged": [*TWO, LOST]}, 0.25)
    assert table["reached"].tolist() == [2, 2]
    assert table["share"].tolist() == pytest.approx([1.0, 2 / 3])  # of two still watched at 4 s, both arrive
    late = [*TWO, history([0, 1], [0.8, 0.7]), history([0, 1], [0.8, 0.7])]
    assert to_target({"a": late}, 0.3).loc["a", "median"] == 3.0  # one at 2 s, one at 4 s, two unknown
    assert to_target({"a": [*TWO, LOST, LOST]}, 0.3).loc["a", "median"] == INF


TIMES = st.integers(0, 6).map(float)
ARRIVALS = st.one_of(
    TIMES.map(lambda t: Arrival(t, 9.0)), TIMES.map(lambda t: Arrival(INF, t)), st.just(Arrival(INF, INF))
)


@given(st.lists(ARRIVALS, min_size=1, max_size=9))
def test_shares_are_the_product_limit(arrivals: list[Arrival]) -> None:
    times, share = kaplan_meier(arrivals)
    for time, found in zip(times, share, strict=True):
        assert found == pytest.approx(product_limit(arrivals, time))
    assert share[-1] == pytest.approx(product_limit(arrivals, INF))


@given(st.lists(TIMES | st.just(INF), min_size=1, max_size=9))
def test_the_median_is_the_plain_one_if_nobody_was_stopped_early(times: list[float]) -> None:
    assert median_arrival([Arrival(time, 9.0) for time in times]) == median(times)


def test_the_median_is_known_from_textbooks() -> None:
    """Remission under 6-MP (Freireich 1963; Kalbfleisch and Prentice, table 1.2): 23 weeks, 9 of 21 seen."""
    seen = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    lost = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    arrivals = [*(Arrival(t, t) for t in seen), *(Arrival(INF, t) for t in lost)]
    assert median_arrival(arrivals) == 23
    assert kaplan_meier(arrivals)[1][-1] == pytest.approx(0.448, abs=5e-4)
