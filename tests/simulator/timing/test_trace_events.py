"""Trace events: what was simulated or profiled is read again, or refused by event."""

import gzip
import itertools
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import to_perfetto
from stalegrad.policies.synchrony import Async, KSync
from stalegrad.simulator import Cluster, Gamma, read_trace_events, simulate
from stalegrad.simulator.timing.logs import json_stream

KINETO = Path(__file__).parent / "data" / "kineto-cpu.json.gz"


def slices(*spans, **fields):
    """Events of one thread: (ts, dur) in microseconds."""
    return [{"ph": "X", "name": "step", "pid": 1, "tid": 1, "ts": ts, "dur": dur} | fields for ts, dur in spans]


def write(file, events, **about):
    content = json.dumps(about | {"traceEvents": events}) if about or isinstance(events, list) else events
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


# Kineto


def test_a_trace_of_pytorch_s_profiler_is_read_as_it_is():
    text = gzip.decompress(KINETO.read_bytes()).decode()
    expected = [  # by a regular expression, in whole nanoseconds
        [int(number.replace(".", "")) for number in match]
        for match in re.findall(r'"ProfilerStep#\d+",.*?"ts": (\d+\.\d{3}),\s*"dur": (\d+\.\d{3})', text, re.S)
    ]
    found = read_trace_events(KINETO, "ProfilerStep#*")
    assert found["step"].tolist() == [2, 3, 4, 5, 6, 7]
    assert found["worker"].tolist() == [0] * 6
    assert (found["start"] * 1e9).round().tolist() == [ts - expected[0][0] for ts, _ in expected]
    assert (found["seconds"] * 1e9).round().tolist() == [dur for _, dur in expected]
    gaps = [after[0] - sum(before) for before, after in itertools.pairwise(expected)]
    assert (found["idle"][1:] * 1e9).round().tolist() == gaps
    assert read_trace_events(KINETO, "ProfilerStep#*", category="user_annotation", skip=2)["step"][0] == 4


def test_other_events_of_a_profile_are_found_by_pattern():
    text = gzip.decompress(KINETO.read_bytes()).decode()
    found = read_trace_events(KINETO, "Optimizer.step#SGD*")
    assert len(found) == text.count('"Optimizer.step#SGD.step"') == 6
    with pytest.raises(
        ValueError, match=r"has no event 'Profilerstep' with a duration \(ph X\); it has, e\.g\., .*ProfilerStep#2"
    ):
        read_trace_events(KINETO, "Profilerstep")
    with pytest.raises(
        ValueError, match=r"event \d+ \(aten::.*\): a step of worker 0 begins .* before the end of"
    ):
        read_trace_events(KINETO, "aten::*")


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
@pytest.mark.parametrize("base", [0, 1_700_000_000_000_000])
def test_a_simulation_is_read_again_to_the_nanosecond(tmp_path, name, base):
    g = simulate(Cluster(4, Gamma(0.5, 0.5)), Async(), updates=200, seed=1).messages
    g = g[g["fate"] == "used"].sort_values(["worker", "read_time"], ignore_index=True)
    ns = (g[["read_time", "finish_time"]] * 1e9).round().astype(np.int64)
    rows = zip(g["worker"], ns["read_time"], ns["finish_time"], strict=True)
    text = ", ".join(
        f'{{"ph": "X", "name": "step", "pid": {worker}, "tid": 0, "ts": {base + a // 1000}.{a % 1000:03d}, '
        f'"dur": {(b - a) // 1000}.{(b - a) % 1000:03d}}}'
        for worker, a, b in rows
    )
    found = read_trace_events(write(tmp_path / name, f"[{text}]"), "st?p", resolution=1e-9)
    assert (found["start"] * 1e9).round().tolist() == ns["read_time"].tolist()
    assert (found["seconds"] * 1e9).round().tolist() == (ns["finish_time"] - ns["read_time"]).tolist()
    assert found["worker"].tolist() == g["worker"].tolist()


