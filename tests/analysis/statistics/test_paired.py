"""Differences and ratios of pairs, against numbers worked out by hand, every resample, and SciPy."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from stalegrad.analysis import paired_difference, speedups
from stalegrad.analysis.statistics.paired import bootstrap

NAN, INF = math.nan, math.inf


def history(x: list[float], y: list[float], loss: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"wallclock": x, "test_error": y, "train_loss": loss or y})


def at(*times: float) -> list[pd.DataFrame]:
    """Histories that reach an error of 0.1 at these times, watched for 10 s; NaN: diverged, inf: not yet."""
    return [
        history([0, 5], [1, 1], [1, NAN]) if math.isnan(t) else history([0, min(t, 10), 10], [1, 0.1, 0.1])
        if t < INF else history([0, 10], [1, 1]) for t in times
    ]  # fmt: skip


SYNC = [history([0, 2, 4], [1.0, 0.6, 0.4]), history([0, 2, 4], [0.9, 0.8, 0.5])]
ASYNC = [history([0, 1, 2, 4], [1.0, 0.7, 0.5, 0.45]), history([0, 3, 4], [0.9, 0.5, 0.25])]


def test_the_difference_along_the_curve_is_the_mean_over_pairs() -> None:
    table = paired_difference({"sync": SYNC, "async": ASYNC}, "sync")
    assert table["method"].unique().tolist() == ["async"]
    assert table["wallclock"].tolist() == [0, 1, 2, 3, 4]
    pairs = np.array([[0, 0], [-0.3, 0], [-0.1, 0.1], [-0.1, -0.3], [0.05, -0.25]])
    np.testing.assert_allclose(table["difference"], pairs.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(table["low"], pairs.min(axis=1), atol=1e-12)  # both of two seeds alike: 1 in 4
    np.testing.assert_allclose(table["high"], pairs.max(axis=1), atol=1e-12)


def test_the_difference_at_a_place_is_that_of_the_curve_and_nan_beyond_the_end() -> None:
    table = paired_difference({"sync": SYNC, "async": ASYNC}, "sync", at=[2.5, 4.5])
    assert table["difference"].tolist() == pytest.approx([0.0, NAN], nan_ok=True)
    assert table[["low", "high"]].iloc[1].isna().all()
    assert len(paired_difference({"sync": SYNC, "async": ASYNC}, "sync", at=4)) == 1


def test_pairing_removes_what_the_seeds_share() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 1, 20)
    histories = {
        "base": [history([0, 1], [9, 2 + x]) for x in luck],
        "better": [history([0, 1], [9, 1.9 + x + e]) for x, e in zip(luck, rng.normal(0, 0.01, 20), strict=True)],
    }
    row = paired_difference(histories, "base", at=1).iloc[0]
    assert row["high"] < 0
    assert row["high"] - row["low"] < 0.02 < luck.std() / math.sqrt(20)


def test_only_common_seeds_count_and_one_seed_has_no_interval() -> None:
    named = {"sync": dict(zip([3, 5], SYNC, strict=True)), "async": dict(zip([5, 7], ASYNC, strict=True))}
    row = paired_difference(named, "sync", at=4).iloc[0]
    assert (row["seeds"], row["difference"]) == (1, pytest.approx(0.45 - 0.5))
    assert row[["low", "high"]].isna().all()


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_the_interval_is_that_of_all_resamples(statistic) -> None:
    values = np.array([0.3, 1.0, 4.0, 9.5])
    every = [statistic(pick) for pick in itertools.product(values, repeat=4)]
    found = bootstrap(values, statistic, 0.8, 20_000, 0)
    assert found == pytest.approx(np.quantile(every, [0.1, 0.9]), abs=0.1)


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(1.0, 30)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1)
    assert bootstrap(values, np.mean, 0.95, 9999, 0) == pytest.approx(theirs.confidence_interval, abs=0.03)


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    ends = [bootstrap(rng.normal(1.0, 1.0, 40), np.mean, 0.9, 500, 0) for _ in range(400)]
    assert np.mean([low <= 1.0 <= high for low, high in ends]) == pytest.approx(0.89, abs=0.05)


def test_the_same_seed_gives_the_same_interval() -> None:
    histories = {"a": at(1, 2, 3, 5), "b": at(2, 2.5, 4, 4)}
    first, again, other = (speedups(histories, 0.1, "a", seed=seed, resamples=20) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_speedup_is_the_median_of_the_ratios_of_pairs() -> None:
    row = speedups({"base": at(4, 6, 8), "fast": at(1, 3, 8)}, 0.1, "base").loc["fast"]
    assert row["speedup"] == pytest.approx(2.0)
    assert (row["low"], row["high"]) == pytest.approx((1.0, 4.0))
    assert (row["seeds"], row["pairs"]) == (3, 3)


def test_runs_that_never_arrive_count_as_infinitely_slow() -> None:
    table = speedups({"base": at(4, INF, NAN), "fast": at(1, 3, 8), "lost": at(NAN, INF, INF)}, 0.1, "base")
    assert table.loc["fast", "speedup"] == INF
    assert table.loc["fast", "pairs"] == 3
    assert table.loc["lost", ["pairs", "speedup"]].tolist() == [1, 0.0]


def test_a_pair_says_nothing_if_one_was_stopped_too_soon() -> None:
    stopped = history([0, 2], [1, 1])
    table = speedups({"base": at(4, 1), "short": [stopped, stopped]}, 0.1, "base")
    assert table.loc["short", ["seeds", "pairs", "speedup"]].tolist() == [2, 1, 0.0]  # 4 s: who knows; 1 s: lost


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=5))
def test_exchanging_the_methods_inverts_the_speedup(times: list[tuple[int, int]]) -> None:
    histories = {"a": at(*(a for a, _ in times)), "b": at(*(b for _, b in times))}
    b_over_a = speedups(histories, 0.1, "a", resamples=10).loc["b", "speedup"]
    a_over_b = speedups(histories, 0.1, "b", resamples=10).loc["a", "speedup"]
    assert b_over_a * a_over_b == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("histories", "arguments", "match"),
    [
        ({"sync": SYNC, "async": ASYNC[:1]}, {}, "seeds cannot be paired.*{'sync': 2, 'async': 1}"),
        ({"sync": {0: SYNC[0]}, "async": {1: ASYNC[0]}}, {}, "'async' and the baseline 'sync' have no seed"),
        ({"a": SYNC, "async": ASYNC}, {}, "unknown baseline 'sync'. Did you mean 'async'"),
        ({"sync": SYNC}, {}, "histories hold only the baseline 'sync'"),
        ({"sync": SYNC, "async": ASYNC}, {"level": 95}, "level is 95: give a number between 0 and 1"),
        ({"sync": SYNC, "async": ASYNC}, {"resamples": 0}, "resamples is 0"),
        ({}, {}, "histories is an empty mapping"),
        ({"sync": {}, "async": {}}, {}, "histories of 'sync' is empty"),
    ],
)
def test_what_cannot_be_paired_is_named(histories, arguments, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        paired_difference(histories, "sync", **arguments)
    with pytest.raises(ValueError, match=match):
        speedups(histories, 0.1, "sync", **arguments)
