"""Tables of events: who joins and who leaves, and when; importers of such tables."""

from __future__ import annotations

import csv
import importlib.resources
import io
import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from stalegrad._core.files import read_regular
from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, spec, unknown_name, validate
from stalegrad.simulator.timing.availability.base import Availability, Presence

MOST_EVENTS = 100_000
"""Events of a table at most: they stand in the spec."""

LARGEST_FILE = 1 << 24
"""Bytes of a file of events at most."""

WORDS = {"join": "join", "add": "join", "leave": "leave", "remove": "leave"}
"""Words of files, and what they stand for."""

Event = Literal["join", "leave"]


@spec
class Events(Availability):
    """A table of who joins and who leaves, and when.

    A worker whose first event is a departure, or who has none, is there at the start.

    Args:
        time: seconds at which an event happens, finite and at least 0, in any order.
        worker: who it happens to, 0 to the number of workers - 1.
        event: ``join`` or ``leave``.

    Raises:
        ValueError: naming the row (counted from 0) of an event that cannot have happened.

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
                is_there = "is there" if event == "join" else "is absent"
                raise ValueError(
                    f"row {row} of events: worker {worker} cannot {event} at {time!r} s: it {is_there} since row "
                    f"{before}, {self.time[before]!r} s"
                )
            if before is not None and self.time[before] == time:
                raise ValueError(f"row {row} of events: worker {worker} joins and leaves at once, at {time!r} s")
            last[worker] = row

    def _order(self) -> list[int]:
        return sorted(range(len(self.time)), key=lambda row: self.time[row])  # stable

    def check(self, workers: int) -> None:
        """Raise ValueError for an unknown worker, or if nobody is ever there."""
        for row, worker in enumerate(self.worker):
            if worker >= workers:
                raise ValueError(
                    f"row {row} of events: worker {worker} is unknown: the cluster has workers 0 to {workers - 1}"
                )
        never = {w for w, t, e in zip(self.worker, self.time, self.event, strict=True) if t == 0 and e == "leave"}
        never -= {w for w, e in zip(self.worker, self.event, strict=True) if e == "join"}
        if len(never) == workers:
            raise ValueError(
                "availability of cluster: all workers are absent for ever; at least one must be there"
            )

    @property
    def workers(self) -> int:
        """One more than the largest worker that has an event."""
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
    def read(cls, file: str | os.PathLike[str], *, departure: Literal["lost", "delivered"] = "lost") -> Self:
        """Read a CSV file of machines that are added and removed.

        Either with a header ``time,worker,event`` (seconds; 0, 1, ...; ``join``, ``leave``), or without one, as
        spot-market traces have it: milliseconds, ``add`` or ``remove``, name of the machine. A machine that is
        added then takes the lowest worker that is free. Empty lines and lines that begin with ``#`` are skipped.

        Args:
            file: at most 16 MiB, UTF-8.
            departure: see :class:`Availability`.

        Raises:
            ValueError: naming the line that cannot be read.
        """
        text = read_regular(Path(file), LARGEST_FILE, "a table of events").decode()
        return cls._parsed(text, os.fspath(file), departure)

    @classmethod
    def measured(cls, name: str, *, departure: Literal["lost", "delivered"] = "lost") -> Self:
        """Return preemptions of spot machines that come with the package.

        ``spot-p3``: 32 machines of AWS (p3) over 11.4 h; ``spot-g4dn``: 24 machines (g4dn) over 10.6 h; a machine
        is there for about an hour (median). ``.workers`` tells how many workers they keep at most.

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
        return cls._parsed(files[name].read_text(encoding="utf-8"), f"{name}.csv", departure)

    @classmethod
    def _parsed(cls, text: str, file: str, departure: Literal["lost", "delivered"]) -> Self:
        rows = [
            (line, [cell.strip() for cell in cells])
            for line, cells in enumerate(csv.reader(io.StringIO(text)), 1)
            if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
        ]
        if not rows:
            raise ValueError(f"{file} has no events")
        if "time" in rows[0][1]:
            time, worker, event = _with_header(file, rows)
        else:
            time, worker, event = _machines(file, rows)
        columns: dict[str, Any] = {"time": tuple(time), "worker": tuple(worker), "event": tuple(event)}
        return cls(**columns, departure=departure)


Row = tuple[int, list[str]]
Columns = tuple[list[float], list[int], list[str]]


def _with_header(file: str, rows: list[Row]) -> Columns:
    header = rows[0][1]
    if missing := {"time", "worker", "event"} - set(header):
        raise ValueError(f"{file}, line {rows[0][0]}: the header lacks {', '.join(sorted(missing))}")
    at = [header.index(name) for name in ("time", "worker", "event")]
    columns: Columns = [], [], []
    for line, cells in rows[1:]:
        time, worker, event = _cells(file, line, cells, at)
        columns[0].append(_number(f"time in {file}, line {line}", time))
        if not worker.isdecimal():
            raise ValueError(f"worker in {file}, line {line} = {worker!r:.60} is not allowed: 0, 1, ...")
        columns[1].append(int(worker))
        columns[2].append(_word(file, line, event))
    return columns


def _machines(file: str, rows: list[Row]) -> Columns:
    """Return the events of named machines, each of which takes the lowest worker that is free."""
    columns: Columns = [], [], []
    taken: dict[str, int] = {}
    latest = 0.0
    for line, cells in rows:
        milliseconds, event, machine = _cells(file, line, cells, [0, 1, 2])
        time = _number(f"milliseconds in {file}, line {line}", milliseconds) / 1000.0
        if time < latest:
            raise ValueError(f"{file}, line {line}: {milliseconds} ms is before the line above: sort them by time")
        latest, word = time, _word(file, line, event)
        if word == "join":
            if machine in taken:
                raise ValueError(f"{file}, line {line}: {machine!r:.60} is added, but it is there already")
            taken[machine] = _lowest_free(taken.values())
        elif machine not in taken:
            raise ValueError(f"{file}, line {line}: {machine!r:.60} is removed, but it is not there")
        columns[0].append(time)
        columns[1].append(taken[machine] if word == "join" else taken.pop(machine))
        columns[2].append(word)
    return columns


def _lowest_free(taken: Iterable[int]) -> int:
    busy = set(taken)
    return next(worker for worker in range(len(busy) + 1) if worker not in busy)


def _cells(file: str, line: int, cells: list[str], at: list[int]) -> list[str]:
    if len(cells) <= max(at):
        raise ValueError(
            f"{file}, line {line}: {','.join(cells)!r:.80} has {len(cells)} columns: give {max(at) + 1}"
        )
    return [cells[i] for i in at]


def _number(where: str, text: str) -> float:
    try:
        number: Any = float(text)
    except ValueError:
        number = text
    return float(validate(where, NonNegativeFloat, number))


def _word(file: str, line: int, word: str) -> str:
    if word not in WORDS:
        raise ValueError(f"{file}, line {line}: {unknown_name('event', word, WORDS)}")
    return WORDS[word]
