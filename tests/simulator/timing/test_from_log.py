"""Traces of parameter servers' logs: equal to the simulation that the log was written of, or refused by name."""

import numpy as np
import pandas as pd
import pytest

from stalegrad.policies.synchrony import (
    SSP,
    Async,
    DelayedAveraging,
    DelayedAveragingGeneral,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Rollouts,
    Sync,
)
from stalegrad.simulator import Cluster, Gamma, Renewal, Trace, TraceError, simulate

PLAIN = Cluster(4, Gamma(1.0, 0.7))
LINKED = Cluster(4, Gamma(1.0, 0.7), uplink=0.1, downlink=0.2, server=0.05, join=[0.0, 0.0, 1.0, 2.0])
EQUAL = Cluster(4, 1.0)  # all at the same moments
SYNCHRONIES = [
    Async(), Async(local_steps=3), Sync(), KSync(2), KAsync(2), KBatchSync(2), KBatchAsync(2), SSP(2),
    DelayedAveraging(tau=4), DelayedAveragingGeneral(3),
]  # fmt: skip

MESSAGES = {
    "worker": [0, 1, 0, 1], "read_version": [0, 0, 1, 2], "read_time": [0.0, 0.0, 1.25, 2.5],
    "finish_time": [1.0, 2.0, 3.0, np.nan], "receive_time": [1.125, 2.25, 3.0, np.nan],
    "apply_time": [1.25, 2.5, np.nan, np.nan],
}  # fmt: skip
LOG = pd.DataFrame(MESSAGES)


def log_of(trace: Trace) -> pd.DataFrame:
    """A trace as the log of its server: shuffled, with the time at which each message was applied."""
    log = trace.messages.copy()
    log["apply_time"] = np.where(log["update"] >= 0, trace.update_times[log["update"]], np.nan)
    return log.sample(frac=1.0, random_state=0)


def assert_same(one: Trace, other: Trace, *, fates: bool = True) -> None:
    """Compare all; without fates, but for messages of after the last update, whose fate no log tells."""
    two = [t.messages.assign(fate=t.messages["fate"].astype(str)) for t in (one, other)]
    if not fates:
        last = other.update_times[-1]
        late = (two[1]["finish_time"].fillna(np.inf) >= last) | (
            two[1]["receive_time"].fillna(np.inf) >= last - 0.2
        )
        late &= two[1]["fate"] != "used"
        two = [table.assign(fate=table["fate"].mask(late, "late")) for table in two]
    pd.testing.assert_frame_equal(*two, check_exact=True)
    pd.testing.assert_frame_equal(one.updates, other.updates, check_exact=True)
    assert (one.workers, one.end, one.used.tolist()) == (other.workers, other.end, other.used.tolist())


@pytest.mark.parametrize("synchrony", SYNCHRONIES, ids=lambda s: f"{s.name}-{s.local_steps}")
@pytest.mark.parametrize("cluster", [PLAIN, LINKED, EQUAL], ids=["plain", "linked", "equal"])
def test_a_simulated_run_is_read_again_from_its_log(synchrony, cluster, tmp_path):
    trace = simulate(cluster, synchrony, updates=60, seed=1)
    log = log_of(trace)
    log.drop(columns="staleness").to_csv(tmp_path / "ps.csv", index=False)
    assert_same(Trace.from_log(tmp_path / "ps.csv", end=trace.end, workers=4), trace)
    assert_same(Trace.from_log(log.drop(columns="fate"), end=trace.end, workers=4), trace, fates=False)
    if cluster is not EQUAL:  # updates by the order of their times
        bare = log.drop(columns=["fate", "update", "staleness"])
        assert_same(Trace.from_log(bare, per_update="equal times", end=trace.end), trace, fates=False)


def test_fates_are_derived_of_all_kinds():
    trace = simulate(PLAIN, KSync(2), updates=60, seed=1)
    found = Trace.from_log(log_of(trace).drop(columns="fate")).messages["fate"].value_counts()
    assert dict(found) == {"used": 120, "cancelled": 118, "pending": 2}  # by hand: 2 of 4 are cancelled, 60 times
    discarded = LOG.assign(apply_time=[np.nan, 2.5, 3.5, np.nan], read_version=[0, 0, 0, 1])
    assert Trace.from_log(discarded).messages["fate"].tolist() == ["discarded", "used", "used", "pending"]


def test_updates_that_take_time_keep_their_starts():
    trace = simulate(Cluster(3, Gamma(1.0, 0.5), server_update=0.1), Async(), updates=40, seed=2)
    log = log_of(trace)
    used = log["update"] >= 0
    log["apply_start"] = np.where(used, trace.updates["start"].to_numpy()[log["update"]], np.nan)
    assert_same(Trace.from_log(log, end=trace.end), trace)


