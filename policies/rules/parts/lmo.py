"""Steps of a norm's unit length: a momentum, and a linear minimisation oracle (LMO) of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stalegrad._core.trees import global_norm_squared, scalar_type, tree_map
from stalegrad._core.types import Params, Scalar
from stalegrad.policies.rules.hyperparameters import Norm


class AveragedState(NamedTuple):
    """The averaged gradient m, and the number of updates so far."""

    momentum: Params
    updates: jax.Array


def lmo_descent(
    averaging: Scalar | Literal["sqrt"], norm: Norm, *, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """m <- (1 - a) m + a d; theta += eta lmo(m), lmo(m) = argmin over the unit ball of <m, x>.

    Args:
        averaging: a, or ``sqrt``: 1 / sqrt(k) at the k-th update.
        norm: norm of the ball.
        nesterov: lmo of (1 - a) m + a d instead of m, m the new one.

    Reference: Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs, 2025,
    https://arxiv.org/abs/2502.07529.
    """

    def init(params: Params) -> AveragedState:
        return AveragedState(tree_map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def update(
        d: Params, state: AveragedState, params: Params = None, **_: object
    ) -> tuple[Params, AveragedState]:
        updates = state.updates + 1
        a = 1 / jnp.sqrt(updates.astype(scalar_type(params))) if isinstance(averaging, str) else averaging
        momentum = tree_map(lambda m, d: (1 - a) * m + a * d, state.momentum, d)
        m = tree_map(lambda m, d: (1 - a) * m + a * d, momentum, d) if nesterov else momentum
        return tree_map(jnp.negative, dual(m, norm)), AveragedState(momentum, updates)

    return optax.GradientTransformationExtraArgs(init, update)


def dual(m: Params, norm: Norm) -> Params:
    """Return the point of a norm's unit ball at which <m, x> is largest.

    ``spectral``: U V^T of every matrix U S V^T, by five Newton-Schulz steps as in Muon (singular values then are
    near 1 only), an array of more axes as the matrix of its last one; the signs of vectors. ``sign``: the signs.
    ``euclidean``: m / ||m||_2, over all arrays together.
    """
    if norm == "euclidean":
        length = jnp.sqrt(global_norm_squared(m))
        return tree_map(lambda leaf: leaf / jnp.maximum(length, 1e-30), m)
    return tree_map(lambda leaf: _orthogonal(leaf) if norm == "spectral" and leaf.ndim > 1 else jnp.sign(leaf), m)


def _orthogonal(leaf: jax.Array) -> jax.Array:
    from optax.contrib import scale_by_muon

    matrix = leaf.reshape(-1, leaf.shape[-1])
    newton_schulz = scale_by_muon(beta=0.0, nesterov=False)  # without momentum: its orthogonalisation alone
    found: jax.Array = newton_schulz.update(matrix, newton_schulz.init(matrix))[0]
    return found.reshape(leaf.shape)
