"""The statistics of convergence checks: closed forms, scipy, and how often they err."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from stalegrad.analysis.statistics.convergence import Target, default_target, lattice, lost, measure
from stalegrad.analysis.statistics.regression import compare_runs, detectable, holm, paired_test, power_table


def history(losses, errors=None, step=10.0):
    rows = len(losses)
    return pd.DataFrame(
        {
            "wallclock": np.arange(rows) * step,
            "update": np.arange(rows) * 5,
            "train_loss": losses,
            "test_error": [np.nan] * rows if errors is None else errors,
        }
    )


def runs(finals, start=2.0):
    """One history for each final loss, falling in a straight line, so that every metric moves with it."""
    return {seed: history(np.linspace(start, final, 11)) for seed, final in enumerate(finals)}


def verdicts(before, after, **rest):
    table = compare_runs({"m": runs(before)}, {"m": runs(after)}, metrics=("final_train_loss",), **rest)
    return dict(zip(table["metric"], table["verdict"], strict=True))


# The test of paired differences


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.floats(0, 3))
def test_p_values_are_those_of_scipy(differences, margin):
    d = np.array(differences)
    if d.std() < 1e-6:
        return
    found = paired_test(d, margin)
    assert found.inferior == pytest.approx(stats.ttest_1samp(d, margin, alternative="greater").pvalue, abs=1e-9)
    assert found.superior == pytest.approx(stats.ttest_1samp(d, -margin, alternative="less").pvalue, abs=1e-9)
    low = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    high = stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert found.equivalent == pytest.approx(max(low, high), abs=1e-9)
    interval = stats.ttest_1samp(d, 0.0).confidence_interval(0.90)
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8, unique=True), st.floats(0.01, 2))
def test_equivalence_is_the_interval_within_the_margin(differences, margin):
    found = paired_test(differences, margin)
    if abs(found.equivalent - 0.05) > 1e-9:
        assert (found.equivalent < 0.05) == (-margin < found.low and found.high < margin)


def test_two_pairs_have_the_p_value_of_the_cauchy_distribution():
    assert paired_test([1.0, 3.0], 0.0).inferior == pytest.approx(0.5 - np.arctan(2.0) / np.pi)


def test_without_variance_the_mean_decides():
    assert paired_test([0.3] * 5, 0.1)[3:] == (0.0, 1.0, 1.0)
    assert paired_test([-0.3] * 5, 0.1)[3:] == (1.0, 1.0, 0.0)
    assert paired_test([0.0] * 5, 0.0).inferior == 1.0
    assert paired_test([0.1] * 5, 0.1).inferior == 1.0  # at the margin is not beyond it


def test_agreement_by_rounding_is_not_taken_for_certainty():
    assert paired_test([0.2, 0.2], 0.1, step=0.1).inferior == pytest.approx(
        stats.t.sf(0.1 / (0.1 / np.sqrt(6) / np.sqrt(2)), 1)
    )


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, np.nan], [1.0, np.inf]])
def test_what_cannot_be_tested_is_refused(differences):
    with pytest.raises(ValueError, match=r"pairs are too few|must be finite"):
        paired_test(differences, 0.1)


# Holm's correction


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_step_down_rule_rejects(p_values, alpha):
    rejected = set()
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - rank) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p_values) <= alpha)) == rejected


def test_the_whole_errs_no_more_often_than_it_may():
    """Normal differences exactly at the margin, three correlated rows: the worst case of the null hypothesis."""
    rng, alpha, wrong = np.random.default_rng(0), 0.05, 0
    for _ in range(500):
        common = rng.normal(size=5)
        p = [paired_test(0.1 + common + rng.normal(size=5), 0.1).inferior for _ in range(3)]
        wrong += (holm(p) <= alpha).any()
    assert wrong / 500 <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 500)
    assert wrong > 0


def test_bootstrap_percentiles_of_five_pairs_would_err_too_often():
    """Why the interval is Student's."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(500):
        values = rng.normal(size=5)
        means = values[rng.integers(5, size=(1000, 5))].mean(axis=1)
        missed += np.quantile(means, 0.01) > 0  # a one-sided test at 1 %
    assert missed / 500 > 0.03


# Power


