"""Which law measured times follow, and whether workers differ: from a log of step times to a cluster."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from stalegrad.analysis.checks import unknown_name
from stalegrad.analysis.delay_laws import (
    Floats,
    fit_laws,
    law_ageing,
    log_density,
    observed_ageing,
    parameters,
    tail_index,
)
from stalegrad.analysis.imbalance import Imbalance, imbalance
from stalegrad.simulator.timing.delays import LAWS, Delay, Deterministic

ALL = "all"
"""Whose fit it is when the times of all workers are taken together."""

FEWEST = 4
"""Least number of times per worker: one more than the largest law has parameters."""


@dataclass(frozen=True)
class DelayFit:
    """Laws fitted to measured times.

    Attributes:
        table: one row per worker (``all``: all times together) and law, the best first: ``worker``, ``law`` (its
            name in a spec), ``delay`` (the law itself), ``log_likelihood``, ``aic``, ``ks`` (Kolmogorov-Smirnov
            distance), ``p_value`` (of ``ks``, for parameters known beforehand: too large for fitted ones),
            ``ageing`` (of the law: ``new-longer-than-used``, NLTU, ``new-shorter-than-used``, ``memoryless`` or
            ``neither``).
        workers: one row per worker and ``all``: ``times`` (how many), ``mean`` (s), ``cv``, ``tail_index``
            (Hill), ``ageing`` (of the times themselves).
        imbalance: between the workers; its ``verdict``, ``slow`` and ``words`` are repeated here.
    """

    table: pd.DataFrame
    workers: pd.DataFrame
    imbalance: Imbalance

    @property
    def verdict(self) -> str:
        """``random``, ``persistent`` or ``nearly constant``."""
        return self.imbalance.verdict

    @property
    def slow(self) -> tuple[Hashable, ...]:
        """The persistently slow workers."""
        return self.imbalance.slow

    @property
    def words(self) -> str:
        """The verdict and its reasons in a sentence."""
        return self.imbalance.words

    @property
    def compute(self) -> Delay | tuple[Delay, ...]:
        """What ``Cluster(compute=...)`` takes: one law, or one per worker if the imbalance is persistent.

        The one law is the best of all times together; the laws per worker are of one family, the one with
        the least AIC in all, in the order of ``workers``. Draws are independent: what is common to all workers
        of a step is not reproduced, though its variance is. If the best ``p_value`` is tiny, no law describes the
        times: ``Empirical`` draws from the times themselves.
        """
        best = self.table.drop_duplicates("worker").set_index("worker")["delay"]
        if self.verdict != "persistent":
            return best[ALL]  # type: ignore[no-any-return]
        single = self.table[self.table["worker"] != ALL]
        aic = single.pivot_table(index="worker", columns="law", values="aic", aggfunc="first")
        total = aic.sum(skipna=False).dropna()
        if len(total):
            best = single[single["law"] == total.idxmin()].set_index("worker")["delay"]
        return tuple(best[worker] for worker in self.workers.index.drop(ALL))

    def __str__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<p>{self.words}</p>{self.workers.to_html()}{self.table.to_html(index=False)}"


def fit_delays(
    measured: pd.DataFrame | npt.ArrayLike,
    *,
    worker: str = "worker",
    seconds: str = "seconds",
    step: str | None = None,
) -> DelayFit:
    """Find the laws that describe measured times, and whether the imbalance of workers is random or persistent.

    The laws are fitted by maximum likelihood. They are judged on times as measured. The verdict rests on the
    variance between workers, against that within them, after what all workers of a step have in common is
    taken away (if ``step`` is given); the module ``stalegrad.analysis.imbalance`` names the thresholds and why.

    Args:
        measured: positive seconds, one row per worker and step; or an array of the times of one worker, or of
            several that are known to be alike.
        worker: column of the worker.
        seconds: column of the time.
        step: column of the step, if the workers' steps belong together; only steps that all workers have made
            count for the verdict.

    Raises:
        ValueError: for a missing column, times that are not finite and positive, fewer than 4 times of a worker,
            a (worker, step) that is given twice, fewer than 2 complete steps.
    """
    frame = _frame(measured, worker, seconds, step)
    grouped: dict[Hashable, Floats] = {
        name: group.to_numpy(float) for name, group in frame.groupby(worker, sort=True)[seconds]
    }
    _check_times(grouped)
    everything = {ALL: frame[seconds].to_numpy(float)}
    samples = everything | grouped if len(grouped) > 1 else everything
    rows = [row for name, times in samples.items() for row in _rows(name, times)]
    table = pd.DataFrame(rows).sort_values("aic", kind="stable")
    order = {name: place for place, name in enumerate(samples)}
    table = table.sort_values("worker", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    workers = pd.DataFrame.from_dict({name: _describe(times) for name, times in samples.items()}, orient="index")
    steps = None if step is None else _complete(frame, worker, seconds, step)
    return DelayFit(table, workers.rename_axis("worker"), imbalance(grouped, steps))


def _rows(worker: Hashable, times: Floats) -> list[dict[str, Any]]:
    return [{"worker": worker, **_row(law, times)} for law in fit_laws(times)]


def _row(law: Delay, times: Floats) -> dict[str, Any]:
    n, log_likelihood = len(times), float(log_density(law, times).sum())
    distance, p_value = 0.0, 1.0
    if not isinstance(law, Deterministic):
        below = 1.0 - law.sf(np.sort(times))
        distance = float(max(np.max(np.arange(1, n + 1) / n - below), np.max(below - np.arange(n) / n)))
        p_value = float(stats.kstwo.sf(distance, n))
    return {
        "law": next(name for name, cls in LAWS.items() if cls is type(law)),
        "delay": law,
        "log_likelihood": log_likelihood,
        "aic": 2 * parameters(law) - 2 * log_likelihood,
        "ks": distance,
        "p_value": p_value,
        "ageing": law_ageing(law),
    }


def _describe(times: Floats) -> dict[str, Any]:
    mean = float(times.mean())
    return {
        "times": len(times),
        "mean": mean,
        "cv": float(times.std(ddof=1)) / mean,
        "tail_index": tail_index(times),
        "ageing": observed_ageing(times),
    }


def _frame(measured: Any, worker: str, seconds: str, step: str | None) -> pd.DataFrame:
    if not isinstance(measured, pd.DataFrame):
        if step is not None:
            raise ValueError(f"step = {step!r} needs a DataFrame with that column, not {type(measured).__name__}")
        values = np.asarray(measured)
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise ValueError(
                f"measured is {measured!r:.60}: give a DataFrame or a one-dimensional array of seconds"
            )
        return pd.DataFrame({worker: 0, seconds: values})
    for column in filter(None, (worker, seconds, step)):
        if column not in measured:
            raise ValueError(unknown_name("column", column, map(str, measured.columns)))
    if measured[seconds].dtype.kind not in "iuf":
        raise ValueError(f"column {seconds!r} holds {measured[seconds].dtype}: give seconds as numbers")
    if measured[worker].isna().any():
        raise ValueError(f"column {worker!r} has gaps: every time belongs to a worker")
    if (measured[worker] == ALL).any():
        raise ValueError(
            f"column {worker!r} names a worker {ALL!r}: that stands for all of them; choose another name"
        )
    return measured


def _check_times(grouped: dict[Hashable, Floats]) -> None:
    if not grouped:
        raise ValueError("measured is empty: there is nothing to fit")
    for worker, times in grouped.items():
        bad = ~(np.isfinite(times) & (times > 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"time {at} of worker {worker} is {times[at]}; allowed are finite seconds above 0")
        if len(times) < FEWEST:
            raise ValueError(f"worker {worker} has {len(times)} times: at least {FEWEST} are needed to fit laws")


def _complete(frame: pd.DataFrame, worker: str, seconds: str, step: str) -> pd.DataFrame:
    """Return steps by workers, for the steps that all of them have made."""
    twice = frame.duplicated([worker, step])
    if twice.any():
        who, when = (frame.loc[twice, column].iloc[0] for column in (worker, step))
        raise ValueError(f"worker {who} has several times in step {when}: give one")
    steps = frame.pivot_table(index=step, columns=worker, values=seconds, aggfunc="first")
    if steps.shape[1] < 2:
        raise ValueError(f"step = {step!r} needs at least 2 workers: with one, leave it out")
    complete = steps.dropna()
    if len(complete) < 2:
        raise ValueError(f"{len(complete)} of {len(steps)} steps were made by all workers: at least 2 are needed")
    return complete
