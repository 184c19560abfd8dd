"""The plain rule against arithmetic."""

import jax.numpy as jnp
import numpy as np
import optax

from stalegrad.policies.optimizers import build_optimizer
from stalegrad.policies.rules import Rule
from stalegrad.policies.rules.descent import gradient_descent

PARAMS = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])}
GRADIENTS = {"w": jnp.array([[0.3, 0.1]]), "b": jnp.array([-0.2])}


def steps(rule, rates):
    """The updates that a rule's optimizer makes of the same gradient, at these learning rates."""
    built = build_optimizer(rule.optimizer)
    state, made = built.at(rates[0]).init(PARAMS), []
    for rate in rates:
        update, state = built.at(rate).update(GRADIENTS, state, PARAMS)
        made.append(update if built.inside else {k: rate * v for k, v in update.items()})
    return made


def test_gradient_descent_goes_against_the_mean_of_the_messages():
    for step, rate in zip(steps(gradient_descent(), (1.0, 0.5)), (1.0, 0.5), strict=True):
        np.testing.assert_array_equal(step["w"], -rate * GRADIENTS["w"])
        np.testing.assert_array_equal(step["b"], -rate * GRADIENTS["b"])


def test_weight_decay_is_taken_at_the_current_parameters_before_the_optimizer():
    rule = gradient_descent(optimizer={"name": "sgd", "momentum": 0.5}, weight_decay=0.1)
    decayed = {k: np.asarray(GRADIENTS[k] + 0.1 * PARAMS[k]) for k in PARAMS}
    for step, factor in zip(steps(rule, (1.0, 1.0, 1.0)), (1.0, 1.5, 1.75), strict=True):
        for name in PARAMS:
            np.testing.assert_allclose(step[name], -factor * decayed[name], rtol=1e-6)


def test_a_transformation_of_the_users_own_takes_the_learning_rate_from_outside():
    rule = gradient_descent(optimizer=optax.sgd(1.0, momentum=0.5))
    for step, factor in zip(steps(rule, (1.0, 0.1)), (1.0, 0.1 * 1.5), strict=True):
        np.testing.assert_allclose(step["w"], -factor * GRADIENTS["w"], rtol=1e-6)


def test_gradient_descent_neither_corrects_nor_looks_ahead():
    rule = gradient_descent()
    assert isinstance(rule, Rule)
    assert (rule.correction, rule.look_ahead) == (None, None)