@pytest.mark.parametrize(("seeds", "tests"), [(3, 1), (5, 4), (10, 20)])
def test_what_is_detectable_is_detected_that_often(seeds, tests):
    mean = detectable(0.7, seeds, 0.1, tests=tests, alpha=0.05, power=0.8)
    rng = np.random.default_rng(2)
    d = rng.normal(mean, 0.7, (20_000, seeds))
    p = stats.ttest_1samp(d, 0.1, axis=1, alternative="greater").pvalue
    assert (p * tests <= 0.05).mean() == pytest.approx(0.8, abs=0.012)


def test_detectable_without_scatter_is_the_margin():
    assert detectable(0.0, 5, 0.25) == 0.25


def test_power_grows_with_seeds_and_correlation():
    found = {"m": runs([1.0, 1.1, 0.9, 1.05])}
    table = power_table(found, metrics=("final_train_loss",), seeds=(3, 5, 10))
    assert table[3][0] > table[5][0] > table[10][0] > 0.02
    sd = np.std([1.0, 1.1, 0.9, 1.05], ddof=1)
    mean = np.mean([1.0, 1.1, 0.9, 1.05])
    assert table["spread"][0] == pytest.approx(sd / mean)
    assert table[5][0] == pytest.approx(detectable(sd * np.sqrt(2), 5, 0.02 * mean) / mean)
    closer = power_table(found, metrics=("final_train_loss",), seeds=(5,), correlation=0.99)
    assert closer[5][0] < table[5][0] / 2
    with pytest.raises(ValueError, match="correlation = 1"):
        power_table(found, correlation=1.0)


# Metrics


def test_metrics_by_hand():
    h = history([4.0, 1.0, 2.0], [0.9, 0.2, 0.3])
    target = Target("test_error", 0.25)
    values = {
        "final_train_loss": 2.0,
        "best_train_loss": 1.0,
        "mean_train_loss": 2.5,  # 4 for ten seconds, 1 for ten
        "final_test_error": 0.3,
        "best_test_error": 0.2,
        "wallclock_to_target": 10.0,
        "updates_to_target": 5.0,
    }
    assert {name: measure(h, name, target).value for name in values} == values
    assert measure(h, "wallclock_to_target", target).step == 10.0
    assert measure(h, "wallclock_to_target", None) is None
    assert measure(history([2.0, 1.0]), "final_test_error") is None
    for wrong in ("last_train_loss", "final_accuracy", "speed"):
        with pytest.raises(ValueError, match=f"unknown metric '{wrong}'.*final_train_loss"):
            measure(h, wrong)


def test_a_run_that_never_arrives_counts_as_arriving_at_its_end():
    before, after = history([2.0, 1.0, 0.5, 0.4]), history([2.0, 1.9, 1.8, 1.7])
    table = compare_runs(
        {"m": {0: before, 1: before}}, {"m": {0: after, 1: after}}, {"m": Target("train_loss", 1.0)},
        ("wallclock_to_target",),
    )  # fmt: skip
    assert (table["before"][0], table["after"][0]) == (10.0, 30.0)


@pytest.mark.parametrize("end", [np.nan, np.inf, 5.0])
def test_a_run_that_is_newly_lost_is_worse_at_once(end):
    bad = history([2.0, 1.5, end])
    assert lost(bad)
    before = runs([1.0, 1.1, 1.0, 0.9, 1.0])
    table = compare_runs({"m": before}, {"m": before | {3: bad}}, metrics=("final_train_loss",))
    assert table.set_index("metric")["verdict"].to_dict()["lost_runs"] == "worse"
    table = compare_runs({"m": before | {2: bad}}, {"m": before | {3: bad}}, metrics=("final_train_loss",))
    assert "worse" not in set(table["verdict"])


def test_a_lost_run_counts_as_one_that_stayed_at_its_start():
    bad = history([2.0, 1.5, np.nan])
    before = {0: bad, 1: history([2.0, 1.5, 1.0])}
    table = compare_runs({"m": before}, {"m": before}, {"m": Target("train_loss", 1.2)})
    assert table.set_index("metric")["before"].drop("lost_runs").to_dict() == {
        "final_train_loss": 1.5,
        "mean_train_loss": (2.0 + 1.75) / 2,
        "wallclock_to_target": 20.0,
    }
    assert set(table["verdict"]) == {"identical"}


