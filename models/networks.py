"""Networks for classification: flax nnx layers inside, plain pytrees of parameters outside.

A further network is one function here, entered in ``NETWORKS`` by its decorator.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

Params = Any


class Network(NamedTuple):
    """A network on pytrees.

    Attributes:
        init: ``init(key) -> params``.
        apply: ``apply(params, inputs) -> logits``; inputs (batch, height, width, channels).
        penalty: ``penalty(params) -> scalar`` added to the training loss (0 where there is none).
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    penalty: Callable[[Params], jax.Array]


NETWORKS: dict[str, Callable[..., Network]] = {}


def network(name: str) -> Callable[[Callable[..., Network]], Callable[..., Network]]:
    """Enter a function ``(input_shape, classes, **options) -> Network`` under a name."""

    def enter(function: Callable[..., Network]) -> Callable[..., Network]:
        NETWORKS[name] = function
        return function

    return enter


def _no_penalty(params: Params) -> jax.Array:
    return jnp.zeros(())


def from_module(make: Callable[[nnx.Rngs], Any], penalty: Callable[[Params], jax.Array] = _no_penalty) -> Network:
    """Return the network of an nnx module; its parameters travel as nested dicts of arrays."""
    graph, template = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        state = jax.tree.map(lambda leaf: leaf, template)
        nnx.replace_by_pure_dict(state, params)
        logits: jax.Array = nnx.merge(graph, state)(inputs)
        return logits

    return Network(jax.jit(init), apply, penalty)


@network("softmax-regression")
def softmax_regression(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
    init_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01,
) -> Network:
    """Multinomial logistic regression on flattened inputs.

    Args:
        input_shape: shape of one input.
        classes: number of classes.
        l2: adds ``l2 * ||W||_F^2`` to the loss (the bias is not regularised).
        init_scale: weights and bias start as N(0, init_scale^2).

    Reference: Dutta et al. 2018, supplement section 9 (l2 = 0.01 on MNIST, init_scale = 0.01).
    """
    features = _features(input_shape)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        normal = nnx.initializers.normal(init_scale)
        return nnx.Sequential(
            _flatten, nnx.Linear(features, classes, kernel_init=normal, bias_init=normal, rngs=rngs)
        )

    def penalty(params: Params) -> jax.Array:
        weights = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        return l2 * jnp.sum(jnp.stack([jnp.sum(w**2) for w in weights]))

    return from_module(make, penalty if l2 else _no_penalty)


@network("mlp")
def mlp(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,),
) -> Network:
    """Fully connected network with ReLU, He-normal weights and zero biases.

    Args:
        input_shape: shape of one input.
        classes: number of classes.
        hidden: width of each hidden layer.
    """
    widths = (_features(input_shape), *hidden)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        he = nnx.initializers.he_normal()
        layers: list[Any] = [_flatten]
        for width, following in pairwise(widths):
            layers += [nnx.Linear(width, following, kernel_init=he, rngs=rngs), nnx.relu]
        return nnx.Sequential(*layers, nnx.Linear(widths[-1], classes, rngs=rngs))

    return from_module(make)


def _features(shape: tuple[int, ...]) -> int:
    features = 1
    for length in shape:
        features *= length
    return features


def _flatten(inputs: jax.Array) -> jax.Array:
    return inputs.reshape(inputs.shape[0], -1)
