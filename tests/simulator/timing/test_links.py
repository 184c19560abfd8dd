"""Links and servers in a simulation: traces by hand, closed networks, every synchrony, and wrong values."""

import math

import numpy as np
import pytest
import scipy
from hypothesis import example, given, settings, strategies as st

from stalegrad.policies.synchrony import (
    SSP,
    Async,
    DelayedAveraging,
    DelayedAveragingGeneral,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Rollouts,
    Sequential,
    Sync,
)
from stalegrad.simulator import Trace, TraceError
from stalegrad.simulator.timing.availability import Events, Renewal
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    Correlated,
    Deterministic,
    Empirical,
    Exponential,
    HyperExponential,
    Pareto,
    Recorded,
    Shared,
    ShiftedExponential,
    Uniform,
)
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.links import Network, between_regions, regions


def receipts(trace):
    """Return (worker, finish time, receive time) of every message that was received."""
    columns = ("worker", "finish_time", "receive_time")
    rows = zip(*(trace.column(name).tolist() for name in columns), strict=True)
    return [row for row in rows if not math.isnan(row[2])]


# Latency


def test_every_link_has_its_latency():
    cluster = Cluster(compute=[1.0, 1.0], uplink=[0.0, 0.25], downlink=[0.5, 0.0])
    trace = simulate(cluster, Async(), wallclock=4.0).verify()
    assert receipts(trace) == [
        (0, 1.0, 1.0),
        (1, 1.0, 1.25),
        (1, 2.25, 2.5),
        (0, 2.5, 2.5),
        (1, 3.5, 3.75),
        (0, 4.0, 4.0),
    ]


def test_lists_of_equal_numbers_and_deterministic_delays_are_numbers():
    cluster = Cluster(3, uplink=[0.5, 0.5, 0.5], downlink=Deterministic(0.25), server=Deterministic(0.0))
    assert cluster == Cluster(3, uplink=0.5, downlink=0.25)
    assert cluster.table() == {
        "workers": 3,
        "compute": Cluster(3).table()["compute"],
        "uplink": 0.5,
        "downlink": 0.25,
    }
    assert Cluster(3, uplink=[0.0] * 3, network=Network(5.0)).instant  # so that it runs in blocks


def test_latencies_are_drawn_from_their_delay_and_from_streams_of_their_own():
    law, plain = Uniform(0.1, 0.4), Cluster(8, Exponential(1.0))
    trace = simulate(Cluster(8, Exponential(1.0), uplink=law), Async(), updates=4_000).verify()
    travelled = np.array([receive - finish for _, finish, receive in receipts(trace)])
    assert scipy.stats.kstest(travelled, "uniform", (0.1, 0.3)).pvalue > 0.01
    other = simulate(Cluster(8, Exponential(1.0), uplink=law, downlink=Exponential(0.3)), Async(), updates=4_000)
    for worker in range(8):  # one stream per worker and purpose: neither jobs nor uploads depend on the downlink
        jobs = [t.messages[t.messages.worker == worker].dropna() for t in (trace, other)]
        one, two = (j.eval("receive_time - finish_time").to_numpy()[:300] for j in jobs)
        assert one == pytest.approx(two, abs=1e-9)
        one, two = (j.eval("finish_time - read_time").to_numpy()[:300] for j in jobs)
        assert one == pytest.approx(two, abs=1e-9)
    instant = simulate(plain, Async(), updates=500).messages
    first = [t[t.worker == 3].eval("finish_time - read_time")[:30] for t in (trace.messages, instant)]
    assert first[0].to_numpy() == pytest.approx(first[1].to_numpy(), abs=1e-9)


def test_latencies_may_remember_and_be_measured():
    def of_worker(trace, worker):
        return np.array([receive - finish for w, finish, receive in receipts(trace) if w == worker])

    remembers = Cluster(2, 10.0, uplink=Correlated(Uniform(0.1, 0.4), phi=0.9))  # jobs so long that none waits
    travelled = of_worker(simulate(remembers, Async(), updates=4_000).verify(), 1)
    assert np.corrcoef(travelled[1:], travelled[:-1])[0, 1] == pytest.approx(0.9, abs=0.03)
    recorded = Cluster(2, 10.0, uplink=Recorded([[0.1, 0.2, 0.3], [0.5, 0.25]]), server=Recorded([0.01, 0.02]))
    trace = simulate(recorded, Async(), updates=8).verify()
    assert of_worker(trace, 0) == pytest.approx([0.1, 0.2, 0.3, 0.1])
    assert of_worker(trace, 1) == pytest.approx([0.5, 0.25, 0.5, 0.25])
    short = Cluster(1, 1.0, uplink=Recorded([0.1, 0.2], wrap=False))
    with pytest.raises(ValueError, match="uplink of worker 0: draw 2 does not exist"):
        simulate(short, Async(), updates=3)


