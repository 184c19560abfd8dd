"""Trace events of profilers (Chrome, Kineto of PyTorch), and the steps of workers among them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from stalegrad._core.specs import NonNegativeFloat, shown, validate
from stalegrad.simulator.timing.logs.json_stream import EventFile
from stalegrad.simulator.timing.logs.sources import LogTable
from stalegrad.simulator.timing.logs.steps import Intervals

if TYPE_CHECKING:
    import pandas as pd

MOST = 20_000_000
"""Largest number of steps of all files."""

Worker = Literal["thread", "process", "file"]


class Step(NamedTuple):
    """An event that is a step.

    Attributes:
        place: place of the event in its file, for errors.
        name: name of the event.
        worker: file, process and thread, as far as they distinguish workers.
        start: start, in microseconds.
        duration: duration, in microseconds.
    """

    place: str
    name: str
    worker: tuple[str, ...]
    start: Decimal
    duration: Decimal


def read_trace_events(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    event: str,
    *,
    category: str | None = None,
    worker: Worker | None = None,
    skip: int = 0,
    whole_steps: bool = False,
    resolution: float = 1e-6,
) -> pd.DataFrame:
    """Read intervals from trace events in the format of Chrome and of PyTorch's profiler (Kineto).

    Files are read one event at a time, up to 16 GiB uncompressed. Only events with a duration (phase ``X``) are
    steps.

    Args:
        source: path of a file, ``.json`` or ``.json.gz``, or several paths: one per rank.
        event: name of the events that are steps; ``*`` stands for any characters and ``?`` for any one character:
            ``ProfilerStep#*`` for PyTorch's ``profiler.step()``, ``compute*`` for :func:`to_perfetto`.
        category: category (``cat``) to which events are restricted: ``user_annotation`` for PyTorch, which repeats
            events of the CPU as ``gpu_user_annotation``.
        worker: unit that is a worker: a ``file``, a ``process`` (``pid``) or a ``thread`` (``pid`` and ``tid``).
            Default: ``file`` if there are several files, else ``thread``.
        skip: number of first steps of every worker that are left out as warm-up.
        whole_steps: whether to leave out the last steps that not all workers have made.
        resolution: seconds to which times are rounded; steps of a worker may then overlap by up to twice that.

    Returns:
        The table that :func:`read_intervals` returns. Workers are 0, 1, ...: files in the order of their ``rank``
        (``distributedInfo``), or else in the order given; processes and threads in the order of ``pid`` and
        ``tid``. If all names end with ``#`` and a number, this number is the step.

    Raises:
        ValueError: for an event whose time is negative or not a number, or that overlaps another step of its
            worker (it names the event); if no event has that name; if a file has another format, is too large or
            is damaged.
        FileNotFoundError: if there is no such file.

    References:
        Trace Event Format (Google, 2016).

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import to_perfetto
        >>> from stalegrad.simulator import read_trace_events
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=3)
        >>> file = to_perfetto(trace, "events.json")
        >>> read_trace_events(file, "compute")["seconds"].tolist()
        [1.0, 1.0, 2.5]
    """
    files = [Path(source)] if isinstance(source, str | os.PathLike) else [Path(file) for file in source]
    if not files:
        raise ValueError("a log of trace events = [] is not allowed: give a path or several")
    worker = validate("worker", Worker, worker or ("file" if len(files) > 1 else "thread"))
    steps: list[Step] = []
    ranks: dict[str, int] = {}
    for number, file in enumerate(files):
        opened = EventFile(file)
        seen: set[str] = set()
        steps += _steps(opened, number, event, category, worker, seen)
        about = opened.about.get("distributedInfo")
        if isinstance(about, dict) and isinstance(about.get("rank"), int):
            ranks[f"{number:09d}"] = about["rank"]
        if len(steps) > MOST:
            raise ValueError(f"{file}: more than {MOST} events match {event!r}")
        if not any(step.worker[0] == f"{number:09d}" for step in steps):
            names = ", ".join(sorted(seen)[:8]) or "none"
            of = "" if category is None else f" of category {category!r}"
            raise ValueError(
                f"{file} has no event {event!r}{of} with a duration (ph X); it has, e.g., {names:.300}"
            )
    return _frame(steps, ranks, skip, whole_steps, validate("resolution", NonNegativeFloat, resolution))


def _steps(
    file: EventFile, number: int, pattern: str, category: str | None, worker: Worker, seen: set[str]
) -> Iterator[Step]:
    """Yield the events that are steps; add some names of other events to ``seen``."""
    matches = re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match
    for index, event in enumerate(file.events()):
        if event.get("ph") != "X":
            continue
        name = str(event.get("name"))
        if not matches(name) or category not in (None, event.get("cat")):
            if len(seen) < 64:
                seen.add(name if category is None else f"{name} ({event.get('cat')})")
            continue
        place = f"{file.file}, event {index} ({name:.60})"
        who = {"file": (), "process": ("pid",), "thread": ("pid", "tid")}[worker]
        owner = tuple(_sortable(event.get(key)) for key in who)
        yield Step(place, name, (f"{number:09d}", *owner), _time(event, "ts", place), _time(event, "dur", place))


def _sortable(value: object) -> str:
    """Return a process or a thread as a text; texts of numbers sort in numerical order."""
    return f"{value:020d}" if isinstance(value, int) and value >= 0 else str(value)


def _time(event: dict[str, Any], key: str, place: str) -> Decimal:
    value = event.get(key)
    try:
        found = Decimal("nan") if isinstance(value, bool) else Decimal(value)  # type: ignore[arg-type]
    except (InvalidOperation, TypeError, ValueError):
        found = Decimal("nan")
    if not found.is_finite() or abs(found) > 2**63 or (key == "dur" and found < 0):
        allowed = "microseconds" if key == "ts" else "microseconds of at least 0"
        raise ValueError(f"{place}: {key} = {shown(value)} is not allowed: give {allowed}")
    return found


def _frame(
    steps: Sequence[Step], ranks: dict[str, int], skip: int, whole_steps: bool, resolution: float
) -> pd.DataFrame:
    known = sorted({step.worker for step in steps})
    files = {owner[0] for owner in known}
    if files == set(ranks) and len(set(ranks.values())) == len(files):
        known.sort(key=lambda owner: (ranks[owner[0]], owner))
    index = {owner: i for i, owner in enumerate(known)}
    worker = np.array([index[step.worker] for step in steps], np.int64)
    numbered = [re.search(r"#(\d{1,15})$", step.name) for step in steps]
    step = np.array([float(match[1]) for match in numbered if match]) if all(numbered) else None
    first = min(step.start for step in steps)
    start = np.array([float((step.start - first) / 1_000_000) for step in steps])
    end = np.array([float((step.start + step.duration - first) / 1_000_000) for step in steps])
    seconds = np.array([float(step.duration / 1_000_000) for step in steps])
    table = LogTable({}, lambda row: steps[row].place, "the log of trace events")
    return Intervals(table, worker, [], step, start, end, seconds).frame(skip, whole_steps, resolution)
