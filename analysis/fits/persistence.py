"""Tests for persistently slow workers, by ranks within steps, which are robust to pauses and heavy tails."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]

CHANCE = 0.002
"""Probability that some worker of a log of equal workers is found to be slower by chance; the same for faster."""

IN_BLOCKS = 0.01
"""Level of a second test, on the worker's own blocks of steps, which rejects workers that were slow only for a
while by chance."""

BLOCKS = (20, 10, 5)
"""Numbers of blocks of consecutive steps by which the correlation of neighbouring steps is estimated."""

OWN = 10
"""Number of blocks of the second test."""

SHORTEST = 5
"""Least number of steps in a block. Logs of fewer than 4 blocks are tested as if steps were independent."""

SLOW = 0.05
"""Least share by which the typical time of a slow worker exceeds the median worker's, beyond chance: the worker
alone then slows every synchronous step by this share. Smaller significant differences are reported separately."""

AT_LEAST = 0.03
"""Least share by which the lower confidence limit of a slow worker's typical time exceeds the median worker's. It
prevents workers with small differences from being called slow by chance."""


def compare_in_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Compare workers with each other within each step, so that effects common to all of them cancel.

    Each time is replaced by its rank among the times of its step, standardised to mean 0 and variance 1. If
    workers are alike, the sum of a worker's scores over n steps, divided by sqrt(n), is asymptotically standard
    normal for every distribution (Friedman's test, one worker at a time). It is divided by the square root of the
    variance inflation estimated from blocks of consecutive steps. The same is done with signs, above or below the
    step's median, which detect a worker that is always slightly above the median while others are far slower or
    far faster. P-values are multiplied by the number of workers and of tests (Bonferroni). Workers that differ by
    5 % or more are then left out, and the others are compared among themselves, because next to a fast worker all
    others look slow.

    Args:
        steps: seconds, one row per step in order, one column per worker; NaN where a worker has no time.

    Returns:
        One row per worker: ``ratio`` (median over steps of its time over the median of the others in the same
        step; 1 for the middle worker), ``least`` and ``most`` (95 % confidence limits of that median, for
        independent steps), ``above`` (share of steps in which it is above the step's median), ``certain`` (1:
        slower than the others beyond chance, -1: faster, 0: neither).

    Reference: Friedman, The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of
    Variance, 1937.
    """
    times = steps.to_numpy(float)
    middle = row_medians(times)[:, None]
    above = (times > middle).sum(axis=0) / np.isfinite(times).sum(axis=0)
    ratios = _ratios((times / _medians_of_others(times)).T)
    certain = _compare(times, middle)
    like = (certain == 0) | (np.abs(np.log(ratios["ratio"].to_numpy())) < math.log(1 + SLOW))
    if 1 < like.sum() < len(like):
        rest = times[:, like]
        shared = np.isfinite(rest).sum(axis=1) > 1
        certain[like] = _compare(rest[shared], row_medians(rest[shared])[:, None])
    return ratios.assign(above=above, certain=certain).set_axis(steps.columns)


def compare_samples(times: Mapping[Hashable, Floats]) -> pd.DataFrame:
    """Compare workers whose steps do not belong together, by their ranks among all times (Kruskal and Wallis).

    Args:
        times: times of each worker in the order of the log, by worker, in seconds.

    Returns:
        As :func:`compare_in_steps`; ``above`` is the share of times above the median of all.
    """
    everything = np.concatenate(list(times.values()))
    counts = [len(values) for values in times.values()]
    ranks = stats.rankdata(everything)
    deviation = ranks.std()
    scores = (ranks - ranks.mean()) / (deviation or 1.0)
    variance = 1 / np.array(counts) - 1 / len(everything)
    certain = _certain(np.split(scores, np.cumsum(counts)[:-1]), variance, CHANCE)
    padded = np.full((len(times), max(counts)), np.nan)
    for row, values in zip(padded, times.values(), strict=True):
        row[: len(values)] = values
    middle = np.median(everything)
    above = np.array([np.mean(values > middle) for values in times.values()])
    return _ratios(padded).assign(above=above, certain=certain).set_axis(pd.Index(list(times)))