def test_absences_and_lost_messages_are_passed_on():
    cluster = Cluster(4, Gamma(1.0, 0.5), availability=Renewal(up=5.0, down=2.0))
    trace = simulate(cluster, Async(), updates=60, seed=0)
    assert "lost" in set(trace.column("fate"))
    found = Trace.from_log(log_of(trace), absences=trace.absences, end=trace.end, origin=0.0)
    assert_same(found, trace)
    with pytest.raises(TraceError, match="a message is lost only if its worker leaves"):
        Trace.from_log(log_of(trace))


def test_rollouts_with_a_queue_are_read_again():
    trace = simulate(Cluster(8, Gamma(1.0, 0.5)), Rollouts(batch=4, train=0.3), updates=40, seed=0)
    log = log_of(trace).drop(columns=["staleness"])
    found = Trace.from_log(log, end=trace.end)
    pd.testing.assert_frame_equal(found.messages, trace.messages, check_exact=True)


def test_without_times_of_applying_an_update_is_made_when_its_last_message_is_received():
    trace = simulate(PLAIN, KAsync(2), updates=50, seed=4)  # no links, no server time: that is so
    found = Trace.from_log(log_of(trace).drop(columns="apply_time"), end=trace.end)
    assert_same(found, trace)


def test_names_of_workers_are_numbered_and_kept():
    named = LOG.assign(worker=["b", "a", "b", "a"])
    found = Trace.from_log(named)
    assert found.column("worker").tolist() == [0, 1, 1, 0]
    assert found.spec == {"worker_names": ["a", "b"]}


def test_a_piece_of_a_long_run_begins_at_version_0():
    later = LOG.assign(read_version=LOG["read_version"] + 1_000)
    pd.testing.assert_frame_equal(Trace.from_log(later).messages, Trace.from_log(LOG).messages)
    numbered = later.assign(update=[1_000, 1_001, -1, -1]).drop(columns="apply_time")
    assert Trace.from_log(numbered).staleness.tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"row 0 of .* read_version = 999 is not allowed: give a version of the log"
    ):
        Trace.from_log(numbered.assign(read_version=[999, 1_000, 1_001, 1_002]))


# Intervals


@pytest.mark.parametrize(("digits", "off"), [(15, 0), (3, 0.03)])
def test_intervals_of_workers_that_read_the_newest_version_make_a_trace(digits, off):
    true = simulate(Cluster(4, Gamma(0.35, 0.2)), Async(), updates=400, seed=0)
    g = true.messages[true.messages["fate"] == "used"]
    start, seconds = g["read_time"].round(digits), (g["finish_time"] - g["read_time"]).round(digits)
    log = pd.DataFrame({"worker": g["worker"], "start": start, "end": start + seconds}).sort_values("end")
    found = Trace.from_log(log, columns={"receive_time": "end", "apply_time": "end"}, read_version="newest",
                           per_update=1, resolution=0.001 if digits == 3 else 0.0)  # fmt: skip
    assert np.abs(found.staleness - true.staleness).mean() <= off
    assert found.staleness.mean() == pytest.approx(true.staleness.mean(), abs=off)


@pytest.mark.parametrize("synchrony", [Sync(), KAsync(2), SSP(2)], ids=lambda s: s.name)
def test_newest_versions_are_those_of_a_simulation_without_downloads(synchrony):
    trace = simulate(PLAIN, synchrony, updates=60, seed=5)
    log = log_of(trace).drop(columns=["read_version", "staleness"])
    assert_same(Trace.from_log(log, read_version="newest", end=trace.end), trace)


# Refused


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("worker", "has no column worker"),
        ("read_time", "has no column read_time"),
        ("finish_time", 'it cannot be derived: if messages take no time to travel, give columns={"finish_time": '),
        ("receive_time", 'if messages take no time to travel, give columns={"receive_time": '),
        ("read_version", 'it cannot be derived: if workers read the newest version at their read_time'),
        ("apply_time", "has neither a column apply_time nor update"),
    ],
)  # fmt: skip
def test_what_cannot_be_derived_is_refused_by_name(column, says):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Trace.from_log(LOG.drop(columns=column))
    assert says in str(caught.value)


def test_an_empty_log_and_one_of_two_moments_are_refused():
    with pytest.raises(ValueError, match="has no rows: give at least one"):
        Trace.from_log(LOG.head(0))
    with pytest.raises(ValueError, match=r'give columns=\{"finish_time": "apply_time"\}'):
        Trace.from_log(LOG.drop(columns=["finish_time", "receive_time"]))


