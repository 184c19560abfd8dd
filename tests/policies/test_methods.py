"""The registry of methods: names, parameters, equality, and what is said about wrong ones."""

import inspect
import pydoc
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stalegrad.models import Problem
from stalegrad.policies import (
    Async,
    Constant,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Method,
    Rule,
    StepDecay,
    Sync,
    methods,
)
from stalegrad.policies.methods import REGISTRY, method
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator import Cluster, replay, simulate

DUTTA = [
    (methods.sync, "sync", {}, Sync()),
    (methods.k_sync, "k-sync", {"k": 3}, KSync(3)),
    (methods.k_batch_sync, "k-batch-sync", {"k": 3}, KBatchSync(3)),
    (methods.async_, "async", {}, Async()),
    (methods.k_async, "k-async", {"k": 3}, KAsync(3)),
    (methods.k_batch_async, "k-batch-async", {"k": 3}, KBatchAsync(3)),
]


@pytest.mark.parametrize(("make", "name", "arguments", "synchrony"), DUTTA)
def test_a_method_is_built_by_keyword(make, name, arguments, synchrony):
    made = make(learning_rate=0.2, **arguments)
    assert (made.name, made.synchrony, made.learning_rate) == (name, synchrony, Constant(0.2))
    assert isinstance(made, Method)
    assert made == method(name, {"learning_rate": 0.2, **arguments})


@pytest.mark.parametrize(("make", "name", "arguments", "synchrony"), DUTTA)
def test_equal_parameters_make_equal_methods(make, name, arguments, synchrony):
    a, b = make(optimizer={"name": "adam"}, **arguments), make(optimizer={"name": "adam"}, **arguments)
    assert (a, hash(a)) == (b, hash(b))
    assert len({a, b, make(**arguments), make(learning_rate=0.2, **arguments)}) == 3
    assert make(local_steps=2, **arguments) != make(**arguments)


def test_methods_that_differ_only_in_a_float_share_their_structure():
    a, b = methods.sync(weight_decay=0.1), methods.sync(weight_decay=0.2)
    assert a.structure == b.structure
    assert (a.numbers, b.numbers) == ({"weight_decay": 0.1}, {"weight_decay": 0.2})
    assert a != b


def test_a_number_that_is_given_is_another_structure_than_one_that_is_off():
    assert methods.sync().numbers == {}
    assert methods.sync().structure != methods.sync(weight_decay=0.1).structure


@pytest.mark.parametrize("optimizer", ["adam", {"name": "sgd", "momentum": 0.9}])
def test_another_optimizer_is_another_structure(optimizer):
    assert methods.sync().structure != methods.sync(optimizer=optimizer).structure
    assert hash(methods.sync(optimizer=optimizer).structure)


def test_the_learning_rate_may_be_a_schedule_or_its_table():
    table = {"schedule": "step-decay", "peak": 0.1, "milestones": [2, 3]}
    assert methods.sync(learning_rate=table).learning_rate == StepDecay(0.1, (2.0, 3.0))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("k-asinc", {}, "unknown method 'k-asinc'. Did you mean 'k-async'[?] Allowed: .*k-batch-sync"),
        (["sync"], {}, r"unknown method \['sync'\]"),
        ("k-sync", {}, "method 'k-sync' needs k"),
        ("k-sync", {"k": 2, "optimiser": "sgd"}, "of method 'k-sync': 'optimiser'. Did you mean 'optimizer'[?]"),
        ("sync", {"k": 2}, "unknown parameter of method 'sync': 'k'. Allowed: deadline, learning_rate"),
        ("sync", {"self": 2}, "unknown parameter of method 'sync': 'self'"),
        ("k-sync", {"k": 0}, "k of k-sync = 0 is not allowed: .*greater than or equal to 1"),
        ("k-sync", {"k": 1.5}, "k of k-sync = 1.5 is not allowed"),
        ("k-sync", {"k": True}, "k of k-sync = True is not allowed"),
        ("sync", {"local_steps": 0}, "local_steps of sync = 0 is not allowed"),
        ("sync", {"learning_rate": 0}, "learning_rate = 0 is not allowed"),
        ("sync", {"optimizer": "adm"}, "unknown optimizer 'adm'. Did you mean 'adam'[?]"),
        ("sync", {"weight_decay": -1.0}, "weight_decay of method 'sync' = -1.0 is not allowed"),
        ("sync", {"weight_decay": float("nan")}, "weight_decay of method 'sync' = nan is not allowed"),
    ],
)
def test_a_wrong_method_is_one_sentence_that_says_what_is_wrong(name, arguments, said):
    with pytest.raises(ValueError, match=said):
        method(name, arguments)


