"""The anatomy of staleness: when the updates that a gradient lacks were made, and which work was used."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stalegrad._core.protocols import TraceLike
from stalegrad.simulator.timing.columns import Fate

PARTS = ("before_reading", "computing", "travelling", "waiting")
"""Parts of staleness, in the order in which a message passes through them."""

FATES = tuple(str(fate) for fate in Fate if fate is not Fate.PENDING)
"""Fates of messages that are closed."""

ENDED = (Fate.USED, Fate.DISCARDED, Fate.PENDING)
"""Fates of messages whose computation was completed, if it has a finish time; others were cut off."""


class Anatomy:
    """The parts of the staleness of a trace's used messages, and the work that was used.

    A message that was read at version v and consumed by update j has staleness j - v. Each update i with
    v <= i < j, which made version i + 1, belongs to one part, by its time e:

    * **before_reading**, e <= read_time: the version read was not the newest, because the model was in transit or
      the worker continued at the version that it held;
    * **computing**, read_time < e <= finish_time;
    * **travelling**, finish_time < e <= receive_time, including the time that a worker holds a message back;
    * **waiting**, receive_time < e: the message had arrived, and waited for the server or for other messages.

    The four add up to the staleness of every message. Equal float64 times belong to the earlier part: an update at
    the instant of a read counts as before reading, even if the simulation made it after the read (events of one
    instant happen in the order of the workers' indices).

    Asynchronous reinforcement learning calls the first three **pre_queue** staleness and the last **in_queue**.

    Args:
        trace: a trace that passes ``verify()``, simulated or measured.

    Attributes:
        fates: names of the columns of :attr:`workers` that hold shares of gradients, by fate.

    Example::

        anatomy = simulate(Cluster(4, Exponential(1.0), uplink=0.1), Async(), updates=100).anatomy()
        anatomy.pooled["staleness"], anatomy.pooled["waiting"]
        anatomy.workers.sort_values("speed")[["speed", "used", "work_used"]]
    """

    fates = FATES

    def __init__(self, trace: TraceLike) -> None:
        self._trace = trace

    @cached_property
    def messages(self) -> pd.DataFrame:
        """One row per used message, in the order of gradient ids.

        Columns: ``worker``, ``staleness``, its parts ``before_reading``, ``computing``, ``travelling``,
        ``waiting``, and ``pre_queue`` and ``in_queue``; all but the first in updates.
        """
        trace, rows = self._trace, self._trace.used
        update = trace.column("update")[rows]
        marks = [trace.column("read_version")[rows]]
        for moment in ("read_time", "finish_time", "receive_time"):
            version = np.searchsorted(trace.update_times, trace.column(moment)[rows], side="right")
            marks.append(np.clip(version, marks[-1], update))
        parts = dict(zip(PARTS, np.diff([*marks, update], axis=0), strict=True))
        columns = {"worker": trace.column("worker")[rows], "staleness": update - marks[0], **parts}
        columns |= {"pre_queue": marks[-1] - marks[0], "in_queue": parts["waiting"]}
        return pd.DataFrame(columns).rename_axis("gradient_id")

    @cached_property
    def workers(self) -> pd.DataFrame:
        """One row per worker; NaN where a mean or a share is undefined.

        Columns:
            ``messages``: number of used messages.
            ``staleness``, its parts, ``pre_queue``, ``in_queue``: means over used messages, in updates.
            ``gradients``: mini-batch gradients of all closed messages; pending ones are left out. A message that
                was cut off counts the gradients that it would have had.
            ``effective``: effective gradients: those that an update has used.
            ``used``, ``discarded``, ``cancelled`` and so on: shares of ``gradients``, by fate.
            ``work_used``: share of used messages in the seconds spent on closed messages.
            ``speed``: mini-batch gradients per second of computing. Jobs that were cut off, by a cancellation or
                the end of the trace, count as censored (the mean job time is that of Kaplan and Meier, up to the
                longest job seen); without such jobs it is gradients over seconds.
            ``at_most``: whether the speed is an upper bound, up to chance, because the longest job was cut off.
        """
        table = self._table(np.arange(self._trace.workers), self._trace.workers)
        return table.rename_axis("worker")

    @cached_property
    def pooled(self) -> pd.Series[Any]:
        """The columns of :attr:`workers` for all workers together: means over messages and shares of all work."""
        everybody = np.zeros(self._trace.workers, int)
        return self._table(everybody, 1).astype(object).iloc[0].rename("all")

    def table(self, most: int = 16) -> pd.DataFrame:
        """Return one row per worker, and a last row, ``all``, for all of them together.

        Args:
            most: largest number of rows for workers. More workers than that are divided by speed into this number
                of groups, whose sizes differ by at most one. Each group is named by the ranks of its workers; the
                slowest has rank 1.
        """
        workers = self._trace.workers
        if workers <= most:
            rows, names, kind = self.workers, list(map(str, range(workers))), "worker"
        else:
            group = np.empty(workers, int)
            group[np.argsort(self.workers["speed"], kind="stable")] = np.arange(workers) * most // workers
            last = np.cumsum(np.bincount(group))
            names = [f"{start + 1}\N{EN DASH}{end}" for start, end in zip([0, *last[:-1]], last, strict=True)]
            rows, kind = self._table(group, most), "slowest first"
        pooled = self.pooled.to_frame().T.astype(rows.dtypes)
        return pd.concat([rows.set_axis(names), pooled]).rename_axis(kind)

    def __repr__(self) -> str:
        parts = " + ".join(f"{self.pooled[name]:.4g} {name.replace('_', ' ')}" for name in PARTS)
        return f"Anatomy(mean staleness {self.pooled['staleness']:.4g} = {parts})"

    def _repr_html_(self) -> str:
        return self.table().to_html(float_format="{:.4g}".format)

    @cached_property
    def _work(self) -> dict[str, Any]:
        """Worker, steps, fate and seconds of computing of every message, and whether it was completed."""
        trace = self._trace
        work = {name: trace.column(name) for name in ("worker", "steps", "fate")}
        finish = trace.column("finish_time")
        seconds = np.fmin(finish, trace.end) - trace.column("read_time")
        ended = np.isin(work["fate"], list(map(str, ENDED))) & (finish <= trace.end)
        return work | {"seconds": np.maximum(seconds, 0.0), "ended": ended}

    def _table(self, group: Any, groups: int) -> pd.DataFrame:
        """Return the columns of :attr:`workers` for groups of workers.

        Args:
            group: group of every worker, (workers,), from 0.
            groups: number of groups.
        """
        used, work = self.messages, self._work
        of_used, of_work = group[used["worker"]], group[work["worker"]]
        table = {"messages": np.bincount(of_used, minlength=groups)}
        for name in ("staleness", *PARTS, "pre_queue", "in_queue"):
            table[name] = _ratio(np.bincount(of_used, used[name], groups), table["messages"])
        masks = {fate: work["fate"] == fate for fate in FATES}
        gradients = {fate: np.bincount(of_work[m], work["steps"][m], groups) for fate, m in masks.items()}
        seconds = {fate: np.bincount(of_work[m], work["seconds"][m], groups) for fate, m in masks.items()}
        closed = np.sum(list(gradients.values()), axis=0)
        table |= {"gradients": closed.astype(int), "effective": gradients[Fate.USED].astype(int)}
        table |= {fate: _ratio(count, closed) for fate, count in gradients.items()}
        table["work_used"] = _ratio(seconds[Fate.USED], np.sum(list(seconds.values()), axis=0))
        table["speed"], table["at_most"] = self._speeds(of_work, groups)
        return pd.DataFrame(table)

    def _speeds(self, group: Any, groups: int) -> tuple[Any, Any]:
        """Return gradients per second of computing for every group, and whether these are upper bounds.

        The speed is the reciprocal of the mean time of a gradient, with each job weighted by its steps. This mean
        is the area under the Kaplan-Meier estimate of the share of jobs that take longer than t.

        Args:
            group: group of every message, (messages,).
            groups: number of groups.
        """
        steps, ended = self._work["steps"], self._work["ended"]
        times = self._work["seconds"] / steps
        order = np.lexsort((~ended, times, group))  # at a tie, jobs that were cut off are last
        group, times, steps, ended = group[order], times[order], steps[order].astype(float), ended[order]
        first = np.diff(group, prepend=-1) > 0
        last = np.roll(first, -1)
        total = np.bincount(group, steps, groups)
        before = np.cumsum(steps) - steps
        at_risk = total[group] - (before - before[first][np.cumsum(first) - 1])
        factor = np.log1p(-np.where(ended & ~last, steps / at_risk, 0.0))
        longer = np.cumsum(factor) - factor
        longer = np.exp(longer - longer[first][np.cumsum(first) - 1])
        passed = times - np.where(first, 0.0, np.roll(times, 1))
        speed = _ratio(np.ones(groups), np.bincount(group, longer * passed, groups))
        at_most = np.zeros(groups, bool)
        at_most[group[last]] = ~ended[last]
        return speed, at_most


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Return quotients, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator != 0)
