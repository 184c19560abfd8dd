"""Tests for worse convergence: paired runs before and after a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

from stalegrad.analysis.statistics.convergence import METRICS, Measure, Target, lattice, lost, measure

Row = dict[str, float | str]
"""A row of the table of verdicts."""

Runs = Mapping[str, Mapping[int, pd.DataFrame]]
"""Histories of each label (method), by seed."""

TOLERANCE = 0.02
ALPHA = 0.01
EQUIVALENCE_ALPHA = 0.05
FLOOR = 0.001
"""Change of a loss or an error, relative to its value at the start, below which it is ignored."""

VERDICTS = ("worse", "unclear", "equivalent", "better", "identical")
"""Verdicts on one metric; only the first is a failure."""


class PairedTest(NamedTuple):
    """Tests of paired differences (after minus before).

    Attributes:
        mean: mean of the differences.
        low, high: interval of the mean; it lies within the margin if and only if ``equivalent`` <= 0.05.
        inferior: p-value against "the mean is at most the margin".
        equivalent: p-value against "the mean is beyond the margin, on one side or the other".
        superior: p-value against "the mean is at least minus the margin".
    """

    mean: float
    low: float
    high: float
    inferior: float
    equivalent: float
    superior: float


def paired_test(differences: npt.ArrayLike, margin: float, step: float = 0.0) -> PairedTest:
    """Test a mean difference against a margin, for inferiority and for equivalence.

    One-sided t tests on n - 1 degrees of freedom, t = (mean -+ margin) / (s / sqrt n). Equivalence is two of them
    (TOST). Values that are rounded to multiples of ``step`` can agree by chance, so that s^2 is set to at least
    step^2 / 6, the variance of the difference of two rounding errors. If s^2 is 0, the mean counts as exact.

    Args:
        differences: differences, one per pair, of at least two pairs.
        margin: largest difference that is ignored, >= 0.
        step: spacing of the lattice of values; 0 if they are continuous.

    Raises:
        ValueError: for fewer than two pairs, or a difference that is not finite.

    References:
        Schuirmann, A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability, J. Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    d = np.asarray(differences, float)
    if d.ndim != 1 or len(d) < 2:
        raise ValueError(f"{d.size} pairs are too few: statistics need the differences of at least 2 seeds")
    if not np.isfinite(d).all():
        raise ValueError(f"differences must be finite; they are {d.tolist()}")
    freedom, mean = len(d) - 1, float(d.mean())
    constant = bool((d == d[0]).all())  # the computed variance of equal numbers can differ from 0 by rounding
    variance = max(0.0 if constant else float(d.var(ddof=1)), step**2 / 6)
    error = np.sqrt(variance / len(d))

    def above(bound: float) -> float:
        """Return the p-value against "the mean is at most ``bound``"."""
        return float(stats.t.sf((mean - bound) / error, freedom) if error > 0 else mean <= bound)

    def below(bound: float) -> float:
        return float(stats.t.cdf((mean - bound) / error, freedom) if error > 0 else mean >= bound)

    half = float(stats.t.isf(EQUIVALENCE_ALPHA, freedom)) * error
    equivalent = max(above(-margin), below(margin))
    return PairedTest(mean, mean - half, mean + half, above(margin), equivalent, below(-margin))


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return p-values adjusted for their number: the family-wise error rate of p <= alpha is at most alpha.

    The i-th smallest of m p-values becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. The p-values
    may depend on each other in any way.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian J. of Statistics 6 (1979).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def compare_runs(
    before: Runs,
    after: Runs,
    targets: Mapping[str, Target] | None = None,
    metrics: Sequence[str] = METRICS,
    *,
    tolerance: float = TOLERANCE,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Compare every method and metric before and after a change, seed by seed.

    The margin of a metric is the tolerance times its mean before the change, but at least 0.1 % of its value at
    the start, and at least its resolution (one example of the test set, or one row of the history). The verdict on
    a metric is

    * ``worse`` if the mean difference is above the margin (p <= alpha, after Holm's correction over all rows);
    * ``better`` if it is below minus the margin, in the same way;
    * ``equivalent`` if it is shown to be within the margin (p <= 0.05);
    * ``identical`` if all differences are 0;
    * ``unclear`` otherwise: the number of seeds is too small to decide.

    A method that has lost runs now and had none before is worse without statistics. Otherwise a lost run counts as
    one that stayed at its start, or that arrived when it ended.

    Args:
        before: histories of the baseline, by label and seed.
        after: histories after the change, with the same labels and seeds.
        targets: targets of the times, by label; a label without a target has no such rows.
        metrics: names of metrics, see :func:`~stalegrad.analysis.statistics.convergence.measure`.
        tolerance: tolerance, relative to the mean before.
        alpha: probability that any metric is called worse although none is beyond its margin.

    Returns:
        One row per method and metric: ``method, metric, seeds, before, after`` (means), ``difference``, ``low``,
        ``high``, ``margin`` (all four relative to ``before``), ``p`` (of inferiority, corrected), ``verdict``.

    Raises:
        ValueError: if labels or seeds differ, there are fewer than two seeds, a metric is unknown, no metric can
            be computed, or tolerance or alpha is out of range.
    """
    check_settings(tolerance, alpha)
    check_pairs(before, after)
    rows: list[Row] = []
    for label, runs in before.items():
        pairs = [(runs[seed], after[label][seed]) for seed in runs]
        gone = [sum(lost(pair[side]) for pair in pairs) for side in (0, 1)]
        if any(gone):
            verdict = "worse" if gone[1] and not gone[0] else "identical" if gone[0] == gone[1] else "unclear"
            rows.append(_row(label, "lost_runs", len(pairs), float(gone[0]), float(gone[1]), verdict=verdict))
        for metric in metrics:
            measures = [tuple(measure(h, metric, (targets or {}).get(label)) for h in pair) for pair in pairs]
            if any(m is None for pair in measures for m in pair):
                continue
            column = metric.partition("_")[2]
            both = [h[column].to_numpy(float) for pair in pairs for h in pair if column in h]
            rows.append(
                _judged(label, metric, measures, lattice(np.concatenate(both)) if both else 0.0, tolerance)
            )
    if not rows:
        raise ValueError(f"none of the metrics {list(metrics)} can be computed for {list(before)}: choose others")
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    for p in ("p", "p_better"):
        table.loc[tested, p] = holm(table.loc[tested, p])
    undecided = table["verdict"] == "unclear"
    tested &= undecided
    table.loc[tested & table["within"], "verdict"] = "equivalent"
    table.loc[tested & (table["p_better"] <= alpha), "verdict"] = "better"
    table.loc[tested & (table["p"] <= alpha), "verdict"] = "worse"
    return table.drop(columns=["p_better", "within"])


def _judged(label: str, metric: str, measures: Any, spacing: float, tolerance: float) -> Row:
    """Return the row of one metric; unless it is identical, its verdict is set later from the p-values."""
    old, new = (np.array([_finite(pair[side], *pair) for pair in measures]) for side in (0, 1))
    step = max(spacing, float(np.mean([m.step for pair in measures for m in pair])))
    mean, start = float(old.mean()), float(np.mean([pair[0].start for pair in measures]))
    margin = max(tolerance * abs(mean), FLOOR * abs(start), step)
    test = paired_test(new - old, margin, step)
    scale, identical = abs(mean) or np.nan, bool((new == old).all())
    low, high = (0.0, 0.0) if identical else (test.low / scale, test.high / scale)
    return _row(
        label, metric, len(old), mean, float(new.mean()),
        difference=0.0 if identical else test.mean / scale, low=low, high=high, margin=margin / scale,
        p=test.inferior, p_better=test.superior, within=test.equivalent <= EQUIVALENCE_ALPHA,
        verdict="identical" if identical else "unclear",
    )  # fmt: skip


def _row(label: str, metric: str, seeds: int, before: float, after: float, **rest: float | str) -> Row:
    numbers = dict.fromkeys(("difference", "low", "high", "margin", "p", "p_better"), np.nan)
    row: Row = {"method": label, "metric": metric, "seeds": seeds, "before": before, "after": after}
    return {**row, **numbers, "within": False, **rest}


def _finite(found: Measure, *pair: Measure) -> float:
    """Return the value, or instead of inf the worse limit of the pair (one run may have ended early)."""
    return found.value if np.isfinite(found.value) else max(m.limit for m in pair)


def detectable(
    deviation: float, seeds: int, margin: float, *, tests: int = 1, alpha: float = ALPHA, power: float = 0.8
) -> float:
    """Return the smallest mean difference that is called worse with probability ``power``.

    It solves P(T > t) = power for T noncentral t with n - 1 degrees of freedom and noncentrality
    (difference - margin) sqrt(n) / deviation, t the quantile of the first (strictest) step of Holm's correction.

    Args:
        deviation: standard deviation of the paired differences.
        seeds: number of pairs, n >= 2.
        margin: margin, as for :func:`paired_test`.
        tests: number of rows of Holm's correction.
        alpha: error probability of the whole check.
        power: probability, between alpha and 1.

    Raises:
        ValueError: for a value out of range.
    """
    if seeds < 2:
        raise ValueError(f"seeds = {seeds} is not allowed: statistics need at least 2")
    if not alpha < power < 1:
        raise ValueError(f"power = {power} is not allowed: a number between alpha = {alpha} and 1")
    freedom = seeds - 1
    bound = float(stats.t.isf(alpha / tests, freedom))

    def missing(noncentrality: float) -> float:
        return float(stats.nct.sf(bound, freedom, noncentrality)) - power

    needed = optimize.brentq(missing, 0.0, 10 * bound + 10)
    return float(margin + needed * deviation / np.sqrt(seeds))


def power_table(
    runs: Runs,
    targets: Mapping[str, Target] | None = None,
    metrics: Sequence[str] = METRICS,
    seeds: Sequence[int] = (3, 5, 10, 20),
    *,
    tolerance: float = TOLERANCE,
    alpha: float = ALPHA,
    power: float = 0.8,
    correlation: float = 0.0,
) -> pd.DataFrame:
    """Return the smallest worsening that given numbers of seeds detect, from the variation of recorded runs.

    If runs have the standard deviation sigma, their paired differences have sigma sqrt(2 (1 - correlation)). The
    correlation of pairs depends on the change: 0 is the worst case, that of independent runs.

    Returns:
        One row per method and metric: ``method, metric, mean, spread`` (sigma relative to the mean), and for
        every number of seeds the smallest relative worsening that is detected with probability ``power``.

    Raises:
        ValueError: for a value out of range.
    """
    check_settings(tolerance, alpha)
    check_pairs(runs, runs)
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation = {correlation} is not allowed: from 0 to below 1")
    rows = []
    for label, histories in runs.items():
        for metric in metrics:
            measures = [measure(history, metric, (targets or {}).get(label)) for history in histories.values()]
            known = [m for m in measures if m is not None]
            if len(known) < len(measures):
                continue
            values = np.array([_finite(m, m) for m in known])
            mean, sigma = float(values.mean()), float(values.std(ddof=1))
            start, step = (float(np.mean([getattr(m, name) for m in known])) for name in ("start", "step"))
            margin = max(tolerance * abs(mean), FLOOR * abs(start), step)
            rows.append((label, metric, mean, max(sigma, step / np.sqrt(12)), margin))
    table = pd.DataFrame([row[:3] for row in rows], columns=["method", "metric", "mean"])
    table["spread"] = [sigma / abs(mean) if mean else np.nan for *_, mean, sigma, _ in rows]
    for n in seeds:
        table[n] = [
            detectable(
                sigma * np.sqrt(2 * (1 - correlation)), n, margin, tests=len(rows), alpha=alpha, power=power
            )
            / (abs(mean) or np.nan)
            for _, _, mean, sigma, margin in rows
        ]
    return table


def check_pairs(before: Runs, after: Runs) -> None:
    """Raise ValueError unless both have the same labels and seeds, with at least two seeds per label."""
    if not before or list(before) != list(after):
        raise ValueError(f"methods must be the same before and after: {list(before)} and {list(after)}")
    for label, runs in before.items():
        if missing := set(runs) ^ set(after[label]):
            raise ValueError(f"seeds of {label!r} must be the same before and after: {sorted(missing)} are not")
        if len(runs) < 2:
            raise ValueError(f"{label!r} has {len(runs)} seed: statistics need at least 2 (better 5)")


def check_settings(tolerance: float, alpha: float) -> None:
    """Raise ValueError unless the tolerance and alpha of a check are in range."""
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance = {tolerance} is not allowed: a number of at least 0, such as {TOLERANCE}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha = {alpha} is not allowed: a number above 0 and below 0.5, such as {ALPHA}")
