"""How parameters start: the laws of ``jax.nn.initializers``, bit for bit, drawn in one dimension.

On CPU, XLA takes about a second to compile random bits of several dimensions, whose counters it divides into
coordinates; those of one dimension are the same and compile in a fifth of it.
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
"""Standard deviation of a standard normal law truncated at 2."""


def normal(deviation: float) -> Start:
    """Return normal parameters with this standard deviation."""
    draw = initializers.normal(deviation)

    def start(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return draw(key, (math.prod(shape),), dtype).reshape(shape)

    return start


def scaled(scale: float, fan: Literal["in", "out"], *, truncated: bool = True) -> Start:
    """Return normal kernels with variance ``scale / fan``, as ``variance_scaling`` does.

    Args:
        scale: 2 for He's law, 1 for LeCun's.
        fan: numbers that go into an output, or come of an input.
        truncated: at two standard deviations.
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
