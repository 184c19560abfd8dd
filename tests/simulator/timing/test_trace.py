"""The trace: stored and read back, checked law by law, cut by budgets, summed up."""

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync, Synchrony
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, Gamma
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import GRADIENT_COLUMNS, Trace, TraceError

FILES = ("gradients.parquet", "updates.parquet")


def same(one: Trace, other: Trace) -> None:
    pd.testing.assert_frame_equal(one.gradients, other.gradients)
    pd.testing.assert_frame_equal(one.updates, other.updates)
    assert (one.workers, one.end, one.spec) == (other.workers, other.end, other.spec)


@pytest.fixture
def trace() -> Trace:
    cluster = Cluster(4, Exponential(1.0), uplink=0.1, downlink=0.2, server=0.05, join=[0.0, 0.0, 1.0, 2.0])
    return simulate(cluster, KSync(2), updates=50, seed=7)


# Storage


def test_a_saved_trace_is_read_back_equal(trace, tmp_path):
    loaded = Trace.load(trace.save(tmp_path / "a"))
    same(loaded, trace)
    assert loaded.spec["seed"] == 7
    assert loaded.gradients.dtypes.equals(trace.gradients.dtypes)


def test_an_empty_trace_is_read_back_equal(tmp_path):
    empty = simulate(Cluster(2, 5.0), Async(), wallclock=1.0).verify()
    assert len(empty.updates) == 0
    assert empty.column("fate").tolist() == ["pending", "pending"]
    same(Trace.load(empty.save(tmp_path / "a")), empty)


def test_saving_twice_writes_the_same_bytes(trace, tmp_path):
    trace.save(tmp_path / "a")
    trace.save(tmp_path / "b")
    Trace.load(tmp_path / "a").save(tmp_path / "c")
    for file in FILES:
        contents = {(tmp_path / folder / file).read_bytes() for folder in "abc"}
        assert len(contents) == 1


def test_saving_over_a_trace_replaces_it_and_leaves_nothing_behind(trace, tmp_path):
    simulate(Cluster(2), Async(), updates=3).save(tmp_path / "a")
    trace.save(tmp_path / "a")
    same(Trace.load(tmp_path / "a"), trace)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_saving_over_something_else_is_refused(trace, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a trace"):
        trace.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("keep", [0, 3, 100, -1, -20])
def test_a_truncated_file_is_named(trace, tmp_path, file, keep):
    path = trace.save(tmp_path / "a") / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TraceError, match=rf"{file} is damaged"):
        Trace.load(tmp_path / "a")


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_parquet_is_named(trace, tmp_path, file):
    (trace.save(tmp_path / "a") / file).write_text("time,messages\n1,2\n")
    with pytest.raises(TraceError, match=rf"{file} is damaged or not Parquet"):
        Trace.load(tmp_path / "a")


@pytest.mark.parametrize("file", FILES)
def test_a_parquet_file_of_somebody_else_is_named(trace, tmp_path, file):
    pq.write_table(pa.table({"time": [1.0]}), trace.save(tmp_path / "a") / file)
    with pytest.raises(TraceError, match=rf"{file} is not a stalegrad trace"):
        Trace.load(tmp_path / "a")


