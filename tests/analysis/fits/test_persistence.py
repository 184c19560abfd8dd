"""Who is slow beyond chance: ranks and signs within steps, and what must not fool them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from stalegrad.analysis.fits.persistence import compare_in_steps, compare_samples, row_medians


def heavy(seed: int, steps: int = 500, workers: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 1 + 0.3 * rng.pareto(2.5, (steps, workers)) + 8 * (rng.random((steps, workers)) < 0.01)


def differs(times: np.ndarray) -> list[int]:
    return compare_in_steps(pd.DataFrame(times))["certain"].tolist()


@given(
    hnp.arrays(
        float, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.sampled_from([1.0, 2, 3, 7, np.nan])
    )
)
def test_row_medians_are_numpy_s_where_there_is_one(values):
    found = row_medians(values)
    for row, median in zip(values, found, strict=True):
        there = row[np.isfinite(row)]
        assert median == np.median(there) if len(there) else np.isnan(median)


def test_the_ratio_is_that_of_medians_and_pauses_do_not_move_it():
    times = heavy(0)
    times[:, 5] *= 1.4
    table = compare_in_steps(pd.DataFrame(times))
    assert table["ratio"][5] == pytest.approx(1.4, rel=0.03)
    assert table["certain"].tolist() == [int(j == 5) for j in range(16)]
    assert table["above"][5] == np.mean(times[:, 5] > np.median(times, axis=1))


def test_a_difference_of_three_percent_is_seen_in_ten_thousand_steps():
    times = heavy(1, 10_000, 8)
    times[:, 2] *= 1.03
    table = compare_in_steps(pd.DataFrame(times))
    assert table["certain"][2] == 1
    assert table["ratio"][2] == pytest.approx(1.03, abs=0.01)


def test_alike_workers_rarely_differ():
    found = [np.any(differs(heavy(seed, 300, 16))) for seed in range(300)]
    assert sum(found) <= 4  # 0.002 for slow and as much for fast: 1.2 expected


def test_a_fast_worker_is_the_mirror_of_a_slow_one():
    times = heavy(3)
    times[:, 5] /= 1.4
    assert differs(times) == [-int(j == 5) for j in range(16)]


def test_a_worker_always_just_above_the_middle_is_seen_among_faster_and_slower_ones():
    levels = np.array([0.5] * 4 + [1.0, 1.4] + [3.0] * 4)
    times = levels * (1 + 0.01 * np.random.default_rng(0).standard_normal((200, 10)))
    assert differs(times) == [-1] * 5 + [1] * 5


def test_one_bad_spell_is_not_persistent():
    times = heavy(4, 1_000)
    times[100:200, 3] *= 5
    assert differs(times)[3] == 0
    times[:, 3] = heavy(5, 1_000)[:, 0] * 1.5
    assert differs(times)[3] == 1


def test_neighbouring_steps_that_are_alike_count_for_less():
    """Each worker's level changes every 50 steps: 10 independent steps, however many times there are."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        level = np.exp(rng.normal(0, 0.3, (10, 16))).repeat(50, axis=0)
        alarms += bool(np.any(differs(level * np.exp(rng.normal(0, 0.05, level.shape)))))
    assert alarms <= 3


def test_a_drift_of_the_whole_cluster_cancels():
    times = heavy(6)
    times[:, 1] *= 1.3
    drifting = times * np.exp(np.linspace(0, 3, len(times)))[:, None]
    pd.testing.assert_frame_equal(
        compare_in_steps(pd.DataFrame(times)), compare_in_steps(pd.DataFrame(drifting)), rtol=1e-12
    )


def test_steps_without_a_difference_tell_nothing():
    assert differs(np.ones((50, 4))) == [0] * 4
    assert compare_in_steps(pd.DataFrame(np.ones((50, 4))))["ratio"].tolist() == [1.0] * 4


def test_workers_whose_steps_do_not_belong_together_are_compared_as_samples():
    rng = np.random.default_rng(0)
    times = {name: rng.lognormal(0, 0.2, size) for name, size in (("a", 300), ("b", 500), ("c", 200))}
    assert compare_samples(times)["certain"].tolist() == [0, 0, 0]
    times["b"] = times["b"] * 1.2
    table = compare_samples(times)
    assert table["certain"]["b"] == 1
    assert table["ratio"]["b"] == pytest.approx(np.median(times["b"]) / np.median(times["c"]), rel=0.05)
