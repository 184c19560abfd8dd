"""Optimizers by name, table or transformation; the plain rule against arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stalegrad.policies.optimizers import make_optimizer, optimizer_names
from stalegrad.policies.rules import Rule, gradient_descent

PARAMS = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])}
GRADIENTS = {"w": jnp.array([[0.3, 0.1]]), "b": jnp.array([-0.2])}

WARN = {"noisy_sgd", "optimistic_adam"}  # optax warns of coming changes when they are built


def steps(optimizer, count=3):
    """The updates that an optimizer makes of the same gradient, ``count`` times."""
    state, made = optimizer.init(PARAMS), []
    for _ in range(count):
        update, state = optimizer.update(GRADIENTS, state, PARAMS)
        made.append(update)
    return made


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    ("value", "optimizer"),
    [
        ("sgd", optax.sgd(1.0)),
        ("adam", optax.adam(1.0)),
        ({"name": "sgd"}, optax.sgd(1.0)),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, optax.sgd(1.0, momentum=0.9, nesterov=True)),
        ({"name": "adam", "b1": 0.5}, optax.adam(1.0, b1=0.5)),
    ],
)
def test_a_name_or_table_means_the_optax_optimizer_of_learning_rate_one(value, optimizer):
    assert same(steps(make_optimizer(value)), steps(optimizer))


def test_a_transformation_is_taken_as_it_is():
    adam = optax.adam(1.0)
    assert make_optimizer(adam) is adam


def test_the_table_that_was_given_is_left_alone():
    table = {"name": "adam", "b1": 0.5}
    make_optimizer(table)
    assert table == {"name": "adam", "b1": 0.5}


@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - WARN))
def test_every_listed_optimizer_makes_a_finite_step(name):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(steps(make_optimizer(name), 2)))


def test_the_usual_optimizers_are_listed():
    assert {"sgd", "adam", "adamw", "rmsprop", "lion"} <= set(optimizer_names())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("adm", "unknown optimizer 'adm'. Did you mean 'adam'[?] Allowed: .*sgd"),
        ({"name": "sdg"}, "unknown optimizer 'sdg'. Did you mean 'sgd'"),
        ({"momentum": 0.9}, "unknown optimizer None"),
        ({"name": ["sgd"]}, "unknown optimizer"),
        ({"name": "sgd", "momentun": 0.9}, "optimizer 'sgd': .*momentun"),
        ({"name": "sgd", "learning_rate": 0.1}, "optimizer 'sgd': .*learning_rate"),
        ("scale_by_adam", "unknown optimizer 'scale_by_adam'"),
        (3, "optimizer = 3 is not allowed: give a name, a table or an optax transformation"),
        (None, "optimizer = None is not allowed"),
    ],
)
def test_a_wrong_optimizer_is_one_sentence_that_says_what_is_wrong(value, said):
    with pytest.raises(ValueError, match=said):
        make_optimizer(value)


def test_gradient_descent_goes_against_the_mean_of_the_messages():
    (step,) = steps(gradient_descent().optimizer, 1)
    np.testing.assert_array_equal(step["w"], -GRADIENTS["w"])
    np.testing.assert_array_equal(step["b"], -GRADIENTS["b"])


def test_weight_decay_is_taken_at_the_current_parameters_before_the_optimizer():
    rule = gradient_descent(optimizer={"name": "sgd", "momentum": 0.5}, weight_decay=0.1)
    decayed = {k: np.asarray(GRADIENTS[k] + 0.1 * PARAMS[k]) for k in PARAMS}
    for step, factor in zip(steps(rule.optimizer), (1.0, 1.5, 1.75), strict=True):
        for name in PARAMS:
            np.testing.assert_allclose(step[name], -factor * decayed[name], rtol=1e-6)


def test_gradient_descent_neither_corrects_nor_looks_ahead():
    rule = gradient_descent()
    assert isinstance(rule, Rule)
    assert (rule.correction, rule.look_ahead) == (None, None)
