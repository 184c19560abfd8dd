"""Recorded times: replayed exactly, read from tables and files as meant, or refused by row and value."""

import hashlib
import math
import tomllib

import numpy as np
import pandas as pd
import pytest
import tomli_w

from stalegrad.policies.synchrony import SSP, Async, KSync, Sync
from stalegrad.simulator import Cluster, Gamma, Recorded, measured_cv, simulate
from stalegrad.simulator.timing.delays import DELAYS, as_delay

THREE = [[1.0, 2.0, 4.0], [0.5, 0.25], [3.0, 1.0, 1.0, 7.0]]
TABLE = pd.DataFrame(
    [(w, step, seconds) for w, own in enumerate(THREE) for step, seconds in enumerate(own)],
    columns=["worker", "step", "seconds"],
)


def played(delay, worker, count, seed=0, workers=3):
    times = Cluster(workers, delay).compute_times(seed, worker)
    return [next(times) for _ in range(count)]


def lag(values: np.ndarray, by: int = 1) -> float:
    z = values - values.mean()
    return float((z[by:] * z[:-by]).sum() / (z * z).sum())


@pytest.mark.parametrize(
    "synchrony", [Async(), Sync(), KSync(2), SSP(1), Async(local_steps=2)], ids=lambda s: s.name
)
def test_a_cluster_replays_exactly_what_was_measured(synchrony):
    rng = np.random.default_rng(0)
    times = rng.gamma(4.0, 0.25, (5, 700))
    table = simulate(Cluster(5, Recorded(times.tolist())), synchrony, updates=400).verify().messages
    ended = table[table.fate == "used"]
    for worker, own in table.groupby("worker"):
        durations = times[worker].copy()
        if synchrony.local_steps == 2:
            durations = durations[0::2] + durations[1::2]
        rows = own.reset_index(drop=True)
        used = rows[rows.fate == "used"]
        expected = used.read_time + np.resize(durations, len(rows))[used.index]
        np.testing.assert_array_equal(used.finish_time, expected)
    assert len(ended) >= 400


def test_sync_steps_are_the_maxima_of_the_measured_steps():
    table = np.random.default_rng(1).gamma(4.0, 0.25, (4, 50))
    trace = simulate(Cluster(4, Recorded(table.tolist())), Sync(), updates=120)
    np.testing.assert_allclose(
        np.diff(trace.update_times, prepend=0), np.resize(table.max(axis=0), 120), rtol=1e-9
    )


def test_records_wrap_round_each_at_its_end_and_over_blocks():
    for worker, own in enumerate(THREE):
        assert played(Recorded(THREE), worker, 1_000) == np.resize(own, 1_000).tolist()


def test_one_list_serves_all_workers_and_a_worker_may_be_chosen():
    assert played(Recorded([1.0, 2.0]), 2, 3) == [1.0, 2.0, 1.0]
    assert played(Recorded(THREE, worker=1), 0, 3) == [0.5, 0.25, 0.5]
    cluster = Cluster(compute=[Recorded(THREE, worker=w % 3) for w in range(7)])
    assert next(cluster.compute_times(0, 5)) == 3.0


def test_a_scale_turns_the_unit_of_the_record_into_seconds():
    assert played(Recorded([250.0, 500.0], scale=0.001), 0, 2) == [0.25, 0.5]
    assert Recorded([250.0, 500.0], scale=0.001).expectation() == 0.375


def test_a_random_start_is_uniform_and_of_each_worker():
    record = np.arange(1.0, 11.0).tolist()
    starts = [played(Recorded(record, start="random"), w, 12, workers=2_000) for w in range(2_000)]
    counts = np.bincount([int(s[0]) for s in starts], minlength=11)[1:]
    assert np.abs(counts - 200).max() < 4 * math.sqrt(200)
    assert all(s == [(s[0] - 1 + i) % 10 + 1 for i in range(12)] for s in starts)


