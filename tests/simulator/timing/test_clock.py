"""The clock: refused as soon as it stands still or overflows, and traces that are whole whatever the times are."""

import gc
import json
import math
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from stalegrad.analysis import to_perfetto
from stalegrad.policies.synchrony import (
    SSP,
    WAIT,
    Async,
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
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.clock import check_advance, no_full_collections, reach
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, Gamma, Uniform
from stalegrad.simulator.timing.engine import Engine, simulate
from stalegrad.simulator.timing.limits import MOST_WORKERS
from stalegrad.simulator.timing.trace import Trace

FLOAT_MAX = 1.7976931348623157e308


def test_a_delay_that_the_clock_cannot_represent_is_refused():
    check_advance(1.0, 2.3e-16, "x")
    check_advance(1.0, 0.0, "x")
    check_advance(0.0, 5e-324, "x")
    check_advance(1.0, 1e-17, "x", negligible=1e-17)
    with pytest.raises(
        ValueError, match=r"^x = 1e-16 s is not allowed at 1.0 s: .* not advance; .* are 2.22e-16 s$"
    ):
        check_advance(1.0, 1e-16, "x")
    with pytest.raises(ValueError, match=r"^x = 1e\+308 s is not allowed at 1e\+308 s: .* pass 1.8e\+308 s$"):
        check_advance(1e308, 1e308, "x", negligible=math.inf)
    assert reach(3.0) == 3.0 * (1 + 1e-12)
    assert reach(FLOAT_MAX) == FLOAT_MAX


LATE = {"join": [1.0, 1.0]}
STUCK = {
    "compute": (Cluster(2, 1e-17, **LATE), Async(), "compute of worker 0 = 1e-17 s is not allowed at 1.0 s"),
    "compute of one": (Cluster(2, [1.0, 1e-17], **LATE), KAsync(1), "compute of worker 1 = 1e-17 s .* at 1.0 s"),
    "compute, late": (Cluster(2, 1.0, join=[0.0, 1e17]), Sync(), r"compute of worker 1 = 1.0 s .* at 1e\+17"),
    "local steps": (Cluster(2, 1e-17, **LATE), Async(local_steps=3), "compute of worker 0 = 3e-17 s"),
    "collecting": (Cluster(2, 1e-17, **LATE), DelayedAveragingGeneral(2), "compute of worker 0 = 1e-17 s"),
    "a random law": (Cluster(1, Exponential(1e-18), join=[1.0]), Async(), "compute of worker 0 = .*e-1.* at 1.0"),
    "a law at its resolution": (
        Cluster(1, Uniform(0.0, 1.0), join=[1e16]), Async(), r"compute of worker 0 = 0.* at 1e\+16 s"
    ),
    "uplink": (Cluster(2, 1.0, uplink=1e-17), Async(), "uplink of cluster = 1e-17 s is not allowed at 1.0 s"),
    "downlink": (Cluster(2, 1.0, downlink=1e-17), Sync(), "downlink of cluster = 1e-17 s is not allowed at 1.0 s"),
    "server": (Cluster(2, 1.0, server=1e-17), Async(), "server of cluster = 1e-17 s is not allowed at 1.0 s"),
    "overflow": (Cluster(2, 1e308), Async(), r"compute of worker 0 = 1e\+308 s .* at 1e\+308 s: .* pass 1.8e"),
    "overflow of local steps": (Cluster(2, 1e308), Async(local_steps=2), "compute of worker 0 = inf s"),
    "overflow of a link": (Cluster(1, 1e308, uplink=1e308), Async(), r"uplink of cluster = 1e\+308 s"),
    "overflow of a server": (Cluster(1, 1e308, server=1e308), Async(), r"server of cluster = 1e\+308 s"),
    "overflow of a downlink": (Cluster(1, 1e308, downlink=1e308), Async(), r"downlink of cluster = 1e\+308 s"),
    "overflow by speed": (Cluster(1, 1e300, speeds=[1e-300]), Async(), "divided by its speed .*: draw 0 is inf"),
    "zero by speed": (Cluster(1, 1e-200, speeds=[1e200]), Async(), "divided by its speed 1e.200, is 256 times 0"),
    "zeros of a function": (Cluster(1, lambda rng, n: np.zeros(n)), Async(), "worker 0 drew 256 times 0"),
}  # fmt: skip


@pytest.mark.parametrize(("cluster", "synchrony", "said"), STUCK.values(), ids=STUCK)
@pytest.mark.parametrize("budget", [{"updates": 2000}, {"wallclock": 1.7e308}])
def test_a_clock_that_would_not_advance_or_overflow_is_refused(cluster, synchrony, said, budget):
    with pytest.raises(ValueError, match=said):
        simulate(cluster, synchrony, **budget)


def test_a_random_time_lost_in_rounding_counts_as_zero():
    trace = simulate(Cluster(4, Gamma(1.0, 3.0), uplink=0.5), KBatchSync(2), updates=400).verify()
    spent = trace.column("finish_time") - trace.column("read_time")
    assert np.count_nonzero(spent == 0) > 10
    assert trace.summary()["wallclock"] > 1.0


def test_workers_that_cancel_one_another_at_one_moment_for_ever_are_refused():
    def turns(first):
        return lambda rng, size: (np.arange(size) + first) % 2 * 1.0

    with pytest.raises(
        ValueError, match=r"compute of worker [01]: it reads more than 512 times at 0.0 s, because"
    ):
        simulate(Cluster(compute=[turns(0), turns(1)]), KBatchSync(1), updates=10**9)


def test_a_cluster_has_at_most_ten_million_workers():
    with pytest.raises(ValueError, match="workers of cluster = 1000000000000 is not allowed: 1 to 10000000"):
        Cluster(10**12)
    assert Cluster(MOST_WORKERS).size == MOST_WORKERS


class Silent(Synchrony):
    """Nobody is ever answered."""

    def serve(self, workers):
        while True:
            yield WAIT


def test_a_synchrony_that_stands_still_is_named():
    with pytest.raises(ValueError, match=r"synchrony 'silent' stands still at 1.0 s: every worker waits"):
        simulate(Cluster(2, 1.0), Silent(), updates=1)
    engine = Engine(Cluster(2, 1.0), Silent(), Budget(updates=1), 0)
    with pytest.raises(ValueError, match="stands still"):
        engine.advance(5.0)


def test_an_advance_includes_what_is_later_by_rounding_only():
    engine = Engine(Cluster(1, 0.1), Async(), Budget(wallclock=0.7), 0)
    assert not engine.advance(0.3)
    assert engine.trace().update_times.tolist() == [0.1, 0.2, 0.1 + 0.2]
    assert not engine.advance(0.6)
    assert engine.trace().end == 0.6
    assert engine.advance(0.7)
    assert len(engine.trace().verify().update_times) == 7
    assert engine.trace().end == pytest.approx(0.7, rel=1e-12)


# Threads


def test_threads_leave_garbage_collection_as_it_was():
    before = gc.get_threshold()
    started, seen = threading.Barrier(4), []

    def work(seed):
        for repeat in range(5):
            started.wait()
            simulate(Cluster(4, Exponential()), Async(), updates=50 * (seed + 1), seed=repeat)
            with no_full_collections():
                seen.append(gc.get_threshold()[2])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.get_threshold() == before
    assert set(seen) == {2**30}
    assert len(seen) == 20


def test_garbage_collection_is_as_before_after_an_error():
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="would not advance"):
        simulate(Cluster(1, 1e-17, join=[1.0]), Async(), updates=5)
    assert gc.get_threshold() == before


