"""Every delay: the draws against the survival function, the expectation against both, tables there and back."""

import dataclasses
import hashlib
import json
import math
import tomllib
import warnings

import numpy as np
import pytest
import tomli_w
from hypothesis import given, strategies as st
from scipy import stats

from stalegrad.policies.synchrony import Async, Sync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import (
    DELAYS,
    Correlated,
    Delay,
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Function,
    Gamma,
    HyperExponential,
    LogNormal,
    MarkovModulated,
    Pareto,
    Recorded,
    Scipy,
    Shared,
    ShiftedExponential,
    TwoLevelGamma,
    Uniform,
    Weibull,
    as_delay,
)
from stalegrad.simulator.timing.engine import simulate

# delay, expected value by hand
CONTINUOUS: list[tuple[Delay, float]] = [
    (Exponential(0.3), 0.3),
    (ShiftedExponential(1.0, 0.5), 1.5),
    (Pareto(3.0, 2.0), 3.0),
    (Gamma(2.0, 0.5), 2.0),
    (Gamma(1.0, 1.5), 1.0),
    (Erlang(4, 2.0), 2.0),
    (HyperExponential((0.9, 0.1), (0.5, 5.5)), 1.0),
    (LogNormal(2.0, 0.5), 2.0 * math.exp(0.125)),
    (Weibull(2.0, 3.0), 3.0 * math.gamma(1.5)),
    (Uniform(1.0, 4.0), 2.5),
    (Scipy("invgauss", {"mu": 0.5}), 0.5),
]
DISCRETE: list[tuple[Delay, float]] = [
    (Deterministic(1.5), 1.5),
    (Empirical((1.0, 1.0, 2.0, 4.0)), 2.0),
    (Empirical((4.0, 1.0, 2.0), weights=(1, 2, 1)), 2.0),
    (Scipy("geom", {"p": 0.5}), 2.0),
]
ALL = [*CONTINUOUS, *DISCRETE]
ids = [f"{type(delay).__name__}-{i}" for i, (delay, _) in enumerate(ALL)]


def draws_of(delay: Delay, size: int = 50_000) -> np.ndarray:
    return delay.sample(np.random.default_rng(7), size)


@pytest.mark.parametrize(("delay", "expected"), ALL, ids=ids)
def test_draws_average_to_the_expectation(delay, expected):
    draws = draws_of(delay)
    assert delay.expectation() == pytest.approx(expected, rel=1e-12)
    assert draws.mean() == pytest.approx(expected, abs=4 * draws.std() / math.sqrt(len(draws)) + 1e-12)


@pytest.mark.parametrize(("delay", "_"), CONTINUOUS, ids=ids[: len(CONTINUOUS)])
def test_draws_follow_the_survival_function(delay, _):
    assert stats.kstest(draws_of(delay), lambda t: 1 - delay.sf(t)).pvalue > 1e-3


@pytest.mark.parametrize(("delay", "_"), DISCRETE, ids=ids[len(CONTINUOUS) :])
def test_draws_of_delays_with_atoms_follow_the_survival_function_at_the_atoms_too(delay, _):
    draws = draws_of(delay)
    for t in (0.0, 0.5, 1.0, 1.5, 2.0, 3.9, 4.0, 5.0):
        assert (draws > t).mean() == pytest.approx(float(delay.sf(t)), abs=0.01)


@pytest.mark.parametrize(("delay", "expected"), ALL, ids=ids)
def test_the_expectation_is_the_integral_of_the_survival_function(delay, expected):
    # A Gauss rule on each of many pieces; corners and atoms of the delays lie between the pieces.
    edges = np.concatenate([np.arange(0.0, 20.0, 0.5), np.geomspace(20.0, 1e5, 60)])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(edges)[:, None] / 2
    integral = (delay.sf(edges[:-1, None] + half * (1 + nodes)) * weights * half).sum()
    assert integral == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("delay", "_"), ALL, ids=ids)
def test_the_survival_function_takes_arrays_and_falls_from_one(delay, _):
    values = delay.sf(np.array([0.0, 0.7, 1.0, 3.0, 10.0]))
    assert values.shape == (5,)
    assert values[0] == 1
    assert (np.diff(values) <= 0).all()
    assert delay.sf(1.0).shape == ()


