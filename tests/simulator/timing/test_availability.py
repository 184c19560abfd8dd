"""Workers that leave and return: hand-made traces, every synchrony under random availability, renewal formulas."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad._core.specs import spec
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.policies.synchrony import (
    SSP,
    WAIT,
    Async,
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
from stalegrad.simulator import Experiment, Trace, TraceError, from_toml, run
from stalegrad.simulator.experiments.identity import Identity
from stalegrad.simulator.timing.availability import (
    AVAILABILITIES,
    Counts,
    Events,
    Renewal,
)
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Deterministic, Empirical, Exponential, Pareto, Uniform
from stalegrad.simulator.timing.engine import Engine, simulate
from stalegrad.simulator.timing.worker import Worker


def table(*rows, departure="lost"):
    """Return events from (time, worker, event)."""
    time, worker, event = zip(*rows, strict=True) if rows else ((), (), ())
    return Events(time, worker, event, departure=departure)


def timed(compute, *rows, departure="lost", **links):
    return Cluster(compute=list(compute), availability=table(*rows, departure=departure), **links)


def jobs(trace):
    """Return (worker, read version, read time, finish time, fate) of every message."""
    columns = ("worker", "read_version", "read_time", "finish_time", "fate")
    return list(zip(*(trace.column(name).tolist() for name in columns), strict=True))


# By hand


def test_a_worker_that_leaves_loses_its_job_and_reads_the_version_of_its_return():
    trace = simulate(timed([1.0, 1.5], (2.0, 1, "leave"), (3.25, 1, "join")), Async(), wallclock=5.0).verify()
    assert jobs(trace) == [
        (0, 0, 0.0, 1.0, "used"), (1, 0, 0.0, 1.5, "used"), (0, 1, 1.0, 2.0, "used"), (1, 2, 1.5, 2.0, "lost"),
        (0, 3, 2.0, 3.0, "used"), (0, 4, 3.0, 4.0, "used"), (1, 4, 3.25, 4.75, "used"), (0, 5, 4.0, 5.0, "used"),
        (1, 6, 4.75, pytest.approx(math.nan, nan_ok=True), "pending"),
    ]  # fmt: skip
    assert trace.absences.to_numpy().tolist() == [[1, 2.0, 3.25]]


def test_a_job_that_ends_as_its_worker_leaves_counts():
    trace = simulate(timed([1.0], (2.0, 0, "leave"), (2.5, 0, "join")), Async(), updates=3).verify()
    assert jobs(trace)[1:3] == [(0, 1, 1.0, 2.0, "used"), (0, 2, 2.0, 2.0, "lost")]  # it had begun the next one
    assert trace.update_times.tolist() == [1.0, 2.0, 3.5]


def test_a_departure_completes_a_round_and_a_joiner_counts_in_it():
    away = (2.5, 2, "leave"), (3.2, 2, "join")
    trace = simulate(timed([1.0, 1.2, 2.0], *away), Sync(), updates=3).verify()
    # Round 2 begins at 2; workers 0 and 1 are done at 3.2, while 2 is away; it returns after their messages.
    assert trace.update_times.tolist() == [2.0, 3.2, 5.2]
    assert trace.updates["messages"].tolist() == [3, 2, 3]
    trace = simulate(timed([1.0, 1.2, 2.0], (3.3, 2, "leave"), (3.7, 2, "join")), Sync(), updates=3).verify()
    assert trace.update_times.tolist() == [2.0, 3.3, 5.7]  # the departure at 3.3 makes update 2
    trace = simulate(timed([1.0, 1.2, 2.0], (2.5, 2, "leave"), (3.1, 2, "join")), Sync(), updates=2).verify()
    assert trace.update_times.tolist() == [2.0, 5.1]  # it is back before the round is over


def test_a_departure_makes_no_update_of_nothing():
    away = (0.5, 0, "leave"), (0.6, 1, "leave"), (2.0, 0, "join"), (2.0, 1, "join")
    trace = simulate(timed([1.0, 1.0], *away), Sync(), updates=1).verify()
    assert trace.update_times.tolist() == [3.0]
    assert [fate for *_, fate in jobs(trace)] == ["lost", "lost", "used", "used"]


def test_messages_of_those_that_have_left_count():
    trace = simulate(timed([1.0, 2.0], (1.5, 0, "leave")), KAsync(2), updates=1).verify()
    assert trace.update_times.tolist() == [2.0]
    assert trace.updates["messages"].tolist() == [2]


def test_to_wait_for_absent_workers_ends_the_run_and_the_trace_says_so():
    trace = simulate(timed([1.0, 1.0], (1.5, 0, "leave")), KAsync(2), updates=10).verify()
    assert len(trace.update_times) == 1
    assert trace.spec["ended"] == "waiting for absent workers"
    trace = simulate(timed([1.0, 1.0], (1.5, 0, "leave")), KAsync(2), wallclock=10.0).verify()
    assert "ended" not in trace.spec
    assert trace.end == 10.0
    with pytest.raises(ValueError, match=r"stands still at 1\.0 s: every worker waits"):
        simulate(timed([1.0, 1.0]), Waits(), updates=10)


@spec
class Waits(Synchrony):
    """Nobody is ever answered."""

    def serve(self, workers):
        event = yield WAIT
        while True:
            event = yield (Decision(apply=True) if event.worker == 1 else WAIT)


@pytest.mark.parametrize("synchrony", [KSync(2), KAsync(2), Sync()])
def test_a_second_gradient_of_a_worker_that_has_returned_does_not_count_in_the_same_round(synchrony):
    away = (1.5, 0, "leave"), (1.6, 0, "join")
    trace = simulate(timed([1.0, 4.0], *away), synchrony, updates=1).verify()
    assert trace.update_times.tolist() == [4.0]
    used = trace.messages[trace.messages.fate == "used"]
    assert used["worker"].tolist() == [0, 1]
    assert "discarded" in set(trace.messages["fate"])


def test_a_departure_lets_go_who_waits_for_the_slowest():
    trace = simulate(timed([1.0, 5.0], (3.0, 1, "leave")), SSP(1), updates=5).verify()
    # Worker 0 is two ahead at 2 s, and goes on as soon as worker 1 has left.
    assert trace.update_times.tolist() == [1.0, 2.0, 4.0, 5.0, 6.0]


def test_a_worker_that_returns_has_sent_as_many_as_the_slowest():
    away = (0.5, 1, "leave"), (4.5, 1, "join")
    trace = simulate(timed([1.0, 2.0], *away), SSP(0), updates=9).verify()
    # Alone, worker 0 sends 4; back at 4.5, worker 1 counts 4 too, and 0 may send its fifth and waits for it.
    assert trace.update_times.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 7.5, 8.5, 9.5]


def test_merges_shrink_to_those_that_are_there():
    away = (2.5, 1, "leave"), (7.5, 1, "join")
    trace = simulate(timed([1.0, 1.0], *away), DelayedAveraging(4), wallclock=14.0).verify()
    # Back at 7.5, worker 1 has a cycle at 9.5; worker 0 has held its own back since 8, and has the next at 10.
    assert trace.updates["messages"].tolist() == [2, 1, 1, 2, 2, 2]
    assert trace.update_times.tolist() == [2.0, 4.0, 6.0, 9.5, 11.5, 13.5]
    lost = trace.messages[trace.messages.fate == "lost"]
    assert lost[["worker", "read_time", "finish_time"]].to_numpy().tolist() == [[1, 2.0, 2.5]]


def test_a_drained_worker_finishes_and_sends_first():
    rows = (2.25, 0, "leave"), (5.0, 0, "join")
    trace = simulate(timed([1.0], *rows, departure="delivered"), Async(), updates=4).verify()
    assert trace.update_times.tolist() == [1.0, 2.0, 3.0, 6.0]
    assert trace.absences.to_numpy().tolist() == [[0, 3.0, 5.0]]
    trace = simulate(timed([1.0], (2.25, 0, "leave"), (2.5, 0, "join"), departure="delivered"), Async(), updates=4)
    assert trace.verify().update_times.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert trace.absences.empty  # it was asked to go and to stay before its job was done


@pytest.mark.parametrize("synchrony", [DelayedAveraging(4), DelayedAveragingGeneral(4), KBatchSync(3), SSP(1)])
def test_drained_workers_lose_nothing(synchrony):
    preempted = Renewal(up=Exponential(10.0), down=Exponential(4.0), departure="delivered")
    trace = simulate(Cluster(5, Exponential(1.0), availability=preempted), synchrony, updates=100).verify()
    assert len(trace.absences) > 10
    assert "lost" not in set(trace.messages["fate"])


def test_an_upload_survives_its_worker_and_a_model_on_its_way_does_not_reach_it():
    rows = (1.2, 0, "leave"), (1.6, 0, "join")
    trace = simulate(timed([1.0], *rows, uplink=0.5, downlink=0.5), Async(), updates=2).verify()
    # Sent at 1, received at 1.5; the answer is for nobody. Back at 1.6, it reads version 1 at once.
    assert jobs(trace) == [(0, 0, 0.0, 1.0, "used"), (0, 1, 1.6, 2.6, "used")]
    rows = (1.7, 0, "leave"), (1.8, 0, "join")
    trace = simulate(timed([1.0], *rows, uplink=0.5, downlink=0.5), Async(), updates=2).verify()
    assert jobs(trace) == [(0, 0, 0.0, 1.0, "used"), (0, 1, 1.8, 2.8, "used")]  # not at 2, when the model comes


def test_departures_come_after_messages_and_before_timeouts_and_returns_last():
    said = []

    @spec
    class Listens(Synchrony):
        membership = True

        def serve(self, workers):
            event = yield WAIT
            while True:
                said.append(f"{type(event).__name__} {getattr(event, 'worker', '')}".strip())
                event = yield Decision(wake_after=2.0, apply=event.__class__.__name__ == "Message")

    rows = (2.0, 0, "leave"), (1.0, 2, "leave"), (2.0, 2, "join")
    simulate(timed([2.0, 2.0, 5.0], *rows), Listens(), wallclock=2.5)
    first = ["Joined 0", "Joined 1", "Joined 2", "Left 2", "Message 0", "Message 1", "Left 0"]
    assert said[: len(first)] == first
    assert "Joined 2" in said[len(first) :]


def test_those_absent_at_the_start_are_told_before_anybody_joins():
    trace = simulate(timed([1.0, 1.0], (3.5, 1, "join")), Sync(), updates=5).verify()
    assert trace.update_times.tolist() == [1.0, 2.0, 3.0, 4.5, 5.5]
    assert trace.updates["messages"].tolist() == [1, 1, 1, 2, 2]
    assert trace.absences.to_numpy().tolist() == [[1, 0.0, 3.5]]


# Limits


@pytest.mark.parametrize(
    "synchrony", [Async(), KAsync(3), Sync(), SSP(1), DelayedAveragingGeneral(4), Sequential()]
)
@pytest.mark.parametrize("links", [{}, {"uplink": 0.1, "downlink": 0.3, "server": 0.05}])
def test_workers_that_never_leave_give_the_trace_of_a_cluster_without_availability(synchrony, links, same):
    plain = Cluster(5, Exponential(1.0), **links)
    never = Cluster(5, Exponential(1.0), availability=table(), **links)
    one, other = (simulate(cluster, synchrony, updates=200, seed=3) for cluster in (plain, never))
    other.spec = one.spec
    same(one, other)


def test_counts_are_the_lowest_workers():
    cluster = Cluster(4, compute=1.0, availability=Counts(time=[0.0, 2.5, 5.5], count=[2, 4, 1]))
    trace = simulate(cluster, Sync(), updates=8).verify()
    assert trace.updates["messages"].tolist() == [2, 2, 4, 4, 4, 1, 1, 1][: len(trace.updates)]
    assert set(trace.absences["worker"]) == {1, 2, 3}


# Every synchrony

ALL = [
    Async(), KAsync(2), KBatchAsync(3), Sync(), KSync(2), KBatchSync(3), SSP(0), SSP(2), DelayedAveraging(4),
    DelayedAveragingGeneral(3), Sequential(), Async(local_steps=3), KSync(2, local_steps=2),
]  # fmt: skip
GRIDDED = Empirical((0.5, 1.0, 1.5, 2.0))  # ties
PERIODS = [Exponential(4.0), GRIDDED, Uniform(0.5, 8.0)]


@given(
    synchrony=st.sampled_from(ALL),
    compute=st.sampled_from([Exponential(1.0), Deterministic(1.0), GRIDDED]),
    links=st.sampled_from(
        [{}, {"uplink": 0.5}, {"downlink": 0.5}, {"uplink": 0.3, "downlink": 0.2, "server": 0.1}]
    ),
    up=st.sampled_from(PERIODS),
    down=st.sampled_from(PERIODS),
    start=st.sampled_from(["up", "stationary"]),
    departure=st.sampled_from(["lost", "delivered"]),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=150, deadline=None)
def test_every_synchrony_under_random_availability(synchrony, compute, links, up, down, start, departure, seed):
    preempted = Renewal(up, down, start, departure=departure)
    cluster = Cluster(4, compute, availability=preempted, **links)
    engine = Engine(cluster, synchrony, budget := budget_of(60.0), seed)
    begun = []
    original = Worker.compute

    def compute_and_count(worker):
        begun.append(engine.now)
        original(worker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "compute", compute_and_count)
        trace = engine.run().verify()
    assert budget.wallclock == trace.end
    assert (trace.column("read_time") < trace.end).sum() == sum(time < trace.end for time in begun)
    assert set(trace.messages["fate"]) <= {"used", "discarded", "cancelled", "lost", "pending"}
    if departure == "delivered":
        assert "lost" not in set(trace.messages["fate"])
    if isinstance(synchrony, Sync | DelayedAveraging | DelayedAveragingGeneral) and not cluster.server:
        everybody_there_contributes(trace)
    if isinstance(synchrony, KSync | KAsync):
        used = trace.messages[trace.messages.fate == "used"]
        assert not used.duplicated(["update", "worker"]).any()
        assert (trace.updates["messages"] == synchrony.k).all()


def budget_of(wallclock):
    return Budget(wallclock=wallclock)


def everybody_there_contributes(trace):
    """Who is there when an update is made, and was just before, is in it."""
    used = trace.messages[trace.messages.fate == "used"]
    away_from, back = trace.absences["leave_time"], trace.absences["return_time"]
    for update, time in enumerate(trace.update_times):
        away = trace.absences["worker"][(away_from <= time) & ~(back < time)]
        there = set(range(trace.workers)) - set(away)
        assert there <= set(used[used["update"] == update]["worker"])


def test_a_run_that_is_advanced_piece_by_piece_is_the_same(same):
    cluster = Cluster(4, Exponential(1.0), availability=Renewal(Exponential(5.0), Exponential(2.0)), uplink=0.2)
    whole = simulate(cluster, KAsync(2), wallclock=40.0, seed=5)
    engine = Engine(cluster, KAsync(2), budget_of(40.0), 5)
    for time in np.arange(0.7, 41.0, 0.7):
        if engine.advance(float(time)):
            break
    same(whole, engine.trace())


# Renewal formulas (spec 7, F2)


def test_presence_rate_and_jobs_of_memoryless_workers():
    """Exponential compute: a lost job costs nothing on average, so gradients come at N A / m."""
    up, down, mean, workers = 12.0, 5.0, 0.7, 200
    preempted = Renewal(Exponential(up), Exponential(down), start="stationary")
    trace = simulate(Cluster(workers, Exponential(mean), availability=preempted), Async(), wallclock=400.0, seed=1)
    away = trace.absences["return_time"].fillna(trace.end) - trace.absences["leave_time"]
    share = 1 - away.groupby(trace.absences["worker"]).sum().reindex(range(workers), fill_value=0.0) / trace.end
    expected = preempted.share()
    assert expected == pytest.approx(up / (up + down))
    assert abs(share.mean() - expected) < 3 * share.std() / math.sqrt(workers)
    used = trace.messages[trace.messages.fate == "used"].groupby("worker").size() / trace.end
    assert abs(used.mean() - expected / mean) < 3 * used.std() / math.sqrt(workers)


def test_rate_of_deterministic_jobs_under_exponential_up_times():
    """Completed jobs per up-period: 1 / (exp(lambda c) - 1)."""
    up, down, compute, workers = 6.0, 3.0, 2.0, 200
    preempted = Renewal(Exponential(up), Uniform(1.0, 5.0))
    cluster = Cluster(workers, Deterministic(compute), availability=preempted)
    trace = simulate(cluster, Async(), wallclock=1_000.0, seed=2)
    rate = 1 / math.expm1(compute / up) / (up + down)
    used = trace.messages[trace.messages.fate == "used"].groupby("worker").size() / trace.end
    assert abs(used.mean() - rate) < 3 * used.std() / math.sqrt(workers)


@pytest.mark.parametrize("up", [Exponential(3.0), Uniform(0.0, 6.0), Deterministic(3.0)])
def test_the_stationary_state_is_stationary(up):
    """Shares of presence are the same at every moment, from the first on."""
    preempted = Renewal(up, Exponential(1.5), start="stationary")
    workers = 4_000
    there = {0.0: 0, 0.8: 0, 2.0: 0, 7.0: 0}
    for worker in range(workers):
        present, changes = preempted.presence(worker, workers, np.random.default_rng([5, worker]))
        change = next(changes)
        for time in there:
            while change <= time:
                present, change = not present, next(changes)
            there[time] += present
    share = preempted.share()
    for time, count in there.items():
        assert abs(count / workers - share) < 4 * math.sqrt(share * (1 - share) / workers), time


# Values


def test_an_availability_round_trips_through_toml_and_counts_in_the_key(tmp_path):
    experiment = Experiment(
        Problem("softmax-regression", "fashion-mnist-small"),
        Cluster(32, Exponential(1.0)),
        methods.async_(),
        updates=9,
    )
    kinds = [
        Renewal(Exponential(5.0), Pareto(2.5), "stationary", departure="delivered"),
        Events.measured("spot-p3"),
        Counts([0.0, 5.0], [3, 1]),
    ]
    keys = {Identity.of(experiment).key}
    for kind in kinds:
        one = experiment.but(cluster=Cluster(32, Exponential(1.0), availability=kind))
        again = from_toml(one.to_toml())
        assert again.cluster.availability == kind
        assert hash(again.cluster) == hash(one.cluster)
        keys.add(Identity.of(again).key)
    assert len(keys) == 4
    assert set(AVAILABILITIES) == {"renewal", "events", "counts"}
    result = run(experiment.but(cluster=Cluster(32, Exponential(1.0), availability=kinds[0])), progress=False)
    stored = type(result).load(result.save(tmp_path / "result"))
    assert stored.trace.absences.equals(result.trace.absences)


def test_a_trace_with_absences_is_stored(tmp_path, same):
    preempted = Renewal(Exponential(5.0), Exponential(2.0))
    trace = simulate(Cluster(4, Exponential(1.0), availability=preempted), Async(), updates=100)
    loaded = Trace.load(trace.save(tmp_path / "trace"))
    same(trace, loaded)
    assert loaded.absences.equals(trace.absences)
    assert len(trace.absences) > 3


def test_idle_and_waste_are_shares_of_the_time_that_a_worker_is_there():
    trace = simulate(timed([1.0, 1.0], (2.5, 1, "leave"), (6.0, 1, "join")), Async(), wallclock=8.0)
    busy = trace.busy()
    assert busy["idle"].tolist() == pytest.approx([0.0, 0.0])
    assert busy["wasted"].tolist() == pytest.approx([0.0, 0.5 / 4.5])


def test_spot_traces_come_with_the_package():
    for name, workers, rows in (("spot-p3", 32, 344), ("spot-g4dn", 24, 153)):
        kind = Events.measured(name)
        assert (kind.workers, len(kind.time)) == (workers, rows)
    with pytest.raises(ValueError, match="Did you mean 'spot-p3'"):
        Events.measured("spot-p4")


def test_machines_take_the_lowest_worker_that_is_free(tmp_path):
    file = tmp_path / "spot.csv"
    file.write_text("# ms, event, machine\n0,add,a\n0,add,b\n1500,remove,a\n\n2000,add,c\n2500,add,d\n")
    kind = Events.read(file)
    assert kind.worker == (0, 1, 0, 0, 2)
    assert kind.time == (0.0, 0.0, 1.5, 2.0, 2.5)
    assert kind.event == ("join", "join", "leave", "join", "join")
    file.write_text("event,time,worker\nleave,3.5,1\njoin,4,1\n")
    assert Events.read(file, departure="delivered") == table(
        (3.5, 1, "leave"), (4.0, 1, "join"), departure="delivered"
    )


EVENTS = pd.DataFrame({"time": [0.0, 0.0, 1.5, 2.0, 2.5], "node": list("abacd"),
                       "event": ["join", "join", "leave", "join", "join"]})  # fmt: skip


@pytest.mark.parametrize("form", ["frame", "csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("stamps", ["s", "ms", "ISO"])
def test_events_are_read_whatever_their_form(tmp_path, form, stamps):
    log, expected = EVENTS, ((0.0, 0.0, 1.5, 2.0, 2.5), (0, 1, 0, 0, 2))
    if stamps == "ms":
        log = log.assign(time=log["time"] * 1000).rename(columns={"time": "timestamp (ms)"})
    if stamps == "ISO":
        log = log.assign(time=[f"2026-03-01T10:00:0{t}Z" for t in log["time"]])
    log = log.iloc[[3, 0, 4, 1, 2]]
    if form == "parquet":
        log.to_parquet(tmp_path / "log.parquet")
    elif form != "frame":
        log.to_csv(tmp_path / f"log.{form}", index=False)
    kind = Events.read(log if form == "frame" else tmp_path / f"log.{form}")
    assert (kind.time, kind.worker) == expected
    assert kind.event == ("join", "join", "leave", "join", "join")


def test_the_absences_of_a_simulation_are_read_again_from_a_log(tmp_path):
    drawn = simulate(Cluster(4, Exponential(1.0), availability=Renewal(5.0, 2.0, "up")), Async(), wallclock=60.0)
    away = drawn.absences
    log = pd.concat([
        pd.DataFrame({"time": away["leave_time"], "worker": away["worker"], "event": "leave"}),
        pd.DataFrame({"time": away["return_time"], "worker": away["worker"], "event": "join"}).dropna(),
    ])  # fmt: skip
    log.to_csv(tmp_path / "events.csv", index=False)
    again = simulate(Cluster(4, Exponential(1.0), availability=Events.read(tmp_path / "events.csv")), Async(),
                     wallclock=60.0)  # fmt: skip
    pd.testing.assert_frame_equal(again.messages, drawn.messages)
    pd.testing.assert_frame_equal(again.absences, drawn.absences)


def test_counts_are_read_from_json(tmp_path):
    file = tmp_path / "counts.json"
    file.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": [3, 3, 0, 2]}))
    assert Counts.read(file) == Counts((0.0, 1200.0, 1800.0), (3, 0, 2))


NO_TIME = Cluster(2, availability=Renewal(0.0, 1.0))
WRONG = [
    (
        lambda: timed([1.0], (1.0, 0, "join"), (2.0, 0, "join")),
        "row 1 of events: worker 0 cannot join at 2.0 s: it has been present since row 0, 1.0 s",
    ),
    (
        lambda: timed([1.0], (3.0, 0, "leave"), (2.0, 0, "leave")),
        "row 0 of events: worker 0 cannot leave at 3.0 s: it has been absent since row 1, 2.0 s",
    ),
    (
        lambda: timed([1.0], (1.0, 0, "leave"), (1.0, 0, "join")),
        "worker 0 joins and leaves at the same time, 1.0 s",
    ),
    (lambda: timed([1.0], (1.0, 1, "leave")), "row 0 of events: worker 1 is unknown: the cluster"),
    (lambda: timed([1.0, 1.0], (0.0, 0, "leave"), (0.0, 1, "leave")), "all workers are always absent"),
    (lambda: table((1.0, 0, "gone")), r"event of events .* 'join' or 'leave'"),
    (lambda: table((math.nan, 0, "join")), "time of events"),
    (lambda: table((-1.0, 0, "join")), "time of events"),
    (lambda: Events((1.0,), (0, 1), ("join",)), "time, worker and event of events differ in length"),
    (lambda: Counts((0.0,), (0,)), "all workers are always absent"),
    (lambda: Counts((1.0,), (1,)), "row 0 of counts has time 1.0: the first count is that at 0 s"),
    (lambda: Counts((0.0, 2.0, 2.0), (1, 2, 3)), "row 2 of counts has time 2.0, not after 2.0"),
    (
        lambda: Cluster(2, availability=Counts((0.0,), (3,))),
        "row 0 of counts = 3 is not allowed: the cluster has 2 workers",
    ),
    (lambda: Renewal(Exponential(1.0), -1.0), "down of renewal"),
    (lambda: Renewal(Pareto(0.9), 1.0, "stationary"), "up of renewal has the mean inf s"),
    (lambda: Renewal(lambda rng, size: np.ones(size), 1.0, "stationary"), "which its stationary state needs"),
    (lambda: Cluster(2, join=[0.0, 1.0], availability=table()), "takes join or availability, not both"),
    (lambda: Cluster(2, availability=0.5), "availability of cluster = 0.5 is not allowed"),
    (lambda: Cluster(2, availability={"availability": "renewel"}), "Did you mean 'renewal'"),
    (lambda: simulate(NO_TIME, Async(), updates=9), "availability of worker 0 drew a period of 0.0 s"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_what_cannot_be_is_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


FILES = [
    ("", "has no events"),
    ("0,add,a\n0,add,a\n", "line 2: 'a' is added, but it is present already"),
    ("0,remove,a\n", "line 1: 'a' is removed, but it is not present"),
    ("5,add,a\n1,add,b\n", "line 2: 1 ms is before the line above"),
    ("x,add,a\n", "milliseconds in .*, line 1 = 'x'"),
    ("0,added,a\n", "line 1: unknown event 'added'. Did you mean 'add'"),
    ("0,add\n", "line 1: '0,add' has 2 columns: give 3"),
    (
        "time,worker\n1,2\n",
        "has no column event, but time, worker: give a table with the columns time, worker and",
    ),
    ("time,worker,event\n1,,join\n", "line 2: worker = '' is not allowed: give a number or a name"),
    ("time,worker,event\nnan,1,join\n", "line 2: time = 'nan' is not allowed"),
    ("time,worker,event\n-1,1,join\n", "line 2: time = '-1' is not allowed: give a time that is not before 0"),
    ("time,worker,event\n1,1,join\n2,1,gone\n", "line 3: unknown event 'gone'"),
    ("time,node,event\n5,a,leave\n", "line 2: 'a' is removed, but it is not present"),
    (
        "time,worker,event\n1.7e12,1,join\n",
        'time reaches 1.7e\\+12, which is implausible for seconds: give unit="ms"',
    ),
]


@pytest.mark.parametrize(("text", "said"), FILES, ids=[said[:20] for _, said in FILES])
def test_a_file_that_cannot_be_read_names_the_line(tmp_path, text, said):
    (tmp_path / "events.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        Events.read(tmp_path / "events.csv")


@pytest.mark.parametrize("text", ["[]", '{"data": [1]}', '{"metadata": {"gap_seconds": 1}, "data": [1, -1]}', "{"])
def test_counts_that_cannot_be_read_name_what_is_wrong(tmp_path, text):
    (tmp_path / "counts.json").write_text(text)
    with pytest.raises(ValueError, match=r"counts\.json"):
        Counts.read(tmp_path / "counts.json")


ABSENT = {"worker": [1], "leave_time": [0.5], "return_time": [0.7]}


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        ({}, "a worker computes only while it is present"),
        ({"worker": [2]}, "worker is at least 0 and below 2"),
        ({"leave_time": [2.0], "return_time": [1.95]}, "leave_time <= return_time"),
        ({"leave_time": [-1.0]}, "leave_time is finite and at least 0"),
        ({"leave_time": [9.0], "return_time": [math.nan]}, "leave_time is not after the end"),
        (
            {"worker": [1, 1], "leave_time": [1.95, 1.96], "return_time": [math.nan, math.nan]},
            "a worker that is absent does not leave again",
        ),
    ],
)
def test_absences_obey_laws(measured, changed, law):
    trace = measured()
    absences = ABSENT | changed
    with pytest.raises(TraceError, match=f"breaks a law: {law}"):
        Trace(trace.messages, trace.updates, workers=2, absences=absences).verify()
    later = {"worker": [1], "leave_time": [2.0], "return_time": [math.nan]}
    Trace(trace.messages, trace.updates, workers=2, absences=later).verify()


def test_a_message_is_lost_only_to_a_departure(measured):
    trace = measured(fate=["used", "used", "lost"], finish_time=[0.9, 1.9, 1.5])
    with pytest.raises(TraceError, match="a message is lost only if its worker leaves after it"):
        trace.verify()
    away = {"worker": [0], "leave_time": [1.5], "return_time": [math.nan]}
    Trace(trace.messages, trace.updates, workers=2, absences=away).verify()
