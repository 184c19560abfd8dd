"""Traces that users give: converted, put in order, and checked law by law."""

import math

import numpy as np
import pandas as pd
import pytest

from stalegrad.policies.synchrony import Async
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import MESSAGE_COLUMNS, TraceError
from stalegrad.simulator.timing.delays import Exponential, Gamma
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace


def test_a_measured_trace_is_accepted_with_workers_and_end_found_out(measured, same, tmp_path):
    trace = measured().verify()
    assert (trace.workers, trace.end) == (2, 2.1)
    assert trace.staleness.tolist() == [0, 1]
    same(Trace.load(trace.save(tmp_path / "a")), trace)


def test_a_measured_trace_without_a_column_is_refused(measured):
    tables = measured()
    with pytest.raises(TraceError, match=r"messages table lacks the columns \['fate'\]"):
        Trace(tables.messages.drop(columns="fate"), tables.updates)
    with pytest.raises(TraceError, match=r"updates table lacks the columns \['time'\]"):
        Trace(tables.messages, tables.updates.drop(columns="time"))


def test_columns_of_unequal_length_or_with_fractions_of_versions_are_refused(measured):
    good = {name: [] for name in MESSAGE_COLUMNS}
    with pytest.raises(TraceError, match="differ in length"):
        Trace(good, {"time": [1.0], "messages": [1, 1], "gradients": [1]})
    with pytest.raises(TraceError, match="update of the messages table must hold whole numbers"):
        measured(update=[0.5, 1, -1])


NAN = math.nan
LAWS = [
    ({"time": [1.1, 0.5]}, "row 1 of the updates table", "time must not go backwards"),
    ({"time": [1.1, NAN]}, "row 1 of the updates table", "time must not go backwards"),
    ({"time": [-1.0, 2.1]}, "row 0 of the updates table", "time must not go backwards"),
    ({"worker": [0, -1, 0]}, "row 1 of the messages table", "worker is at least 0 and below 1"),
    ({"read_time": [NAN, 0.0, 1.2]}, "row 0 of the messages table", "read_time is finite"),
    ({"read_time": [-0.1, 0.0, 1.2]}, "row 0 of the messages table", "read_time is finite"),
    ({"read_time": [0.0, 0.0, math.inf]}, "row 2 of the messages table", "read_time is finite"),
    ({"finish_time": [0.9, -1.0, NAN]}, "row 1 of the messages table", "finish_time >= read_time"),
    ({"receive_time": [0.8, 2.0, NAN]}, "row 0 of the messages table", "receive_time >= finish_time"),
    ({"steps": [1, 1, 0]}, "row 2 of the messages table", "steps >= 1"),
    ({"read_version": [-1, 0, 1]}, "row 0 of the messages table", "read_version is between 0 and 2"),
    ({"read_version": [0, 0, 3]}, "row 2 of the messages table", "read_version is between 0 and 2"),
    ({"read_time": [0.0, 0.0, 1.0]}, "row 2 of the messages table", "read only after it exists"),
    ({"update": [0, -1, -1]}, "row 1 of the messages table", "-1 exactly if the message was not used"),
    ({"update": [0, 1, 1]}, "row 2 of the messages table", "-1 exactly if the message was not used"),
    ({"update": [0, 2, -1]}, "row 1 of the messages table", "update is below 2"),
    ({"staleness": [0, 0, -1]}, "row 1 of the messages table", "staleness = update - read_version"),
    ({"staleness": [0, 1, 0]}, "row 2 of the messages table", "staleness = update - read_version"),
    ({"receive_time": [1.0, 2.2, NAN]}, "row 1 of the messages table", "received before its update"),
    ({"receive_time": [1.0, NAN, NAN]}, "row 1 of the messages table", "received before its update"),
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
        {"time": [1.1, 1.1], "end": 2.0, "read_version": [0, 2, 1], "read_time": [0.0, 1.1, 1.2],
         "finish_time": [0.9, 1.1, NAN], "receive_time": [1.0, 1.1, NAN]},
        "row 1 of the messages table",
        "read_version <= update",
    ),
]  # fmt: skip


FURTHER_LAWS = [
    ({"finish_time": [1.0, NAN, NAN]}, "a used message has finished"),
    ({"worker": [0, 0, 0]}, "a worker computes one message at a time"),
]


@pytest.mark.parametrize(("changed", "law"), FURTHER_LAWS)
def test_verify_catches_what_no_worker_can_do(measured, changed, law):
    with pytest.raises(TraceError, match=law):
        measured(**changed).verify()


