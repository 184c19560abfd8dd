"""What is done to the images of a mini-batch before they are learnt from."""

from __future__ import annotations

import jax
import jax.numpy as jnp

PAD = 4


def crop_and_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Shift each image by up to 4 pixels either way, filling with 0, and mirror half of them left to right.

    Args:
        images: (batch, height, width, channels), before normalisation, so that 0 is black.
        key: of the mini-batch; each image has a shift and a side of its own.

    Returns:
        As ``images``: each padded by 4 pixels on all sides, and cropped to its size at a random corner.

    Reference: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition" (CVPR), section 4.2.
    """
    batch, *shape = images.shape
    corners, mirrored = draw(batch, key)
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

    cropped = jax.vmap(crop)(padded, corners)
    return jnp.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)


def draw(batch: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the corners (batch, 2), each coordinate uniform on 0, ..., 8, and which images are mirrored."""
    of_corners, of_sides = jax.random.split(key)
    return jax.random.randint(of_corners, (batch, 2), 0, 2 * PAD + 1), jax.random.bernoulli(
        of_sides, 0.5, (batch,)
    )