@pytest.mark.parametrize("synchrony", [DelayedAveragingGeneral(2), SSP(3), KAsync(2), Async(local_steps=2)])
def test_an_older_message_is_never_overtaken(synchrony):
    cluster = Cluster(4, Exponential(1.0), uplink=Pareto(1.1, 0.5), downlink=Pareto(1.1, 0.5))
    trace = simulate(cluster, synchrony, updates=300, seed=2).verify()
    for worker in range(4):
        mine = [(finish, receive) for w, finish, receive in receipts(trace) if w == worker]
        assert [receive for _, receive in sorted(mine)] == sorted(receive for _, receive in mine)


# The server


def test_an_update_takes_time_and_the_server_does_nothing_else_meanwhile():
    trace = simulate(Cluster(compute=[1.0, 1.1, 1.2], server=0.25, server_update=0.5), Async(), updates=4).verify()
    assert trace.updates["start"].tolist() == pytest.approx([1.25, 2.0, 2.75, 3.5])
    assert trace.update_times.tolist() == pytest.approx([1.75, 2.5, 3.25, 4.0])
    assert trace.staleness.tolist() == [0, 1, 2, 2]
    assert trace.column("read_time").tolist() == pytest.approx([0.0, 0.0, 0.0, 1.75, 2.5, 3.25])  # the new version
    parts = trace.anatomy().messages
    assert parts["waiting"].tolist() == [0, 1, 2, 1]  # of the last one: the updates that end at 2.5 and 3.25
    assert parts["computing"].tolist() == [0, 0, 0, 1]


def test_updates_of_several_messages_take_their_time_once():
    trace = simulate(Cluster(3, compute=1.0, server_update=0.5), Sync(), updates=3).verify()
    assert trace.update_times.tolist() == [1.5, 3.0, 4.5]
    assert trace.updates["start"].tolist() == [1.0, 2.5, 4.0]


def test_an_update_that_the_end_of_the_run_interrupts_is_none():
    trace = simulate(Cluster(1, compute=1.0, server_update=0.5), Async(), wallclock=2.75).verify()
    assert trace.update_times.tolist() == [1.5]
    assert trace.column("fate").tolist() == ["used", "pending"]


def test_start_is_there_only_if_updates_take_time(tmp_path, same):
    cluster = Cluster(4, Exponential(1.0), server=0.1)
    assert list(simulate(cluster, Async(), updates=5).updates) == ["time", "messages", "gradients"]
    trace = simulate(Cluster(4, Exponential(1.0), server_update=Exponential(0.1)), KAsync(2), updates=50)
    loaded = Trace.load(trace.save(tmp_path / "trace"))
    same(trace, loaded)
    assert loaded.updates.equals(trace.updates)
    assert (trace.updates["time"] > trace.updates["start"]).all()


@pytest.mark.parametrize(
    ("start", "law"),
    [
        ([1.0, 2.15], "start <= time"),
        ([1.0, math.nan], "start is finite and at least 0"),
        ([0.8, 2.0], "a used message is received before its update"),
        ([1.0, 1.05], "an update starts when the one before has ended"),
    ],
)
def test_starts_obey_laws(measured, start, law):
    trace = measured()
    good, updates = [1.0, 2.0], dict(trace.updates)
    for starts, complains in ((good, False), (start, True)):
        made = Trace(trace.messages, updates | {"start": starts}, workers=2)
        if complains:
            with pytest.raises(TraceError, match=f"breaks a law: {law}"):
                made.verify()
        else:
            made.verify()


def test_server_times_are_drawn_from_their_delays():
    trace = simulate(
        Cluster(2, 1.0, server=Uniform(0.1, 0.2), server_update=Uniform(0.3, 0.7)), Sync(), updates=2_000
    )
    start, time = trace.updates["start"].to_numpy(), trace.update_times
    assert scipy.stats.kstest(time - start, "uniform", (0.3, 0.4)).pvalue > 0.01
    served = start - trace.messages.groupby("update").receive_time.max().loc[0:].to_numpy()
    assert served.mean() == pytest.approx(0.3, rel=0.01)  # two messages, one after the other