def test_a_trace_of_another_format_is_named(trace, tmp_path):
    file = trace.save(tmp_path / "a") / "updates.parquet"
    meta = {"stalegrad": json.dumps({"format": "stalegrad-trace-99"})}
    pq.write_table(pq.read_table(file).replace_schema_metadata(meta), file)
    with pytest.raises(TraceError, match="stalegrad-trace-99"):
        Trace.load(tmp_path / "a")


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(trace, tmp_path, file):
    (trace.save(tmp_path / "a") / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        Trace.load(tmp_path / "a")


def test_a_place_without_a_trace_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Trace.load(tmp_path / "nowhere")


@pytest.mark.parametrize(("file", "column"), [(FILES[0], "staleness"), (FILES[1], "messages")])
def test_missing_columns_are_named(trace, tmp_path, file, column):
    path = trace.save(tmp_path / "a") / file
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(TraceError, match=rf"{file} lacks the columns \['{column}'\]"):
        Trace.load(tmp_path / "a")


def test_a_stored_trace_that_contradicts_itself_is_refused(trace, tmp_path):
    path = trace.save(tmp_path / "a") / "updates.parquet"
    table = pq.read_table(path)
    meta, frame = table.schema.metadata, table.to_pandas()
    frame.loc[3, "messages"] += 1
    pq.write_table(pa.table(dict(frame.items())).replace_schema_metadata(meta), path)
    with pytest.raises(TraceError, match="row 3 of the updates table"):
        Trace.load(tmp_path / "a")


@pytest.mark.parametrize("file", FILES)
def test_overwritten_bytes_never_crash_the_reader(trace, tmp_path, file):
    path = trace.save(tmp_path / "a") / file
    good = path.read_bytes()
    refused = 0
    for start in range(0, len(good), 97):
        path.write_bytes(good[:start] + b"\xa5" * 16 + good[start + 16 :])
        try:
            Trace.load(tmp_path / "a")
        except TraceError:
            refused += 1
    assert refused > 10


# Measured traces


def measured(**changed) -> Trace:
    """Two workers, two updates of one message each, one message pending."""
    gradients = {
        "worker": [0, 1, 0],
        "read_version": [0, 0, 1],
        "read_time": [0.0, 0.0, 1.2],
        "finish_time": [0.9, 1.9, math.nan],
        "receive_time": [1.0, 2.0, math.nan],
        "update": [0, 1, -1],
        "staleness": [0, 1, -1],
        "steps": [1, 1, 1],
        "fate": ["used", "used", "pending"],
    }
    updates = {"time": [1.1, 2.1], "messages": [1, 1], "gradients": [1, 1]}
    for name, values in changed.items():
        (gradients if name in gradients else updates)[name] = values
    return Trace(pd.DataFrame(gradients), pd.DataFrame(updates))


def test_a_measured_trace_is_accepted_with_workers_and_end_found_out(tmp_path):
    trace = measured().verify()
    assert (trace.workers, trace.end) == (2, 2.1)
    assert trace.staleness.tolist() == [0, 1]
    same(Trace.load(trace.save(tmp_path / "a")), trace)


def test_a_measured_trace_without_a_column_is_refused():
    tables = measured()
    with pytest.raises(TraceError, match=r"gradients table lacks the columns \['fate'\]"):
        Trace(tables.gradients.drop(columns="fate"), tables.updates)
    with pytest.raises(TraceError, match=r"updates table lacks the columns \['time'\]"):
        Trace(tables.gradients, tables.updates.drop(columns="time"))


def test_columns_of_unequal_length_or_with_fractions_of_versions_are_refused():
    good = {name: [] for name in GRADIENT_COLUMNS}
    with pytest.raises(TraceError, match="differ in length"):
        Trace(good, {"time": [1.0], "messages": [1, 1], "gradients": [1]})
    with pytest.raises(TraceError, match="update of the gradients table must hold whole numbers"):
        measured(update=[0.5, 1, -1])


NAN = math.nan
LAWS = [
    ({"time": [1.1, 0.5]}, "row 1 of the updates table", "time must not go backwards"),
    ({"time": [1.1, NAN]}, "row 1 of the updates table", "time must not go backwards"),
    ({"time": [-1.0, 2.1]}, "row 0 of the updates table", "time must not go backwards"),
    ({"worker": [0, -1, 0]}, "row 0 of the gradients table", "worker is below"),
    ({"fate": ["used", "used", "lost"]}, "row 2 of the gradients table", "fate is one of used, discarded"),
    ({"read_time": [NAN, 0.0, 1.2]}, "row 2 of the gradients table", "read_time is finite"),
    ({"read_time": [-0.1, 0.0, 1.2]}, "row 0 of the gradients table", "read_time is finite"),
    ({"read_time": [0.0, 0.0, math.inf]}, "row 2 of the gradients table", "read_time is finite"),
    ({"finish_time": [0.9, -1.0, NAN]}, "row 1 of the gradients table", "finish_time >= read_time"),
    ({"receive_time": [0.8, 2.0, NAN]}, "row 0 of the gradients table", "receive_time >= finish_time"),
    ({"steps": [1, 1, 0]}, "row 2 of the gradients table", "steps >= 1"),
    ({"read_version": [-1, 0, 1]}, "row 0 of the gradients table", "read_version is between 0 and 2"),
    ({"read_version": [0, 0, 3]}, "row 2 of the gradients table", "read_version is between 0 and 2"),
    ({"read_time": [0.0, 0.0, 1.0]}, "row 2 of the gradients table", "read only after it exists"),
    ({"update": [0, -1, -1]}, "row 1 of the gradients table", "-1 exactly if the message was not used"),
    ({"update": [0, 1, 1]}, "row 2 of the gradients table", "-1 exactly if the message was not used"),
    ({"update": [0, 2, -1]}, "row 1 of the gradients table", "update is below 2"),
    ({"staleness": [0, 0, -1]}, "row 1 of the gradients table", "staleness = update - read_version"),
    ({"staleness": [0, 1, 0]}, "row 2 of the gradients table", "staleness = update - read_version"),
    ({"receive_time": [1.0, 2.2, NAN]}, "row 1 of the gradients table", "received before its update"),
    ({"receive_time": [1.0, NAN, NAN]}, "row 1 of the gradients table", "received before its update"),
    (
        {"update": [1, 1, -1], "staleness": [1, 1, -1], "messages": [0, 2], "gradients": [0, 2]},
        "row 0 of the updates table",
        "at least one message",
    ),
    ({"messages": [1, 2]}, "row 1 of the updates table", "messages counts the rows"),
    ({"gradients": [2, 1]}, "row 0 of the updates table", "gradients sums their steps"),
    ({"steps": [1, 3, 1]}, "row 1 of the updates table", "gradients sums their steps"),
    (
        # Both updates at one instant, so that version 2 exists when it is read.
        {"time": [1.1, 1.1], "read_version": [0, 2, 1], "read_time": [0.0, 1.1, 1.2],
         "finish_time": [0.9, 1.1, NAN], "receive_time": [1.0, 1.1, NAN]},
        "row 1 of the gradients table",
        "read_version <= update",
    ),
]  # fmt: skip


FURTHER_LAWS = [
    ({"finish_time": [1.0, NAN, NAN]}, "a used message has finished"),
    ({"worker": [0, 0, 0]}, "a worker computes one message at a time"),
]


@pytest.mark.parametrize(("changed", "law"), FURTHER_LAWS)
def test_verify_catches_what_no_worker_can_do(changed, law):
    with pytest.raises(TraceError, match=law):
        measured(**changed).verify()


def test_verify_catches_an_end_before_the_last_update():
    trace = measured()
    trace.end = 0.5
    with pytest.raises(TraceError, match="the end is not before"):
        trace.verify()


def test_rows_of_a_measured_trace_are_put_in_order():
    table = simulate(Cluster(3, compute=Exponential()), Async(), updates=20).gradients
    updates = simulate(Cluster(3, compute=Exponential()), Async(), updates=20).updates
    shuffled = Trace(table.sample(frac=1.0, random_state=0), updates).verify()
    pd.testing.assert_frame_equal(shuffled.gradients, table)
    pd.testing.assert_frame_equal(shuffled.busy(), Trace(table, updates).busy())


def test_a_flipped_bit_is_noticed(tmp_path):
    path = simulate(Cluster(4, compute=Exponential()), Async(), updates=300).save(tmp_path / "trace")
    reference = Trace.load(path).gradients
    content = (path / "gradients.parquet").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(0, 8)
        (path / "gradients.parquet").write_bytes(damaged)
        try:
            found = Trace.load(path).gradients
        except TraceError:
            continue
        pd.testing.assert_frame_equal(found, reference)


def test_an_overloaded_server_drops_outdated_messages_without_work():
    trace = simulate(Cluster(4, compute=1.0, server=1.0), KBatchSync(1), updates=20).verify()
    assert trace.update_times.tolist() == [2.0 * (n + 1) for n in range(20)]


def test_the_kind_of_budget_does_not_change_the_fates_of_the_last_round():
    cluster = Cluster(compute=[0.7, 1.6, 3.3])
    by_updates = simulate(cluster, KSync(2), updates=6)
    by_wallclock = simulate(cluster, KSync(2), wallclock=by_updates.end)
    pd.testing.assert_frame_equal(by_updates.gradients, by_wallclock.gradients)
    assert set(by_updates.gradients["fate"]) == {"used", "cancelled"}


@pytest.mark.parametrize(("changed", "where", "law"), LAWS)
def test_verify_names_the_first_row_that_breaks_a_law_and_the_law(changed, where, law):
    with pytest.raises(TraceError, match="breaks a law") as caught:
        measured(**changed).verify()
    assert where in str(caught.value)
    assert law in str(caught.value)


def test_verify_refuses_a_worker_above_their_number():
    tables = measured()
    with pytest.raises(TraceError, match="row 1 of the gradients table breaks a law: worker is below 1"):
        Trace(tables.gradients, tables.updates, workers=1).verify()


# Random simulations

seconds = st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0])
synchronies = st.one_of(
    st.builds(Sync, local_steps=st.integers(1, 2)),
    st.builds(Async, local_steps=st.integers(1, 3)),
    *(
        st.builds(kind, st.integers(1, 3), local_steps=st.integers(1, 2))
        for kind in (KSync, KBatchSync, KAsync, KBatchAsync)
    ),
)