def row_medians(values: Floats) -> Floats:
    """Return the median of each row's finite values; NaN for a row without one."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    middle = (np.take_along_axis(ordered, low[:, None], 1) + np.take_along_axis(ordered, high[:, None], 1)) / 2
    return np.asarray(middle[:, 0])


def _medians_of_others(times: Floats) -> Floats:
    """Return, for each value, the median of the other finite values of its row."""
    order = np.argsort(times, axis=1)  # NaN last
    place = np.argsort(order, axis=1)
    ordered = np.take_along_axis(times, order, 1)
    others = np.isfinite(times).sum(axis=1)[:, None] - 1
    low, high = np.maximum(others - 1, 0) // 2, np.maximum(others, 0) // 2
    # Without the value itself, all values from its place on move down by one place.
    first, second = (
        np.take_along_axis(ordered, np.minimum(at + (place <= at), times.shape[1] - 1), 1) for at in (low, high)
    )
    return np.asarray((first + second) / 2)


def _ratios(values: Floats) -> pd.DataFrame:
    """Return the median of each row over that of the middle row, and its confidence limits by order statistics."""
    typical = row_medians(values)
    count = np.isfinite(values).sum(axis=1)
    ordered = np.sort(values, axis=1)  # NaN last
    reach = 0.98 * np.sqrt(count)
    low = np.maximum(np.floor(count / 2 - reach), 0).astype(np.int64)
    least = np.take_along_axis(ordered, low[:, None], 1)[:, 0]
    most = np.take_along_axis(ordered, (count - 1 - low)[:, None], 1)[:, 0]
    middle = np.exp(np.median(np.log(typical)))
    return pd.DataFrame({"ratio": typical / middle, "least": least / middle, "most": most / middle})


def _compare(times: Floats, middle: Floats) -> npt.NDArray[np.int64]:
    """Return 1, -1 or 0 for each worker by ranks and signs, given the steps' times and medians."""
    present = np.isfinite(times)
    ranks = stats.rankdata(np.where(present, times, np.inf), axis=1)
    count = present.sum(axis=1)[:, None]
    centred = np.where(present, ranks - (count + 1) / 2, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    scores = np.where(present, centred / np.where(deviation > 0, deviation, 1.0), np.nan)
    signs = np.where(present, np.sign(np.where(present, times, middle) - middle), np.nan)
    variance = 1 / np.maximum(present.sum(axis=0), 1)
    found = sum(_certain(list(kind.T), variance, CHANCE / 2) for kind in (scores, signs))
    return np.asarray(np.sign(found))


def _certain(scores: list[Floats], variance: Floats, chance: float) -> npt.NDArray[np.int64]:
    """Return 1, -1 or 0 for each worker, given its scores in order and the variance of their mean by chance."""
    inflation = math.sqrt(max(1.0, *(_inflation(scores, number) for number in BLOCKS)))
    found = np.zeros(len(scores), np.int64)
    if len(scores) < 2:
        return found
    for j, (own, spread) in enumerate(zip(scores, variance, strict=True)):
        known = own[np.isfinite(own)]
        if not len(known) or spread <= 0:
            continue
        z = known.mean() / math.sqrt(spread) / inflation
        if stats.norm.sf(abs(z)) * len(scores) < chance and _lasting(_block_means(own, OWN), z):
            found[j] = 1 if z > 0 else -1
    return found


def _block_means(scores: Floats, number: int) -> Floats:
    """Return the mean of each block of consecutive steps: NaN for a block without scores, empty for short logs."""
    number = min(number, len(scores) // SHORTEST)
    if number < 4:
        return np.empty(0)
    cuts = np.linspace(0, len(scores), number + 1, dtype=int)[:-1]
    count = np.add.reduceat(np.isfinite(scores).astype(float), cuts)
    total = np.add.reduceat(np.nan_to_num(scores), cuts)
    return np.asarray(total / np.where(count > 0, count, np.nan))


def _inflation(scores: list[Floats], number: int) -> float:
    """Return the variance of block means over its value for independent scores, summed over all workers."""
    seen = expected = 0.0
    for own in scores:
        means = _block_means(own, number)
        means = means[np.isfinite(means)]
        if len(means) >= 4:
            seen += float(np.var(means, ddof=1))
            expected += float(np.nanvar(own, ddof=1)) * len(means) / np.isfinite(own).sum()
    return seen / expected if expected > 0 else 1.0


def _lasting(means: Floats, z: float) -> bool:
    """Return whether a worker is slower (or faster) in its blocks, too, by a t-test of their means."""
    means = means[np.isfinite(means)]
    if len(means) < 4:
        return True
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    t = float(np.sign(z) * means.mean())
    return t > 0 and (error == 0 or float(stats.t.sf(t / error, len(means) - 1)) < IN_BLOCKS)