@pytest.mark.parametrize(("delay", "_"), ALL, ids=ids)
def test_draws_are_non_negative_floats_and_depend_on_the_generator_only(delay, _):
    one, again = (delay.sample(np.random.default_rng(3), 100) for _ in range(2))
    assert one.dtype == np.float64
    assert one.shape == (100,)
    assert (one >= 0).all()
    np.testing.assert_array_equal(one, again)


def test_an_infinite_mean_is_said_so():
    assert Pareto(1.0).expectation() == math.inf


# Two-level gamma: the cluster of DANA and Gap-Aware

MEAN = 128.0
HOMOGENEOUS, HETEROGENEOUS = TwoLevelGamma(MEAN, 0.1, 0.0), TwoLevelGamma(MEAN, 0.1, 0.6)


def machines(delay: TwoLevelGamma, count: int) -> list[Delay]:
    return [delay.realise(np.random.default_rng([5, i])) for i in range(count)]


def test_a_task_exceeds_the_mean_by_a_quarter_as_often_as_the_paper_says():
    (homogeneous,) = machines(HOMOGENEOUS, 1)
    assert float(homogeneous.sf(1.25 * MEAN)) == pytest.approx(0.0094, abs=5e-5)
    means = np.array([m.mean for m in machines(HETEROGENEOUS, 10_000)])
    assert stats.gamma.sf(1.25 * MEAN, 100, scale=means / 100).mean() == pytest.approx(0.2788, abs=0.01)


@pytest.mark.parametrize(
    ("delay", "late"),
    [(HOMOGENEOUS, 0.0094), (HETEROGENEOUS, 0.2788), (TwoLevelGamma(MEAN, 0.6, 0.1), 0.2788)],
    ids=["homogeneous", "heterogeneous", "heterogeneous tasks"],
)
def test_draws_over_all_machines_exceed_the_mean_as_often(delay, late):
    draws = draws_of(delay, 200_000)
    assert (draws > 1.25 * MEAN).mean() == pytest.approx(late, rel=0.02, abs=5e-4)
    assert draws.mean() == pytest.approx(delay.expectation(), rel=0.01)


def test_a_heterogeneous_machine_is_drawn_once_and_its_tasks_vary_little():
    first, second = machines(HETEROGENEOUS, 2)
    draws = draws_of(first)
    assert draws.std() / draws.mean() == pytest.approx(0.1, rel=0.02)
    assert first.expectation() != second.expectation()
    means = np.array([m.mean for m in machines(HETEROGENEOUS, 10_000)])
    assert means.mean() == pytest.approx(MEAN, rel=0.02)
    assert means.std() / means.mean() == pytest.approx(0.6, rel=0.03)


def test_a_cluster_realises_one_machine_per_worker_and_run():
    cluster = Cluster(6, HETEROGENEOUS)
    means = {
        (seed, w): np.mean([t for t, _ in zip(cluster.compute_times(seed, w), range(400), strict=False)])
        for seed in (0, 1)
        for w in range(6)
    }
    assert len({round(m) for m in means.values()}) > 6
    assert np.std(list(means.values())) / MEAN > 0.25


@pytest.mark.parametrize(
    ("workers", "ratio"), [(4, 1.10), (8, 1.15), (16, 1.18), (24, 1.21), (32, 1.22), (64, 1.25)]
)
def test_async_over_sync_throughput_of_the_homogeneous_cluster(workers, ratio):
    cluster = Cluster(workers, HOMOGENEOUS)
    rates = [
        simulate(cluster, synchrony, gradients=400 * workers, seed=4).throughput()["gradients_per_second"]
        for synchrony in (Async(), Sync())
    ]
    assert rates[0] / rates[1] == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(("workers", "sd"), [(8, 1.09), (16, 1.92), (32, 3.59)])
def test_lag_of_the_homogeneous_cluster_spreads_as_in_independent_simulations(workers, sd):
    lag = simulate(Cluster(workers, HOMOGENEOUS), Async(), updates=60_000, seed=4).staleness
    assert lag.mean() == pytest.approx(workers - 1, rel=0.005)
    assert lag.std() == pytest.approx(sd, rel=0.05)


# What users may write