def test_the_autocorrelation_is_that_of_the_input_and_so_is_the_distribution():
    delay = Recorded.measured("alibaba-job-4", worker=3)
    own = delay.own_times()
    drawn = np.array(played(delay, 0, len(own)))
    assert [lag(drawn, by) for by in (1, 2, 10)] == [lag(own, by) for by in (1, 2, 10)]
    np.testing.assert_array_equal(delay.sf([0.5, 1.0, 3.0]), [(own > t).mean() for t in (0.5, 1.0, 3.0)])


# The four jobs


@pytest.mark.parametrize(
    ("name", "steps", "first", "tenth", "slowdown"),
    [
        ("alibaba-job-1", 300, 0.77, 0.27, 1.11),
        ("alibaba-job-2", 238, 0.60, 0.05, 1.12),
        ("alibaba-job-3", 248, 0.64, -0.03, 1.11),
        ("alibaba-job-4", 2_182, 0.71, 0.55, 2.07),
    ],
)
def test_the_measured_jobs_remember_as_was_measured(name, steps, first, tenth, slowdown):
    # Expected: of the measured tables, computed from the originals.
    times = np.array(Recorded.measured(name).records.times)
    assert times.shape == (10, steps)
    assert np.median(times) == 1.0
    assert np.median([lag(own) for own in times]) == pytest.approx(first, abs=0.006)
    assert np.median([lag(own, 10) for own in times]) == pytest.approx(tenth, abs=0.01)
    assert (times.max(axis=0) / times.mean(axis=0)).mean() == pytest.approx(slowdown, abs=0.006)
    trace = simulate(Cluster(10, Recorded.measured(name, scale=0.2)), Sync(), updates=steps)
    assert trace.end == pytest.approx(0.2 * times.max(axis=0).sum(), rel=1e-9)


def test_a_measured_job_stands_in_a_spec_by_its_name():
    cluster = Cluster(10, Recorded.measured("alibaba-job-4", scale=0.2, start="random"))
    table = cluster.table()
    assert table["compute"]["job"] == "alibaba-job-4"
    assert Cluster.from_table(tomllib.loads(tomli_w.dumps(table))) == cluster


def test_quantiles_of_the_coefficient_of_variation_make_an_axis():
    assert measured_cv([0.25, 0.5, 0.9]) == pytest.approx([0.058, 0.103, 1.10], abs=0.006)
    assert measured_cv(0.75) == pytest.approx(0.60, abs=0.01)
    assert measured_cv(0.525) == pytest.approx((measured_cv(0.5) + measured_cv(0.55)) / 2)
    assert Gamma(1.0, measured_cv(1)).cv > 2
    for wrong in (-0.1, [0.5, 1.1], math.nan, "0.5", None):
        with pytest.raises(ValueError, match=r"quantile = .* is not allowed: give shares from 0 to 1"):
            measured_cv(wrong)


# Tables