def test_what_is_exported_for_viewers_is_read_again_to_the_microsecond(tmp_path):
    trace = simulate(Cluster(12, Gamma(0.5, 0.5)), KSync(8), updates=50, seed=1)
    found = read_trace_events(to_perfetto(trace, tmp_path / "trace.json"), "compute*")
    g = trace.messages.sort_values(["worker", "read_time"], ignore_index=True)
    assert found["worker"].tolist() == g["worker"].tolist()  # threads 1 to 12, not "1", "10", "11", ...
    np.testing.assert_allclose(found["start"], g["read_time"], rtol=0, atol=0.5e-6)
    np.testing.assert_allclose(found["end"], g["finish_time"].fillna(trace.end), rtol=0, atol=0.5e-6)


# Which worker


def test_a_file_a_process_or_a_thread_is_a_worker(tmp_path):
    events = [*slices((0, 5), (7, 5)), *slices((5, 2), tid=2), *slices((1, 2), pid=0)]
    file = write(tmp_path / "a.json", events)
    assert read_trace_events(file, "step")["worker"].tolist() == [0, 1, 1, 2]
    assert read_trace_events(file, "step", worker="process")["worker"].tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match="a step of worker 0 begins 4e-06 s before the end of another one"):
        read_trace_events(file, "step", worker="file", resolution=0.0)
    other = write(tmp_path / "b.json.gz", slices((3, 1)))
    found = read_trace_events([file, other], "step", worker="thread")
    assert found["worker"].tolist() == [0, 1, 1, 2, 3]


def test_files_of_ranks_are_ordered_by_them(tmp_path):
    files = [
        write(tmp_path / f"{r}.json", slices((0, 10 * r + 1)), distributedInfo={"rank": r}) for r in (2, 0, 1)
    ]
    assert (read_trace_events(files, "step")["seconds"] * 1e6).round().tolist() == [1, 11, 21]
    plain = [write(tmp_path / f"plain-{r}.json", slices((0, 10 * r + 1))) for r in (2, 0, 1)]
    assert (read_trace_events(plain, "step")["seconds"] * 1e6).round().tolist() == [21, 1, 11]


def test_categories_tell_the_gpu_s_copies_apart(tmp_path):
    events = [*slices((0, 5), cat="user_annotation"), *slices((1, 5), cat="gpu_user_annotation", pid=0, tid=7)]
    file = write(tmp_path / "a.json", events)
    assert len(read_trace_events(file, "step")) == 2
    assert read_trace_events(file, "step", category="user_annotation")["seconds"].tolist() == [5e-6]
    with pytest.raises(
        ValueError, match=r"has no event 'step' of category 'cpu_op' .* e\.g\., step \(gpu_user_anno"
    ):
        read_trace_events(file, "step", category="cpu_op")


def test_signs_of_patterns_are_plain_but_for_two(tmp_path):
    file = write(tmp_path / "a.json", slices((0, 1), name="step[0]"))
    assert len(read_trace_events(file, "step[0]")) == 1


# The reader of JSON


@pytest.mark.parametrize("block", [1, 2, 7, 64, 10**6])
def test_events_do_not_depend_on_how_a_file_is_cut(tmp_path, monkeypatch, block):
    events = [{"name": 'é\\"]},{[', "args": {"deep": [[1.5, -2e3], {"x": None}]}}, *slices((1.25, 2), (5, 1))]
    text = json.dumps({"a": 12345, "b": {"traceEvents": []}, "traceEvents": events, "c": "x" * 50}, indent=1)
    data = b"\xef\xbb\xbf" + text.replace("1.25", "1.250").encode()
    monkeypatch.setattr(
        json_stream, "blocks", lambda *_: (data[i : i + block] for i in range(0, len(data), block))
    )
    file = json_stream.EventFile(tmp_path)
    found = list(file.events())
    assert found[0] == {"name": 'é\\"]},{[', "args": {"deep": [["1.5", "-2000.0"], {"x": None}]}}
    assert found[1:] == [events[1] | {"ts": "1.250"}, events[2]]
    assert file.about == {"a": 12345, "b": {"traceEvents": []}, "c": "x" * 50}


