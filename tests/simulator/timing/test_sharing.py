"""Bandwidth that is shared: rates against a slow twin, transfers against a fluid that is stepped by hand."""

import heapq
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.simulator.timing.calendar import Call, Ranks
from stalegrad.simulator.timing.delays import Deterministic, Empirical, Exponential
from stalegrad.simulator.timing.links.latency import Latency
from stalegrad.simulator.timing.links.sharing import EqualShares, MaxMin, Separate, max_min_rates, sharing_of


class Clock:
    """A calendar and nothing else."""

    def __init__(self):
        self.now, self.seed, self.calls, self.count = 0.0, 0, [], itertools.count()
        self.watch = lambda: None

    def at(self, delay, rank, what, whom):
        call = Call((), what, whom)
        call.callbacks = (None,)
        assert delay >= 0
        heapq.heappush(self.calls, (self.now + delay, rank, next(self.count), call))
        return call

    def run(self):
        while self.calls:
            self.now, _, _, call = heapq.heappop(self.calls)
            if call.callbacks:
                call.what(call.whom)
                self.watch()


def carried(kind, limits, capacity, jobs):
    """Return when the transfers of jobs (time, worker, size) end, and the rates between events: (from, rates)."""
    clock, ends, spans = Clock(), {}, []

    def ended(worker):
        ends[worker] = clock.now

    sharing = kind(clock, limits, capacity, Ranks(0, 1), ended)
    clock.watch = lambda: spans.append((clock.now, sharing.rates()))
    for time, worker, size in jobs:
        clock.at(time, worker, lambda job: sharing.start(*job), (worker, size))
    clock.run()
    return ends, spans


def filled(limits, capacity):
    """Raise all rates together; those stop that reach their limit (exact, one level at a time)."""
    rates = [Fraction(0)] * len(limits)
    rising, left = set(range(len(limits))), Fraction(capacity)
    while rising and left:
        steps = [Fraction(limits[i]) - rates[i] for i in rising if limits[i] < math.inf]
        step = min([left / len(rising), *steps])
        for i in rising:
            rates[i] += step
        left -= step * len(rising)
        rising = {i for i in rising if rates[i] != limits[i]}
    return rates


def stepped(limits, capacity, jobs):
    """Return when transfers end: a fluid, from event to event, in exact arithmetic."""
    now, left, ends, coming = Fraction(0), {}, {}, sorted((Fraction(t), w, Fraction(s)) for t, w, s in jobs)
    while coming or left:
        workers = sorted(left)
        rates = dict(zip(workers, filled([limits[w] for w in workers], capacity), strict=True))
        following = [now + left[w] / rates[w] for w in workers]
        following += [coming[0][0]] if coming else []
        passed, now = min(following) - now, min(following)
        for w in workers:
            left[w] -= rates[w] * passed
            if not left[w]:
                ends[w] = now
                del left[w]
        while coming and coming[0][0] == now:
            _, w, size = coming.pop(0)
            if size:
                left[w] = size
            else:
                ends[w] = now
    return ends


RATES = st.sampled_from([0.25, 0.5, 1.0, 1.0, 2.0, 3.0, math.inf])


@given(limits=st.lists(RATES, min_size=1, max_size=12), capacity=st.sampled_from([0.125, 0.7, 1.0, 4.0, 100.0]))
def test_rates_are_those_of_progressive_filling(limits, capacity):
    limits = sorted(limits)
    rates = max_min_rates(np.array(limits), capacity)
    assert rates.tolist() == pytest.approx([float(rate) for rate in filled(limits, capacity)], rel=1e-12)


def test_rates_by_hand():
    assert max_min_rates(np.array([1.0, 2.0, 9.0, 9.0]), 10.0).tolist() == [1.0, 2.0, 3.5, 3.5]
    assert max_min_rates(np.array([1.0, 2.0]), 10.0).tolist() == [1.0, 2.0]
    assert max_min_rates(np.array([math.inf, math.inf]), 10.0).tolist() == [5.0, 5.0]


TIMES = st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.3, 2.0, 4.0])
SIZES = st.sampled_from([0.0, 0.25, 1.0, 1.0, 1.7, 3.0])


@st.composite
def transfers(draw):
    workers = draw(st.integers(1, 6))
    jobs = [(draw(TIMES), worker, draw(SIZES)) for worker in range(workers)]
    return draw(st.lists(RATES, min_size=workers, max_size=workers)), draw(st.sampled_from([0.5, 1.0, 5.0])), jobs


