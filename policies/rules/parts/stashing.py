"""Parameters of different ages, array by array, as the stages of a pipeline with weight stashing read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from stalegrad._core.trees import tree_map
from stalegrad._core.types import OptimizerState, Params, Scalar
from stalegrad.policies.rules.parts.look_ahead import LookAhead


class StashState(NamedTuple):
    """Past versions of each array (version v of one that is kept for a updates in row v mod a), the updates made
    so far, and the optimizer's state."""

    past: Params
    updates: jax.Array
    inner: OptimizerState


def delays_of(params: Params, stages: int) -> Params:
    """Return how many updates old each array is read: stage i of P, from 0, reads P - 1 - i updates old.

    Arrays are divided among the stages in the order in which JAX flattens them, in equal numbers.
    """
    leaves, structure = jax.tree.flatten(params)
    ages = [stages - 1 - place * stages // len(leaves) for place in range(len(leaves))]
    return jax.tree.unflatten(structure, ages)


def stashed(
    at: Callable[[Scalar], optax.GradientTransformationExtraArgs], stages: int, learning_rate: Scalar
) -> optax.GradientTransformationExtraArgs:
    """Keep as many past versions of every array as its stage needs, beside an optimizer.

    Args:
        at: ``learning rate -> optimizer``.
        stages: P, the number of stages.
        learning_rate: learning rate of the update.
    """
    inner = at(learning_rate)

    def init(params: Params) -> StashState:
        past = tree_map(
            lambda leaf, age: jnp.broadcast_to(leaf, (age, *leaf.shape)), params, delays_of(params, stages)
        )
        return StashState(past, jnp.zeros((), jnp.int32), inner.init(params))

    def update(d: Params, state: StashState, params: Params = None, **told: object) -> tuple[Params, StashState]:
        step, after = inner.update(d, state.inner, params, **told)

        def kept(past: jax.Array, leaf: jax.Array) -> jax.Array:
            if not len(past):
                return past
            written: jax.Array = lax.dynamic_update_index_in_dim(past, leaf, state.updates % len(past), 0)
            return written

        return step, StashState(tree_map(kept, state.past, params), state.updates + 1, after)

    return optax.GradientTransformationExtraArgs(init, update)


def oldest() -> LookAhead:
    """Return the oldest version kept of every array; the current one where none is."""

    def look(params: Params, state: StashState, learning_rate: Scalar, worker: Scalar) -> Params:
        def read(leaf: jax.Array, past: jax.Array) -> jax.Array:
            if not len(past):
                return leaf
            found: jax.Array = lax.dynamic_index_in_dim(past, state.updates % len(past), keepdims=False)
            return found

        return tree_map(read, params, state.past)

    return look