@st.composite
def clusters(draw) -> Cluster:
    workers = draw(st.integers(3, 6))
    join = draw(st.none() | st.lists(seconds, min_size=workers, max_size=workers))
    law = draw(st.sampled_from([1.0, Exponential(1.0), Gamma(1.0, 0.2)]))
    return Cluster(workers, law, uplink=draw(seconds), downlink=draw(seconds), server=draw(seconds), join=join)


seeds = st.integers(0, 1000)


@settings(deadline=None, max_examples=150)
@given(cluster=clusters(), synchrony=synchronies, seed=seeds)
def test_every_simulation_passes_verify_and_ends_on_its_budget(cluster, synchrony, seed):
    trace = simulate(cluster, synchrony, updates=20, seed=seed).verify()
    assert len(trace.updates) == 20
    assert trace.end == trace.update_times[-1]
    table = trace.gradients
    order = list(zip(table.read_time, table.worker, strict=True))
    assert order == sorted(order)
    # A worker does one thing at a time.
    for _, own in table.groupby("worker"):
        finished = own.finish_time.fillna(math.inf).to_numpy()
        assert (own.read_time.to_numpy()[1:] >= finished[:-1]).all()
    busy = trace.busy().dropna()
    assert ((busy >= 0) & (busy <= 1 + 1e-9)).all(axis=None)
    np.testing.assert_allclose(busy.sum(axis=1), 1.0, rtol=1e-9)


