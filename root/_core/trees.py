"""Small helpers on pytrees, and on stacks of pytrees with one entry per worker."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stalegrad._core.types import Params, PyTree, Scalar

tree_map = jax.tree.map


def flat(tree: PyTree) -> dict[str, jax.Array]:
    """Return the leaves of a pytree as ``{"path/to/leaf": leaf}``; the path of a lone leaf is ``params``."""
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path) or "params": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def stacked(params: Params, workers: int) -> Params:
    """Return zeros of the shape of ``params``, one copy per worker along a first axis."""
    return tree_map(lambda leaf: jnp.zeros((workers, *leaf.shape), leaf.dtype), params)


def at_worker(stack: Params, worker: Scalar) -> Params:
    """Return one worker's entry."""
    return tree_map(lambda s: lax.dynamic_index_in_dim(s, worker, keepdims=False), stack)


def put_worker(stack: Params, worker: Scalar, value: Params) -> Params:
    """Return the stack with one worker's entry replaced (in place, if the buffer was donated)."""
    return tree_map(lambda s, v: lax.dynamic_update_index_in_dim(s, v.astype(s.dtype), worker, 0), stack, value)


def scalar_type(params: Params) -> np.dtype:
    """Return the type of hyper-parameters and measurements: that of the parameters, but at least float32.

    Fewer bits would not suffice: 0.999 is 1 in bfloat16. :func:`like` converts results back to the type of each
    array.
    """
    return jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)


def like(tree: Params, example: Params) -> Params:
    """Return a pytree with every array converted to the type of the corresponding array of ``example``."""

    def bring(leaf: Scalar, to: jax.Array) -> Scalar:
        return leaf if getattr(leaf, "dtype", None) == to.dtype else jnp.asarray(leaf, to.dtype)

    return tree_map(bring, tree, example)


def wide(leaf: jax.Array) -> jax.Array:
    """Return an array with at least the bits of float32, for sums and small constants."""
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def after(value: Params, token: Params) -> Params:
    """Return ``value``, computed after ``token``.

    An operation that overwrites one entry of a stack must run after all operations that read the old entry. If no
    data dependency requires this order, XLA may choose the other one, and then copies the whole stack at every
    step. This function adds a dependency: a condition that is never true, which XLA cannot know.
    """

    total = sum(jnp.sum(wide(leaf)) for leaf in jax.tree.leaves(token))
    never = total == jnp.asarray(-1.2345e37, jnp.result_type(total))
    return tree_map(lambda leaf: jnp.where(never, jnp.zeros_like(leaf), leaf), value)


def global_norm_squared(tree: Params) -> Scalar:
    """Return the squared L2 norm over all leaves, in float32 at least."""
    leaves = map(wide, jax.tree.leaves(tree))
    return sum(jnp.sum(leaf * leaf) for leaf in leaves)
