"""Experiments: there and back through TOML, and what is said about wrong ones."""

import copy
import math
import tomllib

import jax.numpy as jnp
import optax
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st

from stalegrad.models import Assigned, ClassesPerWorker, Dirichlet, Problem, Shuffled
from stalegrad.policies import Constant, Cosine, InverseSqrt, StepDecay, methods
from stalegrad.simulator import (
    Cluster,
    Deterministic,
    Empirical,
    Erlang,
    Experiment,
    Exponential,
    Function,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    Record,
    Scipy,
    ShiftedExponential,
    TwoLevelGamma,
    Uniform,
    Weibull,
    from_toml,
    load_experiment,
)
from stalegrad.simulator.experiments.experiment import read_experiment

PROBLEM = Problem("softmax-regression", "fashion-mnist-small")
BASE = Experiment(problem=PROBLEM, cluster=Cluster(workers=4), method=methods.sync(), updates=3)


# There and back

positive = st.floats(0.5, 9.0)
counts = st.integers(1, 1_000)
laws = st.one_of(
    st.builds(Deterministic, positive),
    st.builds(Exponential, positive),
    st.builds(ShiftedExponential, positive, positive),
    st.builds(Pareto, positive, positive),
    st.builds(Gamma, positive, positive),
    st.builds(Erlang, counts, positive),
    st.builds(lambda p, a, b: HyperExponential((p, 1 - p), (a, b)), st.floats(0.01, 0.99), positive, positive),
    st.builds(LogNormal, positive, positive),
    st.builds(Weibull, positive, positive),
    st.builds(lambda low, width: Uniform(low, low + 1 + width), positive, positive),
    st.builds(TwoLevelGamma, positive, positive, positive),
    st.builds(Empirical, st.lists(positive, min_size=1)),
    st.builds(lambda mu: Scipy("invgauss", {"mu": mu, "scale": 2.0}), st.floats(0.1, 9)),
    st.just(Function(math.fsum)),
)


@st.composite
def clusters(draw):
    workers = draw(st.integers(4, 6))

    def each(values):
        return st.lists(values, min_size=workers, max_size=workers)

    return Cluster(
        workers=workers,
        compute=draw(laws | each(laws)),
        speeds=draw(st.none() | laws | each(positive)),
        uplink=draw(positive),
        server=draw(st.just(0.0) | positive),
        join=draw(st.none() | laws | each(positive)),
    )


units = {"unit": st.sampled_from(["updates", "epochs"]), "warmup": positive, "warmup_from": st.floats(0, 1)}
schedules = st.one_of(
    positive,
    st.builds(Constant, positive, **units),
    st.builds(StepDecay, positive, st.lists(positive), positive, **units),
    st.builds(Cosine, positive, positive, st.floats(0, 1), **units),
    st.builds(InverseSqrt, positive, **units),
)
optimizers = st.one_of(
    st.sampled_from(["sgd", "adam"]),
    st.fixed_dictionaries({"name": st.just("sgd"), "momentum": st.floats(0, 1), "nesterov": st.booleans()}),
)
rule = {
    "learning_rate": schedules,
    "optimizer": optimizers,
    "weight_decay": st.none() | st.floats(0, 1),
    "local_steps": st.integers(1, 9),
}
all_methods = st.one_of(
    *(st.builds(make, **rule) for make in (methods.sync, methods.async_)),
    *(
        st.builds(make, k=st.integers(1, 4), **rule)
        for make in (methods.k_sync, methods.k_batch_sync, methods.k_async, methods.k_batch_async)
    ),
)
budgets = st.one_of(
    *(st.fixed_dictionaries({name: counts}) for name in ("updates", "gradients")),
    st.fixed_dictionaries({"wallclock": positive}),
)
records = st.builds(
    lambda cadence, gap, fn: Record(**cadence, gap=gap, fn=fn),
    st.just({}) | budgets,
    st.booleans(),
    st.sampled_from([None, optax.global_norm]),
)
problems = st.one_of(
    st.builds(
        Problem,
        st.just("softmax-regression"),
        st.sampled_from(["mnist", "fashion-mnist-small"]),
        batch_size=counts,
        sampling=st.sampled_from(["epochs", "iid", "sharded"]),
        l2=st.floats(0, 1),
    ),
    st.builds(
        Problem,
        st.just("mlp"),
        st.just("mnist"),
        directory=st.none() | st.text(max_size=9),
        hidden=st.lists(st.integers(1, 999), max_size=3),
        partition=st.none()
        | st.just(Shuffled())
        | st.builds(Dirichlet, positive, st.sampled_from(["free", "equal"]))
        | st.builds(ClassesPerWorker, counts)
        | st.builds(Assigned, st.lists(st.integers(0, 9))),
        batches=st.sampled_from(["by-gradient", "by-message"]),
    ),
)
experiments = st.builds(
    lambda budget, **parts: Experiment(**budget, **parts),
    budget=budgets,
    problem=problems,
    cluster=clusters(),
    method=all_methods,
    seed=st.integers(0, 2**63),
    record=records,
)