# Any times

ORDINARY = [0.1, 0.1, 0.25, 1.0, 1.0, 3.0]
PARTS = [0.0, 5e-324, 1e-17, 1e-9, *ORDINARY, *ORDINARY, 1e16, 1e300]
part = st.sampled_from(PARTS)
link = st.sampled_from([*[0.0] * 10, *PARTS])


def mostly_zero(rng, size):
    return np.where(rng.random(size) < 0.8, 0.0, 1.0)


def zero_or_tiny(rng, size):
    return rng.choice([0.0, 1e-17, 1e-300, 1.0], size)


def huge_or_zero(rng, size):
    return rng.choice([0.0, 1.0, 1e17, 1e307], size)


LAWS = [mostly_zero, zero_or_tiny, huge_or_zero, Gamma(1.0, 3.0), Gamma(0.1, 2.0), Exponential(1.0)]
law = st.sampled_from([*LAWS, *LAWS, *PARTS[1:]])
SYNCHRONIES = [
    Sync(), KSync(1), KSync(2, local_steps=2), KAsync(2), KBatchAsync(3), Async(), Async(local_steps=3), SSP(0),
    SSP(2), Sequential(), DelayedAveraging(2), DelayedAveraging(4), DelayedAveragingGeneral(1),
    DelayedAveragingGeneral(3), KBatchSync(1), KBatchSync(3),
]  # fmt: skip