def closed(trace: Trace) -> list[tuple]:
    """The messages whose fate is sealed."""
    table = trace.gradients
    return sorted(table[table.fate != "pending"].astype(object).fillna("none").itertuples(index=False))


@settings(deadline=None, max_examples=100)
@given(cluster=clusters(), synchrony=synchronies, seed=seeds, more=st.integers(1, 15))
def test_a_longer_budget_only_extends(cluster, synchrony, seed, more):
    short, long = (simulate(cluster, synchrony, updates=n, seed=seed) for n in (10, 10 + more))
    pd.testing.assert_frame_equal(long.updates[:10], short.updates)
    assert set(closed(short)) <= set(closed(long))
    by_time = simulate(cluster, synchrony, wallclock=short.end, seed=seed)
    pd.testing.assert_frame_equal(by_time.updates[:10], short.updates)
    assert set(closed(short)) <= set(closed(by_time))
    assert by_time.update_times[-1] <= short.end


# Budgets


def test_an_update_budget_is_met_exactly():
    assert len(simulate(Cluster(3, Exponential(1.0)), KAsync(2), updates=17).updates) == 17


def test_a_gradient_budget_stops_after_the_first_update_that_reaches_it():
    trace = simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4), gradients=10)
    assert trace.updates.gradients.tolist() == [4, 4, 4]
    assert len(simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4), gradients=12).updates) == 3
    local = simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4, local_steps=5), gradients=21)
    assert local.updates.gradients.tolist() == [20, 20]


def test_a_wallclock_budget_keeps_an_update_at_exactly_that_time():
    at, before = (simulate(Cluster(2, 1.0), Async(), wallclock=t) for t in (3.0, math.nextafter(3.0, 0.0)))
    assert at.update_times.tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert at.end == 3.0
    assert before.update_times.tolist() == [1.0, 1.0, 2.0, 2.0]


