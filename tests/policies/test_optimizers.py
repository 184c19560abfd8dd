"""The server's optimizer: equal to optax's own, by whatever way it is given; nothing is imported before a run."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, Constant, StepDecay, methods
from stalegrad.policies.methods import method
from stalegrad.policies.optimizers import Optimizer, build_optimizer, check_optimizer, needs_loss, optimizer_names
from stalegrad.simulator import Cluster, Record, replay, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower

STEPS = 60
FALLING = StepDecay(0.05, (20.0, 40.0), 0.3, unit="updates", warmup=10, warmup_from=0.2)
RATES = {"constant": Constant(0.02), "varying": FALLING}
TARGET = {"w": np.linspace(-2.0, 3.0, 6).reshape(2, 3), "b": np.array([0.5, -4.0])}
PARAMS = {"w": np.full((2, 3), 0.7), "b": np.array([1.0, -1.0])}
ALONE = simulate(Cluster(1), Async(), updates=STEPS)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def loss(params, batch=None, key=None):
    parts = jax.tree.map(lambda p, t: jnp.sum(jnp.cosh(0.3 * (p - t))), params, TARGET)
    return sum(jax.tree.leaves(parts))


PROBLEM = Problem.from_functions(lambda key: jax.tree.map(jnp.asarray, PARAMS), loss)


def ours(optimizer, rate):
    made = methods.async_(optimizer=optimizer, learning_rate=rate)
    return replay(ALONE, PROBLEM, made, record=Record(updates=STEPS, gap=False)).params


def optaxs(make, rate, *, told=False):
    """The parameters after as many steps of an optax optimizer; ``make`` gets a schedule or a number."""
    rates = jnp.asarray(rate.values(np.arange(STEPS, dtype=float), np.zeros(STEPS)))
    return stepper(make, told)(jax.tree.map(jnp.asarray, PARAMS), rates)


@functools.cache
def stepper(make, told):
    """Return the compiled ``(params, rates) -> params after all steps``, one for all learning rates."""

    @jax.jit
    def run(params, rates):
        optimizer = optax.with_extra_args_support(make(rates))

        def step(_, carry):
            params, state = carry
            value, slope = jax.value_and_grad(loss)(params)
            extra = {"value": value, "grad": slope} if told else {}
            direction, state = optimizer.update(slope, state, params, **extra)
            return optax.apply_updates(params, direction), state

        return jax.lax.fori_loop(0, STEPS, step, (params, optimizer.init(params)))[0]

    return run


def assert_equal(a, b, rtol=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12)


@functools.cache
def with_rates(name, **arguments):
    """``rates -> optax.NAME`` with the schedule of these rates, injected where it takes no schedule."""

    def make(rates):
        function = getattr(optax, name)
        function = optax.inject_hyperparams(function) if name in ("rprop", "sm3") else function
        return function(learning_rate=lambda count: rates[count], **arguments)

    return make


# Optax by name


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", optimizer_names())
def test_every_listed_optimizer_is_optaxs_at_a_constant_and_a_varying_learning_rate(name, rate):
    assert_equal(ours(name, RATES[rate]), optaxs(with_rates(name), RATES[rate]))


TABLES = [
    {"name": "rmsprop", "momentum": 0.9},
    {"name": "rmsprop", "momentum": 0.5, "centered": True, "nesterov": True},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "adamw", "weight_decay": 0.1, "b1": 0.8},
    {"name": "lars", "momentum": 0.5, "weight_decay": 0.01},
    {"name": "fromage", "min_norm": 1e-3},
    {"name": "rprop", "eta_plus": 1.1},
]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(map(str, table.values())))
def test_a_table_is_optaxs_with_these_arguments(table, rate):
    arguments = {key: value for key, value in table.items() if key != "name"}
    expected = optaxs(with_rates(table["name"], **arguments), RATES[rate])
    assert_equal(ours(table, RATES[rate]), expected)
    partial = functools.partial(getattr(optax, table["name"]), **arguments)
    assert check_optimizer(partial) == table


def test_weight_decay_is_taken_at_the_current_parameters_before_the_optimizer():
    made = methods.async_(optimizer="fromage", weight_decay=0.1, learning_rate=0.02)
    got = replay(ALONE, PROBLEM, made).params
    assert_equal(
        got, optaxs(lambda _: optax.chain(optax.add_decayed_weights(0.1), optax.fromage(0.02)), RATES["constant"])
    )


def test_the_usual_optimizers_are_listed_and_none_of_them_needs_the_loss():
    assert {"sgd", "adam", "adamw", "rmsprop", "lion", "fromage", "rprop"} <= set(optimizer_names())
    assert not any(needs_loss(Optimizer(name).build(), PARAMS) for name in optimizer_names())


# Optimizers of one's own


def clipped(learning_rate, limit=1.0):
    """Not linear in its learning rate: the step itself is clipped."""
    return optax.chain(optax.sgd(learning_rate), optax.clip(0.01 * limit))


def with_momentum(decay=0.9):
    """Of no learning rate: its step is multiplied by the run's."""
    return optax.sgd(1.0, momentum=decay)


