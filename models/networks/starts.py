"""Initial parameters: the distributions of ``jax.nn.initializers``, bit for bit, drawn in one dimension.

On CPU, XLA takes about one second to compile random bits of several dimensions, because it divides their counters
into coordinates. Random bits of one dimension have the same values and compile in a fifth of this time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jax.typing import DTypeLike

Start = Callable[..., jax.Array]
"""``(key, shape, dtype) -> array``."""

_TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal distribution truncated at -2 and 2."""


def normal(deviation: float) -> Start:
    """Return an initializer of normal parameters with this standard deviation."""
    draw = initializers.normal(deviation)

    def start(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return draw(key, (math.prod(shape),), dtype).reshape(shape)

    return start


def scaled(scale: float, fan: Literal["in", "out"], *, truncated: bool = True) -> Start:
    """Return an initializer of normal kernels with variance ``scale / fan``, as ``variance_scaling`` does.

    Args:
        scale: 2 for He's initialization, 1 for LeCun's.
        fan: ``in``: the number of inputs of an output; ``out``: the number of outputs of an input.
        truncated: whether to truncate at two standard deviations.
    """

    def start(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        *window, before, after = shape
        numbers = math.prod(window) * (before if fan == "in" else after)
        deviation, flat = jnp.sqrt(jnp.array(scale / numbers, dtype)), (math.prod(shape),)
        if not truncated:
            return (jax.random.normal(key, flat, dtype) * deviation).reshape(shape)
        drawn = jax.random.truncated_normal(key, -2, 2, flat, dtype)
        return (drawn * (deviation / jnp.array(_TRUNCATED, dtype))).reshape(shape)

    return start


he_normal, lecun_normal = scaled(2.0, "in"), scaled(1.0, "in")