def test_verify_catches_an_end_before_the_last_update(measured):
    end = {"worker": [0, 1, 2], "read_time": [0.0, 0.0, 0.4], "read_version": [0, 0, 0], "end": 0.5}
    with pytest.raises(TraceError, match="row 0 of the updates table breaks a law: time is not after the end, "):
        measured(**end).verify()
    with pytest.raises(
        TraceError, match=r"row 2 of the messages table breaks a law: read_time is not after the end"
    ):
        measured(end=0.5).verify()


def test_rows_of_a_measured_trace_are_put_in_order():
    table = simulate(Cluster(3, compute=Exponential()), Async(), updates=20).messages
    updates = simulate(Cluster(3, compute=Exponential()), Async(), updates=20).updates
    shuffled = Trace(table.sample(frac=1.0, random_state=0), updates).verify()
    pd.testing.assert_frame_equal(shuffled.messages, table)
    pd.testing.assert_frame_equal(shuffled.busy(), Trace(table, updates).busy())


@pytest.mark.parametrize(("changed", "where", "law"), LAWS)
def test_verify_names_the_first_row_that_breaks_a_law_and_the_law(measured, changed, where, law):
    with pytest.raises(TraceError, match="breaks a law") as caught:
        measured(**changed).verify()
    assert where in str(caught.value)
    assert law in str(caught.value)


def test_verify_refuses_a_worker_above_their_number(measured):
    tables = measured()
    with pytest.raises(
        TraceError, match="row 1 of the messages table breaks a law: worker is at least 0 and below 1"
    ):
        Trace(tables.messages, tables.updates, workers=1).verify()


# What is given


def test_a_trace_cannot_be_changed(measured):
    trace = measured()
    with pytest.raises(ValueError, match="read-only"):
        trace.column("worker")[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        trace.update_times[0] = 1.0
    for name in ("end", "workers", "resolution"):
        with pytest.raises(AttributeError, match="no setter"):
            setattr(trace, name, 3)
    trace.messages.loc[0, "update"] = 7
    trace.verify()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"worker": [0, 2**40, 0]}, "column worker .* from -2147483648 to 2147483647; row 1 has 1099511627776"),
        ({"worker": [0.0, 3e9, 0.0]}, "column worker .*; row 1 has 3000000000.0"),
        ({"update": [0, math.inf, -1]}, "column update of the messages table .*; row 1 has inf"),
        ({"read_version": [0, 0, NAN]}, "column read_version .*; row 2 has nan"),
        ({"staleness": [0, 2.0**63, -1]}, "column staleness .*; row 1 has 9.2"),
        ({"steps": np.array([1, 2**63 + 1, 1], np.uint64)}, "column steps .*; row 1 has 9223372036854775809"),
        ({"steps": [True, True, True]}, "column steps of the messages table must hold numbers, not bool"),
        ({"read_time": ["0", "1", "2"]}, "column read_time of the messages table must hold numbers, not <U1"),
        ({"read_time": pd.to_datetime([0, 1, 2])}, "column read_time .* must hold numbers, not datetime64"),
        ({"finish_time": [0.9, None, 3.0]}, "column finish_time .* must hold numbers, not object"),
        ({"worker": [[0], [1], [0]]}, "column worker of the messages table has 2 dimensions"),
        ({"worker": [[0], [1, 2], 0]}, "column worker of the messages table is no column of numbers"),
        ({"worker": 3}, "column worker of the messages table has 0 dimensions"),
        ({"fate": ["used", "used", "gone"]}, "row 2 of column fate .* is gone: fate is one of used, discarded"),
        ({"fate": ["used", "used", "pending-x"]}, "row 2 of column fate .* is pending-x"),
        ({"fate": [1, 2, 3]}, "row 0 of column fate of the messages table is 1: fate is one of"),
        ({"fate": ["used", None, "pending"]}, "row 1 of column fate of the messages table is None"),
        ({"time": [1.1, "later"]}, "column time of the updates table must hold numbers"),
        ({"workers": 4.5}, "workers of a trace = 4.5 is not allowed: give a whole number from 0 to 10000000"),
        ({"workers": 10**12}, "workers of a trace = 1000000000000 is not allowed"),
        ({"workers": 10**5000}, "workers of a trace = a whole number of 16610 bits is not allowed"),
        ({"worker": [0, 2**31 - 1, 0]}, "workers of a trace = 2147483648 is not allowed"),
        ({"end": "x"}, "end of a trace = 'x' is not allowed: give finite seconds of at least 0"),
        ({"resolution": -1.0}, "resolution of a trace = -1.0 is not allowed"),
    ],
)
def test_columns_and_numbers_that_cannot_be_meant_are_refused(measured, changed, said):
    with pytest.raises(TraceError, match=said):
        measured(**changed)


