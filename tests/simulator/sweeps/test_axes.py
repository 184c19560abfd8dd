"""Axes: how their values are combined, drawn and checked, and which runs they give."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from stalegrad.models import ClassesPerWorker, Dirichlet, Problem, Shuffled
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Range, load, run, sweep
from stalegrad.simulator.cli.init import EXAMPLE
from stalegrad.simulator.sweeps import lanes as sweep_lanes
from stalegrad.simulator.sweeps.axes import Sampling, load_sweep, plan

BASE = Experiment(
    Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    Cluster(4, compute=Exponential()),
    methods.async_(learning_rate=0.01),
    updates=40,
)


def experiments(axes, *sampling, base=BASE):
    return [run.experiment for run in plan(base, axes, Sampling(*sampling))]


def test_a_grid_is_every_combination_and_zip_goes_in_step():
    axes = {"seed": [0, 1, 2], "cluster.workers": [2, 3, 5]}
    grid = [(e.seed, e.cluster.size) for e in experiments(axes)]
    assert grid == [(s, w) for s in (0, 1, 2) for w in (2, 3, 5)]
    assert [(e.seed, e.cluster.size) for e in experiments(axes, "zip")] == [(0, 2), (1, 3), (2, 5)]
    assert experiments({}) == experiments({}, "zip") == experiments({}, "random", 3) == [BASE]


def test_a_parameter_is_varied_only_where_the_method_has_it():
    found = plan(BASE, {"method": ["async", "k-async"], "method.k": [1, 2]})
    kinds = [(r.experiment.method.name, getattr(r.experiment.method.synchrony, "k", None)) for r in found]
    assert kinds == [("async", None), ("k-async", 1), ("k-async", 2)]
    assert [run.point for run in found] == [
        {"method": "async"},
        {"method": "k-async", "method.k": 1},
        {"method": "k-async", "method.k": 2},
    ]


def test_methods_may_be_objects_names_or_tables_and_rates_are_an_axis():
    given = [methods.dana_zero(momentum=0.5), "sync", {"name": "k-async", "k": 3}]
    found = [e.method for e in experiments({"method": given, "method.learning_rate": [0.1, 0.2]})]
    assert [m.name for m in found] == ["dana-zero"] * 2 + ["sync"] * 2 + ["k-async"] * 2
    assert [m.learning_rate.peak for m in found] == [0.1, 0.2] * 3
    assert dict(found[0].parameters)["momentum"] == 0.5


def test_a_method_by_name_has_the_learning_rate_of_the_base_unless_it_says_another():
    given = ["sync", {"name": "sync", "learning_rate": 0.5}, methods.async_()]
    rates = [e.method.learning_rate.peak for e in experiments({"method": given})]
    assert rates == [0.01, 0.5, methods.async_().learning_rate.peak]


def test_a_method_by_name_takes_over_what_it_shares_with_the_base():
    optimizer = {"name": "sgd", "momentum": 0.5}
    base = BASE.but(method=methods.k_async(k=4, weight_decay=0.1, optimizer=optimizer, learning_rate=0.2))
    given = ["k-sync", {"name": "k-batch-async", "k": 2}, "sync", "dana-zero"]
    ks, kb, sync, dana = (run.experiment.method for run in plan(base, {"method": given}))
    assert (ks.synchrony.k, kb.synchrony.k) == (4, 2)
    assert [m.learning_rate.peak for m in (ks, kb, sync, dana)] == [0.2] * 4
    assert [dict(m.parameters)["weight_decay"] for m in (ks, kb, sync, dana)] == [0.1] * 4
    assert dict(sync.parameters)["optimizer"] == dict(base.method.parameters)["optimizer"]
    assert plan(base, {"method": ["k-sync"], "method.k": [2, 3]})[0].experiment.method.synchrony.k == 2


def test_equal_runs_are_listed_once_however_they_are_written():
    given = {"method": ["async", {"name": "async", "learning_rate": 0.01}, BASE.method], "seed": [1, np.int64(1)]}
    assert experiments(given) == [BASE.but(seed=1)]


def test_random_axes_are_drawn_from_lists_and_ranges_and_more_samples_leave_the_first_ones():
    axes = {
        "method.learning_rate": Range(1e-3, 1.0, log=True),
        "cluster.workers": Range(2, 9),
        "method": ["async", "sync"],
    }
    few, many = experiments(axes, "random", 20, 7), experiments(axes, "random", 400, 7)
    assert many[:20] == few
    rates = np.log10([e.method.learning_rate.peak for e in many])
    assert len(many) == 400
    assert rates.min() >= -3
    assert rates.max() <= 0
    assert np.mean(rates < -1.5) == pytest.approx(0.5, abs=0.1)  # 4 standard deviations of the mean of 400 coins
    sizes = np.bincount([e.cluster.size for e in many], minlength=10)
    assert sizes[:2].sum() == 0
    assert sizes[2:].min() > 25  # 50 expected of each, standard deviation 6.6
    assert {e.method.name for e in many} == {"async", "sync"}


def test_an_axis_more_leaves_the_draws_of_the_others_and_another_seed_changes_them():
    rate = {"method.learning_rate": Range(0.1, 1.0)}
    alone = [e.method.learning_rate for e in experiments(rate, "random", 5)]
    assert [e.method.learning_rate for e in experiments(rate | {"seed": [0, 1]}, "random", 5)] == alone
    assert [e.method.learning_rate for e in experiments(rate, "random", 5, 1)] != alone


@given(
    ends=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6))
    | st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)),
    u=st.floats(0, 1, exclude_max=True),
    log=st.booleans(),
)
def test_a_range_stays_within_its_ends_and_keeps_to_whole_numbers(ends, u, log):
    low, high = min(ends), max(ends)
    if low == high:
        return
    value = Range(low, high, log).at(u)
    assert low <= value <= high
    assert type(value) is type(low)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"sed": [1]}, r"unknown axis 'sed'.*seed"),
        ({"seed": []}, r"axis 'seed' is empty"),
        ({"method": ["asinc"]}, r"unknown method 'asinc'.*async"),
        ({"method.momentun": [0.9], "method": ["dana-zero"]}, r"unknown parameter.*'momentun'.*'momentum'"),
        ({"method.k": [2]}, r"unknown parameter of the methods: 'k'"),
        ({"method": ["k-async"], "method.kk": [2]}, r"unknown parameter of the methods: .kk.. Did you mean .k.\?"),
        ({"cluster.wrkers": [2]}, "wrkers.*workers"),
        ({"seed": [-1]}, "seed of experiment = -1"),
        ({"mode": "zip", "seed": [1, 2], "updates": [5]}, "equally long"),
        ({"mode": "both", "seed": [1, 2]}, "mode of sampling = 'both'"),
        ({"mode": "random", "seed": [1]}, "samples = None is not allowed: mode 'random' needs a number"),
        ({"samples": 3, "seed": [1]}, "samples = 3 is not allowed: mode 'grid' takes no samples"),
        ({"mode": "random", "samples": 0, "seed": [1]}, "samples of sampling = 0"),
        ({"mode": "random", "samples": 3, "seed": []}, "axis 'seed' is empty"),
        ({"seed": Range(0, 5)}, "axis 'seed' is a range.*mode = 'random'"),
        ({"executor": 4, "seed": [1]}, "executor = 4 is not allowed.*processes"),
    ],
)
def test_a_wrong_axis_is_one_sentence_before_anything_runs(axes, said, monkeypatch):
    monkeypatch.setattr(sweep_lanes, "run", lambda *a, **k: pytest.fail("something ran"))
    with pytest.raises(ValueError, match=said):
        sweep(BASE, progress=False, **axes)


@pytest.mark.parametrize(
    ("ends", "said"),
    [((1, 1), "above low = 1"), ((0.0, math.inf), "finite"), ((0, 5, True), "low of range = 0 .* above 0")],
)
def test_a_wrong_range_is_one_sentence(ends, said):
    with pytest.raises(ValueError, match=said):
        Range(*ends)


def spec(tmp_path, lines):
    file = tmp_path / "sweep.toml"
    file.write_text(f"{BASE.to_toml()}\n[sweep]\n{lines}\n")
    return file


def test_a_file_says_the_same_as_python(tmp_path):
    lines = 'mode = "random"\nsamples = 4\nsampling_seed = 3\nseed = [0, 1]\n'
    lines += '"method.learning_rate" = {low = 0.1, high = 1.0, log = true}'
    axes = {"seed": [0, 1], "method.learning_rate": Range(0.1, 1.0, log=True)}
    assert load_sweep(spec(tmp_path, lines)).runs == plan(BASE, axes, Sampling("random", 4, 3))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("seed = {low = 1}", "axis 'seed' lacks high"),
        ("seed = {low = 1, hihg = 2}", "key of axis 'seed': 'hihg'.*'high'"),
        ('seed = {low = 1, high = "b"}', "high of range = 'b'"),
        ("seed = {low = 1, high = 2}", "mode = 'random'"),
        ("seed = 3", "axis 'seed' = 3"),
    ],
)
def test_a_wrong_axis_of_a_file_names_the_file(lines, said, tmp_path):
    with pytest.raises(ValueError, match=rf"sweep\.toml: .*{said}"):
        load_sweep(spec(tmp_path, lines))


@pytest.mark.parametrize(
    ("lines", "runs"),
    [((0, 4), 2 * 3 * (1 + 3 + 1)), ((3, 5), 3), ((0, 4, 5, 8), 30)],
    ids=["grid", "zip", "random"],
)
def test_the_sweeps_in_the_example_of_init_are_right(lines, runs, tmp_path):
    """Uncommented, in its three modes: which lines those are is counted from [sweep]."""
    head, commented = EXAMPLE.split("# [sweep]\n")
    table = [line.removeprefix("# ") for line in commented.splitlines()]
    chosen = [line for a, b in zip(lines[::2], lines[1::2], strict=True) for line in table[a:b]]
    file = tmp_path / "spec.toml"
    file.write_text("\n".join([head, "[sweep]", *chosen]))
    found = load_sweep(file).runs
    assert len(found) == runs


# Objects of the user's own, and numbers of NumPy and pandas


def quadratic(*curvature):
    slopes = jnp.array(curvature)
    return Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * jnp.sum(slopes * w**2))


OWN = Experiment(
    quadratic(1.0, 1.0),
    Cluster(4, Exponential()),
    methods.async_(learning_rate=0.1, optimizer=optax.sgd(1.0)),
    updates=20,
)


def test_problems_of_functions_are_the_same_run_exactly_if_they_compute_the_same():
    problems = [quadratic(1.0, 1.0), quadratic(1.0, 0.001), quadratic(1.0, 1.0)]
    assert len(experiments({"problem": problems}, base=OWN)) == 2
    found = sweep(OWN, problem=problems, progress=False)
    losses = [run(OWN.but(problem=p), progress=False).history["train_loss"].iloc[-1] for p in problems[:2]]
    assert found.runs["train_loss"].tolist() == losses
    assert found.runs["problem"].nunique() == 2
    assert len(found.means()) == 2
    assert len(found.by("problem")) == 2


@pytest.mark.parametrize(
    ("axis", "values", "got"),
    [
        ("cluster.workers", [2, 3], lambda e: e.cluster.size),
        ("cluster.compute", [1.0, 2.0], lambda e: e.cluster.compute.value),
        ("record.updates", [1, 10], lambda e: e.record.updates),
        ("method.learning_rate", [0.1, 0.01], lambda e: e.method.learning_rate.peak),
        ("method.weight_decay", [0.1, 0.01], lambda e: dict(e.method.parameters)["weight_decay"]),
        ("updates", [5, 10], lambda e: e.updates),
        ("problem.sampling", ["iid", "epochs"], lambda e: e.problem.sampling),
    ],
)
def test_every_axis_works_for_experiments_that_no_spec_can_hold(axis, values, got):
    found = experiments({axis: values}, base=OWN)
    assert [got(e) for e in found] == values
    assert all(dict(e.method.parameters)["optimizer"] is dict(OWN.method.parameters)["optimizer"] for e in found)


def test_optimizers_are_an_axis_as_names_and_as_objects():
    found = experiments({"method.optimizer": ["sgd", optax.adam(1.0), optax.adam(0.5), optax.adam(1.0)]}, base=OWN)
    assert len(found) == 3
    assert (
        len(sweep(OWN, progress=False, **{"method.optimizer": ["sgd", optax.adam(1.0)]}).by("method.optimizer"))
        == 2
    )


def test_a_key_that_a_part_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"unknown key of cluster: 'worker'\. Did you mean 'workers'"):
        plan(OWN, {"cluster.worker": [1]})
    with pytest.raises(ValueError, match=r"unknown argument of a problem of functions: 'batchsize'\. Did"):
        plan(OWN, {"problem.batchsize": [1]})


NUMBERS = [np.array([2, 4]), np.array([2, 4], np.int8), pd.Series([2, 4]), pd.Index([2, 4]), iter([2, 4])]


@pytest.mark.parametrize("axis", NUMBERS, ids=lambda a: type(a).__name__)
def test_numbers_of_every_kind_stay_numbers(axis):
    (name, values) = ("updates", axis)
    found = sweep(OWN, progress=False, **{name: values})
    assert found.runs["updates"].dtype == np.int64
    assert found.runs["updates"].tolist() == [2, 4]
    assert len(found.means()) == 2
    assert "<table" in found._repr_html_()


def test_rates_in_single_precision_are_numbers_too():
    found = sweep(OWN, progress=False, **{"method.learning_rate": np.array([0.5, 0.25], np.float32)})
    assert found.runs["method.learning_rate"].tolist() == [0.5, 0.25]


def test_a_worker_each_may_be_given_as_a_series_or_an_array():
    for kind in (pd.Series, np.array, list, tuple):
        cluster = Cluster(compute=kind([1.0, 2.0]), speeds=kind([1.0, 0.5]), join=kind([0.0, 3.0]))
        assert cluster == Cluster(compute=[1.0, 2.0], speeds=[1.0, 0.5], join=[0.0, 3.0])


# Sizes, before anything is built


@pytest.mark.parametrize(
    ("axes", "sampling", "said"),
    [
        ({"seed": range(10**12)}, (), "axis 'seed' has 1000000000000 values"),
        ({"seed": itertools.count()}, (), "axis 'seed' has more than 100000 values"),
        ({"seed": range(1000), "updates": range(1, 1001)}, (), "give 1000000 runs: a sweep has at most 100000"),
        ({"seed": [1]}, ("random", 10**9), "samples = 1000000000 is not allowed"),
        ({"seed": 3}, (), "axis 'seed' = 3 is not allowed: give a list of values"),
        ({"method": "sync"}, (), "axis 'method' = 'sync' is not allowed: give a list of values"),
        ({"method": [3]}, (), "method = 3 is not allowed: give a method, its name or a table"),
    ],
)
def test_what_is_no_list_or_too_long_is_one_sentence(axes, sampling, said):
    with pytest.raises(ValueError, match=said):
        plan(OWN, axes, Sampling(*sampling))


@pytest.mark.parametrize("ends", [(0, 10**400), (-1e308, 1e308), (-(10**309), 0), (1, float("inf"))])
def test_a_range_beyond_what_numbers_hold_is_one_sentence(ends):
    with pytest.raises(ValueError, match=r"high of range = .* is not allowed"):
        Range(*ends)


def test_partitions_and_their_fields_are_axes(tmp_path):
    base = BASE.but(problem=BASE.problem.but(partition=Dirichlet(1.0, "equal")))
    found = experiments({"problem.partition.alpha": [0.1, 10.0]}, base=base)
    assert [e.problem.partition for e in found] == [Dirichlet(0.1, "equal"), Dirichlet(10.0, "equal")]
    drawn = experiments({"problem.partition.alpha": Range(0.01, 10.0, log=True)}, "random", 5, base=base)
    assert len({e.problem.partition.alpha for e in drawn}) == 5
    given = [{"partition": "iid"}, Dirichlet(0.1), {"partition": "classes-per-worker", "classes": 3}]
    found = experiments({"problem.partition": given, "problem.batches": ["by-gradient", "by-message"]})
    assert [e.problem.sampling for e in found] == ["sharded"] * 6
    assert [e.problem.partition for e in found[::2]] == [Shuffled(), Dirichlet(0.1), ClassesPerWorker(3)]
    swept = sweep(
        base.but(updates=4), store=tmp_path, progress=False, **{"problem.partition.alpha": [0.1, 10.0]}
    ).runs
    assert swept["problem.partition.alpha"].tolist() == [0.1, 10.0]
    assert len(load(tmp_path).runs) == 2


def test_fields_of_other_parts_are_axes():
    found = experiments({"cluster.compute.scale": [2.0, 3.0]})
    assert [e.cluster.compute for e in found] == [Exponential(2.0), Exponential(3.0)]


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("cluster.compute.scal", r"unknown key of compute of cluster: 'scal'\. Did you mean 'scale'"),
        ("problem.partition.alpha", r"unknown option of model 'softmax-regression': 'partition.alpha'"),
        ("cluster.join.scale", "unknown key of cluster: 'join.scale'"),
    ],
)
def test_a_field_that_a_part_of_a_part_does_not_have_is_named(axis, said):
    with pytest.raises(ValueError, match=said):
        plan(BASE, {axis: [1.0]})