# Transfers by hand

SHARED = {"message_bytes": 2.0, "ingress": 1.0}


def test_transfers_share_the_server():
    trace = simulate(Cluster(compute=[1.0, 2.0], network=Network(**SHARED)), Sync(), updates=1).verify()
    # From 1 to 2 worker 0 has moved half, then both move at 1/2: 0 ends at 4, and 1 has 1 byte left.
    assert receipts(trace) == [(0, 1.0, 4.0), (1, 2.0, 5.0)]
    trace = simulate(Cluster(compute=[1.0, 2.0], network=Network(**SHARED, sharing="fifo")), Sync(), updates=1)
    assert receipts(trace.verify()) == [(0, 1.0, 3.0), (1, 2.0, 5.0)]


def test_a_slow_link_leaves_the_rest_to_the_others():
    cluster = Cluster(compute=[1.0, 1.0], network=Network(**SHARED, upload=[0.25, None]))
    trace = simulate(cluster, Sync(), updates=1).verify()
    assert receipts(trace) == [(0, 1.0, 9.0), (1, 1.0, pytest.approx(1.0 + 2.0 / 0.75))]


def test_links_without_a_shared_server_and_latency_after_the_transfer():
    cluster = Cluster(compute=[1.0, 1.0], uplink=0.5, network=Network(2.0, upload=[1.0, 4.0]))
    trace = simulate(cluster, Sync(), updates=1).verify()
    assert receipts(trace) == [(0, 1.0, 3.5), (1, 1.0, 2.0)]


def test_models_have_their_own_size_and_direction():
    cluster = Cluster(1, compute=1.0, network=Network(2.0, model_bytes=6.0, ingress=4.0, download=3.0))
    trace = simulate(cluster, Async(), updates=2).verify()
    assert receipts(trace) == [(0, 1.0, 1.5), (0, 4.5, 5.0)]


def test_models_of_a_broadcast_wait_for_their_link():
    """K-sync with cancellation: a worker whose link is busy is sent the next model after the one before."""
    cluster = Cluster(compute=[1.0, 5.0], network=Network(2.0, download=[2.0, 0.5]))
    trace = simulate(cluster, KSync(1), updates=4).verify()
    # Models 1, 2, ... are sent at 1, 3, 5, 7; worker 0 has them a second later, worker 1 at 5, 9, ...
    assert trace.update_times.tolist() == [1.0, 3.0, 5.0, 7.0]
    of_1 = trace.messages[trace.messages.worker == 1]
    assert of_1[["read_version", "read_time"]].to_numpy().tolist() == [[0, 0.0], [1, 5.0]]


def test_a_transfer_that_has_started_is_never_cancelled_and_models_that_wait_for_nobody_are_not_transferred():
    away = Events((4.0, 4.25), (0, 0), ("leave", "join"))
    slow = Network(2.0, download=1.0)
    trace = simulate(Cluster(1, compute=1.0, network=slow, availability=away), Async(), updates=3).verify()
    # Model 1 is under way from 1 to 3. Read at 3, sent at 4 just before it leaves; model 2 goes to nobody, from 4
    # to 6. Back at 4.25 it reads version 2; model 3 is requested at 5.25, and transferred from 6 to 8.
    assert trace.update_times.tolist() == [1.0, 4.0, 5.25]
    trace = simulate(Cluster(1, compute=1.0, network=slow, availability=away), Async(), updates=4).verify()
    assert trace.update_times.tolist() == [1.0, 4.0, 5.25, 9.0]
    up = Network(2.0, upload=1.0)
    away = Events((1.5, 2.0), (0, 0), ("leave", "join"))
    trace = simulate(Cluster(1, compute=1.0, network=up, availability=away), Async(), updates=2).verify()
    assert trace.update_times.tolist() == [3.0, 5.0]  # the upload survives; the next, of 3.0, begins as it ends


def test_fifo_serves_in_the_order_of_requests():
    cluster = Cluster(16, Exponential(1.0), network=Network(Exponential(0.2), ingress=1.0, sharing="fifo"))
    got = receipts(simulate(cluster, Async(), updates=2_000).verify())
    by_finish = [receive for _, _, receive in sorted(got, key=lambda row: row[1])]
    assert by_finish == sorted(by_finish)
    fair = Cluster(16, Exponential(1.0), network=Network(Exponential(0.2), ingress=1.0))
    got = receipts(simulate(fair, Async(), updates=2_000).verify())
    by_finish = [receive for _, _, receive in sorted(got, key=lambda row: row[1])]
    assert by_finish != sorted(by_finish)