def test_a_number_is_deterministic():
    assert as_delay(2) == Deterministic(2.0)
    assert as_delay(0.5) == Deterministic(0.5)


@pytest.mark.parametrize(
    "frozen",
    [stats.gamma(3.0), stats.gamma(3.0, scale=2.0), stats.expon(1.0, 2.0), stats.lognorm(s=0.5), stats.geom(0.3)],
    ids=["shape", "scale", "positional", "keyword", "discrete"],
)
def test_a_frozen_scipy_distribution_is_accepted_and_keeps_its_delay(frozen):
    delay = as_delay(frozen)
    assert isinstance(delay, Scipy)
    t = np.array([0.1, 1.0, 2.5, 7.0])
    np.testing.assert_allclose(delay.sf(t), frozen.sf(t), rtol=1e-14)
    assert delay.expectation() == pytest.approx(frozen.mean())
    assert as_delay(DELAYS.to_table(delay)) == delay


def test_a_function_is_accepted_and_called_with_generator_and_size():
    delay = as_delay(lambda rng, size: 1.0 + rng.random(size))
    np.testing.assert_array_equal(
        delay.sample(np.random.default_rng(1), 5), 1.0 + np.random.default_rng(1).random(5)
    )


def test_a_function_drives_a_simulation():
    trace = simulate(Cluster(2, lambda rng, size: 1.0 + rng.random(size)), Async(), updates=20, seed=1)
    assert trace.verify().end > 10


@pytest.mark.parametrize(("delay", "_"), [*ALL, (HETEROGENEOUS, 0), (HOMOGENEOUS, 0)])
def test_every_delay_survives_its_table_even_through_json(delay, _):
    table = DELAYS.to_table(delay)
    assert as_delay(table) == delay
    assert as_delay(json.loads(json.dumps(table))) == delay


def test_the_tables_above_cover_every_delay():
    elsewhere = {Correlated, MarkovModulated, Recorded, Shared}  # test_memory.py, test_recorded.py
    named = {type(delay) for delay, _ in ALL} | {TwoLevelGamma, Function} | elsewhere
    assert named == set(DELAYS.values())


def test_a_function_of_a_module_survives_its_table(tmp_path, monkeypatch):
    (tmp_path / "stalegrad_test_delays.py").write_text("def slow(rng, size):\n    return 2.0 + rng.random(size)\n")
    monkeypatch.syspath_prepend(tmp_path)
    delay = as_delay({"delay": "function", "function": "stalegrad_test_delays:slow"})
    assert DELAYS.to_table(delay) == {"delay": "function", "function": "stalegrad_test_delays:slow"}
    assert as_delay(DELAYS.to_table(delay)) == delay
    assert delay.sample(np.random.default_rng(0), 3).min() >= 2


def test_a_lambda_cannot_be_written_to_a_table():
    with pytest.raises(ValueError, match="this process only"):
        DELAYS.to_table(as_delay(lambda rng, size: rng.random(size)))


def test_a_class_of_the_user_s_own_runs_but_has_no_table():
    class Always(Delay):
        def sample(self, rng, size):
            return np.full(size, 3.0)

    assert simulate(Cluster(1, Always()), Async(), updates=2).end == 6.0
    with pytest.raises(ValueError, match="exists in this process only"):
        DELAYS.to_table(Always())


def test_empirical_reads_a_file_and_checks_its_sum(tmp_path):
    file = tmp_path / "times.txt"
    file.write_text("# seconds\n1.0\n3.0\n")
    delay = Empirical(file=str(file))
    assert delay.expectation() == 2.0
    assert set(draws_of(delay, 50)) == {1.0, 3.0}
    assert delay.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert as_delay(DELAYS.to_table(delay)) == delay
    file.write_text("1.0\n2.0\n")
    with pytest.raises(ValueError, match=r"sha256 of .*times\.txt"):
        as_delay(DELAYS.to_table(delay))


def test_weights_count_samples_several_times():
    once = Empirical((1.0, 2.0, 4.0), weights=(2, 1, 1))
    t = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(once.sf(t), Empirical((1.0, 1.0, 2.0, 4.0)).sf(t))


