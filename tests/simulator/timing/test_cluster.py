"""Workers of many kinds: speeds, joins, links and the server, each time worked out by hand; and wrong input."""

import math
import random
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from stalegrad._core.delay import BLOCK
from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import TraceError
from stalegrad.simulator.timing.delays import Deterministic, Exponential, TwoLevelGamma, Uniform
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.streams import Purpose, stream

NAN = math.nan


def first_times(cluster: Cluster, seed: int, worker: int, count: int = 600) -> list[float]:
    return list(islice(cluster.compute_times(seed, worker), count))


def rows(trace) -> list[tuple]:
    """Every message as (worker, read_version, read_time, finish_time, receive_time, update, staleness, fate)."""
    table = trace.messages.drop(columns="steps").astype(object)
    return [tuple(None if v != v else v for v in row) for row in table.itertuples(index=False)]


# Links and server, worked out by hand: uplink 0.5 s, server 0.25 s a message, downlink 1 s

LINKS = {"uplink": 0.5, "server": 0.25, "downlink": 1.0}


def test_async_with_links_and_a_busy_server_to_the_second():
    trace = simulate(Cluster(compute=[2.0, 2.125], **LINKS), Async(), updates=6).verify()
    assert trace.update_times.tolist() == [2.75, 3.0, 6.5, 6.875, 10.25, 10.75]
    assert rows(trace) == [
        (0, 0, 0.0, 2.0, 2.5, 0, 0, "used"),  # handled from 2.5 to 2.75; version 1 sent
        # Received at version 0, but worker 0's is being handled; from 2.75 to 3.0, at version 1.
        (1, 0, 0.0, 2.125, 2.625, 1, 1, "used"),
        # Version 1 was fixed at 2.75; when it is there, at 3.75, version 2 exists already.
        (0, 1, 3.75, 5.75, 6.25, 2, 1, "used"),
        (1, 2, 4.0, 6.125, 6.625, 3, 1, "used"),  # server free at 6.5: from 6.625 to 6.875
        (0, 3, 7.5, 9.5, 10.0, 4, 1, "used"),
        (1, 4, 7.875, 10.0, 10.5, 5, 1, "used"),
    ]


def test_k_sync_with_links_cancels_when_the_model_arrives_and_discards_what_comes_late():
    trace = simulate(Cluster(compute=[2.0, 3.0, 4.0], **LINKS), KSync(1), updates=3).verify()
    assert trace.update_times.tolist() == [2.75, 6.5, 10.25]
    assert rows(trace) == [
        (0, 0, 0.0, 2.0, 2.5, 0, 0, "used"),
        (1, 0, 0.0, 3.0, 3.5, -1, -1, "discarded"),  # received after the update of 2.75
        (2, 0, 0.0, 3.75, None, -1, -1, "cancelled"),  # not at 2.75: version 1 arrives at 3.75
        (0, 1, 3.75, 5.75, 6.25, 1, 0, "used"),
        (1, 1, 3.75, 6.75, 7.25, -1, -1, "discarded"),
        (2, 1, 3.75, 7.5, None, -1, -1, "cancelled"),
        (0, 2, 7.5, 9.5, 10.0, 2, 0, "used"),
        (1, 2, 7.5, None, None, -1, -1, "pending"),
        (2, 2, 7.5, None, None, -1, -1, "pending"),
    ]


def test_a_discarded_message_occupies_the_server_too():
    # Worker 1's message (discarded) is handled from 3.5 to 3.75, so worker 2's of 3.625 waits until 3.75.
    cluster = Cluster(compute=[2.0, 3.0, 3.125], uplink=0.5, server=0.25, downlink=10.0)
    trace = simulate(cluster, KSync(1), wallclock=20.0).verify()
    assert trace.column("fate")[:3].tolist() == ["used", "discarded", "discarded"]
    cluster = Cluster(compute=[2.0, 2.0, 2.0], uplink=0.5, server=0.25, downlink=10.0)
    trace = simulate(cluster, Async(), updates=3)
    assert trace.update_times.tolist() == [2.75, 3.0, 3.25]
    assert trace.staleness.tolist() == [0, 1, 2]


