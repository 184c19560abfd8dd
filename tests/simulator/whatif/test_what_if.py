"""What other synchronies would have done to a recorded job: sums by hand, the event engine, closed forms."""

import gzip
import math

import numpy as np
import pandas as pd
import pytest

from stalegrad.models import Problem
from stalegrad.policies import (
    Async,
    BackupWorkers,
    BoundedStaleness,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Sync,
    methods,
)
from stalegrad.simulator import Cluster, Network, Recorded, simulate, what_if
from stalegrad.simulator.timing.delays.recorded import JOBS
from stalegrad.simulator.whatif.grid import read_grid
from stalegrad.simulator.whatif.rows import rounds_shares, typical_start
from stalegrad.simulator.whatif.what_if import usual_synchronies


def log_of(seconds, **more):
    """A log of a grid of times (steps, workers), its rows in no order."""
    steps, workers = seconds.shape
    table = pd.DataFrame(
        {
            "worker": np.tile(np.arange(workers), steps),
            "step": np.repeat(np.arange(steps), workers),
            "seconds": seconds.ravel(),
        }
    )
    return table.assign(**more).sample(frac=1.0, random_state=0, ignore_index=True)


def random_times(steps=60, workers=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(4.0, 0.25, (steps, workers)) * np.linspace(1.0, 1.5, workers)


# Exactly


@pytest.mark.parametrize("job", JOBS)
def test_sync_takes_the_sum_over_steps_of_the_slowest_and_async_each_worker_s_own_total(job):
    times = np.column_stack(Recorded.measured(job).records.times)
    table = what_if(job, [Sync(), Async()]).table
    seconds = len(times) * times.shape[1] / table.loc["sync", "throughput"]
    assert seconds == pytest.approx(math.fsum(times.max(axis=1)), rel=1e-9)
    rates = [len(own) / math.fsum(own) for own in times.T]
    assert table.loc["async", "throughput"] == pytest.approx(math.fsum(rates), rel=1e-9)


def test_the_event_engine_agrees_on_what_is_exact():
    times = random_times()
    cluster = Cluster(6, Recorded(times.T.tolist()))
    table = what_if(log_of(times), [Sync(), KSync(4), Async()]).table
    for label, synchrony in {"sync": Sync(), "k-sync (k = 4)": KSync(4)}.items():
        trace = simulate(cluster, synchrony, updates=60)
        assert table.loc[label, "throughput"] == pytest.approx(
            trace.throughput()["gradients_per_second"], rel=1e-9
        )
        busy = trace.busy().mean()
        assert table.loc[label, ["idle", "wasted"]].tolist() == pytest.approx([busy["idle"], busy["wasted"]])
    trace = simulate(cluster, Async(), wallclock=2 * times.sum(axis=0).max())
    for worker, total in enumerate(times.sum(axis=0)):
        own = trace.messages[trace.messages["worker"] == worker]
        assert own["finish_time"].iloc[59] == pytest.approx(total, rel=1e-9)


def test_k_sync_with_all_workers_is_sync_and_backup_workers_are_k_sync_while_nobody_is_late():
    times = random_times()
    table = what_if(log_of(times), {"all": KSync(6), "sync": Sync(), "none spare": BackupWorkers(0)}).table
    numbers = table.drop(columns="exact")
    assert numbers.loc["all"].equals(numbers.loc["sync"].rename("all"))
    assert not table.loc["none spare", "exact"]
    assert table.loc["none spare", "throughput"] == pytest.approx(table.loc["sync", "throughput"], rel=0.02)


def test_bounded_staleness_of_zero_simulated_is_sync():
    times = random_times(200)
    table = what_if(log_of(times), [Sync(), BoundedStaleness(0)]).table
    assert table["speedup"].tolist() == pytest.approx([1.0, 1.0], rel=0.01)
    assert table["idle"].iloc[1] == pytest.approx(table["idle"].iloc[0], abs=0.02)


def test_idle_and_wasted_of_rounds_by_hand():
    idle, wasted = rounds_shares(np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 1.0]]), 2)
    assert (idle, wasted) == pytest.approx(((1 + 2) / 15, 1 / 3))


