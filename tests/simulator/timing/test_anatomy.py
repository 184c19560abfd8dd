"""The anatomy of staleness against a slow double loop, traces made by hand, and closed forms."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import (
    AWAIT,
    SEND,
    SSP,
    WAIT,
    Async,
    Compute,
    Decision,
    DelayedAveraging,
    DelayedAveragingGeneral,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Sequential,
    Sync,
    Synchrony,
)
from stalegrad.simulator.timing.anatomy import FATES, PARTS
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import MESSAGE_COLUMNS, UPDATE_COLUMNS, Fate, TraceError
from stalegrad.simulator.timing.delays import Empirical, Exponential, Gamma, Uniform
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

# The slow twin: the definition, message by message and update by update


def slow_parts(trace):
    """Return (before reading, computing, travelling, waiting) of every used message, by gradient id."""
    found, times = [], trace.update_times.tolist()
    for row in trace.messages.iloc[trace.used].itertuples():
        counts = [0, 0, 0, 0]
        for i in range(row.read_version, row.update):
            e = times[i]
            if e <= row.read_time:
                counts[0] += 1
            elif e <= row.finish_time:
                counts[1] += 1
            elif e <= row.receive_time:
                counts[2] += 1
            else:
                counts[3] += 1
        found.append(tuple(counts))
    return found


def slow_speed(jobs):
    """Return gradients per second, and whether that is an upper bound, of (seconds, steps, ended) of jobs.

    Kaplan and Meier as in a textbook: at every time at which jobs end, the share that takes longer falls by the
    share of those at risk that end.
    """
    times = sorted({seconds / steps for seconds, steps, _ in jobs})
    share, area, now = 1.0, 0.0, 0.0
    for time in times:
        area, now = area + share * (time - now), time
        at_risk = sum(steps for seconds, steps, _ in jobs if seconds / steps >= time)
        ending = sum(steps for seconds, steps, ended in jobs if ended and seconds / steps == time)
        share *= 1.0 - ending / at_risk
    longest = [ended for seconds, steps, ended in jobs if seconds / steps == times[-1]] if times else [True]
    return (1.0 / area if area > 0 else math.nan), not all(longest)


def slow_worker(trace, workers):
    """Return the columns of the table for some workers together."""
    rows = trace.messages[trace.messages.worker.isin(workers)]
    parts = [p for p, w in zip(slow_parts(trace), trace.column("worker")[trace.used], strict=True) if w in workers]
    means = [sum(part) / len(parts) if parts else math.nan for part in zip(*parts, strict=True)] or [math.nan] * 4
    row = dict(zip(PARTS, means, strict=True))
    row |= {"messages": len(parts), "staleness": sum(means), "pre_queue": sum(means[:3]), "in_queue": means[3]}
    gradients, seconds, jobs = dict.fromkeys(FATES, 0), dict.fromkeys(FATES, 0.0), []
    for message in rows.itertuples():
        end = trace.end if math.isnan(message.finish_time) else min(message.finish_time, trace.end)
        spent = max(end - message.read_time, 0.0)
        ended = message.finish_time <= trace.end and message.fate in ("used", "discarded", "pending")
        jobs.append((spent, message.steps, ended))
        if message.fate != "pending":
            gradients[message.fate] += message.steps
            seconds[message.fate] += spent
    closed, work = sum(gradients.values()), sum(seconds.values())
    row |= {"gradients": closed, "effective": gradients["used"]}
    row |= {fate: count / closed if closed else math.nan for fate, count in gradients.items()}
    row["work_used"] = seconds["used"] / work if work else math.nan
    row["speed"], row["at_most"] = slow_speed(jobs)
    return row


def assert_same_rows(table, expected):
    """Compare rows of a table with dictionaries of all its columns."""
    expected = pd.DataFrame(expected)[list(table.columns)]
    np.testing.assert_allclose(table.to_numpy(float), expected.to_numpy(float), rtol=1e-9, atol=1e-12)


# Random simulations


@dataclass(frozen=True)
class Impatient(Async):
    """Gives up a gradient that takes more than a second."""

    def work(self, worker):
        trial = Compute(self.local_steps, at_most=1.0)
        while True:
            while not (yield trial):
                pass
            yield SEND
            while worker.unanswered:
                yield AWAIT


@dataclass(frozen=True)
class AnyTwo(Synchrony):
    """Every second message is discarded, its worker goes on at what it holds; jobs are cancelled at updates."""

    def serve(self, workers):
        event = yield WAIT
        while True:
            event = yield Decision(keep=False, send=[event.worker])
            event = yield Decision(apply=True, send=range(workers), cancel=range(0, workers, 2))


seconds = st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0])
steps = st.integers(1, 3)
synchronies = st.one_of(
    *(st.builds(kind, local_steps=steps) for kind in (Sync, Async, Impatient, AnyTwo)),
    *(st.builds(kind, st.integers(1, 3), local_steps=steps) for kind in (KSync, KBatchSync, KAsync, KBatchAsync)),
    st.builds(SSP, st.integers(0, 2), local_steps=steps),
    st.builds(DelayedAveraging, st.sampled_from([2, 4, 6])),
    st.builds(DelayedAveragingGeneral, st.integers(1, 5)),
    st.just(Sequential()),
)


@st.composite
def traces(draw) -> Trace:
    synchrony = draw(synchronies)
    workers = 1 if isinstance(synchrony, Sequential) else draw(st.integers(3, 6))
    law = st.sampled_from([1.0, 0.5, Exponential(1.0), Gamma(1.0, 0.2), Empirical((0.5, 1.0, 2.0))])
    cluster = Cluster(
        workers,
        draw(law | st.lists(law, min_size=workers, max_size=workers)),
        uplink=draw(seconds), downlink=draw(seconds), server=draw(seconds),
        join=draw(st.none() | st.lists(seconds, min_size=workers, max_size=workers)),
    )  # fmt: skip
    budget = {"updates": 25} if draw(st.booleans()) else {"wallclock": draw(st.sampled_from([0.1, 2.0, 15.0]))}
    return simulate(cluster, synchrony, seed=draw(st.integers(0, 1000)), **budget)


@settings(deadline=None, max_examples=400)
@given(trace=traces())
def test_parts_are_those_of_the_definition_and_add_up(trace):
    table = trace.anatomy().messages
    assert [tuple(row) for row in table[list(PARTS)].to_numpy()] == slow_parts(trace)
    assert (table[list(PARTS)].sum(axis=1) == trace.staleness).all()
    assert (table["staleness"] == trace.staleness).all()
    assert (table["pre_queue"] + table["in_queue"] == trace.staleness).all()
    assert (table["worker"] == trace.column("worker")[trace.used]).all()
    assert (table.dtypes.drop("worker") == np.int64).all()


@settings(deadline=None, max_examples=200)
@given(trace=traces(), most=st.integers(1, 6))
def test_tables_are_those_of_a_loop_over_messages(trace, most):
    anatomy, everybody = trace.anatomy(), range(trace.workers)
    assert_same_rows(anatomy.workers, [slow_worker(trace, [w]) for w in everybody])
    pooled = slow_worker(trace, everybody)
    assert_same_rows(anatomy.pooled.to_frame().T, [pooled])
    table = anatomy.table(most)
    assert table.index[-1] == "all"
    if trace.workers <= most:
        assert table.index[:-1].tolist() == [str(w) for w in everybody]
        groups = [[w] for w in everybody]
    else:
        order = sorted(everybody, key=lambda w: (np.nan_to_num(anatomy.workers.speed[w], nan=math.inf), w))
        groups = [[w for r, w in enumerate(order) if r * most // trace.workers == g] for g in range(most)]
    assert_same_rows(table, [*(slow_worker(trace, group) for group in groups), pooled])


def test_shares_follow_the_fates():
    assert set(FATES) == {str(fate) for fate in Fate} - {"pending"}
    trace = simulate(Cluster(4, Exponential(1.0)), AnyTwo(), updates=50)
    anatomy = trace.anatomy()
    np.testing.assert_allclose(anatomy.workers[list(FATES)].sum(axis=1), 1.0)
    assert (anatomy.workers[list(FATES)] > 0).any().sum() >= 3
    assert anatomy.pooled["effective"] == trace.updates.gradients.sum()


# By hand


@pytest.fixture
def by_hand() -> Trace:
    """Return a trace whose last used message lives through all four parts, two of them at a tie."""
    rows = [
        (0, 0, 0.0, 1.0, 1.0, 0, 0, 1, "used"),
        (1, 0, 0.0, 3.0, 3.0, -1, -1, 2, "discarded"),
        (0, 1, 1.0, 2.0, 2.0, 1, 0, 1, "used"),
        # Read when update 0 was just made, computing at 2.0, received when update 2 is made, used at 5.0.
        (2, 0, 1.0, 2.5, 3.0, 4, 4, 1, "used"),
        (0, 2, 2.0, 3.0, 3.0, 2, 0, 1, "used"),
        (2, 1, 2.5, 4.0, math.nan, -1, -1, 1, "cancelled"),
        (0, 3, 3.0, 4.0, 4.0, 3, 0, 1, "used"),
        (1, 3, 3.0, math.nan, math.nan, -1, -1, 1, "pending"),
    ]
    updates = {"time": [1.0, 2.0, 3.0, 4.0, 5.0], "messages": [1] * 5, "gradients": [1] * 5}
    return Trace(pd.DataFrame(rows, columns=list(MESSAGE_COLUMNS)), updates, workers=4)


def test_figures_by_hand(by_hand):
    anatomy = by_hand.anatomy()
    assert anatomy.messages[list(PARTS)].to_numpy().tolist() == [[0, 0, 0, 0]] * 4 + [[1, 1, 1, 1]]
    assert anatomy.messages[["pre_queue", "in_queue"]].to_numpy().tolist()[-1] == [3, 1]
    workers = anatomy.workers
    assert workers.messages.tolist() == [4, 0, 1, 0]
    assert workers.gradients.tolist() == [4, 2, 2, 0]
    assert workers.effective.tolist() == [4, 0, 1, 0]
    np.testing.assert_array_equal(workers.staleness, [0.0, math.nan, 4.0, math.nan])
    np.testing.assert_array_equal(workers.used, [1.0, 0.0, 0.5, math.nan])
    np.testing.assert_array_equal(workers.discarded, [0.0, 1.0, 0.0, math.nan])
    np.testing.assert_array_equal(workers.cancelled, [0.0, 0.0, 0.5, math.nan])
    np.testing.assert_array_equal(workers.work_used, [1.0, 0.0, 0.5, math.nan])
    # Worker 1: two gradients of 1.5 s each, a third is cut off after 2 s: 1.5 s + 1/3 of 0.5 s. Worker 2: its jobs
    # took 1.5 s, and at least 1.5 s.
    np.testing.assert_allclose(workers.speed, [1.0, 1 / (1.5 + 0.5 / 3), 1 / 1.5, math.nan])
    assert workers.at_most.tolist() == [False, True, True, False]
    assert anatomy.pooled["staleness"] == 4 / 5
    assert [anatomy.pooled[name] for name in PARTS] == [0.2] * 4
    assert (anatomy.pooled["used"], anatomy.pooled["discarded"], anatomy.pooled["cancelled"]) == (
        5 / 8,
        2 / 8,
        1 / 8,
    )
    assert anatomy.pooled["work_used"] == 5.5 / 10.0


def test_it_says_itself_in_a_line(by_hand):
    assert repr(by_hand.anatomy()) == (
        "Anatomy(mean staleness 0.8 = 0.2 before reading + 0.2 computing + 0.2 travelling + 0.2 waiting)"
    )
    assert "<table" in by_hand.anatomy()._repr_html_()


def test_an_update_of_the_instant_of_a_read_counts_as_before_reading():
    # At 2.0 worker 0 reads version 2; worker 1's message makes version 3 at that very instant, after it.
    trace = simulate(Cluster(compute=[1.0, 2.0]), Async(), updates=6)
    table = trace.anatomy().messages
    assert table.worker.tolist() == [0, 0, 1, 0, 0, 1]
    assert table.before_reading.tolist() == [0, 0, 0, 1, 0, 0]
    assert table.computing.tolist() == [0, 0, 2, 0, 0, 2]


# Closed forms


@pytest.mark.parametrize("synchrony", [Async(), Async(local_steps=3), KAsync(2), KBatchAsync(3), SSP(1)], ids=repr)
def test_where_links_and_server_take_no_time_all_staleness_is_computing(synchrony):
    pooled = simulate(Cluster(5, Gamma(1.0, 0.4)), synchrony, updates=500).anatomy().pooled
    assert pooled["computing"] == pooled["staleness"] > 0.5
    assert pooled["before_reading"] == pooled["travelling"] == pooled["waiting"] == 0


def test_asynchronous_staleness_is_shared_out_as_the_time_of_a_cycle():
    # Others update independently of where a worker is in its cycle: N - 1 in all, in proportion to the seconds.
    down, mean, up, workers = 0.5, 1.0, 0.25, 6
    cluster = Cluster(workers, Exponential(mean), uplink=up, downlink=down)
    pooled = simulate(cluster, Async(), updates=100_000, seed=1).anatomy().pooled
    share = (workers - 1) / (down + mean + up)
    found = [pooled[name] for name in PARTS]
    np.testing.assert_allclose(found, [share * down, share * mean, share * up, 0.0], rtol=0.01)
    assert pooled["staleness"] == pytest.approx(workers - 1, rel=1e-3)


def test_a_busy_server_lets_messages_wait():
    # Four workers, one second of computing, one of serving: the server is never idle, a cycle is 4 s. Of the three
    # updates in between the first is made when the gradient is finished, two while it waits.
    trace = simulate(Cluster(4, 1.0, server=1.0), Async(), updates=200)
    steady = trace.anatomy().messages.iloc[10:]
    assert (steady[list(PARTS)] == [0, 1, 0, 2]).all(axis=None)


@settings(deadline=None, max_examples=100)
@given(
    synchrony=st.sampled_from([Async(), KAsync(2), KBatchAsync(3), SSP(1), DelayedAveragingGeneral(3)]),
    up=seconds, down=seconds, seed=st.integers(0, 100),
)  # fmt: skip
def test_messages_wait_only_for_a_server_that_takes_time(synchrony, up, down, seed):
    # All messages kept are in the next update: no other one is made between receipt and use.
    cluster = Cluster(4, Empirical((0.5, 1.0, 2.0)), uplink=up, downlink=down)
    assert not simulate(cluster, synchrony, updates=60, seed=seed).anatomy().messages.waiting.any()


def test_nothing_cut_off_means_speed_is_gradients_over_seconds():
    trace = simulate(Cluster(5, Exponential(1.0), speeds=Uniform(0.5, 2.0), uplink=0.3), Async(), updates=400)
    done = trace.messages[trace.messages.finish_time.notna()]
    cut = trace.messages[trace.messages.finish_time.isna()]
    rates = len(done) / (done.finish_time - done.read_time).sum()
    without = Trace(done, trace.updates, workers=5, end=trace.end).anatomy()
    assert without.pooled["speed"] == pytest.approx(rates, rel=1e-9)
    assert not without.pooled["at_most"]
    assert len(cut) > 0


def test_slow_workers_are_dropped_in_k_sync_and_not_in_async():
    speeds = [0.5, 0.75, 1.0, 1.5, 2.0]
    cluster = Cluster(compute=[Gamma(1.0, 0.5)] * 5, speeds=speeds)
    rounds = simulate(cluster, KSync(3), updates=2000).anatomy().workers
    assert rounds.work_used.is_monotonic_increasing
    assert rounds.speed.is_monotonic_increasing
    assert rounds.work_used[0] < 0.2 < 0.8 < rounds.work_used[4]
    assert (simulate(cluster, Async(), updates=2000).anatomy().workers.work_used == 1.0).all()
    # What is cut off does not make a worker look faster than it is, where the longest jobs are seen.
    np.testing.assert_allclose(rounds.speed[3:], speeds[3:], rtol=0.03)


# What is given


def test_measured_traces_from_parquet_have_the_same_anatomy(by_hand, trace, tmp_path):
    for number, one in enumerate((by_hand, trace)):
        loaded = Trace.load(one.save(tmp_path / str(number)))
        pd.testing.assert_frame_equal(loaded.anatomy().messages, one.anatomy().messages)
        pd.testing.assert_frame_equal(loaded.anatomy().workers, one.anatomy().workers)


def test_times_that_contradict_one_another_by_rounding_still_add_up(measured):
    # The second message is received, by its rounded time, before it is finished, and finished after update 0.
    trace = measured(finish_time=[0.9, 1.105, math.nan], receive_time=[1.0, 1.095, math.nan], resolution=0.01)
    table = trace.anatomy().messages
    assert table[list(PARTS)].to_numpy().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]


def test_a_trace_that_cannot_have_happened_is_refused(measured):
    with pytest.raises(TraceError, match="a version is read only after it exists"):
        measured(read_time=[0.0, 0.0, 1.0]).anatomy()


def test_without_messages_or_without_used_ones_there_is_an_answer():
    nothing, nobody = (
        Trace({name: [] for name in MESSAGE_COLUMNS}, {name: [] for name in UPDATE_COLUMNS}, workers=workers)
        for workers in (2, 0)
    )
    early = simulate(Cluster(3, 1.0), Async(), wallclock=0.5)
    for trace in (nothing, early):
        anatomy = trace.anatomy()
        assert len(anatomy.messages) == 0
        assert anatomy.workers[["messages", "gradients", "effective"]].to_numpy().sum() == 0
        assert anatomy.workers[["staleness", *PARTS, *FATES, "work_used"]].isna().all(axis=None)
        assert len(anatomy.table()) == trace.workers + 1
        assert len(anatomy.table(1)) == 2
        assert "nan" in repr(anatomy)
    assert nothing.anatomy().workers.speed.isna().all()
    # Half a second was not enough: a gradient per half second at most.
    assert early.anatomy().workers.speed.tolist() == [2.0] * 3
    assert early.anatomy().workers.at_most.all()
    assert nobody.anatomy().table().index.tolist() == ["all"]
