"""Layers that several networks share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def flatten(inputs: jax.Array) -> jax.Array:
    """Return (batch, features)."""
    return inputs.reshape(inputs.shape[0], -1)


def max_pool(images: jax.Array) -> jax.Array:
    """Return the maximum of each 2 x 2 pixels; an odd last row or column is dropped."""
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def mean_pool(images: jax.Array) -> jax.Array:
    """Return (batch, channels): the mean over all pixels."""
    return images.mean((1, 2))


class SmallConv(nnx.Module):
    """A convolution with stride 1 and no padding, for few channels.

    On CPU it is one matrix product over shifted views of the images: the backward pass of a native convolution
    is slow there inside compiled loops, and a replay is one. (With many channels the native one is faster.)

    Args:
        before: channels that come in.
        after: channels that go out.
        size: rows and columns of the kernel.
        options: of ``flax.nnx.Conv``.
    """

    def __init__(self, before: int, after: int, size: int, **options: Any) -> None:
        self.native = nnx.Conv(before, after, (size, size), padding="VALID", **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height - size + 1, width - size + 1, after)."""
        if jax.default_backend() != "cpu":
            return jnp.asarray(self.native(images))
        return shifted_conv(images, jnp.asarray(self.native.kernel)) + jnp.asarray(self.native.bias)


def shifted_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve without padding, as one matrix product.

    Args:
        images: (batch, height, width, in).
        kernel: (rows, columns, in, out).
    """
    rows, columns, _, features = kernel.shape
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    shifted = [images[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, features)