def test_one_column_may_stand_for_two_moments():
    found = Trace.from_log(LOG.drop(columns="receive_time"), columns={"receive_time": "finish_time"})
    assert found.column("receive_time")[:3].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"apply_time": [2.5, 2.5, np.nan, np.nan]}, "row 1 of {} has the apply_time of "
         "row 0 of {}: whether that is one update or two cannot be derived"),
        ({"update": [0, 2, -1, -1]}, "row 1 of {}: update = 2 is not allowed: give 1: no"),
        ({"update": [1, 0, -1, -1]}, "row 0 of {}: apply_time contradicts that of row 1"),
        ({"update": [0, 0, -1, -1]}, "row 1 of {}: apply_time contradicts that of row 0"),
        ({"update": [0, 1, 2, -1]}, "row 2 of {}: a message that was applied has no apply"),
        ({"staleness": [0, 0, -1, -1]}, "row 1 of {}: staleness = 0 is not allowed: give "
         "update - read_version, which is 1"),
        ({"read_version": [0, 0.5, 1, 2]}, "row 1 of {}: read_version = 0.5 is not"),
        ({"read_version": [0, -1, 1, 2]}, "row 1 of {}: read_version = -1"),
        ({"fate": ["used", "used", "gone", "pending"]}, "row 2 of {}: fate = 'gone' is"),
        ({"fate": ["pending"] * 4}, "row 0 of {}: fate = 'pending' is not allowed: give "
         "used, as it has an update"),
        ({"finish_time": [1.0, 2.0, np.nan, np.nan], "worker": [0, 1, 1, 1], "read_time": [0, 0, 2.25, 2.5],
          "receive_time": [1.125, 2.25, np.nan, np.nan]}, "row 2 of {}: the message was "
         "not finished, but its worker began another one"),
        ({"read_time": [0, 0, np.inf, 2]}, "row 2 of {}: read_time = inf"),
        ({"apply_time": [-1.0, 2.5, np.nan, np.nan]}, "row 0 of {}: apply_time = -1.0 is "
         "not allowed: give a time that is not before 0.0, the earliest read_time"),
        ({"read_version": [0, 0, 2, 2]}, "row 2 of the messages table breaks a law: a version is read "
         "only after it exists"),
        ({"finish_time": [1.5, 2.0, 3.0, np.nan]}, "row 0 of the messages table breaks a law: rece"),
        ({"worker": [0, 1, 1, 1]}, "row 2 of the messages table breaks a law: a worker computes one"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_by_row(changed, says):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Trace.from_log(LOG.assign(**changed))
    assert str(caught.value).startswith(says.format(*["the table of a log of messages"] * 2))


def test_a_law_that_a_file_breaks_names_its_line(tmp_path):
    file = tmp_path / "ps.csv"
    file.write_text(
        "# our server\n" + LOG.assign(read_version=[0, 0, 2, 2]).sample(frac=1, random_state=3).to_csv()
    )
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text.startswith("2,"))
    with pytest.raises(TraceError, match=rf"\(labelled line {line}\) of the messages table breaks a law"):
        Trace.from_log(file)


def test_units_are_questioned_and_options_checked():
    names = ["read_time", "finish_time", "receive_time", "apply_time"]
    slow = LOG.assign(**{name: LOG[name] * 1e6 for name in names})
    with pytest.raises(
        ValueError, match=r"the median time from read to finish is 1\.75e\+06 s, if read_time is in s"
    ):
        Trace.from_log(slow)
    assert_same(Trace.from_log(slow, unit="us"), Trace.from_log(LOG))
    stamps = slow.rename(columns={name: f"{name}_us" for name in names})
    assert_same(Trace.from_log(stamps), Trace.from_log(LOG))
    for options, says in (
        ({"per_update": 0}, "per_update = 0"),
        ({"read_version": "latest"}, "read_version = 'latest' is not allowed"),
        ({"resolution": -1}, "resolution = -1"),
        ({"columns": {"fate": "x"}}, "unknown column 'x'"),
    ):
        with pytest.raises(ValueError, match=says):
            Trace.from_log(LOG, **options)
    two = LOG.assign(apply_time=[2.5, 2.5, np.nan, np.nan], read_version=[0, 0, 0, 1])
    assert Trace.from_log(two, per_update=2).updates["messages"].tolist() == [2]
    assert Trace.from_log(two, per_update=1).updates["messages"].tolist() == [1, 1]