@pytest.mark.parametrize("table", [None, [1, 2], "x", 3])
def test_tables_that_are_none_are_refused(measured, table):
    with pytest.raises(TraceError, match=r"messages table is a .*: give a DataFrame or a mapping"):
        Trace(table, measured().updates)


def test_columns_of_pandas_own_types_are_taken(measured, same):
    tables = measured()
    nullable = tables.messages.convert_dtypes()
    nullable["fate"] = nullable["fate"].astype("category")
    assert "Int" in str(nullable["worker"].dtype)
    same(Trace(nullable, tables.updates.convert_dtypes()), tables)
    nullable.loc[1, "read_version"] = pd.NA
    with pytest.raises(TraceError, match=r"column read_version .*; row 1 has nan"):
        Trace(nullable, tables.updates)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ([], r"spec of a trace = \[\] is not allowed: give a mapping"),
        ({"a": {1: 2}}, "spec.a of a trace has the key 1: keys must be strings"),
        ({"a": [1, {"b": object()}]}, r"spec.a\[1\].b of a trace = <object"),
        ({"a": 1j}, "spec.a of a trace = 1j is not allowed"),
        ({"a": {1, 2}}, "spec.a of a trace = .* is not allowed"),
        ({"a": np.ones((2, 2))}, "spec.a of a trace = array.* is not allowed"),
        ({"a": 10**5000}, "spec.a of a trace = a whole number of 16610 bits is not allowed"),
    ],
)
def test_a_spec_that_json_cannot_hold_is_refused_with_its_key(measured, spec, said):
    tables = measured()
    with pytest.raises(TraceError, match=said):
        Trace(tables.messages, tables.updates, spec=spec)


def test_numbers_of_numpy_in_a_spec_become_plain_ones(measured, same, tmp_path):
    tables = measured()
    spec = {"a": np.int64(3), "b": (np.float32(0.5), np.bool_(True)), "c": np.arange(2), "d": pd.Series([1.5])}
    trace = Trace(tables.messages, tables.updates, spec=spec)
    assert trace.spec == {"a": 3, "b": [0.5, True], "c": [0, 1], "d": [1.5]}
    assert type(trace.spec["a"]) is int
    same(Trace.load(trace.save(tmp_path / "a")), trace)


# Row numbers


def backwards(trace: Trace) -> pd.DataFrame:
    return trace.messages[::-1]


def test_a_row_is_numbered_as_in_the_table_given_and_named_by_its_label(measured):
    tables = measured(finish_time=[0.9, -1.0, NAN])
    said = "row {} of the messages table breaks a law: finish_time >= read_time; it has read_time = 0.0"
    for table, row in [(tables.messages, "1"), (backwards(tables).reset_index(), "1")]:
        with pytest.raises(TraceError, match=said.format(row)):
            Trace(table, tables.updates).verify()
    long = pd.concat([tables.messages[:1], tables.messages[2:], tables.messages[1:2]])
    with pytest.raises(TraceError, match=said.format(r"2 \(labelled 1\)")):
        Trace(long, tables.updates).verify()
    with pytest.raises(TraceError, match=said.format(r"2 \(labelled late\)")):
        Trace(long.set_index(pd.Index(["a", "b", "late"])), tables.updates).verify()


def test_the_first_of_several_rows_that_break_a_law_is_named():
    truth = simulate(Cluster(3, Exponential()), Async(), updates=40)
    table = truth.messages.sample(frac=1.0, random_state=1).reset_index(drop=True)
    wrong = table["finish_time"] > 3.0
    table.loc[wrong, "finish_time"] = table["read_time"] - 0.5
    with pytest.raises(TraceError, match=f"^row {int(np.flatnonzero(wrong)[0])} of the messages table"):
        Trace(table, truth.updates, workers=3).verify()


# Ties


