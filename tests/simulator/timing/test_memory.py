"""Delays whose times depend on each other or on the clock, against closed forms, slow twins and limits."""

import json
import math
import tomllib
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import tomli_w
from scipy import stats

from stalegrad.policies.synchrony import AWAIT, SEND, SSP, Async, Compute, KAsync, KSync, Sync
from stalegrad.simulator.timing.availability import Renewal
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    DELAYS,
    Correlated,
    Delay,
    Deterministic,
    Empirical,
    Exponential,
    Function,
    Gamma,
    HyperExponential,
    LogNormal,
    MarkovModulated,
    Recorded,
    Shared,
    TwoLevelGamma,
    as_delay,
)
from stalegrad.simulator.timing.engine import Engine, simulate


def times_of(delay: Delay, count: int, seed: int = 7) -> np.ndarray:
    blocks = delay.blocks(np.random.default_rng(seed))
    return np.concatenate(list(islice(blocks, -(-count // 256))))[:count]


def lag_one(values: np.ndarray) -> float:
    z = values - values.mean()
    return float((z[1:] * z[:-1]).sum() / (z * z).sum())


# Correlated


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.7, 0.95])
def test_the_normals_of_the_copula_have_lag_one_autocorrelation_phi(phi):
    count = 100_096
    found = np.concatenate(list(islice(Correlated(Gamma(1.0, 0.5), phi).normals(np.random.default_rng(3)), 391)))
    assert len(found) == count
    assert lag_one(found) == pytest.approx(phi, abs=4 * math.sqrt((1 - phi**2) / count) + 1e-4)
    assert found.std() == pytest.approx(1.0, abs=4 * math.sqrt((1 + phi**2) / (1 - phi**2) / 2 / count))


@pytest.mark.parametrize("base", [LogNormal(2.0, 0.5), Exponential(0.3)], ids=["log-normal", "exponential"])
def test_times_that_are_far_apart_are_independent_draws_of_the_base(base):
    thinned = times_of(Correlated(base, 0.5), 2_000_000)[::20]  # 0.5^20 is 10^-6
    assert len(thinned) == 100_000
    assert stats.kstest(thinned, base.distribution().cdf).pvalue > 1e-3


def test_it_starts_in_the_stationary_distribution():
    first = [times_of(Correlated(Exponential(1.0), 0.99), 1, seed)[0] for seed in range(2_000)]
    assert stats.kstest(first, stats.expon.cdf).pvalue > 1e-3


def test_a_slow_twin_computes_the_same_times():
    rng, phi = np.random.default_rng(7), 0.7
    z = rng.standard_normal()
    expected = []
    for _ in range(3):
        for e in rng.standard_normal(256).tolist():
            expected.append(stats.gamma(4.0, scale=0.25).ppf(stats.norm.cdf(z)))
            z = phi * z + math.sqrt(1 - phi * phi) * e
    np.testing.assert_allclose(times_of(Correlated(Gamma(1.0, 0.5), phi), 768), expected, rtol=1e-12)


def test_correlated_measured_times_are_measured_times_as_often():
    base = Empirical((4.0, 1.0, 2.0), weights=(1, 2, 1))
    times = times_of(Correlated(base, 0.6), 200_000)[::20]
    for value, share in ((1.0, 0.5), (2.0, 0.25), (4.0, 0.25)):
        assert (times == value).mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 10_000))


def test_a_machine_is_drawn_before_its_tasks_are_correlated():
    cluster = Cluster(4, Correlated(TwoLevelGamma(1.0, 0.1, 0.6), 0.9))
    means = [np.mean(list(islice(cluster.compute_times(0, worker), 20_000))) for worker in range(4)]
    streams = [np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, worker))) for worker in range(4)]
    machines = [TwoLevelGamma(1.0, 0.1, 0.6).realise(rng) for rng in streams]
    assert means == pytest.approx([machine.mean for machine in machines], rel=0.02)


def test_correlation_lets_slow_workers_stay_slow_so_async_is_as_fast_and_sync_too():
    """The throughput of both depends on the marginal alone; what changes is who is slow for how long."""
    alone, together = Cluster(8, Gamma(1.0, 0.5)), Cluster(8, Correlated(Gamma(1.0, 0.5), 0.9))
    for synchrony, updates in ((Async(), 60_000), (Sync(), 6_000)):
        ends = [simulate(cluster, synchrony, updates=updates, seed=1).end for cluster in (alone, together)]
        assert ends[1] == pytest.approx(ends[0], rel=0.03)
    spread = []
    for cluster in (alone, together):
        runs = [simulate(cluster, Async(), wallclock=100.0, seed=seed).messages for seed in range(40)]
        spread.append(np.std([count for run in runs for count in run[run.fate == "used"].worker.value_counts()]))
    assert spread[1] / spread[0] == pytest.approx(math.sqrt(1.9 / 0.1), rel=0.2)  # of sums of an AR(1)