def test_messages_of_one_instant_queue_by_worker_index():
    trace = simulate(Cluster(3, 1.0, uplink=0.5, server=0.25), Async(), updates=3)
    assert trace.column("worker")[trace.used].tolist() == [0, 1, 2]
    assert trace.update_times.tolist() == [1.75, 2.0, 2.25]


def test_k_batch_sync_workers_go_on_at_the_old_version_while_the_answer_travels():
    trace = simulate(Cluster(1, 1.0, uplink=0.25, downlink=0.5), KBatchSync(1), updates=2).verify()
    assert rows(trace) == [
        (0, 0, 0.0, 1.0, 1.25, 0, 0, "used"),
        (0, 0, 1.0, 1.75, None, -1, -1, "cancelled"),  # version 1 leaves at 1.25, arrives at 1.75
        (0, 1, 1.75, 2.75, 3.0, 1, 0, "used"),
        (0, 1, 2.75, None, None, -1, -1, "pending"),
    ]


def test_without_links_and_server_time_a_message_is_received_when_it_is_finished():
    trace = simulate(Cluster(4, Exponential(1.0)), KBatchAsync(3), updates=50, seed=1)
    used = trace.used
    np.testing.assert_array_equal(trace.column("receive_time")[used], trace.column("finish_time")[used])


# Joining


def test_a_worker_reads_the_version_of_the_moment_it_joins():
    trace = simulate(Cluster(compute=[1.0, 1.0], join=[0.0, 2.5]), Async(), updates=5).verify()
    assert [row[:3] for row in rows(trace) if row[0] == 1][:2] == [(1, 2, 2.5), (1, 4, 3.5)]
    assert trace.update_times.tolist() == [1.0, 2.0, 3.0, 3.5, 4.0]
    assert trace.staleness.tolist() == [0, 0, 0, 1, 1]


def test_sync_waits_for_the_last_to_join_and_k_sync_does_not():
    cluster = Cluster(compute=[1.0, 1.0], join=[0.0, 2.5])
    assert simulate(cluster, Sync(), updates=2).update_times.tolist() == [3.5, 4.5]
    assert simulate(cluster, KSync(1), updates=3).update_times.tolist() == [1.0, 2.0, 3.0]


def test_a_delay_of_joins_is_drawn_once_per_worker_and_run():
    cluster = Cluster(5, 1.0, join=Uniform(1.0, 9.0))
    trace = simulate(cluster, Async(), wallclock=30.0, seed=6).verify()
    first_reads = trace.messages.groupby("worker").read_time.min()
    assert first_reads.tolist() == [cluster.join_time(6, worker) for worker in range(5)]
    assert first_reads.nunique() == 5
    assert first_reads.between(1.0, 9.0).all()


def test_busy_fractions_count_from_the_joining():
    trace = simulate(Cluster(compute=[1.0, 1.0], join=[0.0, 2.5]), Async(), wallclock=5.0)
    assert trace.busy().used.tolist() == [1.0, 1.0]


# Speeds


def test_a_worker_of_speed_2_needs_half_the_time():
    plain, fast = Cluster(2, Exponential(1.0)), Cluster(2, Exponential(1.0), speeds=[1.0, 2.0])
    assert first_times(fast, 3, 0) == first_times(plain, 3, 0)
    np.testing.assert_allclose(first_times(fast, 3, 1), np.array(first_times(plain, 3, 1)) / 2)


def test_a_delay_of_speeds_is_drawn_once_per_worker_and_run():
    cluster = Cluster(3, 1.0, speeds=Uniform(0.5, 2.0))
    times = {(seed, w): set(first_times(cluster, seed, w)) for seed in (0, 1) for w in range(3)}
    assert all(len(values) == 1 for values in times.values())
    assert len(set().union(*times.values())) == 6


# Random streams


def test_compute_times_are_blocks_of_the_workers_own_stream():
    rng = stream(9, Purpose.COMPUTE, 2)
    expected = np.concatenate([rng.exponential(1.5, BLOCK) for _ in range(3)])
    assert BLOCK == 256  # part of what a seed means
    assert first_times(Cluster(3, Exponential(1.5)), 9, 2) == expected[:600].tolist()