def expected_clipped(limit):
    return lambda rates: clipped(lambda count: rates[count], limit)


@pytest.mark.parametrize(
    ("optimizer", "limit", "kept"),
    [
        (clipped, 1.0, f"{__name__}:clipped"),
        (functools.partial(clipped, limit=0.5), 0.5, {"name": f"{__name__}:clipped", "limit": 0.5}),
        (f"{__name__}:clipped", 1.0, f"{__name__}:clipped"),
        ({"name": f"{__name__}:clipped", "limit": 0.5}, 0.5, {"name": f"{__name__}:clipped", "limit": 0.5}),
        (lambda learning_rate: clipped(learning_rate, 2.0), 2.0, None),
    ],
    ids=["function", "partial", "name", "table", "lambda"],
)
def test_the_learning_rate_goes_into_a_function_that_takes_it(optimizer, limit, kept):
    assert_equal(ours(optimizer, FALLING), optaxs(expected_clipped(limit), FALLING))
    assert check_optimizer(optimizer) == (kept or optimizer)


@pytest.mark.parametrize("optimizer", [with_momentum, with_momentum(), f"{__name__}:with_momentum"])
def test_the_step_of_one_without_a_learning_rate_is_multiplied_by_it(optimizer):
    expected = optaxs(
        lambda rates: optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(lambda c: rates[c])), FALLING
    )
    assert_equal(ours(optimizer, FALLING), expected)


def test_a_function_of_optax_is_kept_by_its_name():
    assert check_optimizer(optax.adam) == "adam"
    assert methods.sync(optimizer=optax.fromage) == methods.sync(optimizer="fromage")
    assert check_optimizer(optax.contrib.muon).endswith(":muon")


def test_a_name_of_a_function_is_imported_by_a_run_only(tmp_path, monkeypatch):
    (tmp_path / "tattling.py").write_text(
        "import optax, pathlib\n"
        "pathlib.Path(__file__).with_name('imported').touch()\n"
        "def build(learning_rate, momentum=0.0): return optax.sgd(learning_rate, momentum)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for optimizer in ("tattling:build", {"name": "tattling:build", "momentum": 0.5}):
        for name, more in (("async", {}), ("adasync", {"k": 2}), ("downpour", {})):
            made = method(name, {"optimizer": optimizer, **more})
            assert (made.adaptive, made.knows_workers) == (name == "adasync", name == "downpour")
            assert hash(made)
            assert hash(made.structure)
            made.rule(3)
    assert "tattling" not in sys.modules
    assert not (tmp_path / "imported").exists()
    got = ours({"name": "tattling:build", "momentum": 0.5}, 0.02)
    assert (tmp_path / "imported").exists()
    assert_equal(got, optaxs(lambda _: optax.sgd(0.02, 0.5), RATES["constant"]))


def test_changing_a_table_afterwards_changes_no_method():
    table = {"name": "adam", "b1": 0.5}
    made = methods.sync(optimizer=table)
    table["b1"] = 0.1
    assert made == methods.sync(optimizer={"name": "adam", "b1": 0.5})


# The loss


def test_an_optimizer_that_asks_for_the_loss_is_told_it():
    made = optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=0.05))
    expected = optaxs(lambda rates: optax.chain(made, optax.scale(0.02)), RATES["constant"], told=True)
    assert_equal(ours(made, 0.02), expected)
    plain = ours("sgd", 0.02)
    assert np.abs(plain["w"] - expected["w"]).max() > 1e-3  # it has reduced


@pytest.mark.parametrize("name", ["polyak_sgd", "momo"])
def test_optimizers_whose_step_is_made_from_the_loss(name):
    function = optax.polyak_sgd if name == "polyak_sgd" else optax.contrib.momo
    assert_equal(ours(function(1.0), 1.0), optaxs(lambda _: function(1.0), Constant(1.0), told=True))


ROWS = np.random.default_rng(2).normal(size=(24, 3))


def noisy(params, batch, key):
    return jnp.mean((batch @ params - 1.0) ** 2)


MESSAGES = [("k_async", 1), ("k_async", 3), ("async_", 1), ("async_", 2), ("downpour", 2)]


