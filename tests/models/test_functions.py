"""Functions of the user's: a wrong one is one sentence that names it, before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, methods
from stalegrad.simulator import Cluster, replay, simulate

TRACE = simulate(Cluster(2), Async(), updates=4)
ROWS = np.arange(12.0).reshape(6, 2)


def two(key):
    return jnp.ones(2)


def square(params, batch, key):
    return jnp.sum(params**2)


def raising(*_):
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("init", "said"),
    [
        (
            lambda key: jnp.arange(3),
            r"init\(key\) .* returned an array of type int32 and shape \(3,\) at params: it",
        ),
        (
            lambda key: {"w": jnp.ones(2), "n": 3},
            r"type int32 and shape \(\) at params\['n'\]: .*float16, bfloat16",
        ),
        (lambda key: [jnp.ones(2) > 0], r"type bool and shape \(2,\) at params\[0\]"),
        (lambda key: jnp.ones(2) * 1j, "type complex64"),
        (lambda key: jnp.ones(2, jnp.float8_e4m3fn), "type float8_e4m3fn"),
        (
            lambda key: {},
            "returned a dict, without a number: it must return a pytree of arrays of a floating type",
        ),
        (lambda key: None, "returned a NoneType, without a number"),
        (lambda key: jnp.ones(0), "returned an array of type float32 and shape .0,., without a number"),
        (lambda key: "weights", r"init\(key\) of the problem .*lambda.* raised TypeError"),
        (raising, r"init\(key\) of the problem \(raising\) raised KeyError: 'gone'; it must return a pytree"),
        (lambda: jnp.ones(2), r"init\(key\) of the problem .* raised TypeError: .*takes 0 positional arguments"),
    ],
)
def test_a_wrong_init_is_named(init, said):
    with pytest.raises(ValueError, match=said):
        replay(TRACE, Problem.from_functions(init, lambda w, b, k: 0.0), methods.async_())


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda w, b, k: w**2, r"loss\(params, batch, key\) .* returned an array of type float32 and shape"),
        (lambda w, b, k: (jnp.sum(w), {}), "returned a tuple: it must return one number of a floating type"),
        (lambda w, b, k: {"loss": jnp.sum(w)}, "returned a dict: it must return one number"),
        (lambda w, b, k: None, "returned a NoneType: it must return one number"),
        (lambda w, b, k: jnp.sum(w > 0), r"returned an array of type int32 and shape \(\)"),
        (lambda w, b, k: jnp.sum(w @ jnp.ones(3)), r"raised TypeError: .*; it must return a scalar that can be"),
        (lambda w, b, k: jax.lax.while_loop(lambda x: x < 9, lambda x: 2 * x, w[0]), r"raised ValueError: .*diff"),
        (raising, r"loss\(params, batch, key\) of the problem \(raising\) raised KeyError"),
    ],
)  # fmt: skip
def test_a_wrong_loss_is_named(loss, said):
    with pytest.raises(ValueError, match=said):
        replay(TRACE, Problem.from_functions(two, loss), methods.async_())


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        (lambda w, data: jnp.sum(w), r"evaluate\(params, data\) .* returned an array .*: it must return a dict"),
        (lambda w, data: {"error": jnp.sum(w)}, r'returned a dict: it must return a dict with "loss"'),
        (lambda w, data: {"loss": jnp.sum(w), "each": w}, r'"each" of evaluate.* is an array of type float32'),
        (raising, r"evaluate\(params, data\) of the problem \(raising\) raised KeyError"),
    ],
)  # fmt: skip
def test_a_wrong_evaluation_is_named(evaluate, said):
    with pytest.raises(ValueError, match=said):
        Problem.from_functions(two, square, evaluate=evaluate).objective()


def test_the_loss_is_checked_on_a_mini_batch_and_the_evaluation_on_all_data():
    seen = []

    def loss(params, batch, key):
        seen.append(batch.shape)
        return jnp.mean(batch @ params)

    Problem.from_functions(two, loss, train=ROWS, test=ROWS[:5], batch_size=3).objective()
    assert set(seen) == {(3, 2), (6, 2), (5, 2)}


def test_functions_are_checked_once():
    calls = []

    def init(key):
        calls.append(key)
        return jnp.ones(2)

    problem = Problem.from_functions(init, square)
    assert not calls
    problem.objective()
    problem.objective()
    assert len(calls) == 1


def test_an_init_that_computes_with_the_key_itself_is_allowed():
    def init(key):
        return np.random.default_rng(int(jax.random.bits(key))).normal(size=2)

    problem = Problem.from_functions(init, square)
    assert np.isfinite(replay(TRACE, problem, methods.async_()).params).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"train": {}, "batch_size": 1},
            "train is not allowed: it needs arrays whose first axis counts the examples",
        ),
        ({"train": np.float32(3.0), "batch_size": 1}, "train is not allowed: it needs arrays whose first axis"),
        ({"train": np.ones((0, 2)), "batch_size": 1}, "train is not allowed: it has no examples"),
        (
            {"train": np.array(["x", "y"]), "batch_size": 1},
            "train is not allowed: it must be a pytree of arrays of numbers",
        ),
        ({"test": (np.ones(3), np.ones(4))}, r"test has arrays of different lengths: \[3, 4\]"),
        ({"train": ROWS, "batch_size": 7}, "batch_size = 7 is not allowed: the data set has 6 examples"),
    ],
)
def test_wrong_data_are_named_when_the_problem_is_made(data, said):
    with pytest.raises(ValueError, match=said):
        Problem.from_functions(two, square, **data)


def test_numpy_in_a_compiled_function_is_named():
    problem = Problem.from_functions(two, square, gradient=lambda w, batch, key: np.asarray(w))
    with pytest.raises(ValueError, match=r"gradient\(.* use jax.numpy, and no Python branches"):
        replay(TRACE, problem, methods.async_())
