"""The six protocols of Dutta et al. do what the paper's table says: exact event traces, ties, cancellations."""

import gc
import heapq
import re
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Received, Sync, Synchrony
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    Delay,
    Empirical,
    Exponential,
    Gamma,
    HyperExponential,
    Pareto,
    ShiftedExponential,
    Uniform,
)
from stalegrad.simulator.timing.engine import simulate

# Three workers with constant times 0.7, 1.6 and 3.3; wI(s) = worker I (counted from 1) with staleness s.
TIMES = [0.7, 1.6, 3.3]
EVENT_TRACES = [
    (Sync(), " | ".join(f"{t} w1(0)w2(0)w3(0)" for t in (3.3, 6.6, 9.9, 13.2, 16.5, 19.8))),
    (KSync(2), " | ".join(f"{t} w1(0)w2(0)" for t in (1.6, 3.2, 4.8, 6.4, 8.0, 9.6))),
    (KBatchSync(2), " | ".join(f"{t} w1(0)w1(0)" for t in (1.4, 2.8, 4.2, 5.6, 7.0, 8.4))),
    (Async(), "0.7 w1(0) | 1.4 w1(0) | 1.6 w2(2) | 2.1 w1(1) | 2.8 w1(0) | 3.2 w2(2)"),
    (
        KAsync(2),
        "1.6 w1(0)w2(0) | 3.2 w1(0)w2(0) | 3.9 w3(2)w1(0) | 4.8 w1(0)w2(1) | 6.4 w1(0)w2(0) | 7.2 w1(0)w3(2)",
    ),
    (
        KBatchAsync(2),
        "1.4 w1(0)w1(0) | 2.1 w2(1)w1(0) | 3.2 w1(0)w2(1) | 3.5 w3(3)w1(1) | 4.8 w1(0)w2(1) | 5.6 w1(1)w1(0)",
    ),
]


def name_of(synchrony: Synchrony) -> str:
    return f"{synchrony.name}-{getattr(synchrony, 'k', '')}".rstrip("-")


@pytest.mark.parametrize(("synchrony", "expected"), EVENT_TRACES, ids=[name_of(s) for s, _ in EVENT_TRACES])
def test_constant_times_give_the_event_traces_of_the_specification(synchrony, expected, contributions):
    trace = simulate(Cluster(compute=TIMES), synchrony, updates=6)
    found = contributions(trace)
    for (time, pairs), update in zip(found, expected.split(" | "), strict=True):
        assert time == pytest.approx(float(update.split()[0]), abs=1e-12)
        assert pairs == [(int(w) - 1, int(s)) for w, s in re.findall(r"w(\d)\((\d)\)", update)]
    trace.verify()


# Ties


def test_at_a_tie_the_lower_worker_is_first_although_its_event_was_made_later(contributions):
    trace = simulate(Cluster(compute=[1.0, 2.0]), Async(), updates=6)
    assert contributions(trace) == [
        (1.0, [(0, 0)]),
        (2.0, [(0, 0)]),
        (2.0, [(1, 2)]),
        (3.0, [(0, 1)]),
        (4.0, [(0, 0)]),
        (4.0, [(1, 2)]),
    ]


def test_at_a_tie_in_k_sync_the_higher_worker_is_cancelled_in_the_instant_it_would_finish():
    trace = simulate(Cluster(compute=[1.0, 1.0]), KSync(1), wallclock=2.5)
    table = trace.messages
    assert table[table.fate == "used"].worker.tolist() == [0, 0]
    assert table[table.fate == "cancelled"].worker.tolist() == [1, 1]


