"""Grace and deadlines of synchronies that wait: hand-made traces, limits, means."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies import methods
from stalegrad.policies.synchrony import SYNCHRONIES, KAsync, KBatchAsync, KBatchSync, KSync, Sync
from stalegrad.simulator.timing.availability import Renewal
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Empirical, Exponential
from stalegrad.simulator.timing.engine import simulate

FIVE = Cluster(compute=[1.0, 1.5, 2.0, 2.25, 9.0])


def updates(cluster, synchrony, count=2):
    """Return time and contributors of each update."""
    trace = simulate(cluster, synchrony, updates=count).verify()
    used = trace.messages[trace.messages.fate == "used"].groupby("update")["worker"].agg(sorted)
    return list(zip(trace.update_times.tolist(), used.tolist(), strict=True))


# By hand


def test_grace_begins_with_the_message_that_makes_the_quorum():
    assert updates(FIVE, KSync(2, grace=0.5)) == [(2.0, [0, 1, 2]), (4.0, [0, 1, 2])]
    assert updates(FIVE, KSync(2, grace=0.4)) == [(1.9, [0, 1]), (3.8, [0, 1])]
    assert updates(FIVE, KSync(1, grace=1.0), 1) == [(2.0, [0, 1, 2])]  # what comes at its very end counts


def test_nobody_is_waited_for_once_everybody_has_come():
    assert updates(Cluster(compute=[1.0, 1.5]), KSync(1, grace=5.0)) == [(1.5, [0, 1]), (3.0, [0, 1])]
    assert updates(Cluster(compute=[1.0, 1.5]), KAsync(1, grace=5.0), 1) == [(1.5, [0, 1])]


def test_a_deadline_takes_what_there_is_and_cancels_the_rest():
    trace = simulate(FIVE, Sync(deadline=2.0), updates=2).verify()
    assert updates(FIVE, Sync(deadline=2.0)) == [(2.0, [0, 1, 2]), (4.0, [0, 1, 2])]
    cancelled = trace.messages[trace.messages.fate == "cancelled"]
    assert cancelled[["worker", "read_time", "finish_time"]].to_numpy().tolist() == [
        [3, 0, 2], [4, 0, 2], [3, 2, 4], [4, 2, 4],
    ]  # fmt: skip


@pytest.mark.parametrize("synchrony", [Sync(deadline=0.5), KSync(3, deadline=0.5), KAsync(3, deadline=0.5)])
def test_after_a_deadline_without_messages_the_first_one_is_taken(synchrony):
    assert updates(Cluster(compute=[1.0, 1.5, 2.0]), synchrony, 1) == [(1.0, [0])]


def test_a_deadline_counts_from_the_last_update():
    # Worker 0 is answered at 1.25, and done again at 2.25, the fourth; by 3.5 it alone is done once more.
    assert updates(FIVE, KAsync(4, deadline=1.25), 3) == [(1.25, [0]), (2.25, [0, 1, 2, 3]), (3.5, [0])]


def test_k_batch_async_goes_on_while_the_server_waits():
    # Worker 0 sends at 1, 2, 3, ...; k = 2 is reached at 1.5, and grace lasts to 2; then at 2.25 and 3.
    assert updates(FIVE, KBatchAsync(2, grace=0.5)) == [(2.0, [0, 0, 1, 2]), (3.5, [0, 1, 3])]


def test_k_batch_sync_takes_several_of_a_worker():
    assert updates(FIVE, KBatchSync(3, deadline=1.75), 1) == [(1.75, [0, 1])]
    assert updates(FIVE, KBatchSync(2, grace=0.75), 1) == [(2.25, [0, 0, 1, 2, 3])]


# Limits

PLAIN = [Sync(), KSync(2), KBatchSync(3), KAsync(2), KBatchAsync(3)]
CLUSTERS = [
    Cluster(4, Exponential(1.0)),
    Cluster(4, Empirical((0.5, 1.0, 1.5)), uplink=0.1, downlink=0.2, server=0.05),
]


@pytest.mark.parametrize("plain", PLAIN, ids=lambda synchrony: synchrony.name)
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_deadline_that_is_never_reached_changes_no_byte(plain, cluster, same):
    timed = type(plain)(**{**({"k": plain.k} if hasattr(plain, "k") else {}), "deadline": 1e6})
    one, other = (simulate(cluster, synchrony, updates=200, seed=4) for synchrony in (plain, timed))
    other.spec = one.spec
    same(one, other)


# Every kind, anywhere


@given(
    kind=st.sampled_from([KSync, KBatchSync, KAsync, KBatchAsync]),
    k=st.integers(1, 4),
    grace=st.sampled_from([0.0, 0.25, 1.0]),
    deadline=st.sampled_from([None, 0.5, 2.0]),
    compute=st.sampled_from([Exponential(1.0), Empirical((0.5, 1.0, 1.5))]),
    links=st.sampled_from([{}, {"uplink": 0.25, "downlink": 0.25}, {"server": 0.25}]),
    away=st.booleans(),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=100, deadline=None)
def test_what_is_waited_for(kind, k, grace, deadline, compute, links, away, seed):
    availability = Renewal(Exponential(6.0), Exponential(2.0)) if away else None
    cluster = Cluster(4, compute, availability=availability, **links)
    trace = simulate(cluster, kind(k, grace=grace, deadline=deadline), wallclock=40.0, seed=seed).verify()
    assert len(trace.update_times) > 3
    if deadline is None:
        assert (trace.updates["messages"] >= k).all()
    if kind in (KSync, KBatchSync):
        assert (trace.staleness == 0).all()
    if grace and not links and deadline is None:
        used = trace.messages[trace.messages.fate == "used"]
        for update, messages in used.groupby("update"):
            quorum = np.sort(messages["receive_time"])[k - 1]
            everybody = kind in (KSync, KAsync) and len(messages) == 4
            assert trace.update_times[update] == (messages["receive_time"].max() if everybody else quorum + grace)


# Means


def test_mean_time_of_a_round_with_a_deadline():
    """min(max, d) if any has come, else d and the first one: int_0^d 1 - (1 - e^-t)^P dt + e^(-P d) / P."""
    workers, deadline = 6, 0.4
    t = np.linspace(0.0, deadline, 200_001)
    expected = np.mean(1 - (1 - np.exp(-t)) ** workers) * deadline + math.exp(-workers * deadline) / workers
    trace = simulate(Cluster(workers, Exponential(1.0)), Sync(deadline=deadline), updates=20_000, seed=1)
    times = np.diff(trace.update_times, prepend=0.0)
    assert abs(times.mean() - expected) < 3 * times.std() / math.sqrt(len(times))


def test_mean_time_of_a_quorum_and_grace():
    """min(X_(P), X_(k) + g), of order statistics drawn here."""
    workers, k, grace = 8, 5, 0.3
    drawn = np.sort(np.random.default_rng(3).exponential(size=(200_000, workers)))
    expected = np.minimum(drawn[:, -1], drawn[:, k - 1] + grace)
    trace = simulate(Cluster(workers, Exponential(1.0)), KSync(k, grace=grace), updates=20_000, seed=2)
    times = np.diff(trace.update_times, prepend=0.0)
    error = math.hypot(times.std() / math.sqrt(len(times)), expected.std() / math.sqrt(len(expected)))
    assert abs(times.mean() - expected.mean()) < 3 * error


# Values


def test_they_stand_in_specs_and_methods():
    made = methods.k_sync(k=3, grace=0.5, deadline=4.0)
    assert made.synchrony == KSync(3, grace=0.5, deadline=4.0)
    table = {"name": "k-sync", "k": 3, "grace": 0.5, "deadline": 4.0}
    assert SYNCHRONIES.to_table(made.synchrony) == table
    assert SYNCHRONIES.from_table(table) == made.synchrony
    assert "deadline: seconds of a round" in methods.sync.__doc__


@pytest.mark.parametrize(
    "wrong", [{"grace": -1.0}, {"grace": math.inf}, {"deadline": 0.0}, {"deadline": math.nan}]
)
def test_what_cannot_be_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} of k-async = "):
        KAsync(2, **wrong)
