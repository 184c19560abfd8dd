"""Random shifts and mirrors against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem, load_dataset
from stalegrad.models.augmentation import crop_and_flip, draw

IMAGES = np.random.default_rng(0).integers(1, 256, (40, 9, 7, 3), np.uint8)
KEY = jax.random.key(5)


def slow(images, key):
    """Pixel by pixel: pixel (y, x) comes from (y + corner - 4), black where there is none."""
    corners, mirrored = map(np.asarray, draw(len(images), key, 8))
    batch, height, width, _ = images.shape
    out = np.zeros_like(images)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                from_y = y + corners[b, 0] - 4
                from_x = (width - 1 - x if mirrored[b] else x) + corners[b, 1] - 4
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[b, y, x] = images[b, from_y, from_x]
    return out


def test_images_are_shifted_and_mirrored_as_by_plain_loops():
    np.testing.assert_array_equal(jax.jit(crop_and_flip)(jnp.asarray(IMAGES), KEY), slow(IMAGES, KEY), strict=True)


def test_the_same_key_gives_the_same_images_and_another_key_others():
    a, b, c = (crop_and_flip(jnp.asarray(IMAGES), key) for key in (KEY, KEY, jax.random.key(6)))
    assert jnp.array_equal(a, b)
    assert not jnp.array_equal(a, c)


def test_every_shift_is_equally_likely_and_half_of_the_images_are_mirrored():
    corners, mirrored = map(np.asarray, draw(81_000, KEY, 8))
    counts = np.bincount(corners[:, 0] * 9 + corners[:, 1], minlength=81)
    assert len(counts) == 81
    assert ((counts - 1000) ** 2 / 1000).sum() < 80 + 5 * np.sqrt(160)  # chi-square with 80 degrees of freedom
    assert mirrored.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(81_000))


def test_a_problem_normalises_after_it_so_that_borders_are_black():
    small = load_dataset("fashion-mnist-small")
    plain = Problem("softmax-regression", small.name).objective()
    problem = Problem("softmax-regression", small.name, augment=True)
    augmented = problem.objective()
    plain_loss, augmented_loss = jax.jit(plain.loss), jax.jit(augmented.loss)
    params = jax.tree.map(lambda leaf: 10 * leaf, plain.init(KEY))
    images, targets = small.train_inputs[:32], small.train_targets[:32]
    shifted = (slow(images, KEY) / np.float32(255) - np.float32(0.2860)) / np.float32(0.3530)
    assert float(augmented_loss(params, {}, (images, targets), KEY)[0]) == pytest.approx(
        float(plain_loss(params, {}, (shifted, targets), KEY)[0]), rel=1e-5
    )
    assert float(plain_loss(params, {}, (shifted, targets), KEY)[0]) != pytest.approx(
        float(augmented_loss(params, {}, (images, targets), jax.random.key(6))[0]), rel=1e-5
    )
    found, expected = (jax.jit(each.evaluate)(params, {}, each.test) for each in (augmented, plain))
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)  # never of shifted images
    assert Problem(**problem.table()) == problem != Problem("softmax-regression", small.name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"augment": 1}, "augment = 1 is not allowed: True or False"),
        (
            {"model": "transformer", "dataset": "shakespeare", "augment": True},
            "augment .* 'shakespeare' holds text",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Problem(**{"model": "mlp", "dataset": "fashion-mnist-small", **arguments})
