"""Random changes to the images of a mini-batch before its gradient is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

PAD = 4


def crop_and_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Shift each image by up to 4 pixels in each direction, filling with 0, and mirror half of the images.

    Args:
        images: images (batch, height, width, channels), before normalisation, so that 0 is black.
        key: random key of the mini-batch; each image has its own shift and is mirrored independently.

    Returns:
        Images of the shape of ``images``: each padded by 4 pixels on all sides, then cropped to its size at a
        random corner, then mirrored left to right with probability 1/2.

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), section 4.2.
    """
    batch, *shape = images.shape
    corners, mirrored = draw(batch, key, 2 * PAD)
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    return _cut(padded, corners, mirrored, tuple(shape))


def crop_to(side: int, images: jax.Array, key: jax.Array) -> jax.Array:
    """Crop each image to a square of ``side`` pixels at a random place, and mirror half of them left to right.

    Args:
        side: height and width of the result.
        images: images (batch, height, width, channels), with height and width of at least ``side``.
        key: random key of the mini-batch; each image has its own place and is mirrored independently.
    """
    corners, mirrored = draw(len(images), key, images.shape[1] - side)
    return _cut(images, corners, mirrored, (side, side, images.shape[-1]))


def middle(side: int, images: jax.Array) -> jax.Array:
    """Crop each image to the square of ``side`` pixels in its middle."""
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]


def _cut(images: jax.Array, corners: jax.Array, mirrored: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

    cropped = jax.vmap(crop)(images, corners)
    return jnp.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)


def draw(batch: int, key: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Return the corners (batch, 2), each coordinate in 0, ..., ``most``, and which images are mirrored."""
    of_corners, of_sides = jax.random.split(key)
    corners = jax.random.randint(of_corners, (batch, 2), 0, most + 1)
    return corners, jax.random.bernoulli(of_sides, 0.5, (batch,))
