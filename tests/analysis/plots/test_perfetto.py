"""The exported events against the rules of the format and the rows of the trace."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from stalegrad.analysis import to_perfetto
from stalegrad.policies.synchrony import Async, DelayedAveraging, DelayedAveragingGeneral, KAsync, KSync, Sync
from stalegrad.simulator import Cluster, Events, Trace, Uniform, simulate

REQUIRED = {  # by phase, beyond name, ph, pid and tid: Trace Event Format, "Event Descriptions"
    "X": {"ts": int, "dur": int},
    "i": {"ts": int, "s": str},
    "C": {"ts": int, "args": dict},
    "M": {"args": dict},
}
META = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}
SLOW = Cluster(workers=4, compute=Uniform(1.0, 2.0), uplink=0.25, downlink=0.5, server=0.125, join=Uniform(0, 3))
TRACES = {
    "async": (SLOW, Async()),
    "sync": (SLOW, Sync()),
    "k-sync": (SLOW, KSync(k=2)),
    "k-async": (Cluster(workers=3, compute=Uniform(1.0, 2.0)), KAsync(k=2)),
    "delayed": (SLOW, DelayedAveraging(tau=4)),
    "delayed, general": (SLOW, DelayedAveragingGeneral(tau=3)),
}


@pytest.fixture(params=TRACES)
def trace(request) -> Trace:
    return simulate(*TRACES[request.param], wallclock=30.0, seed=0)


def events_of(trace: Trace, tmp_path: Path) -> list[dict]:
    content = json.loads(to_perfetto(trace, tmp_path / "deep" / "trace.json").read_text())
    assert json.loads(content["otherData"]["spec"]) == json.loads(json.dumps(trace.spec))
    return content["traceEvents"]


def slices(events: list[dict], worker: int, *names: str) -> list[tuple[int, int]]:
    found = [e for e in events if e["ph"] == "X" and e["tid"] == worker + 1 and (not names or e["name"] in names)]
    return sorted((e["ts"], e["ts"] + e["dur"]) for e in found)


def us(seconds: np.ndarray) -> list[int]:
    return [round(s * 1e6) for s in np.asarray(seconds).tolist()]


def test_every_event_obeys_the_format(trace: Trace, tmp_path: Path) -> None:
    named = set()
    for event in events_of(trace, tmp_path):
        assert {"name": str, "ph": str, "pid": int, "tid": int}.items() <= {
            k: type(v) for k, v in event.items()
        }.items()
        needed = REQUIRED[event["ph"]]
        assert needed.items() <= {k: type(v) for k, v in event.items()}.items()
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
        assert event.get("s", "t") in {"g", "p", "t"}
        if event["ph"] == "C":
            assert all(isinstance(v, int | float) for v in event["args"].values())
        if event["ph"] == "M":
            assert META[event["name"]] in event["args"]
            named |= {(event["pid"], event["tid"])} if event["name"] == "thread_name" else set()
        else:
            assert (event["pid"], event["tid"]) in named


def test_computing_is_what_the_rows_say(trace: Trace, tmp_path: Path) -> None:
    computed = [e for e in events_of(trace, tmp_path) if e["name"].startswith("compute")]
    assert all((e["name"] == "compute") == (e["args"]["fate"] == "used") for e in computed)
    table = trace.messages
    found = sorted((e["tid"] - 1, e["ts"], e["ts"] + e["dur"], *e["args"].values()) for e in computed)
    finish = np.fmin(table["finish_time"], trace.end)
    facts = [table[c] for c in ("fate", "read_version", "update", "staleness", "steps")]
    assert found == sorted(zip(table["worker"], us(table["read_time"]), us(finish), *facts, strict=True))


def test_slices_of_a_worker_touch_and_cover_its_time_from_joining_to_the_end(trace: Trace, tmp_path: Path) -> None:
    events = events_of(trace, tmp_path)
    for worker, rows in trace.messages.groupby("worker"):
        spans = slices(events, int(worker))
        assert spans[0][0] == us([rows["read_time"].min()])[0]
        assert spans[-1][1] == us([trace.end])[0]
        assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_uploads_end_when_the_server_has_received_or_the_worker_reads_on(trace: Trace, tmp_path: Path) -> None:
    events = events_of(trace, tmp_path)
    for worker, rows in trace.messages.groupby("worker"):
        expected = []
        for row, following in zip(rows.itertuples(), [*rows["read_time"][1:], trace.end], strict=True):
            sent = not np.isnan(row.finish_time) and row.fate != "cancelled"
            end = following if np.isnan(row.receive_time) else min(row.receive_time, following)
            if sent and us([end]) > us([row.finish_time]):
                expected.append((*us([row.finish_time]), *us([end])))
        assert slices(events, int(worker), "upload and wait") == expected


def test_not_computing_is_what_busy_calls_idle(trace: Trace, tmp_path: Path) -> None:
    events, idle = events_of(trace, tmp_path), trace.busy()["idle"]
    for worker in range(trace.workers):
        away = sum(end - begin for begin, end in slices(events, worker, "upload and wait", "idle"))
        total = sum(end - begin for begin, end in slices(events, worker))
        assert away / total == pytest.approx(idle[worker], abs=1e-4)


def test_updates_and_their_staleness_are_those_of_the_trace(trace: Trace, tmp_path: Path) -> None:
    events = events_of(trace, tmp_path)
    instants = [e for e in events if e["ph"] == "i"]
    assert [e["ts"] for e in instants] == us(trace.update_times)
    assert [tuple(e["args"].values()) for e in instants] == [
        (m, g) for m, g in zip(trace.updates["messages"], trace.updates["gradients"], strict=True)
    ]
    counters = [e for e in events if e["ph"] == "C"]
    assert [e["ts"] for e in counters] == us(trace.update_times)
    for update, event in enumerate(counters):
        stale = [r.staleness for r in trace.messages.itertuples() if r.update == update]
        assert event["args"] == {"mean": pytest.approx(sum(stale) / len(stale)), "max": max(stale)}


def test_messages_of_no_duration_and_times_equal_by_rounding_do_not_overlap(tmp_path: Path) -> None:
    rows = {
        "worker": [0, 0, 0, 0], "read_version": [0, 1, 2, 2], "read_time": [0.0, 0.0, 2.0000004999, 2.0000004999],
        "finish_time": [0.0, 2.0000005, 2.0000004999, np.nan], "receive_time": [0.0, 2.0000005, 2.0000005, np.nan],
        "update": [0, 1, 2, -1], "staleness": [0, 0, 0, -1], "steps": [1] * 4, "fate": ["used"] * 3 + ["pending"],
    }  # fmt: skip
    updates = {"time": [0.0, 2.0000005, 2.0000005], "messages": [1] * 3, "gradients": [1] * 3}
    events = events_of(Trace(rows, updates, end=3.0, resolution=1e-9), tmp_path)
    computed = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"].startswith("compute")]
    assert computed == [(0, 0), (0, 2_000_000), (2_000_000, 2_000_000), (2_000_000, 3_000_000)]


def test_a_spec_of_numpy_numbers_can_be_written(fresh: Trace, tmp_path: Path) -> None:
    spec = {"seed": np.int64(3), "means": np.ones(2), "k": (np.int32(1), np.float32(0.5))}
    trace = Trace(fresh.messages, fresh.updates, workers=fresh.workers, end=fresh.end, spec=spec)
    content = json.loads(to_perfetto(trace, tmp_path / "trace.json").read_text())
    assert json.loads(content["otherData"]["spec"]) == {"seed": 3, "means": [1.0, 1.0], "k": [1, 0.5]}


def test_a_trace_that_viewers_cannot_show_is_refused_before_writing(fresh: Trace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends at 1e\+16 s: trace events are in microseconds"):
        to_perfetto(simulate(Cluster(1, 1e16), Async(), updates=1), tmp_path / "far.json")
    wrong = Trace(fresh.messages.assign(steps=0), fresh.updates)
    with pytest.raises(ValueError, match="breaks a law: steps >= 1"):
        to_perfetto(wrong, tmp_path / "wrong.json")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(fresh: Trace, tmp_path: Path) -> None:
    to_perfetto(fresh, tmp_path / "trace.json")
    with pytest.raises(FileExistsError, match="exists already: choose another name"):
        to_perfetto(fresh, tmp_path / "trace.json")


def test_a_trace_in_which_nothing_happened_is_a_file_too(tmp_path: Path) -> None:
    trace = simulate(Cluster(workers=2, compute=Uniform(5.0, 6.0)), Async(), wallclock=1.0, seed=0)
    assert slices(events_of(trace, tmp_path), 0) == [(0, 1_000_000)]


def test_a_worker_that_is_away_is_neither_idle_nor_computing(tmp_path: Path) -> None:
    away = Events([2.5, 4.0, 3.0], [1, 1, 0], ["leave", "join", "leave"])
    cluster = Cluster(3, compute=[1.0, 2.0, 4.5], availability=away, uplink=0.25, downlink=0.25)
    trace = simulate(cluster, Sync(), wallclock=9.0)
    events = events_of(trace, tmp_path)
    assert slices(events, 1, "absent") == [(2_500_000, 4_000_000)]
    assert slices(events, 0, "absent") == [(3_000_000, 9_000_000)]
    for worker in range(3):
        mine = slices(events, worker)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
    assert slices(events, 1, "idle", "upload and wait")[0] == (2_000_000, 2_250_000)


def test_updates_that_take_time_are_complete_events(tmp_path: Path) -> None:
    trace = simulate(Cluster(3, compute=Uniform(1.0, 2.0), server_update=Uniform(0.1, 0.3)), Async(), updates=20)
    events = [e for e in events_of(trace, tmp_path) if e["name"].startswith("update")]
    assert {e["ph"] for e in events} == {"X"}
    assert [(e["ts"], e["ts"] + e["dur"]) for e in events] == [
        *zip(us(trace.updates["start"]), us(trace.update_times), strict=True)
    ]