def test_exponential_times_give_the_harmonic_number():
    times = np.random.default_rng(1).exponential(1.0, (4_000, 8))
    table = what_if(log_of(times), [Sync(), Async(), KAsync(4), KBatchSync(8)]).table
    harmonic = sum(1 / n for n in range(1, 9))
    assert table.loc["async", "speedup"] == pytest.approx(harmonic, rel=0.03)
    assert table.loc["k-async (k = 4)", "time_per_update"] == pytest.approx(
        1 / 5 + 1 / 6 + 1 / 7 + 1 / 8, rel=0.03
    )
    assert table.loc["async", "staleness"] == pytest.approx(7.0, rel=0.01)
    assert table.loc["k-batch-sync (k = 8)", "throughput"] == pytest.approx(8.0, rel=0.03)
    assert table.loc["k-batch-sync (k = 8)", "staleness"] == 0


def test_lasting_differences_favour_whoever_does_not_wait():
    times = np.ones((40, 4)) * [1.0, 1.0, 1.0, 3.0]
    answer = what_if(log_of(times), [Sync(), Async(), KSync(3)], compute_only=True)
    assert answer.table["throughput"].tolist() == pytest.approx([4 / 3, 3 + 1 / 3, 3.0])
    assert answer.slowdown == pytest.approx(3.0 / 1.5)
    assert answer.workers["slowdown"].tolist() == pytest.approx([1.0, 1.0, 1.0, 2.0])
    assert answer.workers["slow"].tolist() == [False, False, False, True]
    assert answer.table["low"].tolist() == pytest.approx(answer.table["speedup"].tolist())  # nothing varies


# Simulated


def test_a_sample_is_contiguous_typical_and_scaled_by_its_own_sync():
    rng = np.random.default_rng(3)
    calm, rough = 1.0 + 0.02 * rng.random((300, 5)), rng.exponential(1.0, (100, 5))
    times = np.concatenate([calm, rough, calm])
    start = typical_start(times, 150)
    slow = [times[i : i + 150].max(axis=1).sum() / times[i : i + 150].mean() / 750 * 5 for i in range(551)]
    whole = times.max(axis=1).sum() / times.mean() / 700
    assert abs(slow[start] - whole) == min(abs(np.array(slow) - whole))
    answer = what_if(log_of(times), [Sync(), KBatchAsync(5), KAsync(5)], most=750)
    assert f"steps {start + 1} to {start + 150} of 700" in answer.words[4]
    assert answer.table.loc["k-async (k = 5)", "speedup"] == pytest.approx(1.0, rel=0.02)  # it is sync
    assert not answer.table.loc["k-async (k = 5)", "exact"]


def test_links_slow_down_what_sends_most():
    times = random_times(40, 8)
    links = {"ingress": 1e8, "egress": 1e8}
    table = what_if(log_of(times), [Sync(), Async()], message_bytes=1e8, links=links).table
    assert not table["exact"].any()
    assert table.loc["sync", "speedup"] == 1.0
    assert table.loc["async", "throughput"] <= 1.0 + 1e-9  # a message a second is all that the server receives
    trace = simulate(
        Cluster(8, Recorded(times.T.tolist()), network=Network(1e8, ingress=1e8, egress=1e8)), Sync(), updates=40
    )
    assert table.loc["sync", "throughput"] == pytest.approx(8 * 40 / trace.end, rel=1e-9)


def test_latency_alone_counts():
    times = random_times(40, 4)
    slow = what_if(log_of(times), [Sync()], links={"uplink": 0.5, "downlink": 0.25}).table
    assert 4 / slow.loc["sync", "throughput"] == pytest.approx(times.max(axis=1).mean() + 0.75, rel=0.01)


def test_all_usual_synchronies_work_for_any_number_of_workers():
    for workers in (2, 3, 10, 33):
        table = what_if(log_of(random_times(20, workers))).table
        assert len(table) == len(usual_synchronies(workers)) == 8
        assert (table["low"] <= table["high"]).all()
        assert table["speedup"].between(0.1, 3.0).all()
        assert (table[["idle", "wasted"]] >= 0).all(axis=None)


