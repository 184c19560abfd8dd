"""Asynchronous RL: rollout slots, a queue and a trainer, against an independent simulation and a closed form."""

import heapq
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import SYNCHRONIES, WAIT, Decision, Received, Rollouts, Sync
from stalegrad.simulator.timing.availability import Renewal
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Deterministic, Empirical, Exponential, LogNormal
from stalegrad.simulator.timing.engine import simulate
from tests.simulator.timing.test_programs import synchrony

SIGMA = math.sqrt(math.log(1 + 0.5**2))
LENGTHS = LogNormal(math.exp(-(SIGMA**2) / 2), SIGMA)
"""Log-normal lengths of mean 1 and coefficient of variation 0.5."""


def slow_twin(cluster, r, updates, seed):
    """Simulate slots, queue and trainer by another event loop; return time and stalenesses of every update."""
    times = [cluster.compute_times(seed, w) for w in range(cluster.size)]
    now, version, serial = 0.0, 0, itertools.count()
    calendar, idle, begun = [], list(range(cluster.size)), 0
    groups, queue, training = {}, [], None
    accepted = running = paced = 0
    found = []

    def begin():
        nonlocal begun, running, paced
        while idle:
            if r.admission is not None and not accepted + running < (r.admission + version + 1) * r.batch:
                return
            if r.pacing is not None and not paced < (1 + r.pacing) * r.batch:
                return
            slot = idle.pop(0)
            heapq.heappush(calendar, (now + next(times[slot]), 0, slot, next(serial), begun // r.group, version))
            begun, running, paced = begun + 1, running + 1, paced + 1

    begin()
    while len(found) < updates:
        now, kind, slot, _, group, read = heapq.heappop(calendar)
        if kind == 0:
            running, accepted = running - 1, accepted + 1
            idle.append(slot)
            groups.setdefault(group, []).append(read)
            if len(groups[group]) == r.group:
                queue.append(groups.pop(group))
        else:
            found.append((now, sorted(version - read for read in training)))
            version, training = version + 1, None
            paced = running + sum(map(len, groups.values())) + sum(map(len, queue))
        if training is None:
            if r.max_staleness is not None:
                fresh, need = [], r.batch // r.group
                while queue and len(fresh) < need:
                    oldest = queue.pop(0)
                    if version - min(oldest) > r.max_staleness:
                        accepted -= r.group
                    else:
                        fresh.append(oldest)
                queue = fresh + queue
            if len(queue) * r.group >= r.batch:
                taken = queue[: r.batch // r.group]
                queue = queue[r.batch // r.group :]
                training = [read for one in taken for read in one]
                heapq.heappush(calendar, (now + r.train, 1, 0, next(serial), 0, 0))
        while r.queue is not None and len(queue) * r.group > r.queue * r.batch:
            queue.pop(0)
            accepted -= r.group
        begin()
    return found


def found_in(trace):
    used = trace.messages[trace.messages.fate == "used"].groupby("update")["staleness"].agg(sorted)
    return list(zip(trace.update_times.tolist(), used.tolist(), strict=True))


RULES = [
    Rollouts(4, 1.0),
    Rollouts(4, 3.0, queue=1.0),
    Rollouts(4, 3.0, group=2, queue=1.5),
    Rollouts(6, 2.5, group=3, max_staleness=1),
    Rollouts(4, 1.0, admission=0),
    Rollouts(4, 2.0, group=2, admission=1),
    Rollouts(4, 2.0, pacing=0.5),
    Rollouts(8, 1.0, group=4, pacing=0.0, queue=1),
    Rollouts(2, 0.3, admission=3, max_staleness=2),
]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("lengths", [Exponential(1.0), Empirical((0.5, 1.0, 1.5)), LENGTHS])
def test_against_an_independent_simulation(rules, lengths):
    for slots, seed in ((1, 0), (5, 1), (9, 2)):
        cluster = Cluster(slots, lengths)
        trace = simulate(cluster, rules, updates=40, seed=seed).verify()
        assert found_in(trace) == slow_twin(cluster, rules, 40, seed)


def test_by_hand():
    """Two slots of 1 and 1.5 s, batches of 2, training for 2 s."""
    trace = simulate(Cluster(compute=[1.0, 1.5]), Rollouts(2, 2.0), updates=3).verify()
    # Samples end at 1, 1.5, 2, 3, 3, 4, 4.5, ...; training from 1.5, 3.5 and 5.5 on.
    assert trace.update_times.tolist() == [3.5, 5.5, 7.5]
    assert [s for _, s in found_in(trace)] == [[0, 0], [1, 1], [2, 2]]


# Closed form and limits


@pytest.mark.parametrize(
    ("slots", "batch", "group", "queue", "load", "expected"),
    [
        (120, 240, 1, 2, 0.63, 1.13),
        (240, 120, 1, 2, 0.92, 2.92),
        (128, 128, 1, 2, 1.3, 2.40),
        (128, 128, 8, 2, 1.3, 3.1),
        (256, 128, 8, 4, 2.0, 4.1),
    ],
)
def test_mean_staleness_is_that_of_the_closed_form(slots, batch, group, queue, load, expected):
    """Below 1: C M / B + rho; above: C M / (rho B) + (2 q + rho - 1) / (2 rho). M = E[max of S] / E."""
    draws = np.random.default_rng(0).lognormal(-(SIGMA**2) / 2, SIGMA, (200_000, group))
    m = draws.max(axis=1).mean()
    if load < 1:
        theory = slots * m / batch + load
    else:
        theory = slots * m / (load * batch) + (2 * queue + load - 1) / (2 * load)
    assert theory == pytest.approx(expected, rel=0.02)
    rules = Rollouts(batch, load * batch / slots, group=group, queue=queue)
    trace = simulate(Cluster(slots, LENGTHS), rules, updates=400, seed=1)
    late = trace.staleness[len(trace.staleness) // 4 :]
    assert late.mean() == pytest.approx(theory, rel=0.03)


def test_no_admission_beyond_the_version_is_synchronous():
    """C = B and S = 1: all samples of a round begin at its version, and training follows the slowest."""
    slots, train = 6, 0.75
    cluster = Cluster(slots, Exponential(1.0))
    trace = simulate(cluster, Rollouts(slots, train, admission=0), updates=50, seed=3).verify()
    rounds = simulate(cluster, Sync(), updates=50, seed=3)
    lengths = np.diff(rounds.update_times, prepend=0.0)
    np.testing.assert_allclose(trace.update_times, np.cumsum(lengths + train), rtol=1e-12)
    assert (trace.staleness == 0).all()
    one, other = (t.messages.query("fate == 'used'").groupby("worker").size().tolist() for t in (trace, rounds))
    assert one == other
    begun = trace.messages.query("fate == 'used'").groupby("update")["read_time"].unique()
    assert [times.tolist() for times in begun] == [[0.0], *([t] for t in trace.update_times[:-1].tolist())]


@given(
    slots=st.integers(1, 9),
    groups=st.integers(1, 3),
    group=st.integers(1, 3),
    train=st.sampled_from([0.1, 1.0, 4.0]),
    admission=st.sampled_from([None, 0, 1, 2]),
    pacing=st.sampled_from([None, 0.0, 0.5, 1.0]),
    queue=st.sampled_from([None, 1.0, 1.5]),
    max_staleness=st.sampled_from([None, 1, 2]),
    away=st.booleans(),
    links=st.sampled_from([{}, {"uplink": 0.2, "downlink": 0.3}, {"server": 0.05}]),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=150, deadline=None)
def test_bounds_hold_anywhere(
    slots, groups, group, train, admission, pacing, queue, max_staleness, away, links, seed
):
    batch = groups * group
    rules = Rollouts(
        batch, train, group=group, queue=queue, max_staleness=max_staleness, admission=admission, pacing=pacing
    )
    availability = Renewal(Exponential(6.0), Exponential(2.0)) if away else None
    trace = simulate(
        Cluster(slots, Exponential(1.0), availability=availability, **links), rules, wallclock=60.0, seed=seed
    )
    trace.verify()
    assert (trace.updates["messages"] == batch).all()
    if max_staleness is not None:
        assert trace.staleness.max(initial=0) <= max_staleness
    if admission == 0 and not links:
        assert (trace.staleness == 0).all()
    if admission is not None and not links:
        m = trace.messages
        finished = m["fate"].isin(["used", "pending"]) & m["receive_time"].notna()
        for time, version in [(0.0, 0), *zip(trace.update_times, itertools.count(1), strict=False)]:
            accepted = (finished & (m["receive_time"] <= time)).sum()
            running = ((m["read_time"] <= time) & ~(m["finish_time"] <= time)).sum()
            assert accepted + running <= (admission + version + 1) * batch


def test_groups_lost_with_their_slots_are_begun_again():
    preempted = Renewal(Exponential(5.0), Exponential(5.0))
    rules = Rollouts(8, 1.0, group=4, admission=0)
    trace = simulate(Cluster(8, Exponential(1.0), availability=preempted), rules, updates=60).verify()
    assert len(trace.update_times) == 60
    assert (trace.messages["fate"] == "lost").sum() > 20


# The seam: an update out of chosen messages, messages that are dropped later


def test_an_update_may_take_some_of_what_is_kept():
    def serve(workers):
        event, kept = (yield WAIT), []
        while True:
            if not isinstance(event, Received):
                event = yield WAIT
                continue
            kept.append(event)
            if len(kept) < 3:
                event = yield Decision(send=[event.worker])
            else:
                newest, oldest = kept[-1], kept[0]
                kept = kept[1:-1]
                event = yield Decision([newest], [event.worker], drop=[oldest])

    trace = simulate(Cluster(1, Deterministic(1.0)), synchrony(serve), updates=3).verify()
    assert trace.messages["fate"].tolist()[:7] == [
        "discarded",
        "discarded",
        "used",
        "discarded",
        "used",
        "pending",
        "used",
    ]


@pytest.mark.parametrize("field", ["apply", "drop"])
def test_a_message_that_is_not_kept_cannot_be_taken(field):
    def serve(workers):
        event = yield WAIT
        first = event
        event = yield Decision(True, [event.worker])
        while True:
            event = yield Decision(send=[event.worker], **{field: [first]})

    with pytest.raises(ValueError, match=f"{field} names a message that is not among those kept"):
        simulate(Cluster(1, 1.0), synchrony(serve), updates=3)


# Values


def test_they_stand_in_specs():
    rules = Rollouts(8, 2.0, group=4, queue=2, admission=1)
    table = SYNCHRONIES.to_table(rules)
    assert SYNCHRONIES.from_table(table) == rules
    assert table == {"name": "rollouts", "batch": 8, "train": 2.0, "group": 4, "queue": 2.0, "admission": 1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Rollouts(6, 1.0, group=4),
            "batch of rollouts = 6 is not allowed: a multiple of group, which is 4",
        ),
        (lambda: Rollouts(4, 1.0, queue=0.5), "queue of rollouts = 0.5 is not allowed: at least 1 batch"),
        (lambda: Rollouts(4, 0.0), "train of rollouts = 0.0"),
        (lambda: Rollouts(4, 1.0, admission=-1), "admission of rollouts = -1"),
        (lambda: Rollouts(4, 1.0, pacing=math.nan), "pacing of rollouts = nan"),
    ],
)
def test_what_cannot_be_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
