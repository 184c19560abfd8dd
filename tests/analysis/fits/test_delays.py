"""Measured times: the delay they were drawn from is found again, and so is the reason why workers wait."""

import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, stats

from stalegrad.analysis import fit_delays
from stalegrad.analysis.fits.delay_families import (
    delay_ageing,
    fit_families,
    log_density,
    observed_ageing,
    tail_index,
)
from stalegrad.analysis.fits.imbalance import Imbalance, imbalance, largest_of
from stalegrad.policies.synchrony import Sync
from stalegrad.simulator import (
    Cluster,
    Delay,
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Uniform,
    Weibull,
    simulate,
)

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "validate_slow_workers.py"

FITTED: list[tuple[Delay, str, dict[str, object]]] = [
    (Exponential(0.3), "exponential", {"scale": 0.3}),
    (ShiftedExponential(1.0, 0.5), "shifted-exponential", {"shift": 1.0, "scale": 0.5}),
    (Pareto(2.5, 2.0), "pareto", {"shape": 2.5, "scale": 2.0}),
    (Gamma(2.0, 0.4), "gamma", {"mean": 2.0, "cv": 0.4}),
    (Gamma(1.0, 1.5), "gamma", {"mean": 1.0, "cv": 1.5}),
    (Erlang(4, 2.0), "gamma", {"mean": 2.0, "cv": 0.5}),
    (LogNormal(2.0, 0.5), "log-normal", {"median": 2.0, "sigma": 0.5}),
    (Weibull(2.0, 3.0), "weibull", {"shape": 2.0, "scale": 3.0}),
    (Weibull(0.6, 3.0), "weibull", {"shape": 0.6, "scale": 3.0}),
    (Uniform(1.0, 4.0), "uniform", {"low": 1.0, "high": 4.0}),
]
ids = [f"{type(delay).__name__}-{i}" for i, (delay, _, _) in enumerate(FITTED)]


def draw(delay: Delay, size: int = 8_000, seed: int = 4) -> np.ndarray:
    return delay.sample(np.random.default_rng(seed), size)


# Laws


@pytest.mark.parametrize(("delay", "name", "parameters"), FITTED, ids=ids)
def test_the_delay_of_the_draws_wins_with_its_parameters(delay, name, parameters):
    fit = fit_delays(draw(delay))
    best = fit.table.iloc[0]
    assert best["name"] == name
    assert best["aic"] == fit.table["aic"].min()
    assert {key: getattr(best["delay"], key) for key in parameters} == pytest.approx(parameters, rel=0.05)
    assert best["p_value"] > 0.01
    assert fit.compute == best["delay"]
    assert Cluster(3, fit.compute).delay_of(2) == best["delay"]


def test_both_branches_of_a_hyper_exponential_are_found():
    best = fit_delays(draw(HyperExponential((0.9, 0.1), (0.5, 5.5)))).table.iloc[0]
    assert best["name"] == "hyper-exponential"
    assert sorted(zip(best["delay"].means, best["delay"].weights, strict=True)) == [
        (pytest.approx(0.5, rel=0.1), pytest.approx(0.9, rel=0.05)),
        (pytest.approx(5.5, rel=0.15), pytest.approx(0.1, rel=0.2)),
    ]


def test_neighbours_taken_together_hardly_move_a_hyper_exponential():
    times = draw(HyperExponential((0.9, 0.1), (0.5, 5.5)), 20_000)
    delay = fit_families(times)[-1]
    best = optimize.minimize(
        lambda x: -log_density(HyperExponential((x[0], 1 - x[0]), (x[1], x[2])), times).mean(),
        (delay.weights[0], *delay.means),
        method="Nelder-Mead",
    )
    assert log_density(delay, times).mean() == pytest.approx(-best.fun, abs=1e-6)


def test_a_constant_is_deterministic():
    fit = fit_delays([0.25] * 10)
    assert fit.table["name"].tolist() == ["deterministic"]
    assert fit.compute == Deterministic(0.25)
    assert (fit.verdict, fit.table["aic"][0]) == ("nearly constant", -math.inf)


@pytest.mark.parametrize(("delay", "name", "_"), FITTED, ids=ids)
def test_likelihood_is_not_below_that_of_scipy_s_own_search(delay, name, _):
    times = draw(delay, 500)
    found = {type(fitted): log_density(fitted, times).sum() for fitted in fit_families(times)}
    for cls, theirs in ((Gamma, stats.gamma), (Weibull, stats.weibull_min), (LogNormal, stats.lognorm)):
        assert found[cls] >= theirs.logpdf(times, *theirs.fit(times, floc=0)).sum() - 1e-5


