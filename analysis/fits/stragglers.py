"""Stragglers of a synchronous job: the workers that delay it, and the time that they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stalegrad.analysis.fits.imbalance import Imbalance, imbalance


@dataclass(frozen=True)
class Stragglers:
    """The cost of waiting for the slowest worker of a synchronous job.

    Attributes:
        slowdown: S, the time of the job over that of the ideal job, whose workers all take the mean time of each
            step; 1 if no worker ever waits.
        workers: one row per worker: ``mean`` (s), ``slowdown`` (S_w, the time of a job in which all other workers
            take the mean time, over that of the ideal job) and ``slow`` (whether it is persistently slow).
        imbalance: kind of the imbalance, random or persistent, and the slow workers.
    """

    slowdown: float
    workers: pd.DataFrame
    imbalance: Imbalance


def stragglers(times: pd.DataFrame) -> Stragglers:
    """Measure the stragglers of a synchronous job.

    S = sum_s max_w t[s, w] / sum_s m[s] with m[s] the mean over workers of step s, and
    S_w = sum_s max(t[s, w], m[s]) / sum_s m[s].

    Args:
        times: seconds, one row per step in order, one column per worker, without gaps.

    Returns:
        S, S_w of every worker, and the slow workers.

    Raises:
        ValueError: if a time is missing, negative or not finite, or all times are 0.

    Reference:
        Lin et al., Understanding Stragglers in Large Model Training Using What-if Analysis, OSDI 2025,
        https://arxiv.org/abs/2505.05713 (here with the mean of each step instead of that of all steps, so that a
        step that is longer for all workers makes no worker a straggler).

    Example:
        >>> import pandas as pd
        >>> found = stragglers(pd.DataFrame({"a": [1.0, 1.0, 1.0, 1.0], "b": [3.0, 1.0, 3.0, 1.0]}))
        >>> round(found.slowdown, 3), found.workers["slowdown"].round(3).tolist()
        (1.333, [1.0, 1.333])
    """
    seconds = times.to_numpy(float)
    if not (np.isfinite(seconds).all() and (seconds >= 0).all() and seconds.any()):
        raise ValueError("times of workers must be finite seconds of at least 0, not all of them 0")
    mean = seconds.mean(axis=1)
    ideal = mean.sum()
    found, _ = imbalance({worker: times[worker].to_numpy(float) for worker in times}, times)
    workers = pd.DataFrame(
        {
            "mean": seconds.mean(axis=0),
            "slowdown": np.maximum(seconds, mean[:, None]).sum(axis=0) / ideal,
            "slow": times.columns.isin(found.slow),
        },
        index=times.columns.rename("worker"),
    )
    return Stragglers(float(seconds.max(axis=1).sum() / ideal), workers, found)