# Markov-modulated


def test_jobs_are_shared_between_states_as_their_stays_are_and_correlated_as_the_chain_says():
    delay = MarkovModulated([1.0, 5.0], mean_stay=[30.0, 10.0])
    slow = times_of(delay, 400_000) == 5.0
    correlation = 1 - 1 / 30 - 1 / 10  # of a two-state chain: 1 less both probabilities of leaving
    variance = 0.25 * 0.75 * (1 + correlation) / (1 - correlation) / len(slow)
    assert delay.shares == (0.75, 0.25)
    assert slow.mean() == pytest.approx(0.25, abs=4 * math.sqrt(variance))
    assert lag_one(slow.astype(float)) == pytest.approx(correlation, abs=0.01)
    ends = np.flatnonzero(np.diff(slow.astype(int)))
    stays = np.diff(ends)
    first_slow = bool(slow[ends[0] + 1])
    assert stays[first_slow::2].mean() == pytest.approx(30.0, rel=0.05)
    assert stays[1 - first_slow :: 2].mean() == pytest.approx(10.0, rel=0.05)
    assert stats.kstest(stays[first_slow::2] - stats.uniform.rvs(size=len(stays[first_slow::2]), random_state=1),
                        stats.expon(scale=-1 / math.log(1 - 1 / 30)).cdf).pvalue > 1e-4  # fmt: skip


def test_of_three_states_each_has_its_share_and_is_left_for_the_others_alike():
    delay = MarkovModulated([1.0, 2.0, 3.0], mean_stay=[2.0, 3.0, 5.0])
    times = times_of(delay, 300_000)
    assert [(times == t).mean() for t in (1.0, 2.0, 3.0)] == pytest.approx([0.2, 0.3, 0.5], abs=0.01)
    moves = times[1:][(times[:-1] == 1.0) & (times[1:] != 1.0)]
    assert (moves == 2.0).mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(moves)))
    first = [times_of(delay, 1, seed)[0] for seed in range(3_000)]
    assert np.mean(np.equal(first, 3.0)) == pytest.approx(0.5, abs=0.04)


def test_stays_of_one_job_alternate():
    times = times_of(MarkovModulated([1.0, 5.0], mean_stay=[1.0, 1.0]), 600)
    assert (np.abs(np.diff(times)) == 4.0).all()


def test_the_distribution_is_the_mixture_of_the_states():
    delay = MarkovModulated([Exponential(1.0), Gamma(5.0, 0.3)], mean_stay=[3.0, 1.5])
    assert delay.expectation() == pytest.approx(1.0 * 2 / 3 + 5.0 / 3, rel=1e-12)
    assert stats.kstest(times_of(delay, 2_000_000)[::20], lambda t: 1 - delay.sf(t)).pvalue > 1e-3


def test_a_state_with_a_record_goes_on_where_it_stopped():
    times = times_of(MarkovModulated([Recorded((1.0, 2.0, 3.0)), 9.0], mean_stay=[4.0, 4.0]), 500)
    np.testing.assert_array_equal(times[times < 9], np.resize([1.0, 2.0, 3.0], (times < 9).sum()))


def test_states_by_seconds_have_their_share_of_time_and_the_correlation_of_the_chain():
    delay = MarkovModulated([1.0, 5.0], mean_stay=[30.0, 10.0], unit="seconds")
    timer = Cluster(1, delay).compute_timer(3, 0)
    slow = np.array([timer(2.0 * i) for i in range(100_000)]) == 5.0
    correlation = math.exp(-2.0 * (1 / 30 + 1 / 10))
    variance = 0.25 * 0.75 * (1 + correlation) / (1 - correlation) / len(slow)
    assert slow.mean() == pytest.approx(0.25, abs=4 * math.sqrt(variance))
    assert lag_one(slow.astype(float)) == pytest.approx(correlation, abs=0.01)


def test_states_by_seconds_are_the_same_under_every_synchrony():
    cluster = Cluster(5, MarkovModulated([0.5, 3.0], mean_stay=[20.0, 10.0], unit="seconds"))
    rows = []
    for synchrony in (Async(), Sync(), SSP(2)):
        table = simulate(cluster, synchrony, wallclock=300.0, seed=2).verify().messages
        used = table[table.fate == "used"]
        rows += zip(used.worker, used.read_time, (used.finish_time - used.read_time).round(6), strict=True)
    for worker in range(5):
        timer = cluster.compute_timer(2, worker)
        own = sorted((begin, took) for who, begin, took in rows if who == worker)
        assert len({took for _, took in own}) == 2
        assert [round(timer(begin), 6) for begin, _ in own] == [took for _, took in own]