def test_aic_and_the_distance_of_distributions_are_their_definitions():
    times = draw(Gamma(1.0, 0.5), 200)
    row = fit_delays(times).table.set_index("name").loc["log-normal"]
    sigma, scale = np.log(times).std(), math.exp(np.log(times).mean())
    theirs = stats.lognorm(sigma, scale=scale)
    assert row["aic"] == pytest.approx(4 - 2 * theirs.logpdf(times).sum())
    assert [row["ks"], row["p_value"]] == pytest.approx(list(stats.kstest(times, theirs.cdf)))


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-4, 2.0))
def test_fits_scale_with_the_unit_of_time(unit, sigma):
    times = draw(LogNormal(1.0, sigma), 50)
    for one, other in zip(fit_families(times), fit_families(unit * times), strict=True):
        shift = log_density(one, times).sum() - log_density(other, unit * times).sum()
        assert shift == pytest.approx(50 * math.log(unit), abs=1e-3)


# Ageing and the tail


@pytest.mark.parametrize(
    "delay",
    [delay for delay, _, _ in FITTED if not isinstance(delay, Erlang)]
    + [HyperExponential((0.5, 0.5), (1.0, 5.0))],
)
def test_ageing_of_delays_is_its_definition(delay):
    points = delay.expectation() * np.geomspace(0.01, 50, 60)
    u, t = np.meshgrid(points, points)
    excess = delay.sf(u + t) - delay.sf(u) * delay.sf(t)
    longer, shorter = bool((excess < -1e-12).any()), bool((excess > 1e-12).any())
    expected = {
        (True, False): "new-longer-than-used",
        (False, True): "new-shorter-than-used",
        (False, False): "memoryless",
        (True, True): "neither",
    }
    assert delay_ageing(delay) == expected[longer, shorter]


@pytest.mark.parametrize(
    ("delay", "ageing"),
    [
        (Exponential(2.0), "memoryless"),
        (ShiftedExponential(1.0, 1.0), "new-longer-than-used"),
        (Gamma(1.0, 0.5), "new-longer-than-used"),
        (Gamma(1.0, 1.5), "new-shorter-than-used"),
        (HyperExponential((0.9, 0.1), (0.5, 5.5)), "new-shorter-than-used"),
        (Pareto(2.0, 1.0), "neither"),
        (Deterministic(1.0), "new-longer-than-used"),
    ],
)
def test_ageing_is_seen_in_the_times(delay, ageing):
    assert observed_ageing(draw(delay)) == ageing


def test_exponential_times_are_rarely_said_to_age():
    seen = [observed_ageing(draw(Exponential(1.0), 200, seed)) for seed in range(200)]
    assert seen.count("memoryless") >= 185


def test_hill_finds_the_tail_of_a_pareto_delay_and_none_in_few_times():
    assert tail_index(draw(Pareto(2.5), 40_000)) == pytest.approx(2.5, rel=0.15)
    assert tail_index(draw(Exponential(1.0), 40_000)) > 4
    assert math.isnan(tail_index(np.arange(1.0, 25.0)))
    # By hand: 25 times, the five largest e^1 ... e^5 times the sixth.
    times = np.concatenate([np.full(20, 1.0), np.exp([1, 2, 3, 4, 5])])
    assert tail_index(times) == pytest.approx(1 / 3)


# Imbalance


def log(times: np.ndarray) -> pd.DataFrame:
    """Steps by workers as a log of one row per time, shuffled."""
    table = pd.DataFrame(times).rename_axis("iteration").rename_axis("rank", axis=1)
    rows = table.reset_index().melt("iteration", value_name="took")
    return rows.sample(frac=1.0, random_state=1, ignore_index=True)


COLUMNS = {"worker": "rank", "seconds": "took", "step": "iteration"}