@given(times=st.lists(st.integers(1, 4), min_size=2, max_size=7))
def test_messages_of_one_instant_are_applied_by_worker_index_whatever_the_history(times):
    trace = simulate(Cluster(compute=[float(t) for t in times]), Async(), wallclock=12.0)
    applied = list(zip(trace.column("receive_time")[trace.used], trace.column("worker")[trace.used], strict=True))
    by_update = trace.messages[trace.messages.fate == "used"].sort_values("update")
    assert list(zip(by_update.receive_time, by_update.worker, strict=True)) == sorted(applied)
    assert len(applied) == sum(12 // t for t in times)


# A slow, independent implementation: spec A1's event loop on a heap of (finish_time, worker)


def reference(protocol: str, k: int, draws: list[Iterator[float]], updates: int):
    """Return [(time, [(worker, staleness), ...])]; zero communication; jobs of an old epoch are ignored."""
    workers = range(len(draws))
    version, buffer, made = 0, [], []
    heap: list[tuple[float, int, int]] = []
    read_version, epoch = [0 for _ in workers], [0 for _ in workers]

    def read(worker: int, now: float) -> None:
        read_version[worker] = version
        epoch[worker] += 1
        heapq.heappush(heap, (now + next(draws[worker]), worker, epoch[worker]))

    for worker in workers:
        read(worker, 0.0)
    while len(made) < updates:
        now, worker, job = heapq.heappop(heap)
        if job != epoch[worker]:
            continue
        buffer.append((worker, version - read_version[worker]))
        full = len(buffer) == k
        if full:
            version += 1
            made.append((now, buffer))
            contributors, buffer = [w for w, _ in buffer], []
        if protocol == "k-sync" and full:
            readers = list(workers)
        elif protocol == "k-batch-sync":
            readers = list(workers) if full else [worker]
        elif protocol == "k-async" and full:
            readers = contributors
        elif protocol == "k-batch-async":
            readers = [worker]
        else:
            readers = []
        for reader in readers:
            read(reader, now)
    return made


LAWS: list[Delay | list[float]] = [
    Exponential(1.0),
    ShiftedExponential(1.0, 0.5),
    Pareto(2.0),
    Uniform(0.0, 1.0),
    Gamma(2.0, 0.3),
    HyperExponential((0.9, 0.1), (0.5, 5.5)),
    Empirical((1.0, 2.0, 3.0)),  # many ties
    Empirical((0.1, 0.2, 0.3)),  # ties up to rounding
]
PROTOCOLS = {"k-sync": KSync, "k-batch-sync": KBatchSync, "k-async": KAsync, "k-batch-async": KBatchAsync}


def agree(cluster: Cluster, synchrony: Synchrony, protocol: str, k: int, seed: int, contributions) -> None:
    trace = simulate(cluster, synchrony, updates=30, seed=seed).verify()
    draws = [cluster.compute_times(seed, worker) for worker in range(cluster.size)]
    assert contributions(trace) == reference(protocol, k, draws, 30)


@settings(deadline=None, max_examples=300)
@given(
    protocol=st.sampled_from(sorted(PROTOCOLS)),
    delay=st.sampled_from(LAWS),
    workers=st.integers(1, 7),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_engine_equals_a_plain_heap_loop_exactly(protocol, delay, workers, seed, data, contributions):
    k = data.draw(st.integers(1, workers + (5 if "batch" in protocol else 0)), label="k")
    agree(Cluster(workers, delay), PROTOCOLS[protocol](k), protocol, k, seed, contributions)


@settings(deadline=None, max_examples=50)
@given(delay=st.sampled_from(LAWS), workers=st.integers(1, 7), seed=st.integers(0, 2**32))
def test_sync_and_async_equal_a_plain_heap_loop_exactly(delay, workers, seed, contributions):
    agree(Cluster(workers, delay), Sync(), "k-sync", workers, seed, contributions)
    agree(Cluster(workers, delay), Async(), "k-batch-async", 1, seed, contributions)


@settings(deadline=None, max_examples=60)
@given(
    protocol=st.sampled_from(sorted(PROTOCOLS)),
    times=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0, 1.6]), min_size=1, max_size=6),
    data=st.data(),
)
def test_engine_equals_a_plain_heap_loop_where_workers_differ_and_ties_abound(
    protocol, times, data, contributions
):
    k = data.draw(st.integers(1, len(times)), label="k")
    agree(Cluster(compute=times), PROTOCOLS[protocol](k), protocol, k, 0, contributions)


# Identities


IDENTITIES = [
    (KSync(5), Sync()),
    (KAsync(5), Sync()),
    (KAsync(1), Async()),
    (KBatchAsync(1), Async()),
    (KBatchSync(1), KSync(1)),
]


@pytest.mark.parametrize(
    ("special", "plain"), IDENTITIES, ids=[f"{name_of(a)}={name_of(b)}" for a, b in IDENTITIES]
)
@pytest.mark.parametrize("delay", [Exponential(1.0), Empirical((1.0, 2.0, 3.0))], ids=["continuous", "ties"])
def test_limits_of_k_are_identical_tables(special, plain, delay):
    cluster = Cluster(5, delay)
    one, other = (simulate(cluster, s, updates=200, seed=3) for s in (special, plain))
    pd.testing.assert_frame_equal(one.updates, other.updates)
    pd.testing.assert_frame_equal(one.messages, other.messages)


