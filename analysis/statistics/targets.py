"""Times to a target, where some runs end before they reach it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from stalegrad.analysis.statistics.curves import Floats, Histories, diverged
from stalegrad.analysis.statistics.inputs import check_all_histories, check_target


class Arrival(NamedTuple):
    """The time at which a run first reached a target (inf if it did not), and until when it was watched."""

    time: float
    watched: float

    @property
    def reached(self) -> bool:
        """Whether it was seen to reach the target."""
        return self.time < np.inf


def to_target(histories: Histories, target: float, y: str = "test_error", x: str = "wallclock") -> pd.DataFrame:
    """Return when each method first reaches a target.

    A seed reaches the target at the first row with ``y <= target``, whatever comes after. A seed whose
    history ends before that is censored there: it is counted, but no time is made up for it. A seed that
    diverged will never reach the target, so it counts as not there however long one waits. ``share`` and
    ``median`` are Kaplan and Meier's; if all runs that are not there were watched to the end of the last
    arrival, they are the plain share, and the plain median with +inf for those runs. ``mean``, ``min`` and
    ``max`` are over the seeds that arrived, and so flatter a method that often fails: read them with
    ``reached``.

    Args:
        histories: label -> one history per seed.
        target: value of y to reach or go below.
        y: column that is to become small.
        x: column in whose unit the answer is, by default ``wallclock`` in simulated seconds.

    Returns:
        One row per label, columns ``seeds, reached, share, median, mean, min, max``; ``share`` is what part
        of the runs arrives while any was watched; the median is inf if that is not more than half; the
        last three are NaN where no seed arrived.

    Raises:
        ValueError: if the mapping is empty, a column is unknown or without a finite value, or the target
            is not a finite number.

    References:
        Kaplan and Meier, Nonparametric estimation from incomplete observations, JASA 53 (1958).
    """
    check_target(target, y)
    check_all_histories(histories, (x, y))
    rows = []
    for runs in histories.values():
        arrivals = [arrival(history, target, y, x) for history in runs]
        reached = np.array([a.time for a in arrivals if a.reached])
        some = len(reached) > 0
        rows.append(
            {
                "seeds": len(arrivals),
                "reached": len(reached),
                "share": 1.0 - kaplan_meier(arrivals)[1][-1],
                "median": median_arrival(arrivals),
                "mean": reached.mean() if some else np.nan,
                "min": reached.min() if some else np.nan,
                "max": reached.max() if some else np.nan,
            }
        )
    return pd.DataFrame(rows, index=pd.Index(list(histories), name="method"))


def arrival(history: pd.DataFrame, target: float, y: str, x: str) -> Arrival:
    """Return x at the first row with ``y <= target``, and to which x the run was watched.

    A run that diverged counts as watched for ever: it has not been taken away before it could arrive.
    """
    ticks = history[x].to_numpy(float)
    hit = np.flatnonzero(history[y].to_numpy(float) <= target)
    time = float(ticks[hit[0]]) if len(hit) else np.inf
    return Arrival(time, np.inf if diverged(history) else float(ticks[-1]))


def kaplan_meier(arrivals: Sequence[Arrival]) -> tuple[Floats, Floats]:
    """Return times in order and, from each of them on, the estimated share of runs that are not there yet."""
    reached = [a.time for a in arrivals if a.reached]
    watched = [a.watched for a in arrivals if not a.reached]
    if not reached:
        return np.zeros(1), np.ones(1)
    far = max(reached) + 1.0  # at risk at every arrival, and finite, as scipy wants it
    sf = stats.ecdf(stats.CensoredData(reached, right=np.fmin(watched, far))).sf
    return sf.quantiles, sf.probabilities


def median_arrival(arrivals: Sequence[Arrival]) -> float:
    """Return the median of Kaplan and Meier; inf if no more than half of the runs arrive.

    Where the share is exactly one half for a while, it is the middle of that while.
    """
    times, share = kaplan_meier(arrivals)
    half, less = times[share <= 0.5 + 1e-9], times[share < 0.5 - 1e-9]
    return float((half[0] + less[0]) / 2) if len(less) else np.inf


def median(values: npt.ArrayLike) -> float:
    """Return the median of numbers of which some may be +inf."""
    ordered = np.sort(np.asarray(values, float))
    return float(ordered[(len(ordered) - 1) // 2] / 2 + ordered[len(ordered) // 2] / 2)
