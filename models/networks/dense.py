"""Fully connected networks."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stalegrad._core.types import Params
from stalegrad.models.networks.network import Layer, Network, from_module, no_penalty

if TYPE_CHECKING:
    import jax
    from flax import nnx


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
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from stalegrad.models.networks.layers import flatten
    from stalegrad.models.networks.starts import normal

    features = prod(input_shape)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        start = normal(init_scale)
        return nnx.Sequential(
            flatten, nnx.Linear(features, classes, kernel_init=start, bias_init=start, rngs=rngs)
        )

    def penalty(params: Params) -> jax.Array:
        weights = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        return l2 * jnp.sum(jnp.stack([jnp.sum(w**2) for w in weights]))

    return from_module(make, penalty if l2 else no_penalty, width=classes)


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
    from flax import nnx

    from stalegrad.models.networks.layers import flatten
    from stalegrad.models.networks.starts import he_normal, lecun_normal

    widths = (prod(input_shape), *hidden)

    def make(rngs: nnx.Rngs) -> nnx.Sequential:
        layers: list[Layer] = [flatten]
        for width, following in pairwise(widths):
            layers += [nnx.Linear(width, following, kernel_init=he_normal, rngs=rngs), nnx.relu]
        return nnx.Sequential(*layers, nnx.Linear(widths[-1], classes, kernel_init=lecun_normal, rngs=rngs))

    return from_module(make, width=max((*hidden, classes)))