@pytest.mark.parametrize("synchrony", [Async(), KSync(3), SSP(1), DelayedAveragingGeneral(4)])
def test_limits_that_never_bind_give_the_trace_without_a_network(synchrony, same):
    links = {"uplink": 0.1, "downlink": 0.05}
    plain = simulate(Cluster(5, Exponential(1.0), **links), synchrony, updates=200, seed=3)
    none = simulate(Cluster(5, Exponential(1.0), network=Network(1e9), **links), synchrony, updates=200, seed=3)
    none.spec = plain.spec
    same(plain, none)
    empty = Network(0.0, upload=[1.0, 2.0, 3.0, 4.0, 5.0], download=1.0, ingress=1.0, egress=1.0)
    nothing = simulate(Cluster(5, Exponential(1.0), network=empty, **links), synchrony, updates=200, seed=3)
    nothing.spec = plain.spec
    same(plain, nothing)


def test_max_min_without_limits_is_processor_sharing():
    equal = Network(0.1, ingress=1.0, egress=2.0)
    # A limit that takes a millionth of a millionth from those who are alone.
    nearly = Network(0.1, upload=[None, 1.0 - 1e-12] * 4, ingress=1.0, egress=2.0)
    # A shift of one arrival shifts the ends of others by more: after some hundred transfers the two have parted.
    one, other = (simulate(Cluster(8, Exponential(0.2), network=n), Async(), updates=60) for n in (equal, nearly))
    assert one.update_times == pytest.approx(other.update_times, rel=1e-6)


# Closed networks (spec 7, F3)


def mean_value(workers, delay, demand):
    """Throughput of a closed network of one queue and a delay, by exact mean value analysis."""
    queue = 0.0
    for n in range(1, workers + 1):
        response = demand * (1 + queue)
        rate = n / (delay + response)
        queue = rate * response
    return rate


HYPER = HyperExponential((0.7, 0.3), (0.4, 2.4))
FAIR, FIFO = {}, {"sharing": "fifo"}


@pytest.mark.parametrize("workers", [1, 4, 16, 64])
@pytest.mark.parametrize(
    ("compute", "size", "sharing"),
    [
        (Exponential(1.0), 0.1, FAIR),
        (HYPER, 0.1, FAIR),
        (Deterministic(1.0), Exponential(0.1), FAIR),
        (Exponential(1.0), Exponential(0.1), FIFO),
        (Deterministic(1.0), Exponential(0.1), FIFO),
    ],
)
@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_throughput_is_that_of_mean_value_analysis(workers, compute, size, sharing, way):
    links = Network(size, **{way: 1.0}, **sharing)
    cluster = Cluster(workers, compute, uplink=0.2, downlink=0.3, network=links)
    trace = simulate(cluster, Async(), updates=15_000, seed=1)
    computing = trace.messages.eval(
        "finish_time - read_time"
    ).mean()  # of those drawn, so that chance has less say
    assert computing == pytest.approx(1.0, rel=0.04)
    assert len(trace.used) / trace.end == pytest.approx(mean_value(workers, computing + 0.5, 0.1), rel=0.015)
    # Each message lacks the updates of the others, but for the first ones.
    assert trace.staleness[2 * workers :].mean() == pytest.approx(workers - 1, abs=0.002 * workers)


def test_where_all_is_deterministic_workers_lock_in_phase():
    for workers in (1, 4, 16):
        cluster = Cluster(workers, 1.0, network=Network(1.0, ingress=1.0))
        trace = simulate(cluster, Async(), updates=200 * workers)
        assert len(trace.used) / trace.end == pytest.approx(workers / (1.0 + workers), rel=1e-9)


@pytest.mark.parametrize("times", [{"server": Exponential(0.1)}, {"server_update": Exponential(0.1)}])
def test_a_server_that_takes_time_is_a_queue(times):
    for workers in (1, 8, 32):
        trace = simulate(Cluster(workers, Exponential(1.0), **times), Async(), updates=15_000, seed=1)
        assert len(trace.used) / trace.end == pytest.approx(mean_value(workers, 1.0, 0.1), rel=0.02)


# Every synchrony

