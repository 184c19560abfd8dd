"""Imbalance of workers: workers that are slow beyond chance, and variance between workers, steps and the rest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from stalegrad.analysis.fits.persistence import AT_LEAST, SLOW, compare_in_steps, compare_samples

Floats = npt.NDArray[np.float64]

SMALL = 0.05
"""Coefficient of variation within a step below which times are nearly constant. Then a synchronous step of up to
32 workers with normal times takes less than 1 + 2.07 * 0.05 = 1.10 times the mean; an excess of up to a tenth is
regarded as negligible."""

NOTED = 0.005
"""Difference between workers below which it is not reported, even if it is significant."""

SHARE = 0.5
"""Least share of workers in the imbalance for the verdict ``persistent`` without a slow or a fast worker."""

ROUNDS = 20
"""Alternations of the fit of worker and step effects if workers lack steps; a few suffice for convergence."""

NAMED = 8
"""Largest number of workers that a sentence names."""


@dataclass(frozen=True)
class Imbalance:
    """Differences between the times of workers.

    Attributes:
        verdict: ``random`` (workers are alike, their times vary), ``persistent`` (some workers always take longer)
            or ``nearly constant``.
        slow: the persistently slow workers.
        fast: the persistently fast workers.
        variance: components of variance in seconds squared: between workers (``worker``), between steps and common
            to all workers (``step``; 0 without steps, when ``residual`` includes it), and the rest (``residual``).
        slowdown: time of a synchronous step over the mean time: the slowest worker's time over the mean, averaged
            over the measured steps (of the workers with a time in the step); without steps, for independent draws
            of every worker.
        words: a summary in sentences.
    """

    verdict: str
    slow: tuple[Hashable, ...]
    fast: tuple[Hashable, ...]
    variance: Mapping[str, float]
    slowdown: float
    words: str


def imbalance(times: Mapping[Hashable, Floats], steps: pd.DataFrame | None) -> tuple[Imbalance, pd.DataFrame]:
    """Find the slow workers, divide the variance into components, and classify the imbalance.

    Slow workers are found by ranks and medians (:mod:`stalegrad.analysis.fits.persistence`), so that rare pauses
    and heavy tails neither hide a slow worker nor make a worker appear slow. The variance components are those of
    analysis of variance (moments): one-way, or two-way without replication if ``steps`` is given.

    Args:
        times: times of each worker, by worker, in seconds.
        steps: one row per step in order, one column per worker, NaN where a worker has no time; or None.

    Returns:
        The imbalance, and the comparison of workers on which it is based.
    """
    compared = compare_samples(times) if steps is None else compare_in_steps(steps)
    certain, ratio = compared["certain"], compared["ratio"]
    slow = tuple(compared.index[(certain > 0) & (ratio >= 1 + SLOW) & (compared["least"] >= 1 + AT_LEAST)])
    fast = tuple(
        compared.index[(certain < 0) & (ratio <= 1 / (1 + SLOW)) & (compared["most"] <= 1 / (1 + AT_LEAST))]
    )
    if steps is None:
        pieces, mean, differ = _one_way(times)
        factor = _slowdown(times)
    else:
        pieces, mean, differ = _two_way(steps.to_numpy(float))
        factor = float((steps.max(axis=1) / steps.mean(axis=1)).mean())
    between, within = pieces["worker"], pieces["residual"]
    spread = math.sqrt(between + within) / mean
    share = between / (between + within) if between + within else 0.0
    if slow or fast:
        verdict = "persistent"
    elif spread < SMALL:
        verdict = "nearly constant"
    else:
        verdict = "persistent" if share >= SHARE and differ else "random"

    words = _words(verdict, compared, slow, fast, spread, share)
    if len(times) > 1:
        words += f"; a synchronous step takes {factor:.2f} times the mean"
    if pieces["step"] > 0.01 * sum(pieces.values()):
        words += (
            f"; {pieces['step'] / sum(pieces.values()):.0%} of the variance is common to all workers of a step"
        )
    return Imbalance(verdict, slow, fast, pieces, factor, words + "."), compared


def _one_way(times: Mapping[Hashable, Floats]) -> tuple[dict[str, float], float, bool]:
    """Return the variance components, the mean, and whether the workers differ beyond chance (F test, 1 %)."""
    counts = np.array([len(values) for values in times.values()])
    levels = np.array([values.mean() for values in times.values()])
    mean = float(np.average(levels, weights=counts))
    squares, freedom = sum(float(((v - v.mean()) ** 2).sum()) for v in times.values()), counts.sum() - len(counts)
    pieces = _components(levels, counts, None, squares, freedom)
    return pieces, mean, _differ(levels, counts, mean, squares, freedom)


def _two_way(times: Floats) -> tuple[dict[str, float], float, bool]:
    """Return the same as :func:`_one_way`, after subtracting the effects of steps; NaN is allowed."""
    there = np.isfinite(times)
    counts, width = there.sum(axis=0), there.sum(axis=1)
    filled = np.where(there, times, 0.0)
    mean = float(filled.sum() / there.sum())
    worker, step = np.zeros(len(counts)), np.zeros(len(width))
    for _ in range(1 if there.all() else ROUNDS):
        step = (filled - there * worker).sum(axis=1) / width - mean
        step -= step.mean()
        worker = (filled - there * step[:, None]).sum(axis=0) / counts - mean
    residual = np.where(there, times - mean - worker - step[:, None], 0.0)
    squares, freedom = float((residual**2).sum()), there.sum() - len(counts) - len(width) + 1
    levels = mean + worker
    pieces = _components(levels, counts, (step, width), squares, freedom)
    return pieces, mean, _differ(levels, counts, mean, squares, freedom)


def _components(
    levels: Floats,
    counts: npt.NDArray[np.int64],
    steps: tuple[Floats, npt.NDArray[np.int64]] | None,
    squares: float,
    freedom: int,
) -> dict[str, float]:
    within = squares / freedom
    between = common = 0.0
    if len(levels) > 1:
        between = max(float(levels.var(ddof=1)) - within * float(np.mean(1 / counts)), 0.0)
    if steps is not None:
        effects, width = steps
        common = max(float(effects.var(ddof=1)) - within * float(np.mean(1 / width)), 0.0)
    return {"worker": between, "step": common, "residual": float(within)}


def _differ(levels: Floats, counts: npt.NDArray[np.int64], mean: float, squares: float, freedom: int) -> bool:
    if len(levels) < 2:
        return False
    mean_square = float(counts @ (levels - mean) ** 2) / (len(levels) - 1)
    ratio = mean_square / max(squares / freedom, 1e-300)
    return float(stats.f.sf(ratio, len(levels) - 1, freedom)) < 0.01


def _words(
    verdict: str,
    compared: pd.DataFrame,
    slow: Sequence[Hashable],
    fast: Sequence[Hashable],
    spread: float,
    share: float,
) -> str:
    if len(compared) == 1:
        return f"The times are {verdict}: their coefficient of variation is {spread:.3f} (one worker only)"
    if slow or fast:
        text = f"The imbalance is persistent: {_named(compared, slow or fast)} times the median worker's time"
        if not slow:
            text += ", though none stands out as slow"
    elif verdict == "nearly constant":
        text = f"The times are nearly constant: workers differ by {spread:.1%}"
    elif verdict == "persistent":
        text = (
            f"The imbalance is persistent: {share:.0%} of it lies between workers, though none stands out as slow"
        )
    else:
        text = (
            f"The imbalance is random: no worker is persistently slow ({share:.0%} of it lies between workers), "
            f"times vary by {spread:.1%}"
        )
    little = (compared["certain"] > 0) & compared["ratio"].between(1 + NOTED, 1 + SLOW, inclusive="left")
    if little.any():
        text += f"; {_named(compared, compared.index[little])} times: certain, but too little to call it slow"
    return text


def _named(compared: pd.DataFrame, workers: Sequence[Hashable] | pd.Index) -> str:
    """Return the workers that differ most and their ratios."""
    ratios = compared.loc[list(workers), "ratio"]
    first = ratios.loc[np.abs(np.log(ratios)).sort_values(ascending=False, kind="stable").index[:NAMED]]
    named = ", ".join(f"worker {worker} takes {ratio:.2f}" for worker, ratio in first.items())
    return named + (f" and {len(ratios) - NAMED} more take up to that" if len(ratios) > NAMED else "")


def _slowdown(times: Mapping[Hashable, Floats]) -> float:
    """Return the expected maximum of one draw per worker, over the mean of the workers."""
    return largest_of(list(times.values())) / float(np.mean([sample.mean() for sample in times.values()]))


def largest_of(samples: Sequence[Floats]) -> float:
    """Return the exact expected maximum of one independent draw from each sample, in seconds."""
    # The probability that all draws are at most v grows by c / (c - 1) at the c-th smallest value of a sample.
    ranks = np.concatenate([np.arange(1, len(sample) + 1) for sample in samples])
    with np.errstate(divide="ignore"):
        growth = np.log(ranks) - np.log(ranks - 1)
    values = np.concatenate([np.sort(sample) for sample in samples])
    order = np.argsort(values, kind="stable")
    later = np.cumsum(growth[order][::-1])[::-1]
    below = np.exp(-np.append(later[1:], 0.0))
    return float(values[order] @ np.diff(below, prepend=0.0))
