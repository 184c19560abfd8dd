"""Names and digests of experiments, keys of stores, and that looking at something imports nothing."""

import json
import re
import sys

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stalegrad._core.specs import spec
from stalegrad.models import Assigned, Dirichlet, Partition, Problem, Shuffled
from stalegrad.models.partitions import PARTITIONS
from stalegrad.policies import KAsync, Rule, methods
from stalegrad.policies.schedules import SCHEDULES, Schedule
from stalegrad.simulator import (
    Cluster,
    Empirical,
    Exponential,
    Function,
    Record,
    Result,
    from_toml,
    load,
    load_experiment,
    run,
    sweep,
)
from stalegrad.simulator.cli import main
from stalegrad.simulator.experiments.identity import (
    Identity,
    canonical,
    digest,
    functions_in,
    key_of,
    name_table,
    parts_of,
    run_name,
)
from stalegrad.simulator.experiments.traces import trace_text
from stalegrad.simulator.regression import Plan, Recording, record
from stalegrad.simulator.sweeps.axes import load_sweep
from stalegrad.simulator.timing.delays import DELAYS, Delay

EXECUTED = """
from pathlib import Path
Path({place!r}).write_text("executed")
def times(rng, size): return rng.exponential(SCALE, size)
def norm(params): return {{"norm": 1.0}}
SCALE = 1.0
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that leaves a file when it is executed, and a way to change it."""
    place = tmp_path / "executed"
    file = tmp_path / "foreign_functions.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(old="", new=""):
        text = EXECUTED.format(place=str(place))
        assert old in text
        text = text.replace(old, new) if old else text
        file.write_text(text)
        sys.modules.pop("foreign_functions", None)
        return place

    write()
    yield write
    sys.modules.pop("foreign_functions", None)


@pytest.fixture
def foreign(base):
    return base.but(
        cluster=Cluster(4, compute=Function("foreign_functions:times")),
        record=Record(updates=20, fn="foreign_functions:norm"),
    )


# Names and digests


def quadratic(power):
    return Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(jnp.abs(w) ** power))


def test_experiments_of_functions_have_a_name_of_settings_and_a_digest_of_what_they_compute(base):
    one, other = (base.but(problem=quadratic(jnp.asarray(p))) for p in (2.0, 3.0))
    assert name_table(one) == name_table(other)
    assert digest(one) != digest(other)
    assert digest(one) == digest(base.but(problem=quadratic(jnp.asarray(2.0))))
    assert json.loads(json.dumps(name_table(one))) == name_table(one)
    assert name_table(base) == base.table()
    changes = [{"updates": 41}, {"cluster": Cluster(5)}, {"method": methods.sync()}, {"record": Record(updates=3)}]
    assert len({json.dumps(name_table(one.but(**change))) for change in changes}) == len(changes)


def test_an_experiment_that_nobody_can_compare_has_no_digest(base):
    noise = np.random.default_rng(0)
    own = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w) * noise.normal())
    assert digest(base.but(problem=own)) is None
    assert name_table(base.but(problem=own))["problem"]["loss"]["closure"] == {
        "table": {"noise": {"opaque": "numpy.random._generator:Generator"}}
    }


def test_the_name_of_a_run_fits_every_file_system(base):
    odd = base.but(method=methods.async_(optimizer={"name": "adam", "b1": 0.5}))
    own = base.but(method=methods.async_(optimizer=optax.adam(1.0)))
    for experiment in (base, odd, own, base.but(problem=quadratic(2))):
        assert re.fullmatch(r"[A-Za-z0-9=.,()_-]{1,120}", run_name(experiment))
    assert len({run_name(e, lanes) for e in (base, odd, own) for lanes in (None, 2, 4)}) == 9


# Keys