def test_a_wallclock_budget_ends_where_it_says_though_nothing_happens_there():
    trace = simulate(Cluster(2, 1.0), Async(), wallclock=3.7)
    assert trace.end == 3.7
    assert trace.gradients.fate.value_counts().to_dict() == {"used": 6, "pending": 2}


# Determinism

CLUSTER = "Cluster(5, TwoLevelGamma(), speeds=Exponential(1.0), join=Exponential(50.0), uplink=1.0, server=0.5)"
SCRIPT = f"""
import sys
from stalegrad.policies.synchrony import KAsync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, TwoLevelGamma
from stalegrad.simulator.timing.engine import simulate
simulate({CLUSTER}, KAsync(2), updates=500, seed=11).save(sys.argv[1])
"""


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    for folder, hash_seed in (("a", "1"), ("b", "2")):
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / folder)], check=True, env=environment)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "synchrony", [Sync(), KSync(2), KBatchSync(3), Async(), KAsync(2), KBatchAsync(3)], ids=str
)
def test_the_same_seed_gives_the_same_trace_and_another_seed_another(synchrony: Synchrony):
    cluster = Cluster(4, Exponential(1.0), uplink=0.1)
    one, again, other = (simulate(cluster, synchrony, updates=50, seed=seed) for seed in (1, 1, 2))
    same(one, again)
    assert one.end != other.end


# Summary statistics of the specification's examples, worked out by hand


def test_busy_fractions_of_k_sync():
    # Rounds of 1.6 s; 8.8 s is half a round after the fifth update. Worker 0 computes 0.7 s a round and
    # waits; worker 1 always computes; worker 2 is cancelled five times, after 1.6 s each.
    trace = simulate(Cluster(compute=[0.7, 1.6, 3.3]), KSync(2), wallclock=8.8)
    busy = trace.busy()
    assert busy.used.tolist() == pytest.approx([4.2 / 8.8, 1.0, 0.8 / 8.8])
    assert busy.wasted.tolist() == pytest.approx([0.0, 0.0, 8.0 / 8.8])
    assert busy.idle.tolist() == pytest.approx([4.6 / 8.8, 0.0, 0.0], abs=1e-12)
    assert trace.idle_fraction().tolist() == busy.idle.tolist()
    assert trace.throughput() == pytest.approx({"updates_per_second": 5 / 8.8, "gradients_per_second": 10 / 8.8})
    assert trace.staleness_histogram().tolist() == [1.0]
    summary = trace.summary()
    assert summary["idle"] == pytest.approx(4.6 / 8.8 / 3)
    assert summary["wasted"] == pytest.approx(8.0 / 8.8 / 3)
    assert (summary["updates"], summary["gradients"], summary["workers"]) == (5, 10, 3)
    assert (summary["mean_staleness"], summary["max_staleness"], summary["fresh"]) == (0.0, 0, 1.0)


def test_staleness_histogram_of_async():
    trace = simulate(Cluster(compute=[0.7, 1.6, 3.3]), Async(), updates=6)
    assert trace.staleness.tolist() == [0, 0, 2, 1, 0, 2]
    histogram = trace.staleness_histogram()
    assert histogram.index.tolist() == [0, 1, 2]
    assert histogram.tolist() == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    assert trace.summary()["mean_staleness"] == pytest.approx(5 / 6)
    assert trace.summary()["fresh"] == pytest.approx(0.5)
    assert trace.idle_fraction().tolist() == [0.0, 0.0, 0.0]


def test_an_empty_trace_has_a_summary():
    trace = simulate(Cluster(2, 5.0), Async(), wallclock=1.0)
    summary = trace.summary()
    assert (summary["updates"], summary["gradients"], summary["max_staleness"]) == (0, 0, -1)
    assert math.isnan(summary["mean_staleness"])
    assert trace.staleness_histogram().tolist() == []


def test_a_trace_shows_itself():
    trace = simulate(Cluster(compute=[1.0, 2.0]), Async(), updates=3)
    assert repr(trace) == "Trace(2 workers, 3 updates, 3 used of 3 messages, 2 s)"
    assert "mean_staleness" in trace._repr_html_()
