"""Paired comparisons with a baseline, seed by seed, so that what runs of a seed share cancels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.specs import unknown_name
from stalegrad.analysis.statistics.curves import LARGEST, Floats, on_grid
from stalegrad.analysis.statistics.inputs import check_all_histories, check_bootstrap, check_target
from stalegrad.analysis.statistics.targets import Arrival, arrival

SeededHistories = Mapping[str, Sequence[pd.DataFrame] | Mapping[int, pd.DataFrame]]
"""Label (method) -> histories by seed, or in the order of the same seeds for all."""

Pair = tuple[list[pd.DataFrame], list[pd.DataFrame]]

NEVER = 1e6
"""Stands for the logarithm of an infinite ratio."""


def paired_difference(
    histories: SeededHistories,
    baseline: str,
    x: str = "wallclock",
    y: str = "test_error",
    at: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how much each method differs from a baseline, at one place or along the curve.

    Runs of the same seed see the same workers and the same mini-batches (common random numbers), so their
    differences scatter less than the runs do. The interval is the bootstrap's percentile interval of the
    mean difference: seeds are drawn with replacement. From a handful of seeds it is too narrow rather than
    too wide; from one seed there is none.

    Args:
        histories: label -> ``{seed: history}``, of which the common seeds count; or lists of one length,
            in the order of the same seeds.
        baseline: label of the method to subtract.
        x: column of the abscissa, by default ``wallclock`` in simulated seconds.
        y: column of the values.
        at: one place or several, in the unit of x; by default everywhere that all runs of both methods
            have a finite value.
        level: of the interval, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the bootstrap; the same seed gives the same interval.

    Returns:
        Columns ``method``, ``x`` by its name, ``seeds`` (common ones), ``difference`` (mean over seeds of
        method minus baseline: negative where the method is lower), ``low``, ``high``. At a place that was
        asked for and not all runs reach, the numbers are NaN.

    Raises:
        ValueError: if the baseline is unknown, seeds cannot be paired, a column is unknown or without a
            finite value, or ``at``, ``level`` or ``resamples`` is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    check_bootstrap(level, resamples)
    frames = []
    for method, (ours, theirs) in _pairs(histories, baseline, (x, y)).items():
        both = [*ours, *theirs]
        grid, values = on_grid(both, x, y, None if at is None else np.atleast_1d(np.asarray(at, float)))
        known = (np.abs(values) <= LARGEST).all(axis=0)
        difference = np.where(known, values, np.nan)[: len(ours)] - values[len(ours) :]
        shown = known if at is None else np.ones(len(grid), bool)
        ends = [
            bootstrap(column, np.mean, level, resamples, seed) if np.isfinite(column).all() else (np.nan, np.nan)
            for column in difference.T[shown]
        ]
        low, high = np.array(ends).reshape(-1, 2).T
        frames.append(
            pd.DataFrame(
                {
                    "method": method, x: grid[shown], "seeds": len(ours),
                    "difference": difference[:, shown].mean(axis=0), "low": low, "high": high,
                }
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def speedups(
    histories: SeededHistories,
    target: float,
    baseline: str,
    y: str = "test_error",
    x: str = "wallclock",
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how many times sooner than a baseline each method reaches a target.

    The ratio (time of the baseline / time of the method) is taken seed by seed; the answer is the median
    of the ratios (the middle of two in logarithms), with the bootstrap's percentile interval. From fewer than
    six pairs it is too narrow: even the range of so few values holds the median with less than 95 % certainty.
    If only one of a pair was seen to arrive, and the other was watched at least as long (or diverged), the
    ratio counts as inf or 0. Where neither arrives, or the run that did not was stopped too soon to tell, a
    pair says nothing and is left out: see ``pairs``.

    Args:
        histories: label -> ``{seed: history}``, of which the common seeds count; or lists of one length,
            in the order of the same seeds.
        target: value of y to reach or go below.
        baseline: label of the method to compare with.
        y: column that is to become small.
        x: column in whose unit time is counted, by default ``wallclock`` in simulated seconds.
        level: of the interval, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the bootstrap; the same seed gives the same interval.

    Returns:
        One row per method but the baseline: ``seeds`` (common ones), ``pairs`` (those that tell),
        ``speedup`` (above 1: sooner than the baseline), ``low``, ``high``; NaN without such a pair, and
        for the interval if there is one only.

    Raises:
        ValueError: if the baseline is unknown, seeds cannot be paired, a column is unknown or without a
            finite value, or ``target``, ``level`` or ``resamples`` is out of range.
    """
    check_target(target, y)
    check_bootstrap(level, resamples)
    rows = {}
    for method, (ours, theirs) in _pairs(histories, baseline, (x, y)).items():
        ratios = np.array(
            [
                _log_ratio(arrival(slow, target, y, x), arrival(fast, target, y, x))
                for fast, slow in zip(ours, theirs, strict=True)
            ]
        )
        known = ratios[~np.isnan(ratios)]
        middle = float(np.median(known)) if len(known) else np.nan
        with np.errstate(over="ignore"):
            speedup, low, high = np.exp([middle, *bootstrap(known, np.median, level, resamples, seed)])
        rows[method] = {"seeds": len(ours), "pairs": len(known), "speedup": speedup, "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def bootstrap(
    values: Floats, statistic: Callable[..., Floats], level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of these values; NaN from fewer than two of them."""
    if len(values) < 2:
        return np.nan, np.nan
    picks = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(statistic(values[picks], axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _log_ratio(slow: Arrival, fast: Arrival) -> float:
    if slow.reached and fast.reached:
        if slow.time == fast.time:
            return 0.0
        with np.errstate(divide="ignore"):
            return float(np.clip(np.log(slow.time) - np.log(fast.time), -NEVER, NEVER))
    if fast.reached and slow.watched >= fast.time:
        return NEVER
    if slow.reached and fast.watched >= slow.time:
        return -NEVER
    return np.nan


def _pairs(histories: Any, baseline: str, columns: Sequence[str]) -> dict[str, Pair]:
    """Return, for every method but the baseline, its runs and the baseline's, in the order of common seeds."""
    if isinstance(histories, Mapping) and all(isinstance(runs, Mapping) for runs in histories.values()):
        seeded = {label: dict(runs) for label, runs in histories.items()}
        check_all_histories({label: list(runs.values()) for label, runs in seeded.items()}, columns)
    else:
        check_all_histories(histories, columns)
        sizes = {label: len(runs) for label, runs in histories.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"seeds cannot be paired: there are {sizes} histories; give {{seed: history}}")
        seeded = {label: dict(enumerate(runs)) for label, runs in histories.items()}
    if baseline not in seeded:
        raise ValueError(unknown_name("baseline", baseline, seeded))
    pairs = {}
    for label, runs in seeded.items():
        if label == baseline:
            continue
        common = [seed for seed in runs if seed in seeded[baseline]]
        if not common:
            raise ValueError(f"{label!r} and the baseline {baseline!r} have no seed in common")
        pairs[label] = ([runs[seed] for seed in common], [seeded[baseline][seed] for seed in common])
    if not pairs:
        raise ValueError(f"histories hold only the baseline {baseline!r}: give at least one other method")
    return pairs