# Cancellation


@pytest.mark.parametrize("k", [1, 3, 5])
def test_k_sync_cancels_exactly_p_minus_k_jobs_at_every_update(k):
    trace = simulate(Cluster(5, Exponential(1.0)), KSync(k), updates=101, seed=1)
    table = trace.messages
    cancelled = table[table.fate == "cancelled"]
    counts = cancelled.groupby("finish_time").size().reindex(trace.update_times[:100], fill_value=0)
    assert (counts == 5 - k).all()
    assert cancelled.receive_time.isna().all()
    assert (cancelled["update"] == -1).all()
    assert (cancelled.staleness == -1).all()
    assert (table.fate == "used").sum() == 101 * k
    assert (table[table.fate == "used"].staleness == 0).all()
    assert not (table.fate == "discarded").any()


def test_k_batch_sync_cancels_every_job_but_the_last_finisher_s():
    trace = simulate(Cluster(5, Exponential(1.0)), KBatchSync(7), updates=101, seed=1)
    table = trace.messages
    counts = table[table.fate == "cancelled"].groupby("finish_time").size().reindex(trace.update_times[:100])
    assert (counts == 4).all()
    assert (trace.updates.messages == 7).all()


@pytest.mark.parametrize("synchrony", [Async(), KAsync(3), KBatchAsync(3)], ids=name_of)
def test_asynchronous_protocols_never_cancel(synchrony):
    trace = simulate(Cluster(5, Exponential(1.0)), synchrony, updates=300, seed=1)
    assert set(trace.column("fate")) == {"used", "pending"}


@pytest.mark.parametrize("synchrony", [KSync(2), KBatchSync(3)], ids=name_of)
def test_a_cancelled_computation_is_redrawn_and_never_resumed(synchrony):
    cluster = Cluster(4, Gamma(1.0, 0.5))
    trace = simulate(cluster, synchrony, updates=100, seed=2)
    for worker, rows in trace.messages.groupby("worker"):
        draws = np.array(list(islice(cluster.compute_times(2, worker), len(rows))))
        spent = (rows.finish_time - rows.read_time).to_numpy()
        used = (rows.fate == "used").to_numpy()
        cancelled = (rows.fate == "cancelled").to_numpy()
        # The i-th job of a worker takes its i-th draw in full, or is cut short of it.
        np.testing.assert_allclose(spent[used], draws[used], rtol=1e-9)
        assert (spent[cancelled] < draws[cancelled]).all()
        assert cancelled.sum() > 20


# What the state machine answers


def answers(synchrony: Synchrony, workers: int, messages: list[tuple[int, int, int]]):
    server = synchrony.serve(workers)
    next(server)
    return [
        server.send(Received(worker, read_version, read_version + staleness))
        for worker, read_version, staleness in messages
    ]


def test_the_server_of_k_sync_discards_what_was_computed_at_an_old_version():
    first, second, late, third = answers(KSync(2), 3, [(0, 0, 0), (1, 0, 0), (2, 0, 1), (2, 1, 0)])
    assert (first.apply, list(first.send), first.keep) == (False, [], True)
    assert (second.apply, list(second.send)) == (True, [0, 1, 2])
    assert (late.apply, list(late.send), late.keep) == (False, [], False)
    assert (third.apply, third.keep) == (False, True)


def test_the_server_of_k_async_answers_exactly_the_contributors():
    first, second = answers(KAsync(2), 3, [(2, 0, 0), (0, 0, 0)])
    assert (first.apply, list(first.send)) == (False, [])
    assert (second.apply, list(second.send)) == (True, [2, 0])


def test_the_server_of_k_batch_async_answers_every_sender():
    first, second = answers(KBatchAsync(2), 3, [(2, 0, 0), (0, 0, 0)])
    assert (first.apply, list(first.send)) == (False, [2])
    assert (second.apply, list(second.send)) == (True, [0])


def test_the_garbage_collector_is_left_as_it_was_whatever_happens():
    class Broken(Exponential):
        def sample(self, rng, size):
            return np.append(super().sample(rng, size - 1), -1.0)

    before = gc.get_threshold()
    simulate(Cluster(2), Async(), updates=3)
    assert gc.get_threshold() == before
    with pytest.raises(ValueError, match="compute of worker"):
        simulate(Cluster(1, compute=Broken()), Async(), updates=10_000)
    assert gc.get_threshold() == before