@settings(max_examples=100, deadline=None)
@given(experiments)
def test_every_experiment_comes_back_from_its_toml(experiment):
    text = experiment.to_toml()
    again = from_toml(text)
    assert again == experiment
    assert hash(again) == hash(experiment)
    assert again.to_toml() == text


def test_a_frozen_scipy_law_comes_back_as_name_and_parameters():
    experiment = BASE.but(cluster=Cluster(workers=4, compute=scipy.stats.invgauss(0.5)))
    assert tomllib.loads(experiment.to_toml())["cluster"]["compute"]["name"] == "invgauss"
    assert from_toml(experiment.to_toml()) == experiment


def test_defaults_are_left_out_of_the_toml():
    table = tomllib.loads(BASE.to_toml())
    assert table["method"] == {"name": "sync", "learning_rate": 0.1}
    assert "record" not in table


def test_an_experiment_is_loaded_from_a_file(tmp_path):
    (tmp_path / "spec.toml").write_text(BASE.to_toml())
    assert load_experiment(tmp_path / "spec.toml") == BASE


# Wrong specs


def changed(*path_and_value):
    """The table of the base experiment with one entry changed."""
    *path, last, value = path_and_value
    table = copy.deepcopy(BASE.table())
    part = table
    for key in path:
        part = part.setdefault(key, {})
    part[last] = value
    return table


