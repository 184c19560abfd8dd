"""Baselines: what they keep, that they come back as they were, and what is refused."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stalegrad.analysis.statistics.convergence import Target
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, run
from stalegrad.simulator.regression import Plan, Recording, compare, record
from stalegrad.simulator.regression.digests import digest
from stalegrad.simulator.regression.recording import _checksum
from stalegrad.simulator.regression.verdict import check_plan
from stalegrad.simulator.sweeps.axes import load_sweep, plan as planned

SPEC = """
updates = 6
[problem]
model = "softmax-regression"
dataset = "fashion-mnist-small"
[cluster]
workers = 3
[method]
name = "async"
learning_rate = 0.05
[record]
updates = 3
[sweep]
method = [{ name = "async", learning_rate = 0.01 }, { name = "sync", learning_rate = 0.01 }]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    file = tmp_path_factory.mktemp("spec") / "spec.toml"
    file.write_text(SPEC)
    return Plan.of_sweep(load_sweep(file))


@pytest.fixture(scope="module")
def recording(plan):
    return record(plan, progress=False)


PROBLEM = Problem.from_functions(
    lambda key: jnp.ones(4),
    lambda w, batch, key: 2 * jnp.mean((w - batch) ** 2),
    train=np.random.default_rng(0).normal(scale=0.1, size=(64, 4)).astype(np.float32),
    batch_size=4,
)
"""Of this process: a noisy quadratic."""


def quadratic(**changes):
    base = Experiment(
        problem=PROBLEM, cluster=Cluster(workers=2, compute=Exponential(1.0)), method=methods.async_(),
        updates=20, record=Record(updates=5),
    )  # fmt: skip
    return Plan(base.but(**changes), [{}], [0, 1, 2])


def test_a_recording_holds_what_the_runs_came_to(plan, recording):
    assert list(recording.histories) == ["async", "sync"]
    assert [(r.method, r.seed) for r in recording.runs] == [(m, s) for m in ("async", "sync") for s in (0, 1)]
    result = run(plan.runs[1][1].experiment, progress=False)
    kept = recording.runs[1]
    np.testing.assert_allclose(kept.curve["train_loss"], result.history["train_loss"], rtol=5e-6)
    assert list(kept.curve["update"]) == [0, 3, 6]
    assert kept.summary(None)["final_test_error"] == pytest.approx(result.summary()["test_error"], rel=5e-6)
    assert kept.mean_staleness == pytest.approx(result.summary()["mean_staleness"], rel=5e-6)


def test_a_recording_comes_back_as_it_was(recording, tmp_path):
    file = recording.save(tmp_path / "deep" / "base.json")
    again = Recording.load(file)
    assert again.dumps() == recording.dumps() == file.read_text()
    assert again.plan == recording.plan
    assert compare(recording, again).outcome == "same"
    assert [f.name for f in file.parent.iterdir()] == ["base.json"]


def test_the_same_spec_gives_the_same_file(plan, recording):
    assert record(plan, progress=False).dumps() == recording.dumps()


def test_a_file_is_plain_json_with_a_line_for_each_column(recording):
    text = recording.dumps()
    table = json.loads(text, parse_constant=pytest.fail)
    curve = table["runs"][0]["curve"]
    assert set(curve) == {"wallclock", "update", "train_loss", "test_loss", "test_error"}
    assert all(len(column) == 3 for column in curve.values())
    assert sum('"train_loss": [' in line and line.rstrip(",").endswith("]") for line in text.splitlines()) == 4
    assert set(table["versions"]) >= {"jax", "numpy", "stalegrad"}
    assert table["machine"]["cores"].isdigit()


def test_numbers_that_are_none_survive(recording, tmp_path):
    first = recording.runs[0]
    curve = first.curve.assign(train_loss=[2.0, 1.0, np.nan], test_error=[np.nan] * 3)
    strange = replace(recording, runs=(replace(first, curve=curve), *recording.runs[1:]))
    again = Recording.load(strange.save(tmp_path / "strange.json"))
    assert again.runs[0].curve.equals(curve)
    assert again.dumps() == strange.dumps()


def sweep_of(plan, **axes):
    return Plan.of(plan.base, planned(plan.base, axes))


def test_five_seeds_unless_said_otherwise(plan):
    later = plan.base.but(seed=7)
    assert Plan.of(later, planned(later, {"method.learning_rate": [0.1, 0.2]})).seeds == [7, 8, 9, 10, 11]
    assert plan.seeds == [0, 1]
    assert [label for label, _ in plan.runs] == ["async", "async", "sync", "sync"]


