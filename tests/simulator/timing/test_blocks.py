"""Runs in blocks are those of the event engine to the byte; what is out of the ordinary is left to the engine."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import (
    AWAIT,
    DISCARD,
    WAIT,
    Async,
    Compute,
    Decision,
    Free,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Rounds,
    Sync,
    Synchrony,
)
from stalegrad.simulator.timing import blocks
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    Correlated,
    Deterministic,
    Empirical,
    Exponential,
    Gamma,
    HyperExponential,
    MarkovModulated,
    Pareto,
    Recorded,
    Shared,
    ShiftedExponential,
    Uniform,
)
from stalegrad.simulator.timing.engine import Engine, simulate
from stalegrad.simulator.timing.trace import Trace

DELAYS = [
    Exponential(1.0),
    ShiftedExponential(1.0, 0.5),
    Pareto(1.1),
    Uniform(0.0, 1.0),
    Gamma(2.0, 0.3),
    HyperExponential((0.9, 0.1), (0.5, 5.5)),
    Deterministic(1.0),
    Empirical((1.0, 2.0, 3.0)),
    Empirical((0.1, 0.2, 0.3)),
    Correlated(Gamma(1.0, 0.5), 0.7),
    MarkovModulated([Exponential(1.0), Recorded((0.5, 2.0))], [3.0, 1.5]),
    Recorded((1.0, 2.0, 3.0), start="random"),
    Empirical((0.0, 1.0)),  # times of 0: a matter for the engine
]


def both(cluster, synchrony, budget, seed):
    """Return the traces in blocks (None: a matter for the engine) and of the engine."""
    found = blocks.run(cluster, synchrony, budget, seed)
    engine = Engine(cluster, synchrony, budget, seed).run()
    if found is None:
        return None, engine
    made = Trace.of(found.columns, found.update_times, workers=cluster.size, end=found.end, spec=engine.spec)
    return made.verify(), engine


@settings(deadline=None, max_examples=400)
@given(data=st.data(), workers=st.integers(1, 9), seed=st.integers(0, 2**32), steps=st.sampled_from([1, 1, 3]))
def test_every_byte_is_the_event_engine_s(data, workers, seed, steps, same):
    delay = st.sampled_from(DELAYS)
    compute = data.draw(delay | st.lists(delay, min_size=workers, max_size=workers))
    speeds = data.draw(st.none() | st.just(Uniform(0.2, 5.0)))
    k = data.draw(st.integers(1, workers))
    batch = data.draw(st.integers(1, workers + 5))
    kinds = [Sync, lambda **h: KSync(k, **h), Async, lambda **h: KBatchAsync(batch, **h)]
    synchrony = data.draw(st.sampled_from(kinds))(local_steps=steps)
    budget = data.draw(
        st.builds(Budget, updates=st.integers(1, 200))
        | st.builds(Budget, gradients=st.integers(1, 500))
        | st.builds(Budget, wallclock=st.sampled_from([0.3, 1.0, 7.0, 30.0]))
    )
    found, engine = both(Cluster(workers, compute, speeds=speeds), synchrony, budget, seed)
    if found is not None:
        same(found, engine)
    else:
        assert "0.0" in repr(compute)


LONG = {
    "async": Async(), "k-batch-async": KBatchAsync(3), "sync": Sync(), "k-sync": KSync(2),
    "local steps": Async(local_steps=4),
    "rounds of local steps": KSync(1, local_steps=4),
}  # fmt: skip


@pytest.mark.parametrize("synchrony", LONG.values(), ids=LONG)
@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(compute=[Exponential(0.01), Exponential(1.0), Gamma(3.0, 0.5), Uniform(0.5, 1.0)]),
        Cluster(5, Empirical((0.1, 0.2, 0.3))),
        Cluster(compute=[0.1, 0.2, 0.7]),
    ],
    ids=["unequal", "ties", "constant"],
)
@pytest.mark.parametrize("budget", [Budget(updates=3000), Budget(wallclock=40.0)], ids=["updates", "wallclock"])
def test_so_it_is_over_many_blocks_of_draws(synchrony, cluster, budget, same):
    found, engine = both(cluster, synchrony, budget, 5)
    assert len(found.update_times) > 10
    same(found, engine)


def test_simulate_takes_blocks_where_it_can(monkeypatch):
    def never(*_):
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(Engine, "run", never)
    for synchrony in (Async(), KBatchAsync(2), Sync(), KSync(2)):
        assert len(simulate(Cluster(3, Exponential()), synchrony, updates=20).update_times) == 20
    for cluster, synchrony in [
        (Cluster(3, Exponential(), uplink=0.1), Async()),
        (Cluster(3, Exponential(), downlink=0.1), Sync()),
        (Cluster(3, Exponential(), server=0.1), KSync(1)),
        (Cluster(3, Exponential(), join=[0.0, 0.0, 1.0]), Async()),
        (Cluster(3, Exponential()), KAsync(2)),
        (Cluster(3, Shared(Exponential(), 2.0, period=1.0)), Async()),
        (Cluster(3, MarkovModulated([1.0, 2.0], [5.0, 5.0], unit="seconds")), Async()),
        (Cluster(3, Recorded([1.0] * 30, wrap=False)), Async()),
        (Cluster(3, MarkovModulated([1.0, lambda rng, size: rng.random(size)], [5.0, 5.0])), Async()),
        (Cluster(3, Exponential()), KBatchSync(2)),
        (Cluster(3, Exponential()), Async(local_steps=100)),
    ]:
        with pytest.raises(AssertionError, match="engine was asked"):
            simulate(cluster, synchrony, updates=20)


def test_errors_are_the_engine_s():
    with pytest.raises(ValueError, match=r"compute of worker 0 = 1e\+308 s .* pass 1.8e"):
        simulate(Cluster(2, 1e308), Sync(), updates=2000)
    with pytest.raises(ValueError, match=r"divided by its speed .*: draw 0 is inf"):
        simulate(Cluster(1, 1e300, speeds=[1e-300]), Async(), updates=3)


def test_a_delay_of_users_draws_when_its_worker_needs_it():
    """It may count its calls; what it would give later is nobody's business."""
    calls = []

    def counted(rng, size):
        calls.append(size)
        return np.full(size, float(len(calls)))

    trace = simulate(Cluster(2, counted), Async(), updates=450)
    assert len(calls) == 2 + 1  # worker 1, the slower one, has not begun its second block
    assert trace.column("finish_time")[0] == 1.0