def test_the_measured_training_times_keep_mean_and_tail():
    # Expected: of the 995,328 measured factors themselves, of which the table holds 346 groups.
    delay = Empirical.measured("nn-training-times")
    assert delay.expectation() == pytest.approx(1.0031266, abs=1e-6)
    assert sum(delay.weights) == 4 * 62_208 * 4
    assert max(delay.samples) == pytest.approx(4.791226, abs=1e-6)
    spread = math.sqrt(np.average(np.square(delay.samples), weights=delay.weights) - delay.expectation() ** 2)
    assert spread == pytest.approx(0.06546 * 1.00313, rel=1e-3)
    for late, t in ((0.5, 1.0), (0.01, 1.16675), (1e-3, 1.42737), (1e-4, 3.74363)):
        assert float(delay.sf(t)) == pytest.approx(late, rel=0.06)


def test_a_measured_delay_is_scaled_by_its_median_and_survives_a_specification():
    delay = Empirical.measured("nn-training-times", median=0.2)
    assert delay.expectation() == pytest.approx(0.2 * 1.0031266, abs=1e-6)
    cluster = Cluster(4, delay)
    assert Cluster.from_table(tomllib.loads(tomli_w.dumps(cluster.table()))) == cluster
    assert simulate(cluster, Sync(), updates=50, seed=0).verify().end == pytest.approx(50 * 0.2, rel=0.1)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=30), st.floats(0.0, 101.0))
def test_the_survival_function_of_samples_is_the_fraction_above(samples, t):
    expected = sum(x > t for x in samples) / len(samples)
    assert float(Empirical(tuple(samples)).sf(t)) == pytest.approx(expected, abs=1e-12)


# What users may get wrong


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        (lambda: Exponential(-1.0), ["scale", "-1.0", "greater than 0"]),
        (lambda: Exponential(math.nan), ["scale", "nan"]),
        (lambda: Exponential(math.inf), ["scale", "inf", "finite"]),
        (lambda: Deterministic(-0.5), ["value", "-0.5", "greater than or equal to 0"]),
        (lambda: ShiftedExponential(-1.0, 1.0), ["shift", "-1.0"]),
        (lambda: Pareto(0.0), ["shape", "0.0", "greater than 0"]),
        (lambda: Erlang(0), ["shape", "0", "greater than or equal to 1"]),
        (lambda: Erlang(2.5), ["shape", "2.5", "integer"]),
        (lambda: Gamma(1.0, 0.0), ["cv", "0.0"]),
        (lambda: TwoLevelGamma(machine_cv=-0.1), ["machine_cv", "-0.1"]),
        (lambda: Uniform(2.0, 1.0), ["high", "1.0", "exceed low = 2.0"]),
        (lambda: HyperExponential((0.5, 0.5), (1.0,)), ["2 weights", "1 means", "one weight per mean"]),
        (lambda: HyperExponential((0.5, 0.4), (1.0, 2.0)), ["weights", "0.9", "not 1"]),
        (lambda: Empirical(()), ["empirical", "0 samples", "at least one"]),
        (lambda: Empirical((0.0, 0.0)), ["empirical", "not all zero"]),
        (lambda: Empirical((1.0, -2.0)), ["samples", "-2.0"]),
        (lambda: Empirical((1.0, 2.0), weights=(1.0,)), ["2 samples", "1 weights", "one weight per sample"]),
        (lambda: Empirical((1.0, 2.0), weights=(1.0, 0.0)), ["weights", "0.0", "greater than 0"]),
        (lambda: Empirical.measured("nn-training-time"), ["nn-training-time", "Did you mean 'nn-training-times'"]),
        (lambda: Empirical.measured("nn-training-times", median=0.0), ["median", "0.0", "greater than 0"]),
        (lambda: Scipy("gama", {"a": 1.0}), ["gama", "Did you mean 'gamma'"]),
        (lambda: Scipy("gamma", {"b": 1.0}), ["gamma", "'b'"]),
        (lambda: as_delay(stats.norm(3.0, 1.0)), ["norm", "-inf", "must not be negative"]),
        (
            lambda: Function("no_such_module:f").sample(np.random.default_rng(0), 1),
            ["no_such_module:f", "cannot be imported"],
        ),
        (
            lambda: Function("math:no_such_function").sample(np.random.default_rng(0), 1),
            ["no_such_function", "cannot be imported"],
        ),
        (lambda: Function("..:x"), ["'..:x'", "package.module:function"]),
        (lambda: Function("exponential"), ["'exponential'", "package.module:function"]),
        (lambda: Function(3), ["3", "not callable"]),
        (lambda: as_delay({"delay": "exponental"}), ["exponental", "Did you mean 'exponential'", "pareto"]),
        (lambda: as_delay({"scale": 1.0}), ["delay = NAME", "scale", "exponential"]),
        (lambda: as_delay({"delay": "exponential", "scal": 1.0}), ["scal", "Did you mean 'scale'"]),
        (lambda: as_delay({"delay": "pareto"}), ["pareto", "shape"]),
        (lambda: as_delay("exponential"), ["'exponential'", "Exponential(1.0)"]),
        (lambda: as_delay(None), ["None", "Exponential(1.0)"]),
        (lambda: as_delay(True), ["True", "Exponential(1.0)"]),
    ],
)
def test_a_wrong_delay_is_refused_with_its_field_its_value_and_what_is_allowed(wrong, parts):
    with pytest.raises(ValueError, match=r".") as caught:
        wrong()
    for part in parts:
        assert part in str(caught.value)


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.sampled_from(
        [math.nan, math.inf, -math.inf, -1, -1.0, 10**400, -(10**400), 2**70, 1e308, 1e-308, 0, 5e-324, 1j]
    ),
    st.floats(),
    st.integers(),
    st.lists(st.one_of(st.floats(), st.text(max_size=2), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.one_of(st.floats(), st.none(), st.lists(st.floats(), max_size=2))),
    st.just(object()),
)