ALL = [
    Async(), KAsync(2), KBatchAsync(3), Sync(), KSync(2), KBatchSync(3), SSP(0), SSP(2), DelayedAveraging(4),
    DelayedAveragingGeneral(3), Sequential(), Async(local_steps=3), KSync(2, local_steps=2),
    KAsync(2, grace=0.4), KBatchSync(2, grace=0.5), Sync(deadline=2.0), KSync(3, deadline=1.5, grace=0.25),
    Rollouts(batch=4, train=0.5, group=2, queue=2, max_staleness=3), Rollouts(batch=2, train=0.5, admission=1),
]  # fmt: skip
GRIDDED = Empirical((0.0, 0.5, 1.0))  # ties
LOST = Renewal(Exponential(6.0), Exponential(3.0))
DRAINED = Renewal(Uniform(1.0, 8.0), Uniform(0.5, 3.0), "stationary", departure="delivered")
TIMES = st.sampled_from([0.0, 0.5, Exponential(0.3), GRIDDED, (0.0, 0.25, 0.5, Exponential(0.2))])
SIZES = st.sampled_from([0.5, Exponential(0.5), GRIDDED])
BANDS = st.sampled_from([None, 1.0, (0.5, 1.0, 2.0, math.inf)])
NETWORKS = st.none() | st.builds(
    Network,
    SIZES,
    SIZES,
    BANDS,
    BANDS,
    st.sampled_from([None, 2.0]),
    st.just(3.0),
    st.sampled_from(["fair", "fifo"]),
)


@example(
    synchrony=KBatchSync(2, grace=0.5), compute=Exponential(1.0), uplink=Exponential(0.3), downlink=0.0,
    server=0.0, server_update=0.0, links=Network(0.5, egress=3.0), availability=None, seed=228,
)  # fmt: skip
@given(
    synchrony=st.sampled_from(ALL),
    compute=st.sampled_from([Exponential(1.0), Deterministic(1.0), ShiftedExponential(0.5, 0.5)]),
    uplink=TIMES,
    downlink=TIMES,
    server=st.sampled_from([0.0, 0.125, Exponential(0.1)]),
    server_update=st.sampled_from([0.0, 0.25, Exponential(0.2), GRIDDED]),
    links=NETWORKS,
    availability=st.sampled_from([None, LOST, DRAINED]),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=200, deadline=None)
def test_every_synchrony_under_random_links_and_servers(
    synchrony, compute, uplink, downlink, server, server_update, links, availability, seed
):
    cluster = Cluster(
        4, compute, uplink=uplink, downlink=downlink, server=server, server_update=server_update, network=links,
        availability=availability,
    )  # fmt: skip
    trace = simulate(cluster, synchrony, wallclock=40.0, seed=seed).verify()
    assert len(trace.update_times)
    assert ("start" in trace.updates) == (server_update != 0.0)
    parts = trace.anatomy().messages
    kinds = ["before_reading", "computing", "travelling", "waiting"]
    assert (parts[kinds].sum(axis=1) == parts["staleness"]).all()
    assert Cluster.from_table(cluster.table()) == cluster
    for worker in range(4):
        times = [receive for w, _, receive in sorted(receipts(trace), key=lambda row: row[:2]) if w == worker]
        assert times == sorted(times)
        assert trace.messages[trace.messages.worker == worker]["read_version"].is_monotonic_increasing


# Regions


def test_regions_are_those_of_the_table():
    assert len(regions()) == 10
    links = between_regions(["Tokyo", "Virginia"], server="Sydney", message_bytes=1e6, ingress=2e9)
    assert links["uplink"] == links["downlink"] == [0.050, 0.0985]
    assert links["network"] == Network(1e6, None, [0.761e9 / 8, 0.383e9 / 8], [0.761e9 / 8, 0.383e9 / 8], 2e9)
    assert between_regions(["Ohio"], server="Ohio", message_bytes=1)["uplink"] == [0.005]
    trace = simulate(Cluster(compute=[1.0, 1.0], **links), Async(), updates=10).verify()
    assert trace.column("receive_time")[0] == pytest.approx(1.0 + 1e6 * 8 / 0.761e9 + 0.05)


# Wrong values


def timed(**links):
    return simulate(Cluster(2, **links), Async(), updates=3)


