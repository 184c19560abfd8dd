"""Logs of parameter servers: the moments of messages, and the columns of a trace that are derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.specs import NonNegativeFloat, PositiveInt, validate
from stalegrad._core.types import Ints, Table
from stalegrad.simulator.timing.clock import TOLERANCE
from stalegrad.simulator.timing.columns import Fate
from stalegrad.simulator.timing.logs.cells import Columns, refused, whole, workers
from stalegrad.simulator.timing.logs.sources import LogTable, load
from stalegrad.simulator.timing.logs.times import check_plausible, moments

if TYPE_CHECKING:
    import pandas as pd

KNOWN = (
    "worker", "read_version", "read_time", "finish_time", "receive_time", "apply_time", "apply_start", "update",
    "staleness", "steps", "fate",
)  # fmt: skip
TIMES = ("read_time", "finish_time", "receive_time", "apply_time", "apply_start")
ALLOWED = f"a table with one row per message and the columns {', '.join(KNOWN[:6])} or aliases, a header first"
"""Allowed content of a log of messages."""

PerUpdate = PositiveInt | Literal["equal times"]


def tables_of(
    source: object,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    read_version: Literal["newest"] | None = None,
    per_update: int | Literal["equal times"] | None = None,
    origin: float | None = None,
    resolution: float = 0.0,
) -> Table:
    """Return the arguments of :class:`Trace` for a log; see :meth:`Trace.from_log`.

    Raises:
        ValueError: for a row that is not allowed or a column that cannot be derived; it names the row or column.
        FileNotFoundError: if there is no such file.
    """
    table = load(source, "a log of messages", ALLOWED)
    named = Columns(table, columns, unit, KNOWN)
    resolution = validate("resolution", NonNegativeFloat, resolution)
    validate("read_version", Literal["newest"] | None, read_version)
    found = {name: column for name in TIMES if (column := named.find(name))}
    _check_there(named, set(found), read_version)
    worker, names = workers(named.require("worker", ALLOWED), table)
    if not len(worker):
        raise ValueError(f"{table.name} has no rows: give at least one")
    times = moments(list(found.values()), table, optional=TIMES[1:], origin=origin, first="read_time")
    check_plausible(
        times["finish_time"] - times["read_time"], found["read_time"], table, "time from read to finish"
    )
    log = _Log(table, named, worker, times, resolution)
    log.find_updates(validate("per_update", PerUpdate | None, per_update))
    log.find_versions(newest=read_version is not None)
    log.find_fates()
    about: Table = {"worker_names": names} if names else {}
    return log.tables() | {"spec": about, "resolution": resolution}


def _check_there(named: Columns, times: set[str], read_version: str | None) -> None:
    """Raise ValueError for a column that is missing and cannot be derived; it names the column."""
    table = named.table.name
    named.require("read_time", ALLOWED)
    for name, instant in (("finish_time", "receive_time"), ("receive_time", "finish_time")):
        if name not in times:
            other = named.find(instant) or named.find("apply_time")
            spelt = other.spelt if other else instant
            raise ValueError(
                f"{table} has no column {name}, but {named.names}, and it cannot be derived: if messages take no "
                f'time to travel, give columns={{"{name}": "{spelt}"}}'
            )
    if "apply_time" not in times and named.find("update") is None:
        raise ValueError(
            f"{table} has neither a column apply_time nor update, but {named.names}, and they cannot be derived: "
            f'if every message is applied when it is received, give columns={{"apply_time": '
            f'"{named.require("receive_time", ALLOWED).spelt}"}}'
        )
    if named.find("read_version") is None and read_version is None:
        raise ValueError(
            f"{table} has no column read_version, but {named.names}, and it cannot be derived: if workers read "
            'the newest version at their read_time, give read_version="newest"'
        )


class _Log:
    """The messages of a log; columns are added as they are derived.

    Args:
        table: the log.
        named: columns of the log.
        worker: index of the worker, (rows,).
        times: seconds by name of the moment, (rows,); NaN for a moment that did not happen.
        resolution: seconds to which times are rounded.
    """

    def __init__(
        self, table: LogTable, named: Columns, worker: Ints, times: dict[str, Floats], resolution: float
    ) -> None:
        self.table, self.named, self.worker, self.resolution = table, named, worker, resolution
        self.read, self.finish, self.receive = (times[name] for name in TIMES[:3])
        self.apply, self.apply_start = times.get("apply_time"), times.get("apply_start")
        self.update: Ints
        self.update_times: Floats
        self.version: Ints
        self.fate: np.ndarray
        steps = named.find("steps")
        self.steps = whole(steps, table, least=1) if steps else np.ones(len(worker), np.int64)
        self.first = 0
        numbered = named.find("read_version")
        self._read_version = whole(numbered, table, least=0) if numbered else None

    def find_updates(self, per_update: int | str | None) -> None:
        """Find the update that consumed each message, -1 for none, and the time of every update."""
        numbered = self.named.find("update")
        if numbered is None:
            self.update = self._in_order_of_times(per_update)
        else:
            if per_update is not None:
                raise ValueError(f"per_update = {per_update!r} is not allowed: {self.table.name} has updates")
            update = whole(numbered, self.table, least=-1, missing=-1)
            used = update >= 0
            self.first = int(update[used].min()) if used.any() else 0
            self.update = np.where(used, update - self.first, -1)
            known = np.unique(self.update[used])
            gaps = np.flatnonzero(known != np.arange(len(known)))
            if len(gaps):
                row = int(np.argmax(self.update == known[gaps[0]]))
                allowed = f"{self.first + gaps[0]}: no message is of that update, and every update consumes one"
                raise refused(numbered, self.table, row, allowed)
        self.update_times = self._times_of_updates()

    def _in_order_of_times(self, per_update: int | str | None) -> Ints:
        """Return the updates in the order of ``apply_time``; rows of equal times are in the order of the log."""
        assert self.apply is not None
        update = np.full(len(self.read), -1, np.int64)
        rows = np.flatnonzero(~np.isnan(self.apply))
        rows = rows[np.argsort(self.apply[rows], kind="stable")]
        same = np.diff(self.apply[rows]) == 0
        if per_update is None and same.any():
            at = int(np.argmax(same))
            one, other = (self.table.place(int(row)) for row in rows[at : at + 2])
            raise ValueError(
                f"{other} has the apply_time of {one}: whether that is one update or two cannot be derived; give "
                'a column update, or per_update=1 (or another number of messages), or per_update="equal times"'
            )
        if per_update == "equal times":
            update[rows] = np.cumsum(np.concatenate([[False], ~same])) if len(rows) else 0
        else:
            update[rows] = np.arange(len(rows)) // int(per_update or 1)
        return update

    def _times_of_updates(self) -> Floats:
        """Return the time of every update: the apply time of its messages, or else the last receive time."""
        used = np.flatnonzero(self.update >= 0)
        moment = self.receive if self.apply is None else self.apply
        name = "receive_time" if self.apply is None else "apply_time"
        if len(missing := used[np.isnan(moment[used])]):
            raise ValueError(f"{self.table.place(int(missing[0]))}: a message that was applied has no {name}")
        times = np.zeros(int(self.update.max(initial=-1)) + 1)
        np.maximum.at(times, self.update[used], moment[used])
        if self.apply is None:
            return np.maximum.accumulate(times)  # a version cannot appear before an earlier one
        order = used[np.lexsort((moment[used], self.update[used]))]
        tolerance = TOLERANCE * moment[order[1:]] + 2.0 * self.resolution
        same = np.diff(self.update[order]) == 0
        wrong = np.flatnonzero(np.where(same, np.diff(moment[order]), -np.diff(moment[order])) > tolerance)
        if len(wrong):
            one, other = (self.table.place(int(row)) for row in order[wrong[0] : wrong[0] + 2])
            law = "both are of one update" if same[wrong[0]] else "its update is the later one"
            raise ValueError(
                f"{other}: apply_time contradicts that of {one} by more than rounding, because {law}; if times "
                "are rounded, give a resolution"
            )
        return np.maximum.accumulate(times)

    def find_versions(self, newest: bool) -> None:
        """Find the version that each message was computed from."""
        if newest:
            self.version = self._newest()
            return
        read = self._read_version
        assert read is not None
        column = self.named.require("read_version", ALLOWED)
        if self.named.find("update") is None:
            self.first = int(read.min())
        early = np.flatnonzero(read < self.first)
        if len(early):
            row = int(early[0])
            raise refused(column, self.table, row, f"a version of the log, which begins with update {self.first}")
        self.version = read - self.first

    def _newest(self) -> Ints:
        """Return the newest version at the time of reading; it includes all earlier updates of the same worker.

        A worker that reads as soon as its message was applied reads the new version, even if rounded times say
        that the version appeared later.
        """
        last = self.update_times.searchsorted(self.read * (1.0 + TOLERANCE), side="right")
        order = np.lexsort((self.read, self.worker))
        before, after = order[:-1], order[1:]
        own = self.update[before]
        slack = TOLERANCE * self.read[after] + 2.0 * self.resolution
        made = (self.worker[before] == self.worker[after]) & (own >= 0)
        made &= self.update_times[own] <= self.read[after] + slack if len(self.update_times) else False
        last[after] = np.where(made, np.maximum(last[after], own + 1), last[after])
        return last.astype(np.int64)

    def find_fates(self) -> None:
        """Find the fate of each message: that in the log, or else that implied by its times."""
        said = self.named.find("fate")
        used = self.update >= 0
        if said is not None:
            self.fate = np.array([str(value).strip().lower() for value in said.cells], object)
            wrong = np.flatnonzero(~np.isin(self.fate, list(map(str, Fate))) | ((self.fate == "used") != used))
            if len(wrong):
                row = int(wrong[0])
                allowed = "used, as it has an update" if used[row] else "discarded, cancelled, lost or pending"
                raise refused(said, self.table, row, allowed)
            return
        last = self.update_times[-1] if len(self.update_times) else -np.inf
        order = np.lexsort((self.finish, self.read, self.worker))
        final = np.ones(len(used), bool)
        final[order[:-1]] = self.worker[order[1:]] != self.worker[order[:-1]]
        received = ~np.isnan(self.receive)
        unknown = np.flatnonzero(~used & ~received & ~final & np.isnan(self.finish))
        if len(unknown):
            raise ValueError(
                f"{self.table.place(int(unknown[0]))}: the message was not finished, but its worker began another "
                "one: when it was given up cannot be derived; give its finish_time, or leave it out"
            )
        dropped = np.where(received, Fate.DISCARDED, Fate.CANCELLED)
        pending = np.where(received, self.receive >= last, final)
        self.fate = np.where(used, Fate.USED, np.where(pending, Fate.PENDING, dropped))

    def tables(self) -> Table:
        """Return the tables and the end of the trace."""
        import pandas as pd

        used = self.update >= 0
        staleness = np.where(used, self.update - self.version, -1)
        said = self.named.find("staleness")
        if said is not None:
            logged = whole(said, self.table, least=-1, missing=-1)
            if len(wrong := np.flatnonzero(used & (logged != staleness))):
                row = int(wrong[0])
                raise refused(said, self.table, row, f"update - read_version, which is {staleness[row]}")
        # At equal times, the message that was finished first, then applied first, was computed first.
        place = np.where(used, self.update, len(self.update_times))
        order = np.lexsort((place, self.finish, self.worker, self.read))
        worker, read = self.worker[order], self.read[order]
        if not ((worker[1:] == worker[:-1]) & (read[1:] == read[:-1])).any():
            order = np.arange(len(order))  # errors then name the rows of the log
        messages: dict[str, Any] = {
            "worker": self.worker, "read_version": self.version, "read_time": self.read,
            "finish_time": self.finish, "receive_time": self.receive, "update": self.update,
            "staleness": staleness, "steps": self.steps, "fate": self.fate,
        }  # fmt: skip
        frame = pd.DataFrame({name: np.asarray(values)[order] for name, values in messages.items()})
        frame.index = pd.Index([_label(self.table, int(row)) for row in order], dtype=object)
        moments = [self.read, self.finish, self.receive, self.update_times]
        end = max((float(np.nanmax(values)) for values in moments if not np.isnan(values).all()), default=0.0)
        return {"messages": frame, "updates": self._updates(used), "end": end}

    def _updates(self, used: np.ndarray) -> pd.DataFrame:
        import pandas as pd

        count = len(self.update_times)
        own = self.update[used]
        updates = {
            "time": self.update_times,
            "messages": np.bincount(own, minlength=count),
            "gradients": np.bincount(own, self.steps[used], count).astype(np.int64),
        }
        if self.apply_start is not None:
            start = np.full(count, np.nan)
            start[own] = self.apply_start[used]
            updates["start"] = start
        return pd.DataFrame(updates)


def _label(table: LogTable, row: int) -> str | int:
    """Return the line of a row of a file, or else its number."""
    place = table.place(row).removeprefix(f"{table.name}, ")
    return place if place.startswith("line ") else row
