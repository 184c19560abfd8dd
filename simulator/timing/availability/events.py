"""Availability by events: which worker joins or leaves, and when; importers of such tables."""

from __future__ import annotations

import csv
import importlib.resources
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, spec, unknown_name, validate
from stalegrad.simulator.timing.availability.base import Availability, Presence
from stalegrad.simulator.timing.logs.cells import Columns, workers
from stalegrad.simulator.timing.logs.sources import LogTable, blocks, csv_table, decoded, load, starts_with
from stalegrad.simulator.timing.logs.times import is_date, moments

if TYPE_CHECKING:
    import pandas as pd

MOST_EVENTS = 100_000
"""Largest number of events of a table: they are part of the spec."""

LARGEST_FILE = 1 << 24
"""Largest number of bytes of a file of events."""

WHAT = "a log of events"
ALLOWED = (
    "a table with the columns time, worker and event, a header first, or rows of milliseconds, event, machine"
)
"""Allowed content of a file of events."""

WORDS = {"join": "join", "add": "join", "leave": "leave", "remove": "leave"}
"""Events by the words used for them in files."""

Event = Literal["join", "leave"]


@spec
class Events(Availability):
    """A table of the times at which workers join and leave.

    A worker whose first event is a departure, or that has no event, is present at the start.

    Args:
        time: time of each event in seconds, finite and at least 0, in any order.
        worker: worker of each event, 0 to the number of workers - 1.
        event: ``join`` or ``leave``, for each event.

    Raises:
        ValueError: for an event that is impossible; it names the row, counted from 0.

    Example:
        >>> from stalegrad.policies import Sync
        >>> from stalegrad.simulator import Cluster, Events, simulate
        >>> one_leaves = Events(time=[2.5, 4.0], worker=[1, 1], event=["leave", "join"])
        >>> trace = simulate(Cluster(2, compute=1.0, availability=one_leaves), Sync(), updates=6)
        >>> trace.updates["messages"].tolist()
        [2, 2, 1, 1, 2, 2]
    """

    time: Annotated[tuple[NonNegativeFloat, ...], Field(max_length=MOST_EVENTS)]
    worker: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MOST_EVENTS)]
    event: Annotated[tuple[Event, ...], Field(max_length=MOST_EVENTS)]

    def check_fields(self) -> None:
        """Raise ValueError unless every worker joins and leaves in turn."""
        lengths = {name: len(getattr(self, name)) for name in ("time", "worker", "event")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"time, worker and event of events differ in length: {lengths}")
        last: dict[int, int] = {}
        for row in self._order():
            time, worker, event = self.time[row], self.worker[row], self.event[row]
            before = last.get(worker)
            if before is not None and self.event[before] == event:
                is_there = "present" if event == "join" else "absent"
                raise ValueError(
                    f"row {row} of events: worker {worker} cannot {event} at {time!r} s: it has been {is_there} "
                    f"since row {before}, {self.time[before]!r} s"
                )
            if before is not None and self.time[before] == time:
                raise ValueError(
                    f"row {row} of events: worker {worker} joins and leaves at the same time, {time!r} s"
                )
            last[worker] = row

    def _order(self) -> list[int]:
        return sorted(range(len(self.time)), key=lambda row: self.time[row])  # stable

    def check(self, workers: int) -> None:
        """Raise ValueError for an unknown worker, or if no worker is ever present."""
        for row, worker in enumerate(self.worker):
            if worker >= workers:
                raise ValueError(
                    f"row {row} of events: worker {worker} is unknown: the cluster has workers 0 to {workers - 1}"
                )
        never = {w for w, t, e in zip(self.worker, self.time, self.event, strict=True) if t == 0 and e == "leave"}
        never -= {w for w, e in zip(self.worker, self.event, strict=True) if e == "join"}
        if len(never) == workers:
            raise ValueError(
                "availability of cluster: all workers are always absent; at least one must be present"
            )

    @property
    def workers(self) -> int:
        """One more than the largest index of a worker with an event."""
        return max(self.worker, default=-1) + 1

    def presence(self, worker: int, workers: int, rng: np.random.Generator) -> Presence:
        """Return the times of this worker's events."""
        mine = self._rows.get(worker, [])
        at_start = not mine or self.event[mine[0]] == "leave"
        times = [self.time[row] for row in mine]
        if times and times[0] == 0:
            at_start, times = not at_start, times[1:]
        return Presence(at_start, iter(times))

    @cached_property
    def _rows(self) -> dict[int, list[int]]:
        """Rows of every worker, in the order of their times."""
        found = defaultdict(list)
        for row in self._order():
            found[self.worker[row]].append(row)
        return found

    @classmethod
    def read(
        cls,
        source: pd.DataFrame | str | os.PathLike[str],
        *,
        columns: Mapping[str, str] | None = None,
        unit: str | None = None,
        departure: Literal["lost", "delivered"] = "lost",
    ) -> Self:
        """Read a log of machines that are added and removed.

        The log is either a table with columns ``time``, ``worker`` and ``event`` (``join`` or ``add``, ``leave``
        or ``remove``), rows in any order, or a CSV file without a header in the form of spot-market traces:
        milliseconds, ``add`` or ``remove``, name of the machine. Workers are 0, 1, ... or names of machines; a
        machine that is added takes the lowest free worker. Empty lines and lines that begin with ``#`` are
        skipped.

        Args:
            source: a DataFrame or a file (CSV, gzipped CSV, Parquet).
            columns: names of columns in the log, by meaning; ``timestamp``, ``node`` and others are known.
            unit: unit of numeric times: ``s``, ``ms``, ``us`` or ``ns``, from the start of the run; default: that
                in the column's name, or seconds. If times are dates (ISO 8601), the first event is the start.
            departure: see :class:`Availability`.

        Raises:
            ValueError: if a row or line cannot be read; it names the row or line.
            FileNotFoundError: if there is no such file.
        """
        if not hasattr(source, "columns") and not starts_with(Path(os.fspath(source)), b"PAR1", WHAT):
            file = os.fspath(source)
            text = decoded(b"".join(blocks(Path(file), LARGEST_FILE, WHAT)), file, ALLOWED)
            rows = _rows(text, file)
            words = {word for cell in rows[0][1] for word in re.split(r"\W|_", cell.lower())}
            if not columns and not {"time", "timestamp"} & words:
                return cls._of(_machines(file, rows), departure)
            table = csv_table(text, file, ALLOWED)
        else:
            table = load(source, WHAT, ALLOWED)
        return cls._of(_named(table, columns, unit), departure)

    @classmethod
    def measured(cls, name: str, *, departure: Literal["lost", "delivered"] = "lost") -> Self:
        """Return measured preemptions of spot machines that are part of the package.

        ``spot-p3``: 32 machines of AWS (p3) over 11.4 h; ``spot-g4dn``: 24 machines (g4dn) over 10.6 h; a machine
        is present for about an hour (median). ``.workers`` is the largest number of machines present at once.

        Raises:
            ValueError: for an unknown name, with a suggestion.

        Reference: Thorpe et al., Bamboo: Making Preemptible Instances Resilient for Affordable Training of Large
        DNNs, NSDI 2023, https://arxiv.org/abs/2204.12013; the files are under the MIT licence.

        Example:
            >>> from stalegrad.simulator import Events
            >>> Events.measured("spot-p3").workers
            32
        """
        folder = importlib.resources.files(__package__) / "data"
        files = {file.name.removesuffix(".csv"): file for file in folder.iterdir() if file.name.endswith(".csv")}
        if name not in list(files):
            raise ValueError(unknown_name("measured availability", name, files))
        return cls._of(_machines(f"{name}.csv", _rows(files[name].read_text(encoding="utf-8"), name)), departure)

    @classmethod
    def _of(cls, events: Rows, departure: Literal["lost", "delivered"]) -> Self:
        time, worker, event = events
        columns: dict[str, Any] = {"time": tuple(time), "worker": tuple(worker), "event": tuple(event)}
        return cls(**columns, departure=departure)