def test_digests_are_of_names_types_shapes_and_bytes():
    values = np.arange(6.0)
    same = digest({"a": values})
    assert same == digest({"a": values.copy()})
    assert same == digest({"a": values.astype(">f8")})
    others = [values.astype(np.float32), values.reshape(2, 3), np.nextafter(values, 9)]
    assert same not in [digest({"b": values}), *(digest({"a": other}) for other in others)]


def test_experiments_of_a_process_are_recorded_but_not_run_from_the_file(tmp_path):
    recording = record(quadratic(), progress=False)
    assert not recording.written
    again = Recording.load(recording.save(tmp_path / "q.json"))
    assert compare(again, record(quadratic(), progress=False)).outcome == "same"
    with pytest.raises(ValueError, match="exist in a test only"):
        _ = again.plan


# What has changed


def test_timing_and_numbers_are_told_apart():
    before = record(quadratic(), progress=False)
    slower = record(quadratic(cluster=Cluster(workers=2, compute=Exponential(2.0))), progress=False)
    check = compare(before, slower)
    assert check.changes("async") == ["timing: the same messages at other times (all seeds)"]
    other = record(quadratic(cluster=Cluster(workers=3, compute=Exponential(1.0))), progress=False)
    said = compare(before, other).changes("async")
    assert [s.partition(" (")[0] for s in said] == [
        "timing: other messages, or another order",
        "numbers: other parameters at the end",
    ]
    tiny = record(quadratic(method=methods.async_(learning_rate=0.1000001)), progress=False)
    check = compare(before, tiny)
    assert check.changes("async") == ["numbers: other parameters at the end (all seeds)"]
    assert check.outcome == "different but not worse"
    assert check.passed()
    assert not check.passed(strict=True)
    assert set(check.table["verdict"]) <= {"equivalent", "identical"}


def test_a_curve_that_alone_has_changed_is_not_the_same():
    before = record(quadratic(), progress=False)
    odd = replace(before.runs[1], curve=before.runs[1].curve.assign(train_loss=lambda c: c["train_loss"] * 1.001))
    check = compare(before, replace(before, runs=(before.runs[0], odd, before.runs[2])))
    assert check.changes("async") == ["recording: other curves of the same runs (seeds 1)"]
    assert check.outcome == "different but not worse"


def test_slower_training_is_worse_and_faster_is_not():
    fast, slow = (record(quadratic(method=methods.async_(learning_rate=r)), progress=False) for r in (0.1, 0.05))
    assert compare(fast, slow).outcome == "worse"
    assert compare(slow, fast).outcome == "different but not worse"
    assert compare(fast, slow, tolerance=50.0).outcome == "different but not worse"


def test_methods_that_are_the_same_do_not_weaken_the_others(recording):
    changed = [
        replace(r, curve=r.curve.assign(train_loss=r.curve["train_loss"] * 1.001)) if r.method == "sync" else r
        for r in recording.runs
    ]
    check = compare(recording, replace(recording, runs=tuple(changed)))
    assert check.methods == {"async": "same", "sync": "different but not worse"}
    assert set(check.table["method"]) == {"sync"}


def test_what_is_not_as_recorded_is_said(recording):
    elsewhere = replace(recording, versions={**recording.versions, "jax": "9.9"}, machine={"cores": "64"})
    said = compare(elsewhere, recording).surroundings()
    assert f"jax: 9.9 -> {recording.versions['jax']}" in said
    assert f"cores: 64 -> {recording.machine['cores']}" in said


# Bad input


def broken(recording, change):
    table = json.loads(recording.dumps())
    del table["sha256"]
    change(table)
    return json.dumps(table | {"sha256": _checksum(table)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.update(format="stalegrad-baseline-0"),
            "not a baseline of format stalegrad-baseline-3: found",
        ),
        (lambda t: t.pop("format"), "found None"),
        (lambda t: t.pop("runs"), "damaged: KeyError 'runs'"),
        (lambda t: t.update(runs=[]), "holds 0 runs"),
        (lambda t: t["runs"].pop(), r"lacks seeds \[1\] of 'sync'"),
        (lambda t: t["runs"].append(t["runs"][0]), "some of them twice"),
        (lambda t: t["runs"][0].update(method="other"), r"lacks seeds \[0\] of 'async'"),
        (
            lambda t: t["spec"]["experiment"]["problem"].update(model="mpl"),
            "spec in .* unknown model 'mpl'. Did you mean",
        ),
        (
            lambda t: t["spec"].update(seeds=[0, 2]),
            r"lacks seeds \[2\] of 'async'",
        ),
        (lambda t: t["runs"][0]["curve"].pop("train_loss"), "a curve lacks .*train_loss"),
        (lambda t: t["runs"][0]["curve"]["train_loss"].pop(), "damaged: ValueError"),
        (lambda t: t["runs"][0]["curve"].update(wallclock=[None] * 3), "no wallclock or update"),
        (lambda t: t["runs"][0]["digests"].pop("events"), "damaged: TypeError"),
        (lambda t: t["targets"]["async"].update(value="soon"), "damaged: ValueError"),
    ],
)
def test_a_file_that_is_damaged_is_refused(recording, tmp_path, change, said):
    file = tmp_path / "bad.json"
    file.write_text(broken(recording, change))
    with pytest.raises(ValueError, match=said) as refusal:
        Recording.load(file)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"format": 1', "null"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"damaged|no baseline"):
        Recording.load(file)