@st.composite
def simulations(draw):
    workers = draw(st.integers(2, 3))
    each = {"min_size": workers, "max_size": workers}
    synchrony = draw(st.sampled_from(SYNCHRONIES))
    compute, links = draw(st.lists(law, **each)), [draw(link) for _ in range(3)]
    # Its workers never wait: a second on the way would be 10^17 messages of 10^-17 s.
    assume(not isinstance(synchrony, KBatchSync) or not any(links) or all(c in LAWS[3:] for c in compute))
    assume(not isinstance(synchrony, KBatchSync) or max(links) <= 3.0)
    cluster = Cluster(
        workers, compute, uplink=links[0], downlink=links[1], server=links[2],
        speeds=draw(st.none() | st.lists(st.sampled_from([1e-300, 0.5, 1.0, 1.0, 2.0, 1e200]), **each)),
        join=draw(st.none() | st.lists(part, **each)),
    )  # fmt: skip
    return cluster, synchrony, draw(st.integers(0, 9))


def check_slices(events):
    """Check that on no thread of a viewer two slices overlap."""
    threads = {}
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            threads.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for slices in threads.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(slices))


def check_whole(trace, same, place):
    """Check that a trace passes verify, is read back equal, and can be exported."""
    trace.verify()
    file = place / "trace.json"
    same(Trace.load(trace.save(place / "trace")), trace)
    trace.summary()
    file.unlink(missing_ok=True)
    try:
        check_slices(json.loads(to_perfetto(trace, file).read_text())["traceEvents"])
    except ValueError as error:
        if "microseconds" not in str(error):
            raise


def check_any_simulation(same, place, kind, simulation):
    cluster, synchrony, seed = simulation
    try:
        trace = simulate(cluster, synchrony, updates=6, seed=seed)
        if kind == "gradients":
            trace = simulate(cluster, synchrony, gradients=9, seed=seed)
        elif kind == "wallclock" and trace.end > 0:
            trace = simulate(cluster, synchrony, wallclock=trace.end, seed=seed)
            assert len(trace.update_times) >= 6
    except ValueError as error:
        if "compute of worker" in str(error) or " of cluster = " in str(error):
            return False
        raise
    check_whole(trace, same, place)
    return True


@pytest.mark.parametrize("kind", ["updates", "gradients", "wallclock"])
def test_whatever_is_simulated_is_whole_or_refused_with_a_sentence(same, tmp_path, kind):
    whole = []

    @settings(deadline=None, max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(simulation=simulations())
    def check(simulation):
        whole.append(check_any_simulation(same, tmp_path, kind, simulation))

    check()
    assert len(whole) >= 200
    assert 50 < sum(whole) < len(whole)  # some are refused, and many are not


CASES = {
    "tiny draws": (Cluster(4, Gamma(1.0, 2.0), uplink=0.5), KBatchSync(2)),
    "tiny draws, collected": (Cluster(4, Gamma(1.0, 2.0)), DelayedAveragingGeneral(4)),
    "zeros": (Cluster(2, [1.0, lambda rng, n: rng.integers(0, 2, n) * 1.0]), DelayedAveragingGeneral(4)),
}


@pytest.mark.parametrize(("cluster", "synchrony"), CASES.values(), ids=CASES)
def test_messages_of_no_duration_are_kept_in_the_order_in_which_they_were_computed(
    same, tmp_path, cluster, synchrony
):
    trace = simulate(cluster, synchrony, updates=3000)
    worker, read = trace.column("worker"), trace.column("read_time")
    by_worker = np.argsort(worker, kind="stable")
    assert (np.diff(read[by_worker])[np.diff(worker[by_worker]) == 0] == 0).any()
    check_whole(trace, same, tmp_path)