def test_parameters_are_given_by_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        methods.k_sync(3)


@pytest.mark.parametrize("info", REGISTRY.values(), ids=REGISTRY)
def test_every_entry_says_what_it_is_and_where_it_comes_from(info):
    assert REGISTRY[info.name] is info
    assert info.paper
    assert info.synchrony_name in SYNCHRONIES
    assert "learning_rate" in info.parameters


@pytest.mark.parametrize("info", REGISTRY.values(), ids=REGISTRY)
def test_help_lists_every_parameter_with_its_default(info):
    parameters = inspect.signature(info).parameters
    assert list(parameters) == list(info.parameters)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert all(parameters[name].default == value for name, value in info.parameters.items() if value is not None)
    assert info.paper[:40] in pydoc.plain(pydoc.render_doc(info))


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY))

    def register(name="my-method", factor=2.0):
        def rule(*, strength: float = 1.0) -> Rule:
            return Rule(optimizer=optax.scale(-factor * strength))

        return methods.register(name, rule, KAsync, paper="my notes")

    return register


def test_a_method_of_your_own_is_known_by_its_name(own):
    made = own()(k=3, strength=0.5, learning_rate=0.2)
    assert (made.name, made.synchrony, made.numbers) == ("my-method", KAsync(3), {"strength": 0.5})
    assert made == method("my-method", {"k": 3, "strength": 0.5, "learning_rate": 0.2})
    assert methods.REGISTRY["my-method"].paper == "my notes"


def test_a_rule_that_returns_no_rule_is_refused(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY))
    made = methods.register("no-rule", lambda: optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"the rule of method 'no-rule' returned .*: it must return a Rule"):
        made()


def test_a_name_of_the_package_cannot_be_taken(own):
    with pytest.raises(ValueError, match="name of the method = 'dana-zero' is not allowed"):
        own("dana-zero")


def test_a_rule_registered_again_is_not_taken_for_the_one_before(own):
    problem = Problem.from_functions(lambda key: jnp.ones(1), lambda w, batch, key: jnp.sum(w))
    trace = simulate(Cluster(2), KAsync(2), updates=5)
    ends = []
    for factor in (1.0, 3.0):
        made = own(factor=factor)(k=2, learning_rate=0.1)
        ends.append(float(replay(trace, problem, made).params[0]))
    np.testing.assert_allclose(ends, [1 - 0.1 * 5, 1 - 0.3 * 5], rtol=1e-5)


@dataclass(frozen=True)
class Harmonic:
    """Messages times scale / (tau + 1)."""

    scale: float = 1.0

    def __call__(self, staleness, update, workers):
        return self.scale / (staleness + 1.0)


def test_a_scaling_by_staleness_of_your_own_is_a_class_whose_fields_are_parameters(own, monkeypatch):
    made = methods.register("harmonic", lambda: Rule(), paper="my notes", weight=Harmonic)(scale=0.5)
    assert made.numbers == {"scale": 0.5}
    assert made.weight == Harmonic(0.5)
    problem = Problem.from_functions(lambda key: jnp.ones(1), lambda w, batch, key: jnp.sum(w))
    trace = simulate(Cluster(compute=[1.0, 1.5]), Async(), updates=20)
    assert trace.staleness.max() > 0
    moved = float(replay(trace, problem, made).params[0]) - 1
    np.testing.assert_allclose(moved, -0.1 * 0.5 * np.sum(1 / (1.0 + trace.staleness)), rtol=1e-5)


def test_parts_of_a_method_do_not_share_names(own):
    def rule(*, scale: float = 1.0) -> Rule:
        return Rule(optimizer=optax.scale(-scale))

    with pytest.raises(ValueError, match="has the parameter 'scale' twice"):
        methods.register("twice", rule, weight=Harmonic)


def test_the_source_of_a_method_is_that_of_its_rule():
    assert inspect.getsource(methods.dana_zero).startswith("def dana_zero(")
