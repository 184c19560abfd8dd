"""Logs of steps: read whatever their form, equal to what was simulated, or refused by row."""

import gzip
import os
import zlib

import numpy as np
import pandas as pd
import pytest

from stalegrad.analysis import fit_delays
from stalegrad.policies.synchrony import Async, Sync
from stalegrad.simulator import Cluster, Gamma, Recorded, read_intervals, read_step_times, simulate
from stalegrad.simulator.timing.logs import sources

STEPS = pd.DataFrame(
    {"worker": [0, 0, 0, 1, 1], "step": [0, 1, 2, 0, 1], "seconds": [0.9, 0.3, 0.1 + 0.2, 0.25, 1 / 3]}
)
SPANS = pd.DataFrame(
    {
        "worker": [0, 0, 1, 1], "step": [0, 1, 0, 1], "start": [0.0, 1.5, 0.25, 1.0], "end": [1.0, 2.0, 1.0, 2.5],
        "seconds": [1.0, 0.5, 0.75, 1.5], "idle": [np.nan, 0.5, np.nan, 0.0],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def spans() -> pd.DataFrame:
    """What 5 simulated workers did until 60 s, as the readers return it; ties, waits and late joiners included."""
    cluster = Cluster(5, Gamma(0.7, 0.6), downlink=0.1, uplink=0.2, join=[0.0, 0.0, 0.5, 0.0, 2.0])
    g = simulate(cluster, Async(), wallclock=60.0, seed=3).messages
    g = g[g["finish_time"].notna()].sort_values(["worker", "read_time"], ignore_index=True)
    table = pd.DataFrame({"worker": g["worker"].astype(np.int64), "step": g.groupby("worker").cumcount()})
    table["start"], table["end"] = g["read_time"], g["finish_time"]
    table["seconds"] = table["end"] - table["start"]
    table["idle"] = table["start"] - table.groupby("worker")["end"].shift()
    return table


def written(frame: pd.DataFrame, tmp_path, form: str):
    """Write a log in a form; its rows are shuffled."""
    shuffled = frame.sample(frac=1.0, random_state=2)
    if form == "frame":
        return shuffled
    file = tmp_path / f"log.{form}"
    if form == "parquet":
        shuffled.to_parquet(file)
    else:
        text = shuffled.to_csv(index=False, sep={"tsv": "\t", "semicolon": ";"}.get(form, ","))
        file.write_bytes(gzip.compress(text.encode()) if form == "csv.gz" else b"\xef\xbb\xbf" + text.encode())
    return file


FORMS = ["frame", "csv", "tsv", "semicolon", "csv.gz", "parquet"]


# What was simulated is read again


@pytest.mark.parametrize("form", FORMS)
def test_step_times_are_read_again_exactly(spans, tmp_path, form):
    log = written(spans[["worker", "step", "seconds"]], tmp_path, form)
    pd.testing.assert_frame_equal(read_step_times(log), spans[["worker", "step", "seconds"]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("columns", [["worker", "start", "end"], ["worker", "step", "start", "seconds"]])
def test_intervals_are_read_again_exactly(spans, tmp_path, form, columns):
    found = read_intervals(written(spans[columns], tmp_path, form))
    exact = ["worker", "step", "start", "seconds"]
    pd.testing.assert_frame_equal(found[exact], spans[exact], check_exact=True)
    pd.testing.assert_frame_equal(found, spans, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("unit", "digits"), [("s", 3), ("ms", 0), ("us", 0), ("ns", 0)])
@pytest.mark.parametrize("said", ["by the user", "by the column"])
def test_epochs_are_read_to_the_resolution_of_their_unit(spans, unit, digits, said):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = (spans[["start", "end"]] * per_second).round(digits)
    stamps = (stamps if digits else stamps.astype(np.int64)) + 1_700_000_000 * per_second
    ending = "" if said == "by the user" else f"_{unit}"
    log = pd.concat([spans["worker"], stamps.add_suffix(ending)], axis=1)
    resolution = 1.0 / per_second / 10**digits
    found = read_intervals(log, unit=None if ending else unit, resolution=resolution)
    np.testing.assert_allclose(found["start"], spans["start"], rtol=0, atol=max(resolution, 3e-7 if digits else 0))
    assert (found["idle"].dropna() >= 0).all()


def test_digits_of_a_text_count_beyond_those_of_a_float(spans, tmp_path):
    ns = (spans[["start", "end"]] * 1e9).round().astype(np.int64)
    text = (ns + 1_700_000_000 * 10**9).map(lambda t: f"{t // 10**9}.{t % 10**9:09d}")
    log = written(pd.concat([spans["worker"], text], axis=1), tmp_path, "csv")
    found = read_intervals(log, resolution=1e-9)
    np.testing.assert_array_equal((found["start"] * 1e9).round(), ns["start"])
    np.testing.assert_array_equal(((found["end"] - found["start"]) * 1e9).round(), ns["end"] - ns["start"])


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
@pytest.mark.parametrize("form", ["frame", "csv", "parquet"])
def test_iso_times_are_read_to_the_nanosecond(spans, tmp_path, zone, form):
    ns = (spans[["start", "end"]] * 1e9).round().astype(np.int64)
    stamps = ns.apply(lambda c: pd.to_datetime(c + 1_700_000_000 * 10**9).dt.strftime("%Y-%m-%dT%H:%M:%S.%f"))
    stamps += ns.map(lambda t: f"{t % 1000:03d}") + zone
    found = read_intervals(written(pd.concat([spans["worker"], stamps], axis=1), tmp_path, form), resolution=1e-9)
    np.testing.assert_array_equal((found["start"] * 1e9).round(), ns["start"])
    dates = pd.concat([spans["worker"], stamps.apply(pd.to_datetime)], axis=1)  # datetimes, of the zone
    pd.testing.assert_frame_equal(read_intervals(written(dates, tmp_path, form), resolution=1e-9), found)


def test_a_cluster_of_what_was_read_repeats_it(spans, tmp_path):
    log = read_intervals(written(spans[["worker", "start", "end"]], tmp_path, "csv"))
    per_step = log.pivot_table(index="step", columns="worker", values="seconds").dropna()
    trace = simulate(Cluster(5, Recorded(log)), Sync(), updates=len(per_step))
    np.testing.assert_allclose(np.diff(trace.update_times, prepend=0.0), per_step.max(axis=1), rtol=1e-9)
    fit, again = fit_delays(log, step="step"), fit_delays(log[["worker", "step", "seconds"]], step="step")
    assert fit.words == again.words
    assert fit.workers["times"]["all"] == len(log)


def test_a_fit_of_a_trace_is_one_of_its_messages_that_were_sent():
    trace = simulate(Cluster(4, Gamma(0.5, 0.3)), Async(local_steps=2), updates=400, seed=1)
    used = trace.messages[trace.messages["fate"] == "used"]
    plain = used.assign(seconds=(used["finish_time"] - used["read_time"]) / 2)
    expected = fit_delays(plain[["worker", "seconds"]])
    for measured in (trace, trace.messages):
        pd.testing.assert_frame_equal(fit_delays(measured).table.drop(columns="delay"),
                                      expected.table.drop(columns="delay"))  # fmt: skip
    assert fit_delays(simulate(Cluster(4, Gamma(0.5, 0.3)), Sync(), updates=50), step="update").agrees


# Names, warm-up, partial steps


@pytest.mark.parametrize(
    "names",
    [
        {"worker": "rank", "step": "iteration", "seconds": "duration"},
        {"worker": "worker_id", "step": "iter", "seconds": "Compute_Seconds"},
        {"worker": "device", "seconds": "step_seconds"},
        {"worker": " GPU ", "seconds": "elapsed (s)"},
        {"worker": "dp_rank", "seconds": "seconds"},
    ],
)
def test_columns_have_many_names(names):
    pd.testing.assert_frame_equal(read_step_times(STEPS.rename(columns=names)), STEPS)


@pytest.mark.parametrize("name", ["duration_ms", "step_ms", "seconds (ms)", "time [ms]", "dur_millis", "ms"])
def test_units_stand_in_names(name):
    log = STEPS.assign(seconds=STEPS["seconds"] * 1000).rename(columns={"seconds": name})
    pd.testing.assert_frame_equal(read_step_times(log), STEPS)
    pd.testing.assert_frame_equal(read_step_times(log, unit="ms"), STEPS)
    with pytest.raises(
        ValueError, match=r"column .* of the table of a log of step times is in ms, but unit = 's'"
    ):
        read_step_times(log, unit="s")


def test_the_user_says_which_column_is_which():
    log = STEPS.rename(columns={"worker": "host", "seconds": "fwd_bwd"}).assign(seconds=7.0, rank=0)
    found = read_step_times(log, columns={"worker": "host", "seconds": "fwd_bwd"})
    pd.testing.assert_frame_equal(found, STEPS)


def test_warm_up_and_partial_steps_are_left_out():
    assert read_step_times(STEPS, skip=1).to_numpy().tolist() == [[0, 1, 0.3], [0, 2, 0.1 + 0.2], [1, 1, 1 / 3]]
    assert read_step_times(STEPS, whole_steps=True)["step"].tolist() == [0, 1, 0, 1]
    later = read_intervals(SPANS[["worker", "start", "end"]], skip=1)
    assert later.to_numpy().tolist() == [[0, 1, 0.5, 1.0, 0.5, 0.5], [1, 1, 0.0, 1.5, 1.5, 0.0]]


def test_names_of_workers_are_kept(tmp_path):
    log = STEPS.assign(worker=STEPS["worker"].map({0: "node-b", 1: "node-a"}))
    for form in FORMS:
        found = read_step_times(written(log, tmp_path, form))
        assert found["worker"].tolist() == ["node-a"] * 2 + ["node-b"] * 3
    ranks = read_step_times(STEPS.assign(worker=STEPS["worker"] + 8))
    assert ranks["worker"].tolist() == [8, 8, 8, 9, 9]


# Refused


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seconds": [1.0, -0.5, 1.0, 1.0, 1.0]}, "row 1 of the table of {}: seconds = -0.5 is not"),
        ({"seconds": [1.0, 1.0, np.nan, 1.0, 1.0]}, "row 2 of the table of {}: seconds = nan is not"),
        ({"seconds": ["1", "2", "fast", "1", "1"]}, "row 2 of the table of {}: seconds = 'fast' is"),
        ({"seconds": [True] * 5}, "row 0 of the table of {}: seconds = True is not allowed"),
        ({"step": [0, 1, 1, 0, 1]}, "row 2 of the table of {}: worker 0 has step 1 twice, first at "
         "row 1"),
        ({"step": [0, 1, 2, 0, 2]}, "row 4 of the table of {}: worker 1 has step 2 but lacks step 1"),
        ({"worker": [0, 0, None, 1, 1]}, "row 2 of the table of {}: worker = nan is not allowed"),
    ],
)  # fmt: skip
def test_wrong_step_times_are_refused_by_row(changed, says):
    assert refusal(read_step_times, STEPS.assign(**changed)).startswith(says.format("a log of step times"))


def test_a_median_of_weeks_is_questioned_and_may_be_confirmed():
    log = STEPS.assign(seconds=STEPS["seconds"] * 1e6)
    said = refusal(read_step_times, log)
    assert 'the median step is 3e+05 s, if seconds is in s: give unit="ms" or "us" or "ns", or unit="s" if' in said
    assert read_step_times(log, unit="ms")["seconds"][0] == 900.0
    assert read_step_times(log, unit="s")["seconds"][0] == 900_000.0
    assert "the median step is 3e-10 s" in refusal(read_step_times, STEPS.assign(seconds=STEPS["seconds"] * 1e-9))
    spans = SPANS[["worker", "start", "end"]].assign(start=SPANS["start"] * 1e6, end=SPANS["end"] * 1e6)
    assert "the median step is 8.75e+05 s, if start is in s" in refusal(read_intervals, spans)
    epoch = SPANS[["worker", "start", "end"]].assign(start=SPANS["start"] * 1e3 + 1.7e12)
    assert refusal(read_intervals, epoch).endswith('give unit="ms" if it counts ms since 1970')


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"end": [1.0, 1.25, 1.0, 2.5]}, "row 1 of the table of {}: end = 1.25 is not allowed: give a "
         "time that is not before the start, 1.5"),
        ({"start": [0.0, 0.75, 0.25, 1.0]}, "row 1 of the table of {}: a step of worker 0 begins "
         "0.25 s before the end of another one, row 0"),
        ({"start": [0.0, np.nan, 0.25, 1.0]}, "row 1 of the table of {}: start = nan"),
        ({"start": ["2026-01-01T00:00:00"] * 4}, "the table of {}: some columns hold dates, others"),
        ({"start": ["2026-01-01T00:00:00"] * 3 + ["2026-01-01T00:00:00Z"]}, "row 3 of the table of a log of "
         "intervals: start = '2026-01-01T00:00:00Z' is not allowed: give a zone with all dates or with none"),
        ({"start": ["2026-01-01T00:00:00"] * 3 + ["2026-13-01"]}, "row 3 of the table of {}: start = "
         "'2026-13-01' is not allowed: give a date as in"),
    ],
)  # fmt: skip
def test_wrong_intervals_are_refused_by_row(changed, says):
    assert refusal(read_intervals, SPANS[["worker", "start", "end"]].assign(**changed)).startswith(
        says.format("a log of intervals")
    )