def instants(rows, updates) -> Trace:
    """Return the trace of rows (worker, version, read, finish, update), received when finished."""
    columns = ["worker", "read_version", "read_time", "finish_time", "update"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(
        receive_time=table["finish_time"], staleness=table["update"] - table["read_version"], steps=1
    )
    count = table.groupby("update").size().reindex(range(len(updates)))
    return Trace(table.assign(fate="used"), {"time": updates, "messages": count, "gradients": count})


def test_messages_read_at_one_moment_keep_the_order_given():
    first, second = (0, 0, 0.0, 0.0, 0), (0, 1, 0.0, 2.0, 1)
    trace = instants([first, second], [0.0, 2.0]).verify()
    assert trace.messages["finish_time"].tolist() == [0.0, 2.0]
    with pytest.raises(
        TraceError, match="row 1 of the messages table breaks a law: a worker computes one message"
    ):
        instants([second, first], [0.0, 2.0]).verify()


def test_gradient_ids_of_messages_received_at_one_moment_keep_the_order_given():
    rows = [(1, 0, 0.0, 0.0, 0), (0, 0, 0.0, 0.0, 0), (1, 0, 0.0, 0.0, 0), (0, 0, 0.0, 0.0, 0)]
    trace = instants(rows, [0.0]).verify()
    assert trace.column("worker")[trace.used].tolist() == [0, 0, 1, 1]
    assert trace.used.tolist() == [0, 1, 2, 3]


def test_a_worker_reads_at_most_512_times_at_one_moment():
    def at_once(count):
        rows = [(0, i, 1.0 if i else 0.0, 1.0, i) for i in range(count + 1)]
        return instants(rows, [1.0] * (count + 1))

    at_once(512).verify()
    with pytest.raises(
        TraceError, match=r"row 513 of the messages table .*: a worker reads at most 512 times at one"
    ):
        at_once(513).verify()


# Rounding


def log_of(trace: Trace, digits: int) -> pd.DataFrame:
    """Return an asynchronous trace as a profiler writes it: start and duration, rounded."""
    g = trace.messages[trace.messages["fate"] == "used"]
    start, seconds = g["read_time"].round(digits), (g["finish_time"] - g["read_time"]).round(digits)
    log = pd.DataFrame({"worker": g["worker"], "start": start, "end": start + seconds})
    return log.sort_values(["end", "worker"], ignore_index=True)


def trace_of_log(log: pd.DataFrame, resolution: float = 0.0) -> Trace:
    update, ones = np.arange(len(log)), np.ones(len(log), int)
    version = np.searchsorted(log["end"], log["start"], side="right")
    table = {
        "worker": log["worker"], "read_version": version, "read_time": log["start"], "finish_time": log["end"],
        "receive_time": log["end"], "update": update, "staleness": update - version, "steps": ones,
        "fate": ["used"] * len(log),
    }  # fmt: skip
    return Trace(table, {"time": log["end"], "messages": ones, "gradients": ones}, resolution=resolution)


def test_times_may_contradict_one_another_by_rounding():
    truth = simulate(Cluster(4, Gamma(0.35, 0.2)), Async(), updates=400)
    log = log_of(truth, 15)
    before = log.sort_values(["worker", "start"])
    same_worker = before["worker"] == before["worker"].shift(1)
    assert ((before["end"].shift(1) > before["start"]) & same_worker).sum() > 10  # by one unit in the last place
    trace_of_log(log).verify()


@pytest.mark.parametrize("digits", [3, 6])
def test_times_of_a_stated_resolution_may_contradict_one_another_by_it(same, tmp_path, digits):
    log = log_of(simulate(Cluster(4, Gamma(0.35, 0.2)), Async(), updates=400), digits)
    with pytest.raises(
        TraceError, match="one message at a time; for times that are rounded give Trace a resolution"
    ):
        trace_of_log(log).verify()
    trace = trace_of_log(log, 10.0**-digits).verify()
    assert trace.resolution == 10.0**-digits
    same(Trace.load(trace.save(tmp_path / "a")), trace)
    log["start"] -= np.where(log["start"] > 5.0, 5.0 * 10.0**-digits, 0.0)
    with pytest.raises(TraceError, match="one message at a time"):
        trace_of_log(log, 10.0**-digits).verify()


def scaled(factor):
    """Changes by which one law of order after another is broken by a factor."""
    return [
        {"receive_time": [0.9 / factor, 2.0, NAN]},
        {"receive_time": [1.0, 2.1 * factor, NAN]},
        {"read_time": [0.0, 0.0, 1.1 / factor]},
        {"read_time": [0.0, 1.9 * factor, 1.2]},
        {"worker": [0, 1, 1], "read_time": [0.0, 0.0, 1.9 / factor]},
        {"end": 2.1 / factor},
    ]


@pytest.mark.parametrize(("within", "beyond"), [*zip(scaled(1 + 1e-13), scaled(1 + 1e-11), strict=True)])
def test_every_law_of_order_bears_a_rounding_and_no_more(measured, within, beyond):
    measured(**within).verify()
    with pytest.raises(TraceError, match="breaks a law"):
        measured(**beyond).verify()