def test_a_key_is_of_spec_parts_and_lanes(base):
    one = Identity.of(base)
    assert one == Identity(canonical(base), {})
    others = [one._replace(spec="x"), one._replace(parts={"a": "b"}), one._replace(lanes=1), one._replace(lanes=2)]
    assert len({identity.key for identity in [one, *others]}) == 5
    assert re.fullmatch("[0-9a-f]{20}", one.key)


LAWS = [
    1,
    np.float32(0.5),
    {"delay": "two-level-gamma"},
    {"delay": "hyper-exponential", "weights": [0.5, 0.5], "means": [1, 2]},
    {"delay": "scipy", "name": "gamma", "parameters": {"scale": 2, "a": 1}},
    {"delay": "empirical", "samples": [1, 2.5], "weights": [1, 3]},
    {"delay": "function", "function": "mine:times"},
]
RATES = [1, {"schedule": "step-decay", "peak": 1, "milestones": [1, 2]}, "resnet20-cifar10", 0.1]


def test_what_a_user_registers_counts_in_the_key_by_what_it_computes(base, monkeypatch):
    """A delay and a schedule of one name, defined twice; a trace depends on the delay."""
    for known in (DELAYS, SCHEDULES):
        monkeypatch.setattr(known, "_entries", dict(known._entries))

    def delay(factor):
        @spec
        class Constant(Delay):
            def sample(self, rng, size):
                return np.full(size, factor * 2.0)

        return DELAYS.register("my-delay", Constant)()

    def schedule(factor):
        @spec
        class Falling(Schedule):
            def shape(self, position):
                return factor / (1 + position)

        return SCHEDULES.register("my-schedule", Falling)(0.1, unit="updates")

    def keys(factor):
        clusters = base.but(cluster=Cluster(4, delay(factor)))
        rates = base.but(method=methods.async_(learning_rate=schedule(factor)))
        return key_of(clusters), key_of(rates), trace_text(clusters), trace_text(rates) is not None

    first, again, other = keys(1.0), keys(1.0), keys(3.0)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert first[2:] == (None, True)


@pytest.mark.parametrize("name", list(methods.REGISTRY))
def test_a_store_reads_the_key_of_every_experiment_that_it_writes(name, base):
    info = methods.REGISTRY[name]
    given = {"k": 2, "bound": 1, "tau": 4, "local_steps": 2, "weight_decay": 0.1, "backups": 1, "threshold": 2}
    given |= {"batch": 3, "trials": 2, "limit": 1.5, "delay": 1, "seconds": (1.0, 1.0, 2.0, 2.0)}
    given |= {"optimizer": {"b1": 0.8, "name": "adam"}} if name != "gap-aware" else {}
    arguments = {key: value for key, value in given.items() if key in info.parameters}
    if name.startswith("delayed-averaging") or name == "mindflayer":
        arguments.pop("local_steps", None)
    for i, law in enumerate(LAWS):
        method = info(learning_rate=RATES[i % len(RATES)], **arguments)
        e = base.but(
            method=method, cluster=Cluster(4, law, speeds=[1, 2, 1, 1]), updates=np.int64(7), seed=np.int8(3)
        )
        again = from_toml(e.to_toml())
        assert again == e
        assert canonical(again) == canonical(e)
        assert from_toml(again.to_toml()) == again


def test_the_order_of_keys_in_a_spec_is_no_part_of_a_key(base):
    orders = [{"name": "adam", "b1": 0.8, "b2": 0.9}, {"b2": 0.9, "b1": 0.8, "name": "adam"}]
    one, other = (base.but(method=methods.async_(optimizer=order)) for order in orders)
    assert key_of(one) == key_of(other)


def test_a_key_changes_with_the_code_of_a_function_that_the_spec_names(module, foreign):
    before = key_of(foreign)
    assert parts_of(foreign).keys() == {"cluster.compute.function", "record.fn"}
    module("SCALE = 1.0", "# a comment\nSCALE = 1.0")
    assert key_of(foreign) == before
    module("rng.exponential(SCALE, size)", "rng.gamma(SCALE, size)")
    assert key_of(foreign) != before
    module("SCALE = 1.0", "SCALE = 2.0")
    assert key_of(foreign) != before