def test_a_table_is_read_whatever_the_order_of_its_rows_and_columns():
    shuffled = TABLE.sample(frac=1.0, random_state=3)[["seconds", "worker", "step"]]
    assert Recorded(shuffled) == Recorded(THREE)
    assert Recorded(
        TABLE.rename(columns={"worker": "Rank", "step": "iteration", "seconds": "duration"})
    ) == Recorded(THREE)
    named = TABLE.assign(worker=TABLE.worker.map({0: "a", 1: "b", 2: "c"}))
    assert Recorded(named) == Recorded(THREE)
    assert Recorded(TABLE.drop(columns="step")) == Recorded(THREE)
    assert Recorded(TABLE.head(3).drop(columns=["step", "worker"])) == Recorded(THREE[0])
    assert Recorded(TABLE.astype({"worker": float, "step": "Int64"})) == Recorded(THREE)


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_file_is_the_table_that_it_holds_and_keeps_its_checksum(tmp_path, between):
    file = tmp_path / "steps.csv"
    file.write_text(
        "# measured in May\n\n" + TABLE.sample(frac=1.0, random_state=1).to_csv(index=False, sep=between)
    )
    delay = Recorded(file=file)
    assert [own.tolist() for own in delay.records.times] == THREE
    assert delay.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert as_delay(DELAYS.to_table(delay)) == delay
    assert played(delay, 2, 3) == [3.0, 1.0, 1.0]
    file.write_text("worker,step,seconds\n0,0,1.0\n")
    with pytest.raises(ValueError, match=r"sha256 of .*steps\.csv is .* but the spec says"):
        as_delay(DELAYS.to_table(delay))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "worker,step,seconds\n0,0,1.0\n0,1,nan\n",
            r"line 3: seconds = 'nan' is not allowed: give a finite number",
        ),
        ("worker,step,seconds\n\n0,0,-1\n", r"line 3: seconds = '-1' is not allowed"),
        ("worker,step,seconds\n0,0,inf\n", r"line 2: seconds = 'inf'"),
        ("worker,step,seconds\n0,0,\n", r"line 2: seconds = ''"),
        ("worker,step,seconds\n0,x,1\n", r"line 2: step = 'x' is not allowed"),
        ("worker,step,seconds\n,0,1\n", r"line 2: worker = '' is not allowed"),
        ("worker,step,seconds\n0,0,1\n0,0,2\n", r"line 3: worker 0 has step 0 twice, first at .*line 2"),
        (
            "worker,step,seconds\n0,0,1\n0,1,1\n0,2,1\n1,0,1\n1,2,1\n",
            r"line 6: worker 1 has step 2 but lacks step 1",
        ),
        ("worker,step,seconds\n0,0,1\n2,0,1\n", r"lacks worker 1: 2 workers are numbered from 0, but it has 0, 2"),
        ("worker,step,seconds\n1,0,1\n2,0,1\n", r"lacks worker 0"),
        ("worker,step\n0,0\n", r"has no column seconds, but worker, step"),
        ("worker,seconds,step\n0,1\n", r"line 2: 2 columns, but the header has 3"),
        ("rank,node,seconds\n0,0,1\n", r"columns rank and node: rename the right one to worker"),
        ("worker,step,seconds\n", "has no rows"),
        ("", "has no rows"),
        ("worker,step,seconds\n0,0,0\n", r"times of recorded, worker 0, are 1 times, none above 0"),
    ],
)
def test_a_wrong_file_is_refused_by_line_and_value(tmp_path, text, match):
    file = tmp_path / "steps.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=match) as caught:
        Recorded(file=str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: Recorded([1.0, math.nan]), r"times of recorded: number 1 = nan is not allowed"),
        (lambda: Recorded([[1.0], [2.0, -3.0]]), r"times of recorded, worker 1: number 1 = -3\.0"),
        (lambda: Recorded([[1.0], [math.inf]]), r"worker 1: number 0 = inf"),
        (lambda: Recorded([[1.0], []]), r"worker 1, are 0 times"),
        (lambda: Recorded([0.0, 0.0]), r"times of recorded are 2 times, none above 0"),
        (lambda: Recorded([]), r"one of times, file and job, but got none"),
        (lambda: Recorded([1.0], job="alibaba-job-1"), r"but got times and job"),
        (lambda: Recorded(np.ones((2, 3))), r"two dimensions: .* array\.T\.tolist\(\)"),
        (
            lambda: Recorded(TABLE.assign(seconds=[1.0, np.nan] + [1.0] * 7)),
            r"row 1 of the table .* seconds = nan",
        ),
        (lambda: Recorded(TABLE.head(0)), r"has no rows"),
        (lambda: Recorded.measured("alibaba-job-5"), r"unknown measured job 'alibaba-job-5'\. Did you mean"),
        (lambda: Recorded.measured("alibaba-job-1", scale=0.0), r"scale of recorded = 0\.0"),
        (lambda: Recorded([1.0], start="last"), r"start of recorded = 'last'"),
        (
            lambda: Recorded([1.0], start="random", wrap=False),
            r"start of recorded = 'random' is not allowed with wrap",
        ),
        (lambda: Recorded([1.0], worker=0), r"worker of recorded = 0 .* one record for all"),
        (lambda: Recorded(THREE, worker=3), r"worker 3 is missing from the record, which has workers 0 to 2"),
        (lambda: Recorded([1.0], sha256="ab"), r"sha256 of recorded = 'ab' is not allowed without a file"),
        (lambda: Cluster(4, Recorded(THREE)), r"compute of worker 3: worker 3 is missing .* workers 0 to 2"),
        (lambda: Recorded([1.0] * 1_001).settings(), r"1001 times cannot stand in a spec .* CSV file"),
        (lambda: Recorded(THREE).own_times(), r"one record per worker: say which"),
    ],
)
def test_a_wrong_record_is_refused_by_worker_and_value(wrong, match):
    with pytest.raises(ValueError, match=match):
        wrong()