def test_a_list_of_events_need_not_be_closed(tmp_path):
    text = json.dumps(slices((0, 1), (2, 1)))
    for cut in (text, text[:-1], text[:-1] + ",\n"):
        assert len(read_trace_events(write(tmp_path / "a.json", cut), "step")) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "{}: it begins with ''; give trace events in JSON"),
        ("worker,step\n0,1\n", "{}: it begins with 'w'; give trace events in JSON"),
        ('{"events": []}', "{}: it has no list traceEvents"),
        ('{"traceEvents": 3}', "{}: it has no list traceEvents"),
        ('{"traceEvents": [3]}', "{}, event 0: 3 is no event"),
        ('{"traceEvents": [{"ph": "M"} {"ph": "M"}]}', "{}, after event 0: after event 0 a comma is expected"),
        ('{"traceEvents": [{"ph": "M"}, {"ph": ]}', "{}, after event 0: Expecting value"),
        ('{"traceEvents": [{"ph": "M"}, {"ph": "X", "na', "{}, after event 0: Unterminated string"),
        (b'{"traceEvents": [{"ph": "\xe9"}]}', "{}: it is no text in UTF-8"),
        ('{"traceEvents": [' + '{"a":' * 100_000, "{}: it is nested too deeply"),
        ('{"traceEvents": []}', "{} has no event 'step' with a duration (ph X); it has, e.g., none"),
        (json.dumps(slices((0, -1))), "{}, event 0 (step): dur = -1 is not allowed: give microseconds of at le"),
        (json.dumps(slices((0, None))), "{}, event 0 (step): dur = None is not allowed"),
        (json.dumps(slices(("soon", 1))), "{}, event 0 (step): ts = 'soon' is not allowed: give microseconds"),
        (json.dumps(slices((0, 1), (1e30, 1))), "{}, event 1 (step): ts = '1e+30' is not allowed"),
        (json.dumps(slices((float("nan"), 1))), "{}, event 0 (step): ts = nan is not allowed"),
        (json.dumps(slices((0, 9), (4, 1))), "{}, event 1 (step): a step of worker 0 begins 5e-06 s before"),
        (json.dumps(slices((0, 1), name="s#3") + slices((4, 1), name="s#3")), "{}, event 1 (s#3): worker 0 has "
         "step 3 twice, first at {}, event 0 (s#3)"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_by_event(tmp_path, content, says):
    file = write(tmp_path / "trace.json", content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_trace_events(file, "s*" if "s#3" in says else "step", resolution=0.0)
    assert str(caught.value).startswith(says.format(file, file))
    assert "\n" not in str(caught.value)


def bomb(file, head, fill, times):
    """Write a gzip file that begins with a text and goes on with another one, again and again."""
    made = zlib.compressobj(9, wbits=31)
    with file.open("wb") as opened:
        opened.write(made.compress(head.encode()))
        for _ in range(times):
            opened.write(made.compress(fill.encode()))
        opened.write(made.flush())
    return file


def test_bombs_are_refused_at_the_limits(tmp_path, monkeypatch):
    blanks = bomb(tmp_path / "blanks.json.gz", "[", " " * 2**20, 64)
    monkeypatch.setattr(json_stream, "LARGEST", 2**25)
    with pytest.raises(ValueError, match=f"has more than {2**25} bytes uncompressed"):
        read_trace_events(blanks, "step")
    text = bomb(tmp_path / "text.json.gz", '[{"name": "', "x" * 2**20, 30)
    with pytest.raises(ValueError, match="Unterminated string"):
        read_trace_events(text, "step")


def test_memory_holds_the_steps_alone(tmp_path):
    import tracemalloc

    other = json.dumps({"ph": "X", "name": "op", "pid": 1, "tid": 2, "ts": 1, "dur": 1, "args": {"x": "y" * 200}})
    file = bomb(tmp_path / "large.json.gz", "[" + json.dumps(slices((0, 1))[0]), ("," + other) * 1_000, 150)
    tracemalloc.start()
    found = read_trace_events(file, "step")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 1
    assert peak < 2**24  # of 42 MB


def test_options_are_checked(tmp_path):
    file = write(tmp_path / "a.json", slices((0, 1)))
    with pytest.raises(ValueError, match="worker = 'gpu' is not allowed"):
        read_trace_events(file, "step", worker="gpu")
    with pytest.raises(ValueError, match="give a path or several"):
        read_trace_events([], "step")
    with pytest.raises(FileNotFoundError, match="a file of trace events"):
        read_trace_events(tmp_path / "none.json", "step")
    assert isinstance(read_trace_events(str(file), "step"), pd.DataFrame)