@pytest.mark.parametrize("name", DELAYS)
@given(data=st.data())
def test_wrong_values_of_every_kind_are_refused_in_one_sentence(name, data):
    fields = [field.name for field in dataclasses.fields(DELAYS[name])]
    arguments = {field: data.draw(WRONG, field) for field in data.draw(st.sets(st.sampled_from(fields)))}
    if name == "scipy" and data.draw(st.booleans()):
        arguments["name"] = data.draw(st.sampled_from(["gamma", "expon", "geom", "rv_continuous", "levy_stable"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            delay = as_delay({"delay": name, **arguments})
        except (ValueError, FileNotFoundError) as error:
            delay = str(error)
    assert isinstance(delay, Delay) or (delay and "\n" not in delay)


@given(WRONG)
def test_whatever_is_given_as_a_delay_is_one_or_refused_in_a_sentence(value):
    try:
        delay = as_delay(value)
    except ValueError as error:
        delay = str(error)
    assert isinstance(delay, Delay) or (delay and "\n" not in delay)


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("gamma", [1.0, 2.0], r"parameters of scipy.stats.gamma = \[1.0, 2.0\] is not allowed: give a table"),
        ("gamma", "a", "give a table of names and numbers"),
        ("gamma", 2.0, "give a table of names and numbers"),
        ("gamma", {"a": "2"}, "a of parameters of scipy.stats.gamma = '2' is not allowed: give a finite number"),
        ("gamma", {"a": [1.0, 2.0]}, "give a finite number"),
        ("gamma", {"a": math.nan}, "a of .* = nan"),
        ("gamma", {"a": True}, "a of .* = True"),
        ("gamma", {"a": 10**400}, "give a finite number"),
        ("gamma", {"a": -1.0}, "the distribution does not exist for them"),
        ("gamma", {}, "are not allowed"),
        ("gamma", {"a": 1.0, "size": 3}, "are not allowed"),
        ("norm", {}, "support from -inf"),
        ("rv_continuous", {}, "unknown scipy.stats distribution"),
        ("__class__", {}, "unknown scipy.stats distribution"),
        (3, {}, "name of scipy = 3"),
    ],
)
def test_wrong_scipy_delays_are_refused_in_a_sentence(name, parameters, match):
    with pytest.raises(ValueError, match=match):
        Scipy(name, parameters)


def test_scipy_parameters_may_be_numpy_numbers_or_pairs():
    assert Scipy("gamma", {"a": np.float64(2.0), "scale": np.array([3])}) == Scipy(
        "gamma", (("a", 2.0), ("scale", 3))
    )
