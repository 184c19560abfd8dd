"""Lowering: slots by liveness."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync
from stalegrad.simulator import Cluster, Exponential, LogNormal, simulate
from stalegrad.simulator.replays.lowering import allocate, lower, windows


@st.composite
def reads(draw):
    """Random (read version, update) pairs with 0 <= read <= update, every update used at least once."""
    updates = draw(st.integers(1, 30))
    pairs = [
        (draw(st.integers(0, update)), update) for update in range(updates) for _ in range(draw(st.integers(1, 3)))
    ]
    read, update = np.array(pairs).T
    return read, update, updates


def most_versions_live(read, update, updates):
    """Count, update by update, the versions that exist and will still be read: by brute force."""
    most = 0
    for now in range(updates):  # just before update `now`: versions 0..now exist
        needed = {r for r, u in zip(read, update, strict=True) if r <= now <= u}
        most = max(most, len(needed))
    return most


@given(reads())
def test_slots_are_the_largest_number_of_live_versions(case):
    _, slots, _ = allocate(*case)
    assert slots == most_versions_live(*case)


@given(reads())
def test_every_read_finds_what_was_written(case):
    read, update, updates = case
    slot_of, slots, scratch = allocate(*case)
    memory = [None] * (slots + scratch)
    memory[slot_of[0]] = 0
    for u in range(updates):
        for r in read[update == u]:
            assert memory[slot_of[r]] == r
        memory[slot_of[u + 1]] = u + 1


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 6))
def test_windows_are_cut_as_late_as_possible_and_read_what_is_known(staleness, longest):
    read = np.maximum(np.arange(len(staleness)) - staleness, 0)
    starts = windows(read, longest).tolist()
    slow = [0]
    for m, version in enumerate(read):
        if m > slow[-1] and (version > slow[-1] or m - slow[-1] == longest):
            slow.append(m)
    assert starts == ([*slow, len(read)] if len(read) else [0])


def test_windows_of_round_robin_workers_are_full():
    lowered = lower(simulate(Cluster(8), Async(), updates=64))
    assert windows(lowered.read_version, 4).tolist() == list(range(0, 65, 4))
    assert windows(lowered.read_version, 100).tolist() == list(range(0, 65, 8))


@pytest.mark.parametrize("synchrony", [Sync(), KSync(1), KSync(5), KBatchSync(3)], ids=repr)
def test_synchronous_variants_need_one_slot(synchrony):
    lowered = lower(simulate(Cluster(8, compute=Exponential()), synchrony, updates=200))
    assert lowered.slots == 1
    assert not lowered.scratch
    assert lowered.always_fresh


@given(workers=st.integers(1, 40), k=st.integers(1, 5), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_asynchronous_variants_need_at_most_one_slot_per_worker(workers, k, seed):
    cluster = Cluster(workers, compute=LogNormal(1.0, 0.8))
    for synchrony in (Async(), KAsync(min(k, workers)), KBatchAsync(k)):
        lowered = lower(simulate(cluster, synchrony, updates=100, seed=seed))
        assert lowered.slots + lowered.scratch <= workers


def test_slots_grow_with_live_versions_not_with_workers():
    slow, fast = [1000.0] * 500, [1.0]
    trace = simulate(Cluster(compute=fast + slow), Async(), updates=900)
    assert lower(trace).slots == 1


def test_gradient_ids_rank_by_update_receive_time_and_worker():
    trace = simulate(Cluster(6, compute=Exponential()), KAsync(3), updates=50, seed=3)
    lowered = lower(trace)
    table = trace.messages.query("fate == 'used'").sort_values(["update", "receive_time", "worker"])
    assert lowered.worker.tolist() == table["worker"].tolist()
    assert lowered.staleness.tolist() == table["staleness"].tolist()
    assert np.diff(lowered.first).tolist() == [3] * 50