@pytest.mark.parametrize(
    ("name", "steps", "path"),
    [(*m, path) for path in ("scan", "loop") for m in MESSAGES]
    + [("async_", steps, "windows") for steps in (1, 2)],
)
def test_the_loss_is_the_mean_over_the_messages_and_their_local_steps(name, steps, path):
    """Polyak's step (loss / |g|^2) g shows the loss it was told; NumPy walks over the same trace."""
    arguments = {"k": 2} if name == "k_async" else {}
    made = getattr(methods, name)(
        optimizer=optax.polyak_sgd(1.0), local_steps=steps, learning_rate=0.1, **arguments
    )
    trace = simulate(Cluster(compute=[1.0, 1.5, 0.7]), made.synchrony, updates=30)
    problem = Problem.from_functions(lambda key: jnp.zeros(3), noisy, train=ROWS, batch_size=2)
    got = replay(trace, problem, made, execution=path).params
    schedule = lower(trace)
    draw = sampler("epochs", 24, 2, 0, schedule, 3)(0, len(schedule.worker))
    versions = [np.zeros(3)]
    for u in range(30):
        total, losses, messages = np.zeros(3), [], range(schedule.first[u], schedule.first[u + 1])
        for m in messages:
            point = versions[schedule.read_version[m]].copy()
            for ids in draw[m]:
                residual = ROWS[ids] @ point - 1.0
                losses.append(np.mean(residual**2))
                g = 2 * ROWS[ids].T @ residual / len(ids)
                total = total + g
                point = point - 0.1 * g
        g = total / len(messages)
        polyak = min(np.mean(losses) / np.sum(g**2), 1.0)
        versions.append(versions[-1] - 0.1 * polyak * g)
    np.testing.assert_allclose(got, versions[-1], rtol=1e-9)


# What is refused


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("adm", "unknown optimizer 'adm'. Did you mean 'adam'[?] Allowed: .*sgd"),
        ({"name": "sdg"}, "unknown optimizer 'sdg'. Did you mean 'sgd'"),
        ({"momentum": 0.9}, "unknown optimizer None"),
        ({"name": ["sgd"]}, "unknown optimizer"),
        ({"name": "sgd", "momentun": 0.9}, "optimizer 'sgd': .*momentun"),
        ({"name": "sgd", "learning_rate": 0.1}, "optimizer 'sgd': .*learning_rate"),
        ({"name": "adam", "b1": "x"}, "optimizer 'adam' does not work with"),
        ({"name": "adam", "b1": 10**40}, "optimizer 'adam' does not work with"),
        ("scale_by_adam", "unknown optimizer 'scale_by_adam'"),
        ("os.system:", "optimizer = 'os.system:' is not allowed: give package.module:function"),
        ({"name": "a:b", "learning_rate": 0.1}, "learning_rate of optimizer 'a:b' is not allowed"),
        (3, "optimizer = 3 is not allowed: give a name, a table, a function of learning_rate, or an optax"),
        (None, "optimizer = None is not allowed"),
        (lambda lr: optax.sgd(lr), "needs lr: the one argument that a run gives is called learning_rate"),
        (optax.fromage(1.0), 'optax.fromage.1.0. is not allowed: .*not proportional.* give "fromage"'),
        (optax.chain(optax.rprop(1.0)), 'optax.rprop.1.0. is not allowed: .*give "rprop"'),
        (optax.lbfgs(), "needs 'value_fn', which the server of an asynchronous run cannot give"),
        (optax.contrib.sophia(1.0), "needs obj_fn, which"),
    ],
)  # fmt: skip
def test_a_wrong_optimizer_is_one_sentence_that_says_what_is_wrong(value, said):
    with pytest.raises(ValueError, match=said) as caught:
        methods.async_(optimizer=value)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:build", "function = 'no_such_module:build' cannot be imported"),
        (f"{__name__}:loss", "optimizer = .* needs params"),
        ({"name": f"{__name__}:clipped", "limt": 1.0}, "parameter of optimizer .*'limt'. Did you mean 'limit'"),
        (f"{__name__}:expected_nothing", "returned None: it must return an optax transformation"),
    ],
)
def test_a_wrong_function_by_name_is_one_sentence_when_a_run_builds_it(value, said):
    made = methods.async_(optimizer=value)
    with pytest.raises(ValueError, match=said):
        replay(ALONE, PROBLEM, made)


def expected_nothing(learning_rate):
    return None


def test_a_transformation_made_for_other_parameters_is_not_judged_by_ours():
    mask = {"layer": True}
    made = optax.masked(optax.sgd(1.0), mask)
    assert check_optimizer(made) is made


@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - {"fromage", "rprop"}))
def test_a_transformation_of_learning_rate_one_is_taken_as_it_is(name):
    with jax.enable_x64(False):
        made = getattr(optax, name)(1.0)
        assert check_optimizer(made) is made


def test_a_rule_may_hold_a_transformation_of_learning_rate_one():
    built = build_optimizer(optax.sgd(1.0))
    assert not built.inside
    assert built.at(0.5) is built.at(0.1)