def test_a_baseline_of_another_spec_is_refused_by_what_differs(plan, recording):
    check_plan(recording, plan, "base.json")
    other = plan._replace(base=plan.base.but(updates=9))
    with pytest.raises(ValueError, match=r"another spec \(experiment.updates: 6 -> 9\)"):
        check_plan(recording, other, "base.json")


def test_nothing_is_overwritten_unless_forced(recording, tmp_path):
    file = tmp_path / "base.json"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        recording.save(file)
    assert file.read_text() == "mine"
    assert Recording.load(recording.save(file, force=True)).spec == recording.spec


def test_seeds_that_cannot_be_compared_are_refused_before_anything_runs(plan):
    with pytest.raises(ValueError, match="one seed of 'async' is not enough"):
        sweep_of(plan, seed=[3])
    ragged = [run for _, run in plan.runs][:3]
    with pytest.raises(ValueError, match="one seed of 'sync'"):
        Plan.of(plan.base, ragged)
    runs = planned(plan.base, {"method": ["async", "sync"], "seed": [0, 1, 2]})
    with pytest.raises(ValueError, match=r"'sync' has seeds \[0, 1\]: all methods of a check need the same ones"):
        Plan.of(plan.base, runs[:5])


def test_methods_that_look_alike_are_refused(plan):
    rates = [{"name": "async", "learning_rate": rate} for rate in (0.1, 0.2)]
    with pytest.raises(ValueError, match=r"two runs are called 'async', seed 0.*method\.learning_rate"):
        sweep_of(plan, method=rates, seed=[0, 1])


def test_axes_are_in_the_label(plan):
    axes = {"method.learning_rate": [0.1, 0.2], "cluster.workers": [3], "seed": [0, 1]}
    assert list(dict.fromkeys(label for label, _ in sweep_of(plan, **axes).runs)) == [
        "async, method.learning_rate=0.1, cluster.workers=3",
        "async, method.learning_rate=0.2, cluster.workers=3",
    ]


def test_a_plan_comes_back_from_its_table(plan):
    assert Plan.read(plan.table()).runs == plan.runs
    assert plan.table()["seeds"] == [0, 1]
    assert plan.written
    assert not quadratic().written


def test_a_run_that_raises_ends_the_recording(plan):
    def broken_loss(w, batch, key):
        raise ArithmeticError("no loss today")

    problem = Problem.from_functions(lambda key: jnp.ones(2), broken_loss)
    with pytest.raises(RuntimeError, match="no loss today"):
        record(quadratic(problem=problem), progress=False)


def test_a_run_that_diverges_is_recorded_and_worse():
    before = record(quadratic(), progress=False)
    after = record(quadratic(method=methods.async_(learning_rate=1e30)), progress=False)
    check = compare(before, after)
    assert check.outcome == "worse"
    lost = check.table.set_index("metric").loc["lost_runs"]
    assert (lost["before"], lost["after"], lost["verdict"]) == (0, 3, "worse")
    assert compare(after, after).outcome == "same"
    assert before.lost() == []
    (said,) = after.lost()
    assert said.startswith("3 of 3 runs of async are lost")


def test_names_inside_a_built_optimizer_are_explained():
    """The digest of a closure holds its settings, so that another one is another spec."""

    def built(momentum):
        method = methods.async_(learning_rate=0.1, optimizer=optax.sgd(1.0, momentum))
        return quadratic(method=method)

    before = record(built(0.9), progress=False)
    with pytest.raises(ValueError, match=r"recorded from another spec .*given the function that builds it"):
        check_plan(before, built(0.8), "b.json")


def test_a_target_of_the_users_own(plan):
    found = record(plan, target=0.5, progress=False)
    assert found.targets == {"async": Target("test_error", 0.5), "sync": Target("test_error", 0.5)}


def test_a_target_that_is_no_number_is_refused_before_anything_runs(plan):
    with pytest.raises(ValueError, match="target is nan"):
        record(plan, target=float("nan"))