# How sure


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        level = np.exp(0.3 * rng.standard_normal((40, 1))).repeat(5, axis=0)  # neighbouring steps are alike
        row = what_if(log_of(level * rng.exponential(1.0, (200, 4))), [Async()]).table.loc["async"]
        held += row["low"] <= 25 / 12 <= row["high"]
    assert 85 <= held <= 100


def test_the_same_log_gives_the_same_answer_whatever_the_order_of_its_rows():
    table = log_of(random_times())
    first, second = what_if(table), what_if(table.sort_values("seconds", ignore_index=True))
    assert first.table.equals(second.table)
    assert first.words == second.words


# What is said


def test_nothing_to_gain_is_said():
    times = np.random.default_rng(0).normal(1.0, 0.005, (60, 3))
    answer = what_if(log_of(times))
    assert "nothing to gain" in answer.words[2]
    assert "nearly constant" in answer.words[1]


def test_random_imbalance_and_a_slow_worker_are_told_apart():
    times = np.random.default_rng(0).gamma(9.0, 1 / 9, (200, 8))
    random = what_if(log_of(times))
    assert "random" in random.words[1]
    times[:, 3] *= 2
    slow = what_if(log_of(times))
    assert "worker 3 takes 2." in slow.words[1]
    assert slow.workers["slow"].to_numpy().nonzero()[0].tolist() == [3]
    assert slow.workers["slowdown"].idxmax() == 3


def test_without_a_problem_it_is_an_upper_bound_and_no_advice():
    words = " ".join(what_if(log_of(random_times())).words)
    for phrase in (
        "upper bound",
        "not advice",
        "parameter server",
        "computing alone",
        "all-reduce is the row sync",
    ):
        assert phrase in words


# Logs


def test_names_of_workers_warm_up_and_partial_steps():
    table = log_of(random_times(30, 3))
    table["worker"] = table["worker"].map({0: "a", 1: "b", 2: "c"})
    table = table[~((table["worker"] == "b") & (table["step"] >= 28))]
    answer = what_if(table, [Sync()], skip=4)
    assert list(answer.workers.index) == ["a", "b", "c"]
    assert "24 steps (2 at the end" in answer.words[0]
    assert answer.table["throughput"].item() == pytest.approx(3 * 24 / random_times(30, 3)[4:28].max(axis=1).sum())


def test_intervals_and_milliseconds_and_gzip(tmp_path):
    times = random_times(20, 3)
    ends = np.cumsum(times.max(axis=1))
    starts = np.append(0.0, ends[:-1])
    rows = [
        f"{w},{1e3 * starts[s]:.9f},{1e3 * (starts[s] + times[s, w]):.9f}" for s in range(20) for w in range(3)
    ]
    file = tmp_path / "spans.csv.gz"
    file.write_bytes(gzip.compress("\n".join(["rank,start_ms,end_ms", *rows]).encode()))
    table = what_if(file, [Sync()]).table
    assert table["throughput"].item() == pytest.approx(60 / times.max(axis=1).sum(), rel=1e-6)