def test_a_cancelled_job_that_looked_ahead_changes_no_state():
    delay = MarkovModulated([0.5, 3.0], mean_stay=[4.0, 2.0], unit="seconds")
    cluster, begins = Cluster(5, delay), [set[float]() for _ in range(5)]
    table = simulate(cluster, KSync(1, local_steps=4), updates=200, seed=2).verify().messages
    assert (table.fate == "cancelled").sum() > 500
    for row in table[table.fate == "used"].itertuples():
        timer, now = cluster.compute_timer(2, row.worker), row.read_time
        for _ in range(4):  # a timer of its own, which never looks back
            begins[row.worker].add(now)
            now += timer(now)
        assert now == pytest.approx(row.finish_time, rel=1e-12)
    assert sum(map(len, begins)) > 700


def test_a_clock_that_runs_far_ahead_of_the_stays_is_no_trouble():
    timer = Cluster(1, MarkovModulated([1.0, 5.0], mean_stay=[1e-6, 1e-6], unit="seconds")).compute_timer(0, 0)
    slow = [timer(float(t)) == 5.0 for t in range(2_000)]
    assert np.mean(slow) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2_000))
    with pytest.raises(ValueError, match=r"mean_stay of markov-modulated = 1e-06 s is too short at 1e\+16 s"):
        timer(1e16)


# Shared

FACTORS = Empirical((1.0, 2.0, 8.0))


