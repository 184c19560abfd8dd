"""The trace of a simulation: verified, cut by budgets, the same for a seed, summed up."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync, Synchrony
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, Gamma
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

FILES = ("messages.parquet", "updates.parquet")


# Random simulations

seconds = st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0])
synchronies = st.one_of(
    st.builds(Sync, local_steps=st.integers(1, 2)),
    st.builds(Async, local_steps=st.integers(1, 3)),
    *(
        st.builds(kind, st.integers(1, 3), local_steps=st.integers(1, 2))
        for kind in (KSync, KBatchSync, KAsync, KBatchAsync)
    ),
)


@st.composite
def clusters(draw) -> Cluster:
    workers = draw(st.integers(3, 6))
    join = draw(st.none() | st.lists(seconds, min_size=workers, max_size=workers))
    law = draw(st.sampled_from([1.0, Exponential(1.0), Gamma(1.0, 0.2)]))
    return Cluster(workers, law, uplink=draw(seconds), downlink=draw(seconds), server=draw(seconds), join=join)


seeds = st.integers(0, 1000)


@settings(deadline=None, max_examples=150)
@given(cluster=clusters(), synchrony=synchronies, seed=seeds)
def test_every_simulation_passes_verify_and_ends_on_its_budget(cluster, synchrony, seed):
    trace = simulate(cluster, synchrony, updates=20, seed=seed).verify()
    assert len(trace.updates) == 20
    assert trace.end == trace.update_times[-1]
    table = trace.messages
    order = list(zip(table.read_time, table.worker, strict=True))
    assert order == sorted(order)
    # A worker does one thing at a time.
    for _, own in table.groupby("worker"):
        finished = own.finish_time.fillna(math.inf).to_numpy()
        assert (own.read_time.to_numpy()[1:] >= finished[:-1]).all()
    busy = trace.busy().dropna()
    assert ((busy >= 0) & (busy <= 1 + 1e-9)).all(axis=None)
    np.testing.assert_allclose(busy.sum(axis=1), 1.0, rtol=1e-9)


def closed(trace: Trace) -> list[tuple]:
    """The messages whose fate is sealed."""
    table = trace.messages
    return sorted(table[table.fate != "pending"].astype(object).fillna("none").itertuples(index=False))


@settings(deadline=None, max_examples=100)
@given(cluster=clusters(), synchrony=synchronies, seed=seeds, more=st.integers(1, 15))
def test_a_longer_budget_only_extends(cluster, synchrony, seed, more):
    short, long = (simulate(cluster, synchrony, updates=n, seed=seed) for n in (10, 10 + more))
    pd.testing.assert_frame_equal(long.updates[:10], short.updates)
    assert set(closed(short)) <= set(closed(long))
    by_time = simulate(cluster, synchrony, wallclock=short.end, seed=seed)
    pd.testing.assert_frame_equal(by_time.updates[:10], short.updates)
    assert set(closed(short)) <= set(closed(by_time))
    assert by_time.update_times[-1] <= short.end


# Budgets


def test_an_update_budget_is_met_exactly():
    assert len(simulate(Cluster(3, Exponential(1.0)), KAsync(2), updates=17).updates) == 17


def test_a_gradient_budget_stops_after_the_first_update_that_reaches_it():
    trace = simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4), gradients=10)
    assert trace.updates.gradients.tolist() == [4, 4, 4]
    assert len(simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4), gradients=12).updates) == 3
    local = simulate(Cluster(3, Exponential(1.0)), KBatchAsync(4, local_steps=5), gradients=21)
    assert local.updates.gradients.tolist() == [20, 20]


def test_a_wallclock_budget_keeps_an_update_at_exactly_that_time():
    at, before = (simulate(Cluster(2, 1.0), Async(), wallclock=t) for t in (3.0, 3.0 * (1 - 1e-11)))
    assert at.update_times.tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert at.end == 3.0
    assert before.update_times.tolist() == [1.0, 1.0, 2.0, 2.0]


def test_a_wallclock_budget_keeps_an_update_that_is_later_by_rounding_only():
    trace = simulate(Cluster(1, 0.1), Async(), wallclock=0.3)
    assert trace.update_times.tolist() == [0.1, 0.2, 0.1 + 0.2]
    assert trace.end == 0.1 + 0.2 > 0.3
    assert trace.messages.fate.tolist() == ["used"] * 3
    assert simulate(Cluster(1, 0.1), Async(), wallclock=math.nextafter(0.3, 0)).end == 0.1 + 0.2


def test_a_wallclock_budget_ends_where_it_says_though_nothing_happens_there():
    trace = simulate(Cluster(2, 1.0), Async(), wallclock=3.7)
    assert trace.end == 3.7
    assert trace.messages.fate.value_counts().to_dict() == {"used": 6, "pending": 2}


def test_an_overloaded_server_drops_outdated_messages_without_work():
    trace = simulate(Cluster(4, compute=1.0, server=1.0), KBatchSync(1), updates=20).verify()
    assert trace.update_times.tolist() == [2.0 * (n + 1) for n in range(20)]


def test_the_kind_of_budget_does_not_change_the_fates_of_the_last_round():
    cluster = Cluster(compute=[0.7, 1.6, 3.3])
    by_updates = simulate(cluster, KSync(2), updates=6)
    by_wallclock = simulate(cluster, KSync(2), wallclock=by_updates.end)
    pd.testing.assert_frame_equal(by_updates.messages, by_wallclock.messages)
    assert set(by_updates.messages["fate"]) == {"used", "cancelled"}


# Determinism

CLUSTER = "Cluster(5, TwoLevelGamma(), speeds=Exponential(1.0), join=Exponential(50.0), uplink=1.0, server=0.5)"
SCRIPT = f"""
import sys
from stalegrad.policies.synchrony import KAsync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, TwoLevelGamma
from stalegrad.simulator.timing.engine import simulate
simulate({CLUSTER}, KAsync(2), updates=500, seed=11).save(sys.argv[1])
"""


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    for folder, hash_seed in (("a", "1"), ("b", "2")):
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": ""}
        subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / folder)], check=True, env=environment)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "synchrony", [Sync(), KSync(2), KBatchSync(3), Async(), KAsync(2), KBatchAsync(3)], ids=str
)
def test_the_same_seed_gives_the_same_trace_and_another_seed_another(same, synchrony: Synchrony):
    cluster = Cluster(4, Exponential(1.0), uplink=0.1)
    one, again, other = (simulate(cluster, synchrony, updates=50, seed=seed) for seed in (1, 1, 2))
    same(one, again)
    assert one.end != other.end


# Summary statistics of the specification's examples, worked out by hand


def test_busy_fractions_of_k_sync():
    # Rounds of 1.6 s; 8.8 s is half a round after the fifth update. Worker 0 computes 0.7 s a round and
    # waits; worker 1 always computes; worker 2 is cancelled five times, after 1.6 s each.
    trace = simulate(Cluster(compute=[0.7, 1.6, 3.3]), KSync(2), wallclock=8.8)
    busy = trace.busy()
    assert busy.used.tolist() == pytest.approx([4.2 / 8.8, 1.0, 0.8 / 8.8])
    assert busy.wasted.tolist() == pytest.approx([0.0, 0.0, 8.0 / 8.8])
    assert busy.idle.tolist() == pytest.approx([4.6 / 8.8, 0.0, 0.0], abs=1e-12)
    assert trace.idle_fraction().tolist() == busy.idle.tolist()
    assert trace.throughput() == pytest.approx({"updates_per_second": 5 / 8.8, "gradients_per_second": 10 / 8.8})
    assert trace.staleness_histogram().tolist() == [1.0]
    summary = trace.summary()
    assert summary["idle"] == pytest.approx(4.6 / 8.8 / 3)
    assert summary["wasted"] == pytest.approx(8.0 / 8.8 / 3)
    assert (summary["updates"], summary["gradients"], summary["workers"]) == (5, 10, 3)
    assert (summary["mean_staleness"], summary["max_staleness"], summary["fresh"]) == (0.0, 0, 1.0)


def test_staleness_histogram_of_async():
    trace = simulate(Cluster(compute=[0.7, 1.6, 3.3]), Async(), updates=6)
    assert trace.staleness.tolist() == [0, 0, 2, 1, 0, 2]
    histogram = trace.staleness_histogram()
    assert histogram.index.tolist() == [0, 1, 2]
    assert histogram.tolist() == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    assert trace.summary()["mean_staleness"] == pytest.approx(5 / 6)
    assert trace.summary()["fresh"] == pytest.approx(0.5)
    assert trace.idle_fraction().tolist() == [0.0, 0.0, 0.0]


def test_an_empty_trace_has_a_summary():
    trace = simulate(Cluster(2, 5.0), Async(), wallclock=1.0)
    summary = trace.summary()
    assert (summary["updates"], summary["gradients"], summary["max_staleness"]) == (0, 0, -1)
    assert math.isnan(summary["mean_staleness"])
    assert trace.staleness_histogram().tolist() == []


def test_a_trace_shows_itself():
    trace = simulate(Cluster(compute=[1.0, 2.0]), Async(), updates=3)
    assert repr(trace) == "Trace(2 workers, 3 updates, 3 used of 3 messages, 2 s)"
    assert "mean_staleness" in trace._repr_html_()


def test_text_of_others_is_escaped_where_a_trace_shows_itself():
    tables = simulate(Cluster(2), Async(), updates=1)
    spec = {"synchrony": {"name": "<img src=x onerror=alert(1)>"}}
    shown = Trace(tables.messages, tables.updates, spec=spec)._repr_html_()
    assert "<img" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