def normal(sd: float, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return 1 + sd * np.random.default_rng(seed).standard_normal(shape)


def judge(times: np.ndarray) -> Imbalance:
    """The verdict alone, without delays."""
    steps = pd.DataFrame(times)
    return imbalance({worker: steps[worker].to_numpy() for worker in steps}, steps)[0]


def test_alike_workers_with_varying_times_are_random():
    fit = fit_delays(log(draw(LogNormal(4.0, 0.14), 43 * 32).reshape(43, 32)), **COLUMNS)
    assert (fit.verdict, fit.slow) == ("random", ())
    assert "imbalance is random" in fit.words
    assert fit.compute == fit.table["delay"][0]
    assert fit.imbalance.slowdown == pytest.approx(1.34, abs=0.03)  # of 32 such workers, by quadrature


@pytest.mark.parametrize("step", ["iteration", None])
def test_a_slow_worker_is_persistent_and_named(step):
    times = 19 * normal(0.005, (44, 4))
    times[:, 2] *= 2.4
    fit = fit_delays(log(times), worker="rank", seconds="took", step=step)
    assert (fit.verdict, fit.slow) == ("persistent", (2,))
    assert "worker 2 takes 2.39 times the median" in fit.words or "worker 2 takes 2.40" in fit.words
    assert fit.imbalance.slowdown == pytest.approx(2.4 / (5.4 / 4), rel=0.01)
    assert [delay.expectation() for delay in fit.compute] == pytest.approx([19, 19, 45.6, 19], rel=0.01)
    assert len({type(delay) for delay in fit.compute}) == 1
    assert Cluster(compute=fit.compute).size == 4


def test_one_slow_worker_among_many_is_found_though_the_variance_hardly_shows_it():
    times = normal(0.1, (60, 64))
    times[:, 17] += 0.2
    found = judge(times)
    assert (found.verdict, found.slow) == ("persistent", (17,))
    assert found.variance["worker"] < 0.1 * found.variance["residual"]


def test_one_fast_worker_is_persistent_but_nobody_is_slow():
    times = normal(0.02, (30, 5))
    times[:, 1] -= 0.5
    fit = fit_delays(log(times), **COLUMNS)
    assert (fit.verdict, fit.slow) == ("persistent", ())
    assert "none stands out as slow" in fit.words


def test_what_all_workers_have_in_common_is_no_imbalance():
    times = normal(0.3, (40, 1)) + normal(0.01, (40, 6), seed=1)
    fit = fit_delays(log(times), **COLUMNS)
    assert fit.verdict == "nearly constant"
    assert "of the variance is common to all workers" in fit.words
    assert fit_delays(log(times), worker="rank", seconds="took").verdict == "random"


def test_variance_components_are_recovered():
    rng = np.random.default_rng(3)
    shape = (400, 300)
    times = 9 + 0.3 * rng.standard_normal((1, 300)) + 0.5 * rng.standard_normal((400, 1))
    times = times + 0.7 * rng.standard_normal(shape)
    pieces = judge(times).variance
    assert pieces == pytest.approx({"worker": 0.09, "step": 0.25, "residual": 0.49}, rel=0.15)


def test_without_chance_the_components_are_exact():
    times = 5 + np.array([[0.0, 1.0, 2.0]]) + np.array([[0.0], [2.0]])
    pieces = judge(np.repeat(times, 2, axis=0)).variance
    assert pieces == pytest.approx({"worker": 1.0, "step": 4 / 3, "residual": 0.0})


def test_alike_workers_are_never_called_persistent():
    for seed, delay in enumerate([Exponential(1.0), Pareto(2.2), LogNormal(1.0, 1.0), Gamma(1.0, 0.2)] * 10):
        assert judge(draw(delay, 40 * 16, seed).reshape(40, 16)).verdict == "random", delay


def test_the_slowdown_of_independent_workers_is_the_mean_of_the_larger():
    frame = pd.DataFrame({"worker": [0, 0, 0, 0, 1, 1, 1, 1], "seconds": [1.0, 1.0, 3.0, 3.0] * 2})
    assert fit_delays(frame).imbalance.slowdown == pytest.approx(2.5 / 2)


@pytest.mark.parametrize("slow", [1.0, 1.5])
def test_a_cluster_built_from_the_fit_waits_as_long_as_the_measured_one(slow):
    times = draw(Gamma(2.0, 0.2), 400 * 8).reshape(400, 8)
    times[:, 0] *= slow
    fit = fit_delays(log(times), **COLUMNS)
    trace = simulate(Cluster(8, fit.compute), Sync(), updates=400, seed=1)
    work = trace.column("finish_time") - trace.column("read_time")
    slowdown = trace.end / len(trace.update_times) / np.nanmean(work)
    assert slowdown == pytest.approx(fit.imbalance.slowdown, rel=0.03)


def test_workers_have_rows_of_their_own_in_the_order_of_their_names():
    frame = log(normal(0.2, (10, 3))).replace({"rank": {0: "c", 1: "a", 2: "b"}})
    fit = fit_delays(frame, **COLUMNS)
    assert list(fit.workers.index) == ["all", "a", "b", "c"]
    assert list(dict.fromkeys(fit.table["worker"])) == ["all", "a", "b", "c"]
    assert fit.workers["times"].tolist() == [30, 10, 10, 10]
    took = frame.groupby("rank")["took"]
    np.testing.assert_allclose(fit.workers["mean"][1:], took.mean())
    np.testing.assert_allclose(fit.workers["cv"][1:], took.std() / took.mean())


def test_workers_may_lack_steps():
    times = 9 + 0.1 * normal(1.0, (300, 8))
    times[:, 3] *= 1.3
    there = np.random.default_rng(2).random(times.shape) > 0.3
    assert there.all(axis=1).sum() < 30
    frame = log(np.where(there, times, np.nan)).dropna()
    fit = fit_delays(frame, **COLUMNS)
    assert fit.workers["times"].tolist() == [there.sum(), *there.sum(axis=0)]
    assert (fit.verdict, fit.slow) == ("persistent", (3,))
    assert fit.workers["ratio"].iloc[4] == pytest.approx(1.3, rel=0.02)
    largest = np.where(there, times, 0).max(axis=1)
    assert fit.step.measured == pytest.approx(largest[there.sum(axis=1) > 1].mean())
    assert fit.step.fitted == pytest.approx(fit.step.measured, rel=0.01)


def test_the_variance_components_of_a_log_with_gaps_are_those_of_the_whole():
    rng = np.random.default_rng(3)
    times = 9 + 0.3 * rng.standard_normal((1, 100)) + 0.5 * rng.standard_normal((400, 1))
    times = times + 0.7 * rng.standard_normal((400, 100))
    with_gaps = judge(np.where(rng.random(times.shape) < 0.2, np.nan, times)).variance
    assert with_gaps == pytest.approx(judge(times).variance, rel=0.05)


# What stands for the log


def pauses(length: float) -> np.ndarray:
    """64 workers, worker 17 is slower by 1.6; 1 % of all times have a pause."""
    rng = np.random.default_rng(0)
    times = 0.35 + rng.gamma(4.0, 0.0125, (200, 64))
    times[:, 17] *= 1.6
    return times + length * (rng.random(times.shape) < 0.01)


@pytest.mark.parametrize("length", [0.0, 1.0, 5.0])
def test_pauses_hide_no_slow_worker_and_the_cluster_waits_as_long(length):
    times = pauses(length)
    fit = fit_delays(log(times), **COLUMNS)
    assert (fit.verdict, fit.slow) == ("persistent", (17,))
    assert fit.fits == (length == 0.0)
    assert ("No delay fits" in fit.words) == (length > 0)
    assert {type(delay) is Empirical for delay in fit.compute} == {length > 0}
    assert fit.step.measured == pytest.approx(times.max(axis=1).mean())
    trace = simulate(Cluster(compute=fit.compute), Sync(), updates=1_000, seed=3)
    assert trace.end / 1_000 == pytest.approx(times.max(axis=1).mean(), rel=0.05)


def test_a_drift_of_all_workers_is_taken_out_where_independent_draws_would_wait_too_long():
    drift = np.linspace(0.5, 2.0, 500)[:, None]
    times = draw(Gamma(1.0, 0.1), 500 * 32).reshape(500, 32) * drift
    fit = fit_delays(log(times), **COLUMNS)
    assert not fit.fits
    assert "divided by what is common" in fit.words
    assert fit.step.fitted == pytest.approx(times.max(axis=1).mean(), rel=0.02)
    assert [delay.expectation() for delay in fit.compute] == pytest.approx(times.mean(axis=0), rel=1e-9)
    rng = np.random.default_rng(1)
    assert np.mean([rng.permuted(times, axis=0)[0].max() for _ in range(200)]) > 1.3 * fit.step.measured


def test_a_fit_whose_step_is_wrong_says_so():
    """Workers are slow in turns, one at a time: independent draws are slow together, or not at all."""
    times = np.ones((400, 4)) + 0.01 * normal(1.0, (400, 4))
    times[np.arange(400), np.arange(400) % 4] = 5.0
    fit = fit_delays(log(times), **COLUMNS)
    assert not fit.agrees
    assert fit.step.measured == pytest.approx(5.0)
    assert fit.step.fitted == pytest.approx(5 - 4 * 0.75**4, rel=0.02)
    assert "25% less than the measured 5 s" in fit.words


def test_a_mean_that_hangs_on_a_few_long_times_is_doubted():
    times = np.ones((200, 4)) + 0.01 * normal(1.0, (200, 4))
    times[7, 2] = 500.0
    fit = fit_delays(log(times), **COLUMNS)
    assert not fit.agrees
    assert "few long times make uncertain by 71%" in fit.words


@pytest.mark.parametrize("size", [500, 40_000])
def test_one_sample_that_no_delay_fits_is_drawn_from(size):
    rng = np.random.default_rng(0)
    times = np.where(rng.random(size) < 0.5, 1.0, 3.0) + 0.01 * rng.random(size)
    fit = fit_delays(times)
    assert not fit.fits
    assert isinstance(fit.compute, Empirical)
    assert fit.compute.expectation() == pytest.approx(times.mean(), rel=1e-12)
    assert Cluster(4, fit.compute).size == 4
    assert len(fit.compute.samples) <= 500


def test_a_fit_of_many_times_can_stand_in_a_spec():
    times = 1 + np.random.default_rng(0).pareto(1.9, (5_000, 16))
    times[:, 3] += 0.7
    fit = fit_delays(log(times), **COLUMNS)
    assert not fit.fits
    assert Cluster(compute=fit.compute).table()
    for delay, own in zip(fit.compute, times.T, strict=True):
        assert delay.expectation() == pytest.approx(own.mean(), rel=1e-12)
        assert max(delay.samples) == own.max()


def test_the_largest_of_independent_draws_is_exact():
    samples = [np.array([1.0, 2.0, 2.0]), np.array([2.0, 5.0]), np.array([0.5, 4.0, 6.0, 6.0])]
    every = [max(draw) for draw in itertools.product(*samples)]
    assert largest_of(samples) == pytest.approx(np.mean(every))


def test_the_script_finds_slow_workers_and_their_clusters_wait_as_long():
    spec = importlib.util.spec_from_file_location("validate_slow_workers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.experiment(6, updates=60)
    assert rows["right"].all()
    assert (rows["own_error"].abs() <= 0.1).sum() >= 10
    assert rows["error"].abs().median() < 0.05


# Bad input

GOOD = pd.DataFrame(
    {"worker": [0] * 5 + [1] * 5, "seconds": [1.0, 1.1, 1.2, 1.3, 1.4] * 2, "step": [*range(5)] * 2}
)


@pytest.mark.parametrize(
    ("measured", "options", "match"),
    [
        ([], {}, "measured is empty"),
        (GOOD[:0], {}, "measured is empty"),
        ([1.0, 2.0, np.nan, 3.0], {}, "time 2 of worker 0 is nan; allowed are finite seconds above 0"),
        ([1.0, 2.0, -3.0, 3.0], {}, r"time 2 of worker 0 is -3\.0"),
        ([1.0, 2.0, 0.0, 3.0], {}, r"time 2 of worker 0 is 0\.0"),
        ([1.0, 2.0, np.inf, 3.0], {}, "time 2 of worker 0 is inf"),
        ([1.0, 2.0, 3.0], {}, "worker 0 has 3 times: at least 4"),
        ([[1.0, 2.0]], {}, "one-dimensional array of seconds"),
        (["1.0"], {}, "one-dimensional array of seconds"),
        ([1.0, 2.0, 3.0, 4.0], {"step": "step"}, "step = 'step' needs a DataFrame"),
        (GOOD, {"worker": "wroker"}, "unknown column 'wroker'. Did you mean 'worker'"),
        (GOOD, {"seconds": "second"}, "unknown column 'second'. Did you mean 'seconds'"),
        (GOOD, {"step": "steps"}, "unknown column 'steps'. Did you mean 'step'"),
        (GOOD.assign(seconds="1 s"), {}, "column 'seconds' holds .*: give seconds as numbers"),
        (GOOD.assign(worker=[None, *[0.0] * 9]), {}, "column 'worker' has missing values"),
        (GOOD.assign(worker="all"), {}, "column 'worker' names a worker 'all'"),
        (GOOD.assign(step=0), {"step": "step"}, "worker 0 has several times in step 0"),
        (GOOD[:5], {"step": "step"}, "needs at least 2 workers"),
        (GOOD.assign(step=[0.0, np.nan] * 5), {"step": "step"}, "column 'step' has missing values"),
        (
            pd.DataFrame(
                {"worker": np.repeat([0, 1, 2], 4), "step": [0, 1, 2, 3] * 2 + [4, 5, 6, 7], "seconds": 1.0}
            ),
            {"step": "step"},
            "worker 2 has no step in common with another worker",
        ),
        (GOOD.assign(step=range(10)), {"step": "step"}, "0 of 10 steps were made by several workers"),
    ],
)
def test_bad_times_are_named(measured, options, match):
    with pytest.raises(ValueError, match=match):
        fit_delays(measured, **options)