def test_streams_differ_by_seed_by_purpose_and_by_worker():
    keys = [(s, p, w) for s in (0, 1) for p in Purpose for w in (0, 1, 2)]
    assert len({stream(*key).random() for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "delay", [Exponential(1.0), TwoLevelGamma(), stats.lognorm(0.5)], ids=["exponential", "two-level", "scipy"]
)
def test_adding_a_worker_moves_nobody_else_s_draws(delay):
    few, many = (Cluster(n, delay, speeds=Uniform(0.5, 2.0), join=Uniform(0.0, 1.0)) for n in (3, 10))
    for worker in range(3):
        assert first_times(few, 5, worker) == first_times(many, 5, worker)
        assert few.join_time(5, worker) == many.join_time(5, worker)


def test_changing_the_delay_of_one_worker_or_the_synchrony_moves_nobody_else_s_draws():
    cluster = Cluster(compute=[Exponential(1.0), Exponential(1.0)])
    other = Cluster(compute=[Uniform(0.0, 1.0), Exponential(1.0)])
    assert first_times(cluster, 5, 1) == first_times(other, 5, 1)
    durations = []
    for synchrony in (Async(), KAsync(2), KBatchAsync(3)):
        table = simulate(cluster, synchrony, updates=40, seed=5).messages
        mine = table[(table.worker == 1) & (table.fate == "used")]
        durations.append((mine.finish_time - mine.read_time).to_numpy()[:10])
    np.testing.assert_allclose(durations[1], durations[0], rtol=1e-9)
    np.testing.assert_allclose(durations[2], durations[0], rtol=1e-9)


@pytest.mark.parametrize(
    "delay", [Exponential(1.0), TwoLevelGamma(), stats.lognorm(0.5)], ids=["exponential", "two-level", "scipy"]
)
def test_global_generators_are_neither_touched_nor_read(delay):
    cluster = Cluster(3, delay, speeds=Uniform(0.5, 2.0), join=Exponential(0.1))
    ends = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        ends.append(simulate(cluster, KSync(2), updates=300, seed=4).end)
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
        assert random.getstate() == before[1]
    assert ends[0] == ends[1]


# How a cluster is written


def test_the_number_of_workers_follows_from_any_list():
    assert Cluster(compute=[1.0, 2.0, 3.0]).size == 3
    assert Cluster(speeds=[1.0, 2.0]).size == 2
    assert Cluster(join=[0.0, 1.0]).size == 2
    assert Cluster(compute=np.array([1.0, 2.0])).size == 2


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(4),
        Cluster(compute=[1.0, Exponential(2.0)], speeds=[1.0, 2.0], join=[0.0, 3.0], uplink=0.1),
        Cluster(3, stats.gamma(2.0), speeds=Uniform(0.5, 2.0), join=Exponential(1.0), server=0.2, downlink=1.0),
    ],
    ids=["plain", "lists", "delays"],
)
def test_a_cluster_survives_its_table(cluster):
    assert Cluster.from_table(cluster.table()) == cluster


# What users may get wrong


def two(**fields):
    return lambda: Cluster(2, **fields)


def run(cluster: Cluster, synchrony=None, **budget):
    return lambda: simulate(cluster, synchrony or Async(), **budget)


def seventh_draw_is(value: float):
    return lambda rng, size: np.where(np.arange(size) == 7, value, 1.0)


