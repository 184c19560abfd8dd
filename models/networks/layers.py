"""Layers that several networks share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def flatten(inputs: jax.Array) -> jax.Array:
    """Return the inputs as (batch, features)."""
    return inputs.reshape(inputs.shape[0], -1)


def max_pool(images: jax.Array) -> jax.Array:
    """Return the maximum of each block of 2 x 2 pixels; an odd last row or column is dropped."""
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def mean_pool(images: jax.Array) -> jax.Array:
    """Return the mean over all pixels, (batch, channels)."""
    return images.mean((1, 2))


class SmallConv(nnx.Module):
    """A convolution with stride 1 and no padding, for few channels.

    On CPU it is one matrix product over shifted views of the images: there the backward pass of a native
    convolution is slow inside compiled loops, such as a replay. (With many channels the native convolution is
    faster.)

    Args:
        before: number of input channels.
        after: number of output channels.
        size: number of rows and columns of the kernel.
        options: options of ``flax.nnx.Conv``.
    """

    def __init__(self, before: int, after: int, size: int, **options: Any) -> None:
        self.native = nnx.Conv(before, after, (size, size), padding="VALID", **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height - size + 1, width - size + 1, after)."""
        if jax.default_backend() != "cpu":
            return jnp.asarray(self.native(images))
        return shifted_conv(images, jnp.asarray(self.native.kernel)) + jnp.asarray(self.native.bias)


class SameConv(nnx.Conv):
    """A convolution for many channels, without bias, padded so that only its stride reduces the size.

    On CPU, with stride 1 or a 1 x 1 kernel, the gradient of the kernel is one matrix product: the native gradient
    takes longer there than the rest of the convolution.

    Args:
        before: number of input channels.
        after: number of output channels.
        size: number of rows and columns of the kernel, odd.
        stride: stride of rows and columns.
        options: options of ``flax.nnx.Conv``.
    """

    def __init__(self, before: int, after: int, size: int, stride: int, **options: Any) -> None:
        # Equal padding on both sides, as in the papers' code; with stride 2, "SAME" would pad one side only.
        super().__init__(before, after, (size, size), stride, padding=size // 2, use_bias=False, **options)

    def __call__(self, inputs: jax.Array, out_sharding: object = None) -> jax.Array:
        """Map (batch, height, width, before) to (batch, height / stride, width / stride, after)."""
        kernel, stride = jnp.asarray(self.kernel), self.strides
        if jax.default_backend() == "cpu" and (stride == 1 or len(kernel) == 1):
            return same_conv(inputs[:, ::stride, ::stride], kernel)
        options = {} if out_sharding is None else {"out_sharding": out_sharding}  # unknown before flax 0.12.2
        return jnp.asarray(super().__call__(inputs, **options))


@jax.custom_vjp
def same_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with stride 1 and padding that keeps the size; the kernel's gradient is a matrix product.

    Args:
        images: images (batch, height, width, in).
        kernel: kernel (size, size, in, out), size odd.
    """
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _same_conv_forward(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return same_conv(images, kernel), (images, kernel)


def _same_conv_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    size, _, before, after = kernel.shape
    back = lax.rev(kernel, (0, 1)).swapaxes(2, 3)
    # Entry (i, j) of the kernel pairs pixels that are i - size // 2 rows and j - size // 2 columns apart. With the
    # images shifted by j and the gradient by -i, one product contains each pair once.
    offsets = [i - size // 2 for i in range(size)]
    left = _shifted(images, 2, [-j for j in offsets]).reshape(-1, size * before)
    right = _shifted(gradient, 1, offsets).reshape(-1, size * after)
    pairs = (left.T @ right).reshape(size, before, size, after)
    return same_conv(gradient, back), pairs.transpose(2, 0, 1, 3)


same_conv.defvjp(_same_conv_forward, _same_conv_backward)


def _shifted(images: jax.Array, axis: int, offsets: list[int]) -> jax.Array:
    """Return the images shifted along an axis by each offset, padded with 0, concatenated along the channels."""
    channels = images.shape[3]

    def moved(place: int) -> jax.Array:
        padding = [(0, 0, 0)] * 4
        padding[axis] = (offsets[place], -offsets[place], 0)
        padding[3] = (place * channels, (len(offsets) - 1 - place) * channels, 0)
        return lax.pad(images, jnp.zeros((), images.dtype), padding)

    # A sum of padded arrays is written in one pass; concatenating a few channels takes five times longer.
    return sum(map(moved, range(1, len(offsets))), moved(0))


def shifted_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve without padding, as one matrix product.

    Args:
        images: images (batch, height, width, in).
        kernel: kernel (rows, columns, in, out).
    """
    rows, columns, _, features = kernel.shape
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    shifted = [images[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, features)
