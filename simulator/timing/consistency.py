"""Laws that every trace obeys, simulated or measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from stalegrad._core.types import Columns
from stalegrad.simulator.timing.clock import READS, TOLERANCE
from stalegrad.simulator.timing.columns import Fate, TraceError

After = Callable[[np.ndarray | float, np.ndarray | float], np.ndarray]
"""A function that returns where the first times are later than the second, beyond rounding."""


class Table(NamedTuple):
    """A table, and the positions of its rows in the table that the user gave.

    Attributes:
        name: ``messages``, ``updates`` or ``absences``.
        columns: arrays by name of column, (rows,).
        given: row of the user's table, (rows,); None if the order is the same.
        labels: index of the user's table; None if its rows are labelled 0, 1, ...
    """

    name: str
    columns: Columns
    given: np.ndarray | None = None
    labels: pd.Index | None = None

    def require(self, holds: np.ndarray, law: str, *shown: str) -> None:
        """Check a law in every row.

        Args:
            holds: whether the law holds, (rows,) of truth values.
            law: the law, for the error.
            shown: columns whose values appear in the error.

        Raises:
            TraceError: if a row breaks the law; it names the law and the first such row of the user's table.
        """
        if np.all(holds):
            return
        broken = np.flatnonzero(~holds)
        at = broken[np.argmin(self.given[broken])] if self.given is not None else broken[0]
        row = int(at if self.given is None else self.given[at])
        name = row if self.labels is None else self.labels[row]
        label = "" if name == row else f" (labelled {name!s:.40})"
        values = ", ".join(f"{name} = {self.columns[name][at].item()!r}" for name in shown)
        raise TraceError(f"row {row}{label} of the {self.name} table breaks a law: {law}; it has {values}")


def verify(
    messages: Table, updates: Table, absences: Table, *, workers: int, end: float, resolution: float
) -> None:
    """Check that a trace is possible: that it obeys every law.

    Times are compared with a tolerance: ``TOLERANCE`` times the larger magnitude (float64 sums) plus twice the
    resolution (a start and a duration that were both rounded).

    Args:
        messages: table of messages; rows of one worker with the same ``read_time`` are in the order of computing.
        updates: table of updates.
        absences: table of absences.
        workers: number of workers.
        end: end of the observation, in seconds.
        resolution: seconds to which the times were rounded.

    Raises:
        TraceError: if a row breaks a law; it names the law, the first such row, and its values.
    """
    m, times = messages.columns, updates.columns["time"]
    worker, version, update, fate = m["worker"], m["read_version"], m["update"], m["fate"]
    read, finish, receive = m["read_time"], m["finish_time"], m["receive_time"]
    law = messages.require

    def after(one: np.ndarray | float, other: np.ndarray | float) -> np.ndarray:
        return one - other > TOLERANCE * np.maximum(np.abs(one), np.abs(other)) + 2.0 * resolution

    finite = np.isfinite(times)
    forward = np.diff(np.where(finite, times, 0.0), prepend=0.0) >= 0
    updates.require(finite & forward, "time must not go backwards, and is finite and at least 0", "time")
    start = updates.columns.get("start", times)
    if start is not times:
        updates.require(np.isfinite(start) & (start >= 0), "start is finite and at least 0", "start")
        updates.require(~after(start, times), "start <= time", "start", "time")
        alone = ~after(np.concatenate([[0.0], times[:-1]]), start)
        updates.require(alone, "an update starts when the one before has ended", "start")
    law((worker >= 0) & (worker < workers), f"worker is at least 0 and below {workers}", "worker")
    law(np.isfinite(read) & (read >= 0), "read_time is finite and at least 0", "read_time")
    law(~np.isinf(finish), "finish_time is finite, or NaN where there is none", "finish_time")
    law(~np.isinf(receive), "receive_time is finite, or NaN where there is none", "receive_time")
    law(~after(read, finish), "finish_time >= read_time", "read_time", "finish_time")
    law(~after(finish, receive), "receive_time >= finish_time", "finish_time", "receive_time")
    law(~after(read, end), f"read_time is not after the end, {end!r} s", "read_time")
    law(m["steps"] >= 1, "steps >= 1", "steps")

    known = (version >= 0) & (version <= len(times))
    law(known, f"read_version is between 0 and {len(times)}, the last version", "read_version")
    exists = ~after(np.concatenate([[0.0], times])[version], read)
    law(exists, "a version is read only after it exists", "read_version", "read_time")

    used = fate == Fate.USED
    named = np.where(used, update >= 0, update == -1)
    law(named, "update is -1 exactly if the message was not used", "update", "fate")
    law(update < len(times), f"update is below {len(times)}", "update")
    law(~used | (version <= update), "read_version <= update", "read_version", "update")
    stale = m["staleness"] == np.where(used, update - version, -1)
    law(stale, "staleness = update - read_version (-1 if not used)", "staleness", "read_version", "update")
    if len(times):
        on_time = ~used | (~after(receive, start[update]) & ~np.isnan(receive))
        law(on_time, "a used message is received before its update", "receive_time", "update")
    law(~used | np.isfinite(finish), "a used message has finished", "finish_time")
    _one_at_a_time(messages, after)
    _while_there(messages, absences, after, workers, end)

    ended = np.full(len(times), True) & ~after(times, end)
    updates.require(ended, f"time is not after the end, {end!r} s", "time")
    count = np.bincount(update[used], minlength=len(times))
    steps = np.bincount(update[used], m["steps"][used], minlength=len(times))
    updates.require(count > 0, "every update consumes at least one message", "time")
    updates.require(
        updates.columns["messages"] == count, "messages counts the rows that name this update", "messages"
    )
    updates.require(updates.columns["gradients"] == steps, "gradients sums their steps", "gradients")


def _one_at_a_time(messages: Table, after: After) -> None:
    """Check that a worker computes its messages one after another."""
    m = messages.columns
    order = np.argsort(m["worker"], kind="stable")  # a worker's rows, in the order in which they happened
    worker, read, finish = (m[name][order] for name in ("worker", "read_time", "finish_time"))
    same = worker[1:] == worker[:-1]

    def require(broken: np.ndarray, law: str, *shown: str) -> None:
        holds = np.full(len(order), True)
        holds[order[broken]] = False
        messages.require(holds, law, *shown)

    overlaps = same & after(finish[:-1], read[1:])
    require(
        np.flatnonzero(overlaps) + 1,
        "a worker computes one message at a time; for times that are rounded give Trace a resolution",
        "worker",
        "read_time",
    )
    unfinished = np.flatnonzero(same & np.isnan(finish[:-1]))
    require(
        unfinished, "a message that did not finish (finish_time NaN) is its worker's last", "worker", "read_time"
    )
    again = (worker[READS:] == worker[:-READS]) & (read[READS:] == read[:-READS])
    law = f"a worker reads at most {READS} times at one moment"
    require(np.flatnonzero(again) + READS, law, "worker", "read_time")


def _while_there(messages: Table, absences: Table, after: After, workers: int, end: float) -> None:
    """Check that every worker leaves and returns in turn, and computes only while it is present."""
    away = absences.columns
    worker, leave, back = away["worker"], away["leave_time"], away["return_time"]
    gone = np.isnan(back)
    back = np.where(gone, math.inf, back)
    law = absences.require
    law((worker >= 0) & (worker < workers), f"worker is at least 0 and below {workers}", "worker")
    law(np.isfinite(leave) & (leave >= 0), "leave_time is finite and at least 0", "leave_time")
    law(~after(leave, end), f"leave_time is not after the end, {end!r} s", "leave_time")
    law(gone | np.isfinite(back) & ~after(leave, back), "leave_time <= return_time", "leave_time", "return_time")
    order = np.lexsort((leave, worker))
    same = worker[order][1:] == worker[order][:-1]
    overlaps = np.zeros(len(worker), bool)
    overlaps[order[1:][same & (gone[order][:-1] | after(back[order][:-1], leave[order][1:]))]] = True
    law(~overlaps, "a worker that is absent does not leave again", "worker", "leave_time")

    m = messages.columns
    lost = m["fate"] == Fate.LOST
    law = messages.require
    if len(worker):
        # The first absence that ends after a message was begun must not begin before the message has finished.
        times = np.concatenate([back[order], m["read_time"]])
        rank = np.unique(times, return_inverse=True)[1]
        keys = worker[order].astype(np.int64) * (len(times) + 1) + rank[: len(order)]
        wanted = m["worker"].astype(np.int64) * (len(times) + 1) + rank[len(order) :]
        at = np.minimum(np.searchsorted(keys, wanted, side="right"), len(order) - 1)
        following = (worker[order][at] == m["worker"]) & (keys[at] > wanted)
        finish = np.where(np.isnan(m["finish_time"]), end, m["finish_time"])
        there = ~following | ~after(finish, leave[order][at])
        law(there, "a worker computes only while it is present", "worker", "read_time", "finish_time")
        lost &= ~following
    law(~lost, "a message is lost only if its worker leaves after it", "worker", "read_time", "fate")
    sent = (m["fate"] == Fate.LOST) & ~np.isnan(m["receive_time"])
    law(~sent, "a lost message is not received", "receive_time", "fate")
