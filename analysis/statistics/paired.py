"""Paired comparisons with a baseline, seed by seed, so that effects common to the runs of a seed cancel."""

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
"""Histories of each label (method), by seed, or as lists in the same order of seeds for all labels."""

Pair = tuple[list[pd.DataFrame], list[pd.DataFrame]]

NEVER = 1e6
"""Value that represents the logarithm of an infinite ratio."""


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
    """Return the differences between each method and a baseline, at given points or along the curve.

    Runs of the same seed have the same workers and the same mini-batches (common random numbers), so that their
    differences vary less than the runs themselves. The interval is the bootstrap's percentile interval of the mean
    difference: seeds are drawn with replacement. With few seeds it tends to be too narrow; with one seed there is
    none.

    Args:
        histories: histories of each label: ``{seed: history}``, of which the common seeds are used; or lists of
            equal length, in the same order of seeds.
        baseline: label of the method to subtract.
        x: column of the abscissa, by default ``wallclock`` in simulated seconds.
        y: column of the values.
        at: one point or several, in the unit of x; by default all points at which all runs of both methods
            have a finite value.
        level: confidence level of the interval, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Returns:
        Columns ``method``, ``x`` by its name, ``seeds`` (number of common ones), ``difference`` (mean over seeds
        of method minus baseline: negative if the method is lower), ``low``, ``high``. At a given point that not
        all runs reach, the numbers are NaN.

    Raises:
        ValueError: if the baseline is unknown, seeds cannot be paired, a column is unknown or has no
            finite value, or ``at``, ``level`` or ``resamples`` is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import paired_difference
        >>> slow = pd.DataFrame({"wallclock": [0.0, 4.0, 8.0], "test_error": [0.9, 0.5, 0.1]})
        >>> fast = slow.assign(wallclock=slow["wallclock"] / 2)
        >>> table = paired_difference({"sync": [slow], "async": [fast]}, baseline="sync", at=4.0)
        >>> table["difference"].round(3).tolist()
        [-0.4]
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
    """Return the factor by which each method reaches a target sooner than a baseline.

    The ratio (time of the baseline / time of the method) is computed for each seed. The result is the median of
    the ratios (for an even number, the middle in logarithms), with the bootstrap's percentile interval. With fewer
    than six pairs the interval is too narrow: even the range of so few values contains the median with a
    probability below 95 %. If only one run of a pair reached the target, and the other one ran at least as long
    (or diverged), the ratio counts as inf or 0. If neither reached it, or the other one ended before, the pair is
    undecided and is left out: see ``pairs``.

    Args:
        histories: histories of each label: ``{seed: history}``, of which the common seeds are used; or lists of
            equal length, in the same order of seeds.
        target: value of y to reach or fall below.
        baseline: label of the method to compare with.
        y: column of the values; smaller values are better.
        x: column of the times, by default ``wallclock`` in simulated seconds.
        level: confidence level of the interval, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Returns:
        One row per method but the baseline: ``seeds`` (number of common ones), ``pairs`` (number of decided ones),
        ``speedup`` (above 1: sooner than the baseline), ``low``, ``high``; NaN without a decided pair, and the
        interval also NaN with only one.

    Raises:
        ValueError: if the baseline is unknown, seeds cannot be paired, a column is unknown or has no
            finite value, or ``target``, ``level`` or ``resamples`` is out of range.

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import speedups
        >>> slow = pd.DataFrame({"wallclock": [0.0, 4.0, 8.0], "test_error": [0.9, 0.5, 0.1]})
        >>> fast = slow.assign(wallclock=slow["wallclock"] / 2)
        >>> speedups({"sync": [slow], "async": [fast]}, target=0.5, baseline="sync")["speedup"].round(3).to_dict()
        {'async': 2.0}
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
    """Return the percentile interval of a statistic of these values; NaN for fewer than two values."""
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