WRONG = [
    (("wallclok", 3.0), "unknown key of the experiment: 'wallclok'. Did you mean 'wallclock'[?]"),
    (("wallclock", 3.0), "exactly one budget of updates, wallclock and gradients; got .*'updates': 3"),
    (("updates", 0), "updates of experiment = 0 is not allowed"),
    (("updates", 1.5), "updates of experiment = 1.5 is not allowed"),
    (("updates", True), "updates of experiment = True is not allowed"),
    (("seed", -1), "seed of experiment = -1 is not allowed"),
    (("seed", 0.5), "seed of experiment = 0.5 is not allowed"),
    (("problem", 3), r"needs a table \[problem\]"),
    (("cluster", "big"), r"needs a table \[cluster\]"),
    (("method", "sync"), r"needs a table \[method\]"),
    (("problem", "model", "softmax-regresion"), "unknown model .* Did you mean 'softmax-regression'[?]"),
    (("problem", "model", ["mlp"]), "unknown model"),
    (("problem", "dataset", "mnst"), "unknown data set 'mnst'. Did you mean 'mnist'[?]"),
    (("problem", "batch_size", 0), "batch_size = 0 is not allowed"),
    (("problem", "sampling", "epoch"), "unknown sampling 'epoch'. Did you mean 'epochs'[?]"),
    (("problem", "init_scal", 1.0), "'init_scal'. Did you mean 'init_scale'[?]"),
    (("problem", "l2", -1.0), "l2 of model 'softmax-regression' = -1.0 is not allowed"),
    (("cluster", "worker", 3), "unknown key of cluster: 'worker'. Did you mean 'workers'[?]"),
    (("cluster", "workers", 0), "workers of cluster = 0 is not allowed"),
    (("cluster", "workers", "many"), "workers of cluster = 'many' is not allowed"),
    (("cluster", "compute", "exponential"), "compute of cluster: 'exponential' is not a delay"),
    (("cluster", "compute", [1.0]), "compute of cluster has 1 entries, but there are 4 workers"),
    (("cluster", "compute", {"delay": "exponental"}), "unknown delay 'exponental'. Did you mean 'exponential'[?]"),
    (("cluster", "compute", {"delay": ["gamma"]}), "unknown delay"),
    (("cluster", "compute", {"delay": "pareto"}), "delay 'pareto' needs shape"),
    (("cluster", "compute", {"delay": "exponential", "scal": 1}), "'scal'. Did you mean 'scale'[?]"),
    (("cluster", "compute", {"delay": "exponential", "scale": 0}), "scale of exponential = 0 is not allowed"),
    (("cluster", "compute", {"delay": "scipy", "name": "gama"}), "unknown scipy.stats .* Did you mean 'gamma'[?]"),
    (("cluster", "compute", {"delay": "function", "function": "nowhere.f"}), "function = 'nowhere.f' is not"),
    (("cluster", "speeds", [1.0, 2.0, 3.0, 0.0]), "speeds of cluster, worker 3 = 0.0 is not allowed"),
    (("cluster", "uplink", -1.0), "uplink of cluster = -1.0 is not allowed"),
    (("cluster", "join", [0.0, 0.0, 0.0, -1.0]), "join of cluster, worker 3 = -1.0 is not allowed"),
    (("method", "name", "asinc"), "unknown method 'asinc'. Did you mean 'async'[?]"),
    (("method", "name", 3), "unknown method 3"),
    (("method", "k", 3), "unknown parameter of method 'sync': 'k'"),
    (("method", {"name": "k-sync"}), "method 'k-sync' needs k"),
    (("method", {"name": "k-sync", "k": 5}), "k = 5 of k-sync exceeds the number of workers: allowed is 1 to 4"),
    (("method", {"name": "k-async", "k": 5}), "k = 5 of k-async exceeds the number of workers"),
    (("method", "learning_rate", 0.0), "learning_rate = 0.0 is not allowed"),
    (("method", "learning_rate", {"schedule": "cosin"}), "unknown schedule 'cosin'. Did you mean 'cosine'[?]"),
    (("method", "optimizer", "adm"), "unknown optimizer 'adm'. Did you mean 'adam'[?]"),
    (("method", "weight_decay", -1.0), "weight_decay of method 'sync' = -1.0 is not allowed"),
    (("record", "update", 3), "unknown key of record: 'update'. Did you mean 'updates'[?]"),
    (("record", 3), "record = 3 is not allowed"),
    (("record", "updates", 0), "updates of record = 0 is not allowed"),
    (("record", {"updates": 1, "gradients": 2}), "a record takes one cadence"),
    (("record", "gap", "yes, please"), "gap of record = 'yes, please' is not allowed"),
    (("record", "fn", "nowhere.f"), "fn of record = 'nowhere.f' is not allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[" ".join(map(str, change)) for change, _ in WRONG])
def test_a_wrong_spec_is_one_sentence_that_says_what_is_wrong(change, said, monkeypatch):
    monkeypatch.setattr(Problem, "objective", lambda self: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=said):
        read_experiment(changed(*change))


@pytest.mark.parametrize(
    ("part", "said"),
    [("updates", "got none"), ("problem", r"\[problem\]"), ("cluster", r"\[cluster\]"), ("method", r"\[method\]")],
)
def test_what_is_missing_is_named(part, said):
    table = BASE.table()
    del table[part]
    with pytest.raises(ValueError, match=said):
        read_experiment(table)


@pytest.mark.parametrize(("part", "key"), [("problem", "model"), ("problem", "dataset"), ("method", "name")])
def test_a_missing_key_of_a_part_is_named(part, key):
    table = BASE.table()
    del table[part][key]
    with pytest.raises(ValueError, match=rf"\[{part}\] needs {key}"):
        read_experiment(table)


def test_text_that_is_not_toml_is_named_with_its_file(tmp_path):
    (tmp_path / "spec.toml").write_text("updates = = 3")
    with pytest.raises(ValueError, match=r"spec\.toml: .*line 1"):
        load_experiment(tmp_path / "spec.toml")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_experiment(tmp_path / "nowhere.toml")


# What cannot be written


@pytest.mark.parametrize(
    "change",
    [
        {"problem": Problem.from_functions(lambda key: jnp.ones(1), lambda w, batch, key: jnp.sum(w))},
        {"cluster": Cluster(workers=4, compute=lambda rng, size: rng.random(size))},
        {"cluster": Cluster(workers=4, join=lambda rng, size: rng.random(size))},
        {"method": methods.sync(optimizer=optax.adam(1.0))},
        {"method": methods.sync(learning_rate=lambda update: 0.1)},
        {"record": Record(fn=lambda params: {})},
    ],
    ids=["problem", "compute", "join", "optimizer", "learning_rate", "record"],
)
def test_what_lives_in_this_process_only_is_not_written_and_the_error_says_so(change):
    with pytest.raises(ValueError, match="in this process only and cannot be written to a spec"):
        BASE.but(**change).to_toml()


def test_a_law_of_your_own_class_is_not_written_and_the_error_says_so():
    class Mine(Exponential):
        pass

    with pytest.raises(ValueError, match="exists in this process only and cannot be written"):
        BASE.but(cluster=Cluster(workers=4, compute=Mine())).to_toml()


def test_many_measured_times_belong_in_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"1001 samples cannot stand in a spec .* use Empirical"):
        BASE.but(cluster=Cluster(workers=4, compute=Empirical([1.0] * 1001))).to_toml()
    (tmp_path / "times.txt").write_text("1.0\n" * 1001)
    experiment = BASE.but(cluster=Cluster(workers=4, compute=Empirical(file=str(tmp_path / "times.txt"))))
    assert from_toml(experiment.to_toml()) == experiment
    (tmp_path / "times.txt").write_text("2.0\n")
    with pytest.raises(ValueError, match=r"sha256 of .*times\.txt"):
        from_toml(experiment.to_toml())


# Experiments in Python


def test_but_changes_what_it_names_and_checks_again():
    assert BASE.but(seed=3).seed == 3
    assert BASE.but(seed=3).but(seed=0) == BASE
    assert BASE.but(updates=None, wallclock=2.0).budget.wallclock == 2.0
    with pytest.raises(ValueError, match="exactly one budget"):
        BASE.but(wallclock=2.0)
    with pytest.raises(ValueError, match="seed of experiment = -1"):
        BASE.but(seed=-1)
    with pytest.raises(ValueError, match="k = 9 of k-sync exceeds"):
        BASE.but(method=methods.k_sync(k=9))
    assert BASE.seed == 0


def test_an_experiment_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        BASE.seed = 3