def test_rounded_intervals_may_overlap_by_twice_the_resolution():
    log = SPANS[["worker", "start", "end"]].assign(start=[0.0, 0.998, 0.25, 1.0])
    assert "or a resolution if times are rounded" in refusal(read_intervals, log)
    assert read_intervals(log, resolution=0.001)["idle"].tolist()[1] == 0.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"unit": "h"}, "unknown unit 'h'. Allowed: ms, ns, s, us."),
        (
            {"columns": {"seconds": "took"}},
            "the table of a log of step times: unknown column 'took'. Allowed: sec",
        ),
        ({"columns": {"speed": "seconds"}}, "unknown column of a log 'speed'. Allowed: seconds, step, worker."),
        ({"skip": 3}, "the table of a log of step times has 3 steps of a worker: skip = 3 leaves none"),
        ({"skip": -1}, "skip = -1 is not allowed"),
    ],
)
def test_wrong_options_are_refused(options, says):
    assert refusal(read_step_times, STEPS, **options).startswith(says)


def test_missing_and_ambiguous_columns_are_named():
    said = refusal(read_step_times, STEPS.rename(columns={"seconds": "x"}))
    assert said.startswith("the table of a log of step times has no column seconds, but worker, step, x: give")
    both = STEPS.rename(columns={"worker": "rank"}).assign(gpu=1)
    assert "has the columns rank and gpu: rename the right one to worker" in refusal(read_step_times, both)
    assert "has no column start, but worker, step, seconds" in refusal(read_intervals, STEPS)
    assert "has no column seconds, but worker, start" in refusal(read_intervals, SPANS[["worker", "start"]])
    mixed = pd.DataFrame({"worker": [0], "start_ms": [5], "end_us": [9]})
    assert "times are in ms and us: give them one unit" in refusal(read_intervals, mixed)
    assert "has no rows" in refusal(read_intervals, SPANS.head(0))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "{} has no rows: give a table"),
        (b"worker,step,seconds\n", "{} has no rows: give at least one"),
        (b"worker,step,seconds\n0,0,1.0\n0,\xe9,1.0\n", "{}, line 3: expected a text in UTF-8"),
        (b"worker,step,seconds\n# warm-up\n0,0,1.0\n0,1\n", "{}, line 4: 2 columns, but the header has 3"),
        (b"worker,step,seconds\n0,0,1.0\nran out of memory\n", "{}, line 3: 1 columns, but the header has 3"),
        (b"worker,step,seconds\n0,0,1.0\nstopped,on,Monday\n", "{}, line 3: seconds = 'Monday' is not allowed"),
        (b"worker,worker,seconds\n0,0,1.0\n", "{} has the column 'worker' 2 times: give it once"),
        (b"seconds\n" + b"1" * 200_000 + b"\n", "{}, line 2: field larger than field limit"),
        (b"\x1f\x8b" + b"no gzip at all", "{} is damaged:"),
        (gzip.compress(b"worker,step,seconds\n" + bytes(5_000), mtime=0)[:-9], "{} is damaged: the gzip file"),
        (b"PAR1" + b"worker", "{} is damaged or not Parquet"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_by_line_and_nothing_is_written(tmp_path, content, says):
    file = tmp_path / "log.csv"
    file.write_bytes(content)
    assert refusal(read_step_times, file).startswith(says.format(file))
    assert list(tmp_path.iterdir()) == [file]


def test_a_large_file_is_refused_by_its_size_before_it_is_read(tmp_path):
    file = tmp_path / "log.csv"
    with file.open("wb") as opened:
        opened.truncate(2 * 10**9)  # sparse
    assert refusal(read_step_times, file).startswith(
        f"{file} has 2000000000 bytes: a log of step times may have at"
    )


def test_a_gzip_bomb_is_refused_after_as_much_as_is_allowed(tmp_path, monkeypatch):
    file, made, taken = tmp_path / "log.csv.gz", zlib.compressobj(9, wbits=31), []
    with file.open("wb") as opened:
        for _ in range(256):  # 1 GiB in 1 MB
            opened.write(made.compress(bytes(2**22)))
        opened.write(made.flush())
    plain = sources._unzipped
    monkeypatch.setattr(sources, "_unzipped", lambda *a: (taken.append(len(b)) or b for b in plain(*a)))
    assert f"{file} has more than {2**26} bytes uncompressed" in refusal(read_step_times, file)
    assert max(taken) <= 2**20
    assert sum(taken) <= 2**26 + 2**20


def test_members_of_a_gzip_file_follow_one_another(tmp_path):
    file = tmp_path / "log.gz"
    text = STEPS.to_csv(index=False).encode()
    file.write_bytes(gzip.compress(text[:40]) + gzip.compress(text[40:]))
    pd.testing.assert_frame_equal(read_step_times(file), STEPS)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(read_step_times, tmp_path / "pipe")
    assert "is not a regular file" in refusal(read_step_times, tmp_path)
    assert "a log of step times = 3 is not allowed: give a path or a DataFrame" in refusal(read_step_times, 3)
    with pytest.raises(FileNotFoundError, match=r"a log of step times = .*nowhere\.csv' does not exist"):
        read_step_times(tmp_path / "nowhere.csv")


def test_large_parquet_is_refused_by_what_it_announces(tmp_path):
    file = tmp_path / "log.parquet"
    pd.DataFrame({"seconds": np.zeros(sources.MOST_ROWS + 1, np.int8)}).to_parquet(file)
    assert refusal(read_step_times, file).startswith(f"{file} has {sources.MOST_ROWS + 1} rows")
