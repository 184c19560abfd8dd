"""The choice of delays for a simulation: a fitted delay, or the measured times if no delay fits."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad.analysis.fits.imbalance import largest_of
from stalegrad.analysis.fits.persistence import row_medians
from stalegrad.simulator.timing.delays import Delay, Empirical

Floats = npt.NDArray[np.float64]

ALL = "all"
"""Name of the fit to the times of all workers together."""

REJECTED = 0.01
"""A delay does not fit if its Kolmogorov-Smirnov p-value, times the number of workers, is below this, and its
distance exceeds :data:`NEAR`."""

NEAR = 0.03
"""Distance up to which a delay fits whatever its p-value: with 10^6 times, the test rejects delays that are
accurate enough for every purpose."""

ACCURATE = 0.05
"""Largest relative error of the mean and the synchronous step of a delay that fits; half of :data:`USABLE`."""

USABLE = 0.1
"""Relative error above which the fit warns that its synchronous step may differ from the measured one."""

NOTICED = 0.02
"""Relative error of the synchronous step up to which measured times are used unchanged."""

TEAM = 16
"""Number of workers of the synchronous step by which a single sample is judged."""

DRAWS = 2_000_000
"""Number of draws, over all workers, that estimate a fit's synchronous step with a relative error of about 1 %."""

FEWEST, MOST = 2_000, 50_000
"""Least and largest number of steps in this estimate."""

THINNED = 500
"""Number of values that represent a worker's measured times in ``compute``, if there are more than 1,000."""


class SynchronousStep(NamedTuple):
    """Mean time of a synchronous step, which is the time of its slowest worker.

    Attributes:
        measured: mean seconds in the log; without steps, the mean for independent draws from the measured times
            (of 16 equal workers if there is one sample).
        fitted: mean seconds with ``compute``, for the same workers.
        uncertainty: relative standard error of ``measured``, large if a few long times dominate; 0 without steps.
    """

    measured: float
    fitted: float
    uncertainty: float = 0.0

    @property
    def error(self) -> float:
        """The relative error of ``fitted``."""
        return self.fitted / self.measured - 1


@dataclass(frozen=True)
class Choice:
    """The chosen argument of ``Cluster(compute=...)``, and its accuracy.

    Attributes:
        compute: one delay, or one per worker.
        fits: whether it is a delay that fits; otherwise it draws from measured times.
        step: synchronous step of the log and of ``compute``.
        words: a summary in sentences.
    """

    compute: Delay | tuple[Delay, ...]
    fits: bool
    step: SynchronousStep
    words: str

    @property
    def agrees(self) -> bool:
        """Whether the synchronous step of ``compute`` is surely within 10 % of the measured one."""
        return not _doubt(self.step)


