"""Times to a target, including runs that end before they reach it."""

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
    """The time at which a run first reached a target (inf if it did not), and the time until it was observed."""

    time: float
    watched: float

    @property
    def reached(self) -> bool:
        """Whether the run reached the target."""
        return self.time < np.inf


def to_target(histories: Histories, target: float, y: str = "test_error", x: str = "wallclock") -> pd.DataFrame:
    """Return the time at which each method first reaches a target.

    A seed reaches the target at the first row with ``y <= target``; later rows do not matter. A seed whose history
    ends before is censored at its end: it is counted, but no time is invented for it. A seed that diverged counts
    as never reaching the target. ``share`` and ``median`` are Kaplan and Meier's. If all runs that did not reach
    the target were observed until the last arrival, ``share`` is the ordinary share, and ``median`` the ordinary
    median with +inf for these runs. ``mean``, ``min`` and ``max`` are over the seeds that reached the target and
    therefore favour methods that often fail: read them together with ``reached``.

    Args:
        histories: histories of each label, one per seed.
        target: value of y to reach or fall below.
        y: column of the values; smaller values are better.
        x: column of the times, by default ``wallclock`` in simulated seconds.

    Returns:
        One row per label, columns ``seeds, reached, share, median, mean, min, max``; ``share`` is the estimated
        share of runs that reach the target within the time of observation; the median is inf if it is not more
        than half; the last three are NaN if no seed reached the target.

    Raises:
        ValueError: if the mapping is empty, a column is unknown or has no finite value, or the target
            is not a finite number.

    References:
        Kaplan and Meier, Nonparametric estimation from incomplete observations, JASA 53 (1958).

    Example:
        >>> import pandas as pd
        >>> from stalegrad.analysis import to_target
        >>> slow = pd.DataFrame({"wallclock": [0.0, 4.0, 8.0], "test_error": [0.9, 0.5, 0.1]})
        >>> fast = slow.assign(wallclock=slow["wallclock"] / 2)
        >>> to_target({"sync": [slow], "async": [fast]}, target=0.5)["median"].to_dict()
        {'sync': 4.0, 'async': 2.0}
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
    """Return x at the first row with ``y <= target``, and the x until which the run was observed.

    A run that diverged counts as observed without end, because it will never reach the target.
    """
    ticks = history[x].to_numpy(float)
    hit = np.flatnonzero(history[y].to_numpy(float) <= target)
    time = float(ticks[hit[0]]) if len(hit) else np.inf
    return Arrival(time, np.inf if diverged(history) else float(ticks[-1]))


def kaplan_meier(arrivals: Sequence[Arrival]) -> tuple[Floats, Floats]:
    """Return the arrival times in order and, from each on, the estimated share of runs that have not arrived."""
    reached = [a.time for a in arrivals if a.reached]
    watched = [a.watched for a in arrivals if not a.reached]
    if not reached:
        return np.zeros(1), np.ones(1)
    far = max(reached) + 1.0  # at risk at every arrival, and finite, as SciPy requires
    sf = stats.ecdf(stats.CensoredData(reached, right=np.fmin(watched, far))).sf
    return sf.quantiles, sf.probabilities


def median_arrival(arrivals: Sequence[Arrival]) -> float:
    """Return Kaplan and Meier's median; inf if at most half of the runs arrive.

    If the share is exactly one half during an interval, it is the middle of this interval.
    """
    times, share = kaplan_meier(arrivals)
    half, less = times[share <= 0.5 + 1e-9], times[share < 0.5 - 1e-9]
    return float((half[0] + less[0]) / 2) if len(less) else np.inf


def median(values: npt.ArrayLike) -> float:
    """Return the median of numbers, some of which may be +inf."""
    ordered = np.sort(np.asarray(values, float))
    return float(ordered[(len(ordered) - 1) // 2] / 2 + ordered[len(ordered) // 2] / 2)