def test_a_class_with_programs_of_its_own_does_not_inherit_the_pattern():
    @dataclass(frozen=True)
    class EveryOther(Async):
        def serve(self, workers):
            event = yield WAIT
            while True:
                event = yield DISCARD._replace(send=[event.worker])
                event = yield Decision(apply=True, send=[event.worker])

    class Renamed(Async):
        pass

    @dataclass(frozen=True)
    class Pairs(EveryOther):
        def pattern(self, workers):
            return Free(2)

    class Twice(Synchrony):
        def work(self, worker):
            while True:
                yield Compute()
                yield Compute(send=True)
                while worker.unanswered:
                    yield AWAIT

    class Mixed(Async, Twice):
        """Its ``work`` comes from another class than its pattern."""

    class Told(KSync):
        membership = True

    assert blocks.pattern_of(Mixed(), 3) is None
    assert simulate(Cluster(compute=[1.0, 1.5]), Mixed(), updates=4).updates.gradients.tolist() == [2] * 4
    assert blocks.pattern_of(Told(2), 3) is None
    assert blocks.pattern_of(EveryOther(), 3) is None
    assert blocks.pattern_of(Renamed(), 3) == Free(1)
    assert blocks.pattern_of(Pairs(), 3) == Free(2)
    assert blocks.pattern_of(Sync(), 3) == Rounds(3)
    fates = simulate(Cluster(2, 1.0), EveryOther(), updates=5).column("fate").tolist()
    assert fates == ["discarded", "used"] * 5


def test_a_hundred_thousand_workers_are_no_trouble():
    trace = simulate(Cluster(100_000, Exponential()), Async(), updates=1_000)
    assert trace.workers == 100_000
    assert len(trace.update_times) == 1_000


@pytest.mark.parametrize(
    "pattern", [Free(0), Free(-1), Free(2.5), Free(True), Rounds(0), Rounds(4), 3, "async", KSync(2)], ids=repr
)
def test_what_is_no_pattern_is_refused(pattern):
    class Odd(Async):
        def serve(self, workers):
            return Async().serve(workers)

        def work(self, worker):
            return Async().work(worker)

        def pattern(self, workers):
            return pattern

    with pytest.raises(ValueError, match=r"pattern of synchrony 'odd' = .* is not allowed: give Rounds"):
        simulate(Cluster(3, 1.0), Odd(), updates=3)
    assert blocks.pattern_of(KBatchAsync(np.int64(2)), 3) == Free(2)


def test_where_one_worker_is_much_faster_than_many_the_engine_does_it():
    cluster = Cluster(compute=[Exponential(1e-6), *[Exponential(1.0)] * 2999])
    assert blocks.run(cluster, Async(), Budget(updates=50_000), 0) is None
    assert blocks.run(cluster, Async(), Budget(updates=200), 0) is not None