PAIR = Cluster(2)
WRONG = {
    "zero workers": (lambda: Cluster(0), ["workers", "0", "greater than or equal to 1"]),
    "negative workers": (lambda: Cluster(-3), ["workers", "-3", "greater than or equal to 1"]),
    "no workers": (lambda: Cluster(), ["workers", "missing"]),
    "empty list": (lambda: Cluster(compute=[]), ["workers", "0"]),
    "lengths differ": (lambda: Cluster(compute=[1.0, 2.0], speeds=[1.0]), ["speeds", "1 entries", "2 workers"]),
    "k above P": (run(PAIR, KSync(3), updates=1), ["k = 3", "k-sync", "1 to 2"]),
    "k above P, async": (run(PAIR, KAsync(3), updates=1), ["k = 3", "k-async", "1 to 2"]),
    "k of 0": (lambda: KAsync(0), ["k of k-async", "0", "greater than or equal to 1"]),
    "negative k": (lambda: KBatchSync(-1), ["k of k-batch-sync", "-1"]),
    "fractional k": (lambda: KBatchAsync(1.5), ["k of k-batch-async", "1.5", "integer"]),
    "no local steps": (lambda: Async(local_steps=0), ["local_steps", "0"]),
    "one never joins": (two(join=[0.0, math.inf]), ["join", "worker 1", "never joins", "inf"]),
    "all absent": (two(join=[math.inf, math.inf]), ["join", "all workers are always absent", "at least one"]),
    "join nan": (two(join=[0.0, NAN]), ["join", "worker 1", "nan"]),
    "join negative": (two(join=[-1.0, 0.0]), ["join", "worker 0", "-1.0"]),
    "join delay inf": (two(join=math.inf), ["join", "inf"]),
    "negative time": (two(compute=-1.0), ["compute", "-1.0", "greater than or equal to 0"]),
    "infinite time": (two(compute=math.inf), ["compute", "inf", "finite"]),
    "nan time": (two(compute=[1.0, NAN]), ["compute", "nan"]),
    "no time at all": (two(compute=[1.0, 0.0]), ["compute", "worker 1", "0 seconds"]),
    "a delay that is always 0": (two(compute=stats.poisson(0.0)), ["compute", "worker 0", "0 seconds"]),
    "negative uplink": (two(uplink=-0.1), ["uplink", "-0.1"]),
    "nan downlink": (two(downlink=NAN), ["downlink", "nan"]),
    "infinite server": (two(server=math.inf), ["server", "inf", "finite"]),
    "zero speed": (two(speeds=[1.0, 0.0]), ["speeds", "worker 1", "0.0", "greater than 0"]),
    "zero speed drawn": (run(two(speeds=Deterministic(0.0))(), updates=1), ["speeds", "worker 0", "speed 0"]),
    "unknown delay": (two(compute={"delay": "paretto", "shape": 2.0}), ["compute", "paretto", "'pareto'"]),
    "not a delay": (two(compute="fast"), ["compute", "'fast'"]),
    "key of a table": (lambda: Cluster.from_table({"workers": 2, "uplinks": 1.0}), ["uplinks", "'uplink'"]),
    "no budget": (run(PAIR), ["exactly one budget", "none"]),
    "two budgets": (
        run(PAIR, updates=3, wallclock=2.0),
        ["exactly one budget", "updates", "3", "wallclock", "2.0"],
    ),
    "three budgets": (run(PAIR, updates=3, wallclock=2.0, gradients=1), ["exactly one budget", "gradients"]),
    "no updates": (run(PAIR, updates=0), ["updates", "0"]),
    "negative wallclock": (run(PAIR, wallclock=-1.0), ["wallclock", "-1.0"]),
    "endless wallclock": (run(PAIR, wallclock=math.inf), ["wallclock", "inf"]),
    "no gradients": (run(PAIR, gradients=0), ["gradients", "0"]),
    "a function's negative draw": (
        run(Cluster(compute=[1.0, seventh_draw_is(-2.0)]), updates=30),
        ["compute", "worker 1", "draw 7", "-2.0", "at least 0"],
    ),
    "a function's nan": (run(Cluster(2, seventh_draw_is(NAN)), updates=30), ["worker 0", "draw 7", "nan"]),
    "a function's inf": (run(Cluster(2, seventh_draw_is(math.inf)), updates=30), ["worker 0", "draw 7", "inf"]),
    "a function's join": (
        run(two(join=lambda rng, size: np.full(size, -1.0))(), updates=1),
        ["join", "worker 0", "-1.0"],
    ),
}


@pytest.mark.parametrize(("wrong", "parts"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_with_its_field_its_value_and_what_is_allowed(wrong, parts):
    with pytest.raises((ValueError, TraceError), match=r".") as caught:
        wrong()
    for part in parts:
        assert part in str(caught.value)


def test_a_bad_draw_of_a_later_block_is_named_by_its_number():
    calls = []

    def turns_bad(rng, size):
        calls.append(size)
        return np.full(size, 1.0 if len(calls) < 3 else NAN)

    with pytest.raises(ValueError, match=r"worker 0: draw 512 is nan"):
        list(islice(Cluster(1, turns_bad).compute_times(0, 0), 600))