BAD = {
    "one worker": (log_of(random_times(20, 1)), "one worker"),
    "no worker": (log_of(random_times(20, 3)).drop(columns=["worker", "step"]), "no column of workers"),
    "few steps": (log_of(random_times(9, 3)), "has 9 steps that all workers have made: give at least 10"),
    "a barrier": (log_of(np.repeat(random_times(30, 1), 4, axis=1)), "all workers take the same time"),
    "nearly a barrier": (
        log_of(random_times(30, 1) * (1 + 0.01 * np.random.default_rng(0).random((30, 4)))),
        "include waiting for one another",
    ),
    "two jobs": (pd.concat([log_of(random_times(20, 2))] * 2, ignore_index=True), "keep the rows of one"),
    "zeros": (log_of(random_times(20, 3) * [1.0, 0.0, 1.0]), "all times of worker 1 are 0"),
    "text": (log_of(random_times(20, 3)).astype({"seconds": str}).replace({"seconds": {"nan": "x"}}).assign(
        seconds=lambda t: ["much", *t["seconds"][1:]]), "seconds = 'much' is not allowed"),
    "hours": (log_of(random_times(20, 3) * 3.6e6), "the median step is"),
    "one record": (Recorded([1.0, 2.0] * 10), "one record for all workers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_log_is_refused_before_anything_is_simulated(kind, monkeypatch):
    monkeypatch.setattr("stalegrad.simulator.whatif.rows.simulate", None)
    log, said = BAD[kind]
    with pytest.raises(ValueError, match=said):
        what_if(log)


def test_times_that_agree_may_be_computing_alone():
    same = log_of(np.repeat(random_times(30, 1), 4, axis=1))
    answer = what_if(same, [Sync(), Async()], compute_only=True)
    assert answer.table["speedup"].tolist() == pytest.approx([1.0, 1.0])
    assert "nothing to gain" in answer.words[2]


@pytest.mark.parametrize("job", JOBS)
def test_measured_jobs_include_no_barrier(job):
    read_grid(job, columns=None, unit=None, skip=0, compute_only=False)


WRONG = {
    "a word": (dict(synchronies="async"), "give a list"),
    "no synchrony": (dict(synchronies=[]), "is empty"),
    "a number": (dict(synchronies=[3]), "give synchronies"),
    "twice": (dict(synchronies=[Async(), Async()]), "async twice"),
    "k": (dict(synchronies=[KAsync(7)]), "exceeds the number of workers"),
    "bytes alone": (dict(message_bytes=1e6), "do not go together"),
    "links alone": (dict(links={"upload": 1e9}), "do not go together"),
    "a key": (dict(links={"uplod": 1e9}, message_bytes=1.0), "Did you mean 'upload'"),
    "model": (dict(message_bytes="model", links={"upload": 1e9}), "without a problem"),
    "both": (dict(message_bytes=1.0, links=Network(1e6, upload=1e9)), "has its own"),
    "most": (dict(most=0), "most = 0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_argument_is_refused(kind):
    settings, said = WRONG[kind]
    with pytest.raises(ValueError, match=said):
        what_if(log_of(random_times()), **settings)


# With a problem


def test_a_problem_is_trained_on_the_same_events_for_the_same_time():
    problem = Problem("softmax-regression", "fashion-mnist-small", batch_size=8)
    contestants = [Sync(), Async(), methods.dc_asgd(learning_rate=0.01)]
    answer = what_if(log_of(random_times(20, 3)), contestants, problem, learning_rate=0.01, seeds=2)
    assert list(answer.histories) == ["sync", "async", "dc-asgd"]
    ends = {label: runs[0]["wallclock"].iloc[-1] for label, runs in answer.histories.items()}
    assert max(ends.values()) == pytest.approx(random_times(20, 3).max(axis=1).sum())
    assert len(set(ends.values())) == 1
    made = {label: runs[0]["gradients"].iloc[-1] for label, runs in answer.histories.items()}
    assert made["async"] == made["dc-asgd"] > made["sync"]
    last = [run["test_error"].iloc[-1] for run in answer.histories["async"]]
    assert answer.table.loc["async", "test_error"] == pytest.approx(np.mean(last))
    assert "Trained on these events" in answer.words[3]
    assert "upper bound" not in " ".join(answer.words)
    assert "test error" in answer.report().html


def test_what_has_no_method_cannot_be_trained():
    problem = Problem("softmax-regression", "fashion-mnist-small", batch_size=8)
    with pytest.raises(ValueError, match="controller changes the timing"):
        what_if(log_of(random_times()), [methods.adasync(k=1)], problem)


# What is written


def test_a_directory_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    answer = what_if(log_of(random_times()), [Sync(), Async()])
    place = answer.save(tmp_path / "out")
    assert sorted(file.name for file in place.iterdir()) == [
        "what-if.csv", "what-if.html", "what-if.png", "workers.csv"
    ]  # fmt: skip
    again = pd.read_csv(place / "what-if.csv", index_col=0)
    pd.testing.assert_frame_equal(again, answer.table, check_dtype=False)
    with pytest.raises(FileExistsError, match="not empty"):
        answer.save(place)
    monkeypatch.setattr(type(answer), "report", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer.save(tmp_path / "other")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