Row = tuple[int, list[str]]
Rows = tuple[list[float], list[int], list[str]]


def _rows(text: str, file: str) -> list[Row]:
    """Return the rows of a CSV text: number of the line, and cells."""
    rows = [
        (line, [cell.strip() for cell in cells])
        for line, cells in enumerate(csv.reader(io.StringIO(text)), 1)
        if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
    ]
    if not rows:
        raise ValueError(f"{file} has no events")
    return rows


def _named(table: LogTable, given: Mapping[str, str] | None, unit: str | None) -> Rows:
    """Return the events of a table with a header, in the order of their times."""
    columns = Columns(table, given, unit, ("time", "worker", "event"))
    when, who, what = (columns.require(name, ALLOWED) for name in ("time", "worker", "event"))
    dates = is_date(when)
    time = moments([when], table, origin=None if dates else 0.0, first="time")["time"]
    words = [_word(table.place(row), str(word).strip().lower()) for row, word in enumerate(what.cells)]
    worker, machines = workers(who, table)
    rows = np.argsort(time, kind="stable").tolist()
    if machines:
        events = [(table.place(row), float(time[row]), words[row], machines[worker[row]]) for row in rows]
        return _lowest(events)
    return [float(time[row]) for row in rows], [int(worker[row]) for row in rows], [words[row] for row in rows]


def _machines(file: str, rows: list[Row]) -> Rows:
    """Return the events of a spot-market trace with columns milliseconds, event, machine."""
    events: list[tuple[str, float, str, str]] = []
    for line, cells in rows:
        place = f"{file}, line {line}"
        if len(cells) < 3:
            raise ValueError(f"{place}: {','.join(cells)!r:.80} has {len(cells)} columns: give 3")
        time = _number(f"milliseconds in {place}", cells[0]) / 1000.0
        if events and time < events[-1][1]:
            raise ValueError(f"{place}: {cells[0]} ms is before the line above: sort them by time")
        events.append((place, time, _word(place, cells[1]), cells[2]))
    return _lowest(events)


def _lowest(events: list[tuple[str, float, str, str]]) -> Rows:
    """Return the events of named machines; a machine takes the lowest free worker."""
    columns: Rows = [], [], []
    taken: dict[str, int] = {}
    for place, time, word, machine in events:
        if word == "join":
            if machine in taken:
                raise ValueError(f"{place}: {machine!r:.60} is added, but it is present already")
            taken[machine] = _lowest_free(taken.values())
        elif machine not in taken:
            raise ValueError(f"{place}: {machine!r:.60} is removed, but it is not present")
        columns[0].append(time)
        columns[1].append(taken[machine] if word == "join" else taken.pop(machine))
        columns[2].append(word)
    return columns


def _lowest_free(taken: Iterable[int]) -> int:
    busy = set(taken)
    return next(worker for worker in range(len(busy) + 1) if worker not in busy)


def _number(where: str, text: str) -> float:
    try:
        number: Any = float(text)
    except ValueError:
        number = text
    return float(validate(where, NonNegativeFloat, number))


def _word(place: str, word: str) -> str:
    if word not in WORDS:
        raise ValueError(f"{place}: {unknown_name('event', word, WORDS)}")
    return WORDS[word]
