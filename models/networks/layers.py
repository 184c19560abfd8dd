"""Layers that several networks share."""

from __future__ import annotations

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


class SmallConv(nnx.Conv):
    """A convolution with stride 1 and no padding, for few channels.

    On CPU it is one matrix product over shifted views of the images: the backward pass of a native convolution
    is slow there inside compiled loops, and a replay is one. (With many channels the native one is faster.)
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map (batch, height, width, in) to (batch, height - k + 1, width - k + 1, out)."""
        if jax.default_backend() != "cpu":
            return jnp.asarray(super().__call__(inputs))
        return shifted_conv(inputs, self.kernel[...]) + self.bias[...]


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