@given(transfers())
@settings(max_examples=300, deadline=None)
def test_transfers_end_when_those_of_a_fluid_do_and_no_byte_is_lost(given_transfers):
    limits, capacity, jobs = given_transfers
    ends, spans = carried(MaxMin, tuple(limits), capacity, jobs)
    expected = stepped(limits, capacity, jobs)
    assert ends.keys() == expected.keys()
    for worker, time in ends.items():
        assert time == pytest.approx(float(expected[worker]), rel=1e-9, abs=1e-9)
    moved = dict.fromkeys(ends, 0.0)
    for (start, rates), (end, _) in itertools.pairwise(spans):
        assert sum(rates.values()) <= capacity * (1 + 1e-12)
        for worker, rate in rates.items():
            assert 0 < rate <= limits[worker]
            moved[worker] += rate * (end - start)
    assert moved == pytest.approx({worker: size for _, worker, size in jobs}, abs=1e-9)


@given(transfers(), st.sampled_from([0.3, 1.0, math.inf]))
@settings(max_examples=200, deadline=None)
def test_equal_shares_are_max_min_rates_of_equal_links(given_transfers, limit):
    _, capacity, jobs = given_transfers
    ends, spans = carried(EqualShares, limit, capacity, jobs)
    expected = stepped([limit] * len(jobs), capacity, jobs)
    assert ends == pytest.approx({worker: float(time) for worker, time in expected.items()}, rel=1e-9, abs=1e-9)
    for _, rates in spans:
        assert sum(rates.values()) <= capacity * (1 + 1e-12)


@pytest.mark.parametrize(("kind", "limits"), [(EqualShares, math.inf), (MaxMin, (math.inf,) * 3)])
def test_what_is_equal_ends_at_the_same_instant(kind, limits):
    """In floats, too: a third of the capacity each has rounding errors."""
    ends, _ = carried(kind, limits, 0.7, [(0.1, 0, 0.3), (0.1, 1, 0.3), (0.1, 2, 0.3)])
    assert len(set(ends.values())) == 1
    assert list(ends) == [0, 1, 2]


def test_the_simplest_way_is_chosen():
    assert sharing_of((1.0, 2.0), math.inf) is Separate
    assert sharing_of(math.inf, 5.0) is EqualShares
    assert sharing_of((7.0, 5.0), 5.0) is EqualShares  # no link can be the bottleneck
    assert sharing_of((2.0, 2.0), 5.0) is EqualShares
    assert sharing_of((2.0, math.inf), 5.0) is MaxMin


@given(
    value=st.sampled_from([Exponential(1.0), Empirical((0.0, 0.1, 5.0)), 0.5, (Exponential(3.0), 0.25)]),
    gaps=st.lists(st.sampled_from([0.0, 0.01, 0.3, 2.0]), min_size=2, max_size=30),
)
@settings(deadline=None)
def test_a_link_keeps_its_order(value, gaps):
    clock, arrived = Clock(), []
    latency = Latency(clock, 0, "uplink", value, Ranks(0, 1), lambda thing: arrived.append((clock.now, thing)))
    sent = {}

    def send(number):
        sent[number] = clock.now
        latency.send(number % 2, number)

    for number, time in enumerate(itertools.accumulate(gaps)):
        clock.at(time, number, send, number)
    clock.run()
    assert len(arrived) == len(gaps)
    for worker in (0, 1):
        mine = [thing for _, thing in arrived if thing % 2 == worker]
        assert mine == sorted(mine)
    assert all(time >= sent[thing] for time, thing in arrived)
    if value == 0.5:
        assert [time - sent[thing] for time, thing in arrived] == pytest.approx([0.5] * len(gaps))


@pytest.mark.parametrize("value", [0.5, (0.5, 0.5), Deterministic(0.5)])
def test_a_number_is_a_deterministic_delay(value):
    clock, arrived = Clock(), []
    latency = Latency(clock, 0, "downlink", value, Ranks(0, 1), lambda thing: arrived.append(clock.now))
    for time in (0.1, 0.7):
        clock.at(time, 0, lambda _: latency.send(1, None), None)
    clock.run()
    assert arrived == [0.1 + 0.5, 0.7 + 0.5]
