"""The networks against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models.networks import NETWORKS, mlp, softmax_regression

SHAPE, CLASSES = (28, 28, 1), 10
INPUTS = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)


def layers(params):
    """(kernel, bias) of every layer, in order."""
    return [
        (np.asarray(params["layers"][i]["kernel"]), np.asarray(params["layers"][i]["bias"]))
        for i in sorted(params["layers"])
    ]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_softmax_regression_is_one_linear_layer():
    network = softmax_regression(SHAPE, CLASSES)
    params = network.init(jax.random.key(0))
    [(kernel, bias)] = layers(params)
    assert count(params) == 784 * 10 + 10
    np.testing.assert_allclose(network.apply(params, INPUTS), INPUTS.reshape(7, -1) @ kernel + bias, atol=1e-6)


def test_softmax_regression_starts_as_normal_with_standard_deviation_one_hundredth():
    network = softmax_regression(SHAPE, CLASSES)
    [(kernel, _)] = layers(network.init(jax.random.key(0)))
    assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
    assert kernel.std() == pytest.approx(0.01, rel=0.04)
    biases = np.concatenate([layers(network.init(jax.random.key(s)))[0][1] for s in range(30)])
    assert biases.std() == pytest.approx(0.01, rel=0.2)


def test_init_scale_scales_the_start():
    [(kernel, _)] = layers(softmax_regression(SHAPE, CLASSES, init_scale=0.5).init(jax.random.key(0)))
    assert kernel.std() == pytest.approx(0.5, rel=0.04)


def test_l2_is_the_squared_frobenius_norm_of_the_weights_without_the_bias():
    network = softmax_regression(SHAPE, CLASSES, l2=0.3)
    params = jax.tree.map(lambda leaf: leaf + 1.0, network.init(jax.random.key(0)))
    [(kernel, _)] = layers(params)
    assert float(network.penalty(params)) == pytest.approx(0.3 * (kernel.astype(float) ** 2).sum(), rel=1e-5)
    slope = jax.grad(network.penalty)(params)["layers"]
    [(of_kernel, of_bias)] = layers({"layers": slope})
    np.testing.assert_allclose(of_kernel, 0.6 * kernel, rtol=1e-5)
    assert not of_bias.any()


def test_without_l2_there_is_no_penalty():
    network = softmax_regression(SHAPE, CLASSES)
    assert float(network.penalty(network.init(jax.random.key(0)))) == 0


def test_mlp_has_as_many_parameters_as_its_layers_say():
    assert count(mlp(SHAPE, CLASSES).init(jax.random.key(0))) == 784 * 64 + 64 + 64 * 10 + 10
    deep = mlp((2, 3), 4, hidden=(5, 6)).init(jax.random.key(0))
    assert count(deep) == (6 * 5 + 5) + (5 * 6 + 6) + (6 * 4 + 4)


@pytest.mark.parametrize("hidden", [(64,), (8, 5, 3)])
def test_mlp_forward_pass_is_relu_between_linear_layers(hidden):
    network = mlp(SHAPE, CLASSES, hidden=hidden)
    params = jax.tree.map(lambda leaf: leaf + 0.01, network.init(jax.random.key(1)))  # biases other than 0
    *inner, (kernel, bias) = layers(params)
    x = INPUTS.reshape(7, -1).astype(float)
    for w, b in inner:
        x = np.maximum(x @ w + b, 0)
    np.testing.assert_allclose(network.apply(params, INPUTS), x @ kernel + bias, rtol=1e-4, atol=1e-4)


def test_mlp_starts_he_normal_with_zero_biases():
    (kernel, bias), (_, last) = layers(mlp(SHAPE, CLASSES).init(jax.random.key(0)))
    assert kernel.std() == pytest.approx(np.sqrt(2 / 784), rel=0.03)
    assert not bias.any()
    assert not last.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_a_function_of_its_key_and_works_under_jit(name):
    network = NETWORKS[name](SHAPE, CLASSES)
    a, b, c = (network.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, a, b))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, a, c))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(a))
    np.testing.assert_allclose(jax.jit(network.apply)(a, INPUTS), network.apply(a, INPUTS), atol=1e-5)