def choose(
    times: Mapping[Hashable, Floats], steps: pd.DataFrame | None, table: pd.DataFrame, *, apart: bool
) -> Choice:
    """Return the delay or delays that fit, or else the measured times of each worker.

    A delay fits if the Kolmogorov-Smirnov test does not reject it, or its distance is at most 0.03, and its mean
    and its synchronous step are within 5 % of the measured ones.

    Measured times are used unchanged, with one exception. The times of one step may share a common factor, so that
    the synchronous step of independent draws has an error of more than 2 % and more than its uncertainty. The
    times are then divided by this factor, if that reduces the error (each worker's mean is kept).

    Args:
        times: times of each worker, by worker, in seconds.
        steps: one row per step, one column per worker, NaN where a worker has no time; or None.
        table: table of :class:`~stalegrad.analysis.fits.delays.DelayFit`.
        apart: whether each worker has its own delay.
    """
    samples, alone = list(times.values()), len(times) == 1
    size, there, unsure = TEAM if alone else len(samples), None, 0.0
    if steps is None:
        measured = largest_of(samples * (TEAM if alone else 1))
    else:
        largest = np.nanmax(steps.to_numpy(float), axis=1)
        measured = float(largest.mean())
        unsure = float(largest.std(ddof=1)) / math.sqrt(len(largest)) / measured
        there = None if steps.notna().to_numpy().all() else steps.notna().to_numpy()

    def step(delays: Sequence[Delay]) -> SynchronousStep:
        return SynchronousStep(measured, synchronous_step(list(delays) * (size // len(delays)), there), unsure)

    rows = _of_one_family(table) if apart and not alone else table[table["worker"] == ALL][:1]
    delays = tuple(rows["delay"])
    whose = samples if len(delays) == len(samples) else [np.concatenate(samples)]
    close = (rows["p_value"] * len(rows) >= REJECTED) | (rows["ks"] <= NEAR)
    means = [delay.expectation() / own.mean() - 1 for delay, own in zip(delays, whose, strict=True)]
    if close.all() and np.max(np.abs(means)) <= ACCURATE and abs((found := step(delays)).error) <= ACCURATE:
        words = f"Times follow the delay {rows['name'].iloc[0]}{_of_each(delays)}"
        return Choice(delays if len(delays) > 1 else delays[0], True, found, f"{words}.{_doubt(found)}")

    drawn = tuple(Empirical.thinned(own, THINNED) for own in samples)
    found, how = step(drawn), ""
    if steps is not None and abs(found.error) > max(NOTICED, unsure):
        levelled = tuple(Empirical.thinned(own, THINNED) for own in _levelled(steps))
        other = step(levelled)
        if abs(other.error) < abs(found.error):
            drawn, found, how = levelled, other, ", divided by what is common to the workers of each step"
    best = table.iloc[0]
    words = (
        f"No delay fits (the best for all times is {best['name']}, KS distance {best['ks']:.2f}): compute draws "
        f"from the measured times{_of_each(drawn)}{how}."
    )
    return Choice(drawn if len(drawn) > 1 else drawn[0], False, found, words + _doubt(found))


def synchronous_step(delays: Sequence[Delay], there: npt.NDArray[np.bool_] | None = None) -> float:
    """Return the expected maximum of one independent draw of each delay, in seconds, by simulation.

    Args:
        delays: delays, one per worker.
        there: array (steps, workers), False where a worker is missing from a step; None: no worker is missing.
    """
    rng = np.random.default_rng(0)
    size = min(max(DRAWS // len(delays), FEWEST), MOST)
    rows = None
    if there is not None:
        rows = np.arange(max(1, size // len(there)) * len(there)) % len(there)
        size = len(rows)
    largest = np.zeros(size)
    for worker, delay in enumerate(delays):
        draws = delay.sample(rng, size)
        if there is not None:
            draws = np.where(there[rows, worker], draws, 0.0)
        np.maximum(largest, draws, out=largest)
    return float(largest.mean())


def _doubt(step: SynchronousStep) -> str:
    """Return a sentence if the error of the fitted synchronous step may exceed 10 %, else an empty text."""
    if abs(step.error) + step.uncertainty <= USABLE:
        return ""
    more = "more" if step.error > 0 else "less"
    text = (
        f" Its synchronous step may be wrong: it takes {step.fitted:.3g} s, {abs(step.error):.0%} {more} than the "
        f"measured {step.measured:.3g} s"
    )
    if step.uncertainty > USABLE / 2:
        return f"{text}, which few long times make uncertain by {step.uncertainty:.0%}."
    return f"{text}, because the times of a step depend on each other."


def _of_each(delays: Sequence[Delay]) -> str:
    return " of each worker" if len(delays) > 1 else ""


def _of_one_family(table: pd.DataFrame) -> pd.DataFrame:
    """Return one delay per worker: of the family with the least total AIC, if one was fitted to all workers."""
    single = table[table["worker"] != ALL]
    aic = single.pivot_table(index="worker", columns="name", values="aic", aggfunc="first")
    total = aic.sum(skipna=False).dropna()
    return single[single["name"] == total.idxmin()] if len(total) else single.drop_duplicates("worker")


def _levelled(steps: pd.DataFrame) -> list[Floats]:
    """Return the times of each worker, divided by the factor that the workers of each step have in common.

    This factor is the step's median, shrunk to the share of its (logarithmic) variance that two halves of the
    workers have in common. The rest of the variance is chance and stays in the worker's times.
    """
    times = steps.to_numpy(float)
    middle = np.log(row_medians(times))
    relative = times / np.exp(row_medians(np.log(times).T))
    with np.errstate(invalid="ignore"):
        halves = [np.log(row_medians(relative[:, half::2])) for half in (0, 1)]
    both = np.isfinite(halves[0]) & np.isfinite(halves[1])
    common = float(np.cov(halves[0][both], halves[1][both])[0, 1]) if both.sum() > 2 else 0.0
    variance = float(middle.var(ddof=1))
    shrink = min(max(common / variance, 0.0), 1.0) if variance > 0 else 0.0
    level = np.exp(shrink * (middle - middle.mean()))
    levelled = times / level[:, None]
    levelled *= np.nanmean(times, axis=0) / np.nanmean(levelled, axis=0)
    return [own[np.isfinite(own)] for own in levelled.T]
