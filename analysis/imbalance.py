"""Why workers wait for one another: the variance of step times, divided between worker, step and chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Floats = npt.NDArray[np.float64]

SMALL = 0.05
"""Nearly constant: workers differ within a step by less than this coefficient of variation. Then a synchronous
step of up to 32 workers with normal times takes less than 1 + 2.07 * 0.05 = 1.10 times the mean: a tenth of the
time is the line drawn here between what may be neglected and what may not."""

SLOW = 0.1
"""A worker is slow if it takes longer than the median worker by this share of the mean: it alone then slows every
synchronous step by the same tenth. To be persistent, not unlucky, it must also be slower ..."""

TYPICAL = 1.0
"""... by so many standard deviations of a single time (so that it is late in 5 steps of 6), and ..."""

CERTAIN = 4.0
"""... by so many standard errors of its mean (once in 30,000 by chance)."""

SHARE = 0.5
"""Persistent without a slow worker (a fast one, say): workers account for at least half of the imbalance."""


@dataclass(frozen=True)
class Imbalance:
    """How the times of workers differ.

    Attributes:
        verdict: ``random`` (workers alike, their times vary), ``persistent`` (some always take longer) or
            ``nearly constant``.
        slow: the persistently slow workers.
        variance: seconds squared between workers (``worker``), between steps, common to all workers (``step``;
            0 if no steps were given: it is then in ``residual``), and the rest (``residual``).
        slowdown: time of a synchronous step over the mean time: the slowest worker's over the mean, averaged
            over the measured steps; without steps, for independent draws of every worker.
        words: all this in a sentence.
    """

    verdict: str
    slow: tuple[Hashable, ...]
    variance: Mapping[str, float]
    slowdown: float
    words: str


def imbalance(times: Mapping[Hashable, Floats], steps: pd.DataFrame | None) -> Imbalance:
    """Divide the variance and judge.

    The variance components are those of analysis of variance (moments): one-way, or two-way without replication
    if ``steps`` is given.

    Args:
        times: worker -> its times, in seconds.
        steps: one row per step, one column per worker, no gaps; or None.
    """
    mean = float(np.concatenate(list(times.values())).mean())
    common = 0.0
    if steps is not None:
        mean, means = float(steps.to_numpy().mean()), steps.mean(axis=1)
        times = {worker: (steps[worker] - means + mean).to_numpy() for worker in steps}
    counts = np.array([len(values) for values in times.values()])
    levels = np.array([values.mean() for values in times.values()])
    freedom = counts.sum() - len(counts)
    if steps is not None:
        freedom -= len(steps) - 1
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in times.values()) / freedom
    between, p_value = 0.0, 1.0
    if len(counts) > 1:
        grand = float(np.average(levels, weights=counts))
        mean_square = float(counts @ (levels - grand) ** 2) / (len(counts) - 1)
        size = (counts.sum() - (counts**2).sum() / counts.sum()) / (len(counts) - 1)
        between = max((mean_square - within) / size, 0.0)
        p_value = float(stats.f.sf(mean_square / max(within, 1e-300), len(counts) - 1, freedom))
    if steps is not None:
        common = max(float(means.var(ddof=1)) - within / len(counts), 0.0)

    noise = math.sqrt(within)
    margin = np.maximum(max(SLOW * mean, TYPICAL * noise), CERTAIN * noise / np.sqrt(counts))
    above = levels - np.median(levels)
    slow = {worker: level for worker, level, a, m in zip(times, levels, above, margin, strict=True) if a >= m}
    spread = math.sqrt(between + within)
    share = between / (between + within) if between + within else 0.0
    if slow:
        verdict = "persistent"
    elif spread < SMALL * mean:
        verdict = "nearly constant"
    else:
        verdict = "persistent" if share >= SHARE and p_value < 0.01 else "random"

    factor = _slowdown(times) if steps is None else float((steps.max(axis=1) / steps.mean(axis=1)).mean())
    words = _words(verdict, times, slow, float(np.median(levels)), spread / mean, share)
    if len(counts) > 1:
        words += f"; a synchronous step takes {factor:.2f} times the mean"
    if common > 0.01 * (common + between + within):
        words += f"; {common / (common + between + within):.0%} of the variance is common to all workers of a step"
    variance = {"worker": between, "step": common, "residual": within}
    return Imbalance(verdict, tuple(slow), variance, factor, words + ".")


def _words(
    verdict: str,
    times: Mapping[Hashable, Floats],
    slow: Mapping[Hashable, float],
    median: float,
    spread: float,
    share: float,
) -> str:
    if len(times) == 1:
        return f"The times are {verdict}: their coefficient of variation is {spread:.3f} (one worker only)"
    if verdict == "nearly constant":
        return f"The times are nearly constant: workers differ by {spread:.1%}"
    if slow:
        ratios = ", ".join(f"worker {worker} takes {level / median:.2f}" for worker, level in slow.items())
        return f"The imbalance is persistent: {ratios} times the median worker's time"
    if verdict == "persistent":
        return (
            f"The imbalance is persistent: {share:.0%} of it lies between workers, though none stands out as slow"
        )
    return (
        f"The imbalance is random: workers are alike ({share:.0%} of it lies between them), "
        f"their times vary by {spread:.1%}"
    )


def _slowdown(times: Mapping[Hashable, Floats]) -> float:
    """Return the expected largest of one draw per worker, over the mean of the workers."""
    values = np.unique(np.concatenate(list(times.values())))
    below = np.ones(len(values))
    for sample in times.values():
        below *= np.searchsorted(np.sort(sample), values, side="right") / len(sample)
    return float(values @ np.diff(below, prepend=0.0) / np.mean([sample.mean() for sample in times.values()]))
