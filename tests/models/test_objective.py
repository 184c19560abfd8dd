"""Objectives of networks that keep statistics, against numpy."""

import jax
import numpy as np
import pytest
from flax import nnx

from stalegrad.models.networks.layers import flatten
from stalegrad.models.networks.network import from_module
from stalegrad.models.objective import prediction

RNG = np.random.default_rng(0)
IMAGES, TARGETS = RNG.normal(2.0, 3.0, (6, 2, 2, 1)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
KEY = jax.random.key(0)


@pytest.fixture
def objective():
    """Batch norm of four numbers, then a linear layer."""
    network = from_module(
        lambda rngs: nnx.Sequential(
            flatten, nnx.BatchNorm(4, momentum=0.9, epsilon=1e-5, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        )
    )
    return prediction(network, (IMAGES, TARGETS), (IMAGES, TARGETS))


def cross_entropy(params, inputs, mean, var, targets):
    layer = {i: {k: np.asarray(v) for k, v in params["layers"][i].items()} for i in (1, 2)}
    normal = (inputs.reshape(len(inputs), 4) - mean) / np.sqrt(var + 1e-5) * layer[1]["scale"] + layer[1]["bias"]
    logits = normal @ layer[2]["kernel"] + layer[2]["bias"]
    return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]).mean()


def test_the_loss_normalises_by_the_mini_batch_and_folds_it_into_the_statistics(objective):
    params, stats = objective.init(KEY), objective.stats
    mean, var = np.zeros(4), np.ones(4)
    for chosen in ([0, 1, 2], [3, 4, 5], [1, 3, 5]):
        batch = IMAGES[chosen], TARGETS[chosen]
        flat = batch[0].reshape(3, 4)
        value, stats = jax.jit(objective.loss)(params, stats, batch, KEY)
        expected = cross_entropy(params, batch[0], flat.mean(axis=0), flat.var(axis=0), batch[1])
        assert float(value) == pytest.approx(expected, rel=1e-4)
        mean, var = 0.9 * mean + 0.1 * flat.mean(axis=0), 0.9 * var + 0.1 * flat.var(axis=0)
        np.testing.assert_allclose(stats["layers"][1]["mean"], mean, rtol=1e-4)
        np.testing.assert_allclose(stats["layers"][1]["var"], var, rtol=1e-4)


def test_evaluation_normalises_by_the_statistics(objective):
    params = objective.init(KEY)
    stats = {"layers": {1: {"mean": np.full(4, 2.0, np.float32), "var": np.full(4, 9.0, np.float32)}}}
    found = jax.jit(objective.evaluate)(params, stats, objective.test)
    assert float(found["loss"]) == pytest.approx(cross_entropy(params, IMAGES, 2.0, 9.0, TARGETS), rel=1e-4)


def test_gradients_are_of_the_loss_alone(objective):
    slope, stats = jax.jit(jax.grad(objective.loss, has_aux=True))(
        objective.init(KEY), objective.stats, (IMAGES, TARGETS), KEY
    )
    assert jax.tree.structure(slope) == jax.tree.structure(objective.init(KEY))
    assert jax.tree.structure(stats) == jax.tree.structure(objective.stats)