def test_a_key_changes_with_a_method_that_was_registered_anew(base):
    def register(power):
        def rule(*, momentum: float = 0.5) -> Rule:
            return Rule(optax.sgd(1.0 * power))

        methods.register("ours-for-keys", rule)
        return base.but(method=methods.method("ours-for-keys"))

    try:
        assert key_of(register(1)) != key_of(register(2))
        assert key_of(register(1)) == key_of(register(1))
    finally:
        methods.REGISTRY._entries.pop("ours-for-keys")


def test_a_key_changes_with_local_data(base, tmp_path):
    from PIL import Image

    def experiment(shade):
        for split in ("train", "test"):
            for label in ("a", "b"):
                (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
                picture = np.full((8, 8, 3), shade, np.uint8)
                Image.fromarray(picture).save(tmp_path / split / label / "0.png")
        problem = Problem(
            "softmax-regression", "image-folder", directory=str(tmp_path), image_size=8, batch_size=1
        )
        return base.but(problem=problem)

    before = key_of(experiment(0))
    assert key_of(experiment(0)) == before
    assert key_of(experiment(9)) != before
    assert key_of(base) == key_of(base)


# Looking imports nothing


def test_reading_comparing_and_listing_import_nothing_that_a_spec_names(
    module, foreign, tmp_path, monkeypatch, capsys
):
    place, spec, out = module(), tmp_path / "spec.toml", tmp_path / "out"
    spec.write_text(foreign.to_toml())
    (tmp_path / "sweep.toml").write_text(foreign.to_toml() + "\n[sweep]\nseed = [0, 1]\n")
    run(foreign, progress=False).save(out)
    sweep(foreign, store=tmp_path / "store", seed=[0, 1], progress=False)
    baseline = record(Plan.of_sweep(load_sweep(tmp_path / "sweep.toml")), progress=False).save(
        tmp_path / "base.json"
    )
    assert place.read_text() == "executed"
    module()
    place.unlink()

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["stalegrad", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0

    assert load_experiment(spec) == foreign
    assert len(load_sweep(tmp_path / "sweep.toml").runs) == 2
    Result.load(out).report()
    found = load(tmp_path / "store")
    assert len(found) == 2
    found._repr_html_()
    found.results[0]._repr_html_()
    assert len(Recording.load(baseline).plan.runs) == 2
    command("report", out)
    command("check", "power", baseline)
    command("run", spec, "-o", tmp_path / "new", "--dry-run")
    command("run", tmp_path / "sweep.toml", "-o", tmp_path / "store", "--dry-run")
    command("run", tmp_path / "sweep.toml", "-o", tmp_path / "new", "--dry-run")
    said = capsys.readouterr().out
    assert "a run imports foreign_functions:times, foreign_functions:norm" in said
    assert "2 of them done already" in said
    assert not place.exists()
    assert "foreign_functions" not in sys.modules

    command("run", spec, "-o", tmp_path / "new")
    assert "importing foreign_functions:times, foreign_functions:norm" in capsys.readouterr().out
    assert place.exists()


@pytest.mark.parametrize("name", ["os:system", "builtins:exec", "this:s"])
def test_a_name_is_only_a_name_until_a_run_needs_it(name, base):
    text = base.but(cluster=Cluster(4, compute=Function(name))).to_toml()
    sys.modules.pop("this", None)
    experiment = from_toml(text)
    assert functions_in(experiment) == {"cluster.compute.function": name}
    assert "this" not in sys.modules


def test_functions_are_found_wherever_a_spec_may_name_one(base):
    laws = [Exponential(), Function("mine:a"), Function("mine:b"), Empirical(samples=[1.0])]
    found = base.but(
        cluster=Cluster(compute=laws, join=Function("mine:c"), speeds=Function("mine:d")),
        method=methods.async_(synchrony=KAsync(2)),
        record=Record(fn="mine:f"),
    )
    assert sorted(functions_in(found).values()) == ["mine:a", "mine:b", "mine:c", "mine:d", "mine:f"]
    named = base.but(problem=Problem("mlp", "image-folder", directory="C:data"))
    assert functions_in(named) == {}


def test_a_key_changes_with_a_module_that_a_function_calls(base, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "ours_calling.py").write_text(
        "import ours_called\ndef times(rng, n): return ours_called.draw(rng, n)\n"
    )
    keys = []
    for law in ("exponential", "standard_gamma", "exponential"):
        (tmp_path / "ours_called.py").write_text(f"def draw(rng, n): return rng.{law}(1.0, n)\n")
        for name in ("ours_calling", "ours_called"):
            sys.modules.pop(name, None)
        keys.append(key_of(base.but(cluster=Cluster(4, compute=Function("ours_calling:times")))))
    assert keys[0] == keys[2] != keys[1]


def test_texts_that_only_look_like_functions_are_none(base):
    odd = base.but(method=methods.async_(optimizer={"name": "mine:opt", "mode": "warm:cold"}))
    assert functions_in(odd) == {"method.optimizer.name": "mine:opt"}


def test_a_key_changes_with_the_partition_and_the_key_of_mini_batches(base):
    problem = Problem("softmax-regression", "fashion-mnist-small", sampling="sharded")
    others = [
        problem,
        problem.but(partition=Dirichlet(0.1)),
        problem.but(partition=Dirichlet(0.2)),
        problem.but(partition=Dirichlet(0.1, "equal")),
        problem.but(partition=Dirichlet(0.1), batches="by-message"),
    ]
    assert len({key_of(base.but(problem=other)) for other in others}) == 5
    assert key_of(base.but(problem=problem)) == key_of(base.but(problem=problem.but(partition=Shuffled())))
    assert len({trace_text(base.but(problem=other)) for other in others}) == 1


def test_partitions_of_functions_have_digests_and_names(base):
    def experiment(**options):
        problem = Problem.from_functions(
            lambda key: jnp.zeros(1),
            lambda w, batch, key: jnp.sum(w),
            train=np.zeros((4, 1)),
            batch_size=1,
            **options,
        )
        return base.but(problem=problem)

    given = [
        {}, {"sampling": "sharded"}, {"partition": Dirichlet(1.0), "labels": [0, 0, 1, 1]},
        {"partition": Dirichlet(1.0), "labels": [0, 1, 1, 1]}, {"partition": Assigned([0, 0, 1, 1])},
        {"partition": Assigned([0, 1, 1, 1])}, {"batches": "by-message"},
    ]  # fmt: skip
    assert len({digest(experiment(**options)) for options in given}) == len(given)
    assert digest(experiment(**given[2])) == digest(experiment(**given[2]))
    assert "partition" not in name_table(experiment())["problem"]
    assert name_table(experiment(**given[2])) == name_table(experiment(**given[2]))
    assert name_table(experiment(**given[4])) != name_table(experiment(**given[5]))


def test_a_key_changes_with_a_partition_that_was_registered_anew(base):
    def register(order):
        @spec
        class Stripes(Partition):
            def split(self, labels, workers, least, rng):
                return [np.arange(len(labels))[worker::workers][::order] for worker in range(workers)]

        PARTITIONS.register("stripes-for-keys", Stripes)
        table = {"partition": "stripes-for-keys"}
        return base.but(problem=Problem("softmax-regression", "fashion-mnist-small", partition=table))

    try:
        assert key_of(register(1)) != key_of(register(-1))
        assert key_of(register(1)) == key_of(register(1))
        assert trace_text(register(1)) is not None  # times do not depend on it
        assert from_toml(register(1).to_toml()).problem.split(3)[1][:2].tolist() == [1, 4]
    finally:
        PARTITIONS._entries.pop("stripes-for-keys")