def test_runs_that_are_lost_from_the_start_are_counted_and_no_more():
    nothing = {seed: history([np.nan, np.nan]) for seed in range(2)}
    table = compare_runs({"m": nothing}, {"m": nothing})
    assert table[["metric", "before", "after", "verdict"]].to_numpy().tolist() == [
        ["lost_runs", 2, 2, "identical"]
    ]
    table = compare_runs({"m": runs([1.0, 1.1])}, {"m": nothing})
    assert table[["metric", "before", "after", "verdict"]].to_numpy().tolist() == [["lost_runs", 0, 2, "worse"]]


def test_a_default_target_is_nine_tenths_of_the_way():
    assert default_target([history([2.0, 1.0]), history([2.0, 1.2])]) == Target("train_loss", 1.19)
    assert default_target([history([2.0, 1.0], [0.9, 0.1])]) == Target("test_error", 0.18)
    assert default_target([history([1.0, 1.0])]) is None
    assert default_target([history([1.0, np.nan])]) is None


@given(st.integers(20, 2000), st.lists(st.floats(0, 1), min_size=3, max_size=20))
@settings(max_examples=50)
def test_errors_of_a_finite_test_set_are_seen_to_be_on_a_lattice(size, shares):
    counts = np.unique([*range(size // 2, size // 2 + 9), *(int(share * size) for share in shares)])
    assert lattice(np.array([float(f"{c / size:.6g}") for c in counts])) == pytest.approx(1 / size, rel=1e-3)


def test_continuous_values_are_on_no_lattice():
    assert lattice(np.random.default_rng(0).normal(size=50)) == 0.0
    assert lattice(np.array([np.nan, 1.0])) == 0.0


# Verdicts


SCATTER = np.array([1.0, 1.1, 0.95, 1.02, 0.97])


def test_verdicts_of_clear_cases():
    jitter = np.array([1.0, -1.0, 0.5, -0.5, 0.2])
    assert verdicts(SCATTER, SCATTER) == {"final_train_loss": "identical"}
    assert verdicts(SCATTER, SCATTER + 1e-4 * jitter) == {"final_train_loss": "equivalent"}
    assert verdicts(SCATTER, 1.1 * SCATTER + 1e-3 * jitter) == {"final_train_loss": "worse"}
    assert verdicts(SCATTER, 0.9 * SCATTER + 1e-3 * jitter) == {"final_train_loss": "better"}
    assert verdicts(SCATTER, SCATTER + 0.3 * jitter) == {"final_train_loss": "unclear"}
    assert verdicts(SCATTER, 1.1 * SCATTER + 1e-3 * jitter, tolerance=0.2) == {"final_train_loss": "equivalent"}


def test_what_is_next_to_nothing_at_the_start_does_not_matter():
    """From 2 to 1e-6: whether it is 1e-6 or 2e-6 is nobody's business."""
    assert verdicts([1e-6] * 3, [2e-6] * 3) == {"final_train_loss": "equivalent"}


def test_more_rows_need_more_evidence():
    noisy = SCATTER + 0.05 + 0.02 * np.array([1.0, -1.0, 0.5, -0.5, 0.2])
    alone = compare_runs({"a": runs(SCATTER)}, {"a": runs(noisy)}, metrics=("final_train_loss",))
    many = compare_runs(
        {name: runs(SCATTER) for name in "abcdef"},
        {"a": runs(noisy)} | {name: runs(SCATTER) for name in "bcdef"},
        metrics=("final_train_loss",),
    )
    assert many["p"][0] == pytest.approx(6 * alone["p"][0])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, "methods must be the same"),
        ({"a": runs([1, 2])}, {"b": runs([1, 2])}, "methods must be the same"),
        ({"a": runs([1, 2])}, {"a": runs([1, 2, 3])}, r"seeds of 'a'.*\[2\]"),
        ({"a": runs([1])}, {"a": runs([1])}, "at least 2"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused(before, after, said):
    with pytest.raises(ValueError, match=said):
        compare_runs(before, after)


@pytest.mark.parametrize("metrics", [(), ("final_test_error",)])
def test_metrics_that_cannot_be_had_are_refused(metrics):
    with pytest.raises(ValueError, match=r"none of the metrics .* can be computed for \['a'\]"):
        compare_runs({"a": runs([1, 2])}, {"a": runs([1, 2])}, metrics=metrics)


@pytest.mark.parametrize("wrong", [{"tolerance": -0.1}, {"tolerance": np.nan}, {"alpha": 0.0}, {"alpha": 0.5}])
def test_settings_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} = "):
        compare_runs({"a": runs([1, 2])}, {"a": runs([1, 2])}, **wrong)