SHARED_DELAY = Shared(Exponential(1.0), factor=Empirical([1.0, 4.0]), period=10.0)
WRONG = [
    (lambda: Network(), "missing 1 required positional argument: 'message_bytes'"),
    (lambda: Network(None), "message_bytes of network is missing"),
    (lambda: Network(-1), r"message_bytes of network = -1 is not allowed"),
    (lambda: Network(math.nan), r"message_bytes of network = nan is not allowed"),
    (lambda: Network("modell"), "message_bytes of network = 'modell' is not allowed: give bytes, a delay"),
    (lambda: Network(1, model_bytes=-2.5), r"model_bytes of network = -2.5 is not allowed"),
    (lambda: Network(1, upload=0), r"upload of network = 0 is not allowed: Input should be greater than 0"),
    (lambda: Network(1, upload=[1.0, 0.0]), r"upload of network, worker 1 = 0.0 is not allowed"),
    (lambda: Network(1, download=[math.nan]), r"download of network, worker 0 = nan is not allowed"),
    (lambda: Network(1, ingress=-5), r"ingress of network = -5 is not allowed"),
    (lambda: Network(1, egress="fast"), r"egress of network = 'fast' is not allowed"),
    (lambda: Network(1, ingress=1, sharing="lifo"), "sharing of network = 'lifo' is not allowed"),
    (lambda: Network(1, upload=1, sharing="fifo"), "'fifo' needs a capacity that is shared: give ingress"),
    (lambda: Cluster(3, network=Network(1, upload=[1.0, 2.0])), "upload of network has 2 entries, but there are"),
    (lambda: Cluster(3, network=0.5), r"network of cluster = 0.5 is not allowed: give e.g. Network"),
    (lambda: Cluster(3, network={"message_byte": 1}), "Did you mean 'message_bytes'"),
    (lambda: Cluster(3, uplink=[0.1, 0.2]), "uplink of cluster has 2 entries, but there are 3 workers"),
    (lambda: Cluster(2, uplink=[0.1, -0.2]), r"uplink of cluster, worker 1 = -0.2 is not allowed"),
    (lambda: Cluster(2, downlink=math.nan), r"downlink of cluster = nan is not allowed"),
    (lambda: Cluster(2, downlink=None), "downlink of cluster: None is not a delay"),
    (lambda: Cluster(2, uplink=SHARED_DELAY), r"uplink of cluster = Shared.* it depends on when a job begins"),
    (lambda: Network(SHARED_DELAY, upload=1), r"message_bytes of network = Shared.* depends on when a job begins"),
    (lambda: Cluster(2, uplink=Recorded([[0.1, 0.2]])), "uplink of cluster, worker 1: worker 1 is missing"),
    (lambda: Cluster(2, network=Network(Recorded([[9.0]]), upload=1)), "message_bytes of network, worker 1: "),
    (lambda: Cluster(2, server=-1.0), r"server of cluster = -1.0 is not allowed"),
    (lambda: Cluster(2, server_update=True), r"server_update of cluster = True is not allowed"),
    (lambda: Cluster(2, server=[0.1, 0.2]), r"server of cluster: \[0.1, 0.2\] is not a delay"),
    (lambda: between_regions(["Tokio"], "Ohio", message_bytes=1), "region of worker 0: .*Did you mean 'Tokyo'"),
    (lambda: between_regions("Tokyo", "Ohio", message_bytes=1), "give a list of one region per worker"),
    (lambda: between_regions(["Tokyo"], "Ohio"), "message_bytes of network is missing"),
    (lambda: timed(network=Network("model")), 'message_bytes of network = "model" is'),
    (lambda: timed(network=Network(1, "model")), 'model_bytes of network = "model"'),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_cannot_be_is_one_sentence(make, said):
    with pytest.raises((ValueError, TypeError), match=said):
        make()


def test_draws_that_cannot_be_name_the_worker():
    wrong = {"uplink": lambda rng, size: np.full(size, -1.0)}
    with pytest.raises(ValueError, match=r"uplink of worker 0: draw 0 is -1\.0; allowed are finite values"):
        simulate(Cluster(2, **wrong), Async(), updates=3)
    links = Network(lambda rng, size: np.full(size, math.nan), ingress=1.0)
    with pytest.raises(ValueError, match="message_bytes of worker 0: draw 0 is nan"):
        simulate(Cluster(2, network=links), Async(), updates=3)
    with pytest.raises(ValueError, match="server of cluster, worker 0: draw 0 is inf"):
        simulate(Cluster(2, server=lambda rng, size: np.full(size, math.inf)), Async(), updates=3)
    with pytest.raises(ValueError, match=r"time of message_bytes of worker 0 = 1e-20 s is not allowed at 1\.0 s"):
        simulate(Cluster(2, network=Network(1e-20, ingress=1.0)), Async(), updates=3)