def test_a_file_that_does_not_exist_is_named():
    with pytest.raises(FileNotFoundError, match=r"file of recorded = 'nowhere\.csv' does not exist"):
        Recorded(file="nowhere.csv")


# Records that end


def counted(monkeypatch):
    """Fail if anything is drawn."""

    def never(self, rng):
        raise AssertionError("a time was drawn")

    monkeypatch.setattr(Recorded, "blocks", never)


def test_records_that_are_known_to_be_too_short_are_refused_before_anything_is_drawn(monkeypatch):
    counted(monkeypatch)
    unequal = Recorded([[1.0] * 40, [1.0] * 30, [1.0] * 50], wrap=False)
    cases = [
        (
            unequal,
            Sync(),
            {"updates": 40},
            r"worker 1: its record has 30 times .* 40 updates of sync need 40 of it",
        ),
        (unequal, KSync(2), {"gradients": 70}, r"worker 1: .* 35 updates of k-sync need 35 of it"),
        (
            unequal,
            Sync(local_steps=3),
            {"updates": 11},
            r"worker 1: .* 11 updates of sync need 33 .*time 30 is miss",
        ),
        (
            unequal,
            Async(),
            {"updates": 121},
            r"3 workers have 120 times .* needs 121 gradients: time 120 is missing",
        ),
        (unequal, Async(local_steps=2), {"updates": 61}, r"needs 122 gradients"),
        (unequal, SSP(3), {"gradients": 500}, r"needs 500 gradients"),
        (unequal, Async(), {"wallclock": 35.0}, r"worker 1: .* they last 30 s, but the wallclock is 35 s"),
    ]
    for delay, synchrony, budget, match in cases:
        with pytest.raises(ValueError, match=match):
            simulate(Cluster(3, delay), synchrony, **budget)
    with pytest.raises(ValueError, match=r"worker 1: .* they last 15 s"):
        simulate(Cluster(3, unequal, speeds=[1.0, 2.0, 1.0]), Async(), wallclock=20.0)


def test_records_that_are_just_long_enough_are_enough():
    exact = Recorded([[1.0] * 300, [2.0] * 300], wrap=False)
    assert simulate(Cluster(2, exact), Sync(), updates=300).end == 600.0
    with pytest.raises(ValueError, match="worker 0"):
        simulate(Cluster(2, exact), Sync(), updates=301)
    assert simulate(Cluster(1, Recorded([1.0] * 512, wrap=False)), Async(), updates=512).end == 512.0


def test_a_record_that_ends_in_the_middle_is_an_error_of_worker_and_draw():
    record = Recorded([[1.0] * 300, [9.0] * 900], wrap=False)
    with pytest.raises(
        ValueError, match=r"compute of worker 0: draw 300 does not exist: its record has 300 times"
    ):
        simulate(Cluster(2, record), Async(), updates=400)
    shared = as_delay({"delay": "shared", "base": DELAYS.to_table(Recorded([1.0] * 5, wrap=False)), "factor": 2.0,
                       "period": 3.0})  # fmt: skip
    with pytest.raises(ValueError, match=r"compute of worker 0: draw 5 does not exist: its record has 5 times"):
        simulate(Cluster(2, shared), Async(), updates=100)