def factors_of(trace, period: float) -> dict[tuple[int, int], set[float]]:
    """Return how long jobs of 0.25 s took, over 0.25 s, by worker and period in which they began."""
    table = trace.messages[trace.messages.fate == "used"]
    found: dict[tuple[int, int], set[float]] = {}
    for row in table.itertuples():
        took = round((row.finish_time - row.read_time) / 0.25, 6)
        found.setdefault((row.worker, int(row.read_time // period)), set()).add(took)
    return found


def test_workers_of_a_group_feel_the_same_factor_in_a_period_and_groups_differ():
    cluster = Cluster(4, Shared(0.25, FACTORS, period=16.0, group=[0, 0, 1, 1]))
    found = factors_of(simulate(cluster, Async(), wallclock=8_000.0, seed=5).verify(), 16.0)
    assert all(len(factors) == 1 for factors in found.values())
    by_worker = [[found[worker, period] for period in range(499)] for worker in range(4)]
    assert by_worker[0] == by_worker[1]
    assert by_worker[2] == by_worker[3]
    pairs = [(min(a), min(b)) for a, b in zip(by_worker[0], by_worker[2], strict=True)]
    counts = np.array([[pairs.count((a, b)) for b in (1.0, 2.0, 8.0)] for a in (1.0, 2.0, 8.0)])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3  # each factor as often, groups independent


def test_slow_downs_are_the_same_under_every_synchrony_and_with_more_workers():
    delay = Shared(0.25, FACTORS, period=16.0)
    first = factors_of(simulate(Cluster(3, delay), Async(), wallclock=800.0), 16.0)
    for workers, synchrony in ((3, Sync()), (3, SSP(1)), (7, KAsync(2))):
        other = factors_of(simulate(Cluster(workers, delay), synchrony, wallclock=800.0), 16.0)
        assert {key: other[key] for key in first if key in other} == {
            key: first[key] for key in first if key in other
        }


def test_a_factor_of_one_changes_no_byte(same):
    for base in (Gamma(1.0, 0.5), Recorded((1.0, 2.0, 3.0)), Correlated(Exponential(), 0.5)):
        for synchrony in (Async(), Sync(local_steps=3), KSync(2)):
            budget = Budget(updates=400)
            plain = Engine(Cluster(3, base, speeds=[1.0, 2.0, 0.5]), synchrony, budget, 9).run()
            shared = Engine(Cluster(3, Shared(base, 1.0, 7.0), speeds=[1.0, 2.0, 0.5]), synchrony, budget, 9).run()
            shared.spec["cluster"] = plain.spec["cluster"]
            same(plain, shared)


def test_each_local_step_takes_the_factor_of_the_moment_at_which_it_begins():
    delay = Shared(0.25, FACTORS, period=2.0)
    known = factors_of(simulate(Cluster(1, delay), Async(), wallclock=400.0), 2.0)
    trace = simulate(Cluster(1, delay), Async(local_steps=7), wallclock=400.0)
    missing = 0
    for row in trace.messages[trace.messages.fate == "used"].itertuples():
        now = row.read_time
        for _ in range(7):
            (factor,) = known.get((0, int(now // 2.0)), {math.nan})
            now += 0.25 * factor
        missing += math.isnan(now)
        assert math.isnan(now) or now == pytest.approx(row.finish_time, rel=1e-12)
    assert missing < len(trace.used) / 2


def test_a_slow_down_in_another_one_has_groups_of_its_own():
    inner = Shared(0.25, FACTORS, period=16.0)
    both = factors_of(simulate(Cluster(1, Shared(inner, FACTORS, period=16.0)), Async(), wallclock=20_000.0), 16.0)
    found = {min(factors) for factors in both.values()}
    assert found == {1.0, 2.0, 4.0, 8.0, 16.0, 64.0}


@dataclass(frozen=True)
class Impatient(Async):
    def work(self, worker):
        while True:
            while not (yield Compute(at_most=1.0)):
                pass
            yield SEND
            while worker.unanswered:
                yield AWAIT


CLOCKED = [
    Shared(Gamma(0.5, 0.5), Exponential(1.0), period=5.0, group=[0, 1, 0, 1]),
    MarkovModulated([Gamma(0.3, 0.2), Gamma(2.0, 0.2)], mean_stay=[9.0, 3.0], unit="seconds"),
    MarkovModulated([Shared(Gamma(0.3, 0.2), Exponential(1.0), 4.0), 1.5], mean_stay=[9.0, 3.0]),
]
MEMORY = [
    *CLOCKED,
    Correlated(Gamma(0.5, 0.5), 0.8),
    MarkovModulated([Exponential(0.3), Correlated(Gamma(2.0, 0.5), 0.5)], mean_stay=[9.0, 3.0]),
    Recorded([[0.5, 1.0], [0.25, 3.0], [1.0, 1.0], [2.0]]),
]


@pytest.mark.parametrize("delay", MEMORY, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize(
    "synchrony", [Impatient(), Async(local_steps=3), KSync(2), KAsync(3), SSP(2)], ids=lambda s: s.name
)
def test_traces_are_verified_and_repeat(delay, synchrony, same):
    cluster = Cluster(4, delay, speeds=[1.0, 0.5, 2.0, 1.0], uplink=0.1, join=[0.0, 0.0, 3.0, 0.0])
    one, again = (simulate(cluster, synchrony, updates=150, seed=4).verify() for _ in range(2))
    same(one, again)


@pytest.mark.parametrize("delay", MEMORY, ids=lambda d: type(d).__name__)
def test_tables_there_and_back_and_through_toml(delay):
    table = DELAYS.to_table(delay)
    assert as_delay(table) == delay
    assert as_delay(json.loads(json.dumps(table))) == delay
    cluster = Cluster(4, delay)
    assert Cluster.from_table(tomllib.loads(tomli_w.dumps(cluster.table()))) == cluster
    assert hash(as_delay(table)) == hash(delay)


@pytest.mark.parametrize("delay", MEMORY, ids=lambda d: type(d).__name__)
def test_workers_may_leave_and_return(delay):
    availability = Renewal(up=Exponential(20.0), down=Exponential(5.0))
    trace = simulate(Cluster(4, delay, availability=availability), KSync(2, local_steps=2), updates=150, seed=4)
    assert "lost" in set(trace.verify().column("fate"))


def test_a_list_of_delays_may_hold_them():
    delays = [Shared(1.0, FACTORS, 5.0, group=i % 2) for i in range(3)] + [Correlated(Exponential(), 0.5)]
    cluster = Cluster(compute=delays)
    assert simulate(cluster, Async(), updates=100).verify().workers == 4
    assert Cluster.from_table(cluster.table()) == cluster


def test_a_delay_of_users_may_remember():
    class Warming(Delay):
        remembers = True

        def blocks(self, rng):
            yield from ([3.0] * 256, [1.0] * 256)
            while True:
                yield rng.exponential(1.0, 256)

    trace = simulate(Cluster(1, Warming()), Async(), updates=512).verify()
    assert trace.end == 3 * 256 + 256


# What users may get wrong


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (lambda: Correlated(Exponential(), 1.0), ["phi of correlated", "1.0", "less than 1"]),
        (lambda: Correlated(Exponential(), -1), ["phi of correlated", "-1", "greater than -1"]),
        (lambda: Correlated(Exponential(), math.nan), ["phi of correlated", "nan"]),
        (lambda: Correlated(Exponential(), "0.5"), ["phi of correlated", "give a number"]),
        (lambda: Correlated(HyperExponential((0.5, 0.5), (1.0, 2.0)), 0.5),
         ["base of correlated", "HyperExponential", "no quantile function"]),
        (lambda: Correlated(Function(np.ones), 0.5), ["base of correlated", "no quantile function"]),
        (lambda: Correlated(Correlated(Exponential(), 0.5), 0.5), ["base of correlated", "depend on each other"]),
        (lambda: Correlated("gamma", 0.5), ["'gamma' is not a delay"]),
        (lambda: MarkovModulated([1.0, 2.0], [3.0]), ["mean_stay of markov-modulated", "at least 2"]),
        (lambda: MarkovModulated([1.0, 2.0, 3.0], [3.0, 3.0]), ["3 states", "2 values of mean_stay"]),
        (lambda: MarkovModulated([1.0, 2.0], [3.0, 0.5]), ["mean_stay", "state 1", "0.5", "at least 1 job"]),
        (lambda: MarkovModulated([1.0, 2.0], [3.0, math.inf]), ["mean_stay", "inf"]),
        (lambda: MarkovModulated([1.0, 2.0], [3.0, -1.0], unit="seconds"), ["mean_stay", "-1.0"]),
        (lambda: MarkovModulated([1.0, 2.0], [3.0, 3.0], unit="job"), ["unit", "'job'", "'jobs' or 'seconds'"]),
        (lambda: MarkovModulated([0.0, 2.0], [3.0, 3.0]), ["state 0", "always 0"]),
        (lambda: MarkovModulated(Exponential(), [3.0, 3.0]), ["states", "give a list of delays"]),
        (lambda: Shared(1.0, FACTORS, 0.0), ["period of shared", "0.0", "greater than 0"]),
        (lambda: Shared(1.0, 0.0, 1.0), ["factor of shared", "always 0"]),
        (lambda: Shared(1.0, Correlated(Exponential(), 0.5), 1.0), ["factor of shared", "drawn independently"]),
        (lambda: Shared(1.0, FACTORS, 1.0, group=-1), ["group of shared", "-1"]),
        (lambda: Shared(1.0, FACTORS, 1.0, group=[0, 1.5]), ["group of shared, worker 1", "1.5"]),
        (lambda: Cluster(3, Shared(1.0, FACTORS, 1.0, group=[0, 1])), ["group of shared has 2", "worker 2"]),
        (lambda: Cluster(3, 1.0, speeds=Correlated(Exponential(), 0.5)), ["speeds of cluster", "correlated"]),
        (lambda: Renewal(Correlated(Exponential(), 0.5), 1.0), ["up of renewal", "drawn independently"]),
        (lambda: Cluster(3, 1.0, join=Recorded([1.0])), ["join of cluster", "recorded", "once per worker"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(wrong, parts):
    with pytest.raises(ValueError, match=r".") as caught:
        wrong()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_nested_without_end_is_refused():
    table = {"delay": "exponential"}
    for _ in range(3_000):
        table = {"delay": "shared", "base": table, "factor": 2.0, "period": 1.0}
    with pytest.raises(ValueError, match="nested too deeply"):
        as_delay(table)

    def nested(count):
        return Shared(nested(count - 1), 2.0, period=1.0) if count else Exponential()

    with pytest.raises(ValueError, match="more than 100 delays"):
        nested(100)


def test_what_has_no_distribution_says_so():
    for delay in CLOCKED:
        for ask in (delay.expectation, lambda d=delay: d.sf(1.0)):
            with pytest.raises(TypeError, match="no distribution: its times"):
                ask()
    with pytest.raises(TypeError, match="draw no independent ones"):
        Correlated(Exponential(), 0.5).sample(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="depends on when a job begins: use compute_timer"):
        next(Cluster(4, CLOCKED[0]).compute_times(0, 0))


def test_wrong_draws_of_users_are_named_by_worker_and_draw():
    turns = Function(lambda rng, size: np.where(np.arange(size) < 7, 1.0, -1.0))
    with pytest.raises(ValueError, match=r"factor of shared in period 7 is -1\.0"):
        simulate(Cluster(2, Shared(0.5, turns, 1.0)), Async(), updates=100)
    with pytest.raises(ValueError, match=r"compute of worker 0: draw 7 is -2\.0; allowed are finite times"):
        simulate(Cluster(2, Shared(turns, 2.0, 1.0)), Async(), updates=100)
    with pytest.raises(ValueError, match=r"it reads more than 512 times at 0\.0 s"):
        simulate(Cluster(1, Shared(1.0, Function(lambda rng, size: np.zeros(size)), 1.0)), Async(), updates=999)
    assert Deterministic(1.0).clocked is False
