"""Images in folders, streamed: the same numbers as from memory, and sentences for what is wrong."""

import jax
import numpy as np
import pytest
from PIL import Image

from stalegrad.models import Problem
from stalegrad.models.augmentation import crop_to, middle
from stalegrad.models.datasets import ImageFolder, load_folder
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, from_toml, replay, run, simulate

RNG = np.random.default_rng(0)


@pytest.fixture
def directory(tmp_path):
    """Three classes, 10 training and 4 test images each, of different sizes."""
    for split, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("ant", "bee", "cat")):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 80, (12 + i, 20 - i, 3), np.uint8)
                pixels[..., label] += 170
                Image.fromarray(pixels).save(place / f"{i}.{'png' if i % 2 else 'bmp'}")
            (place / "notes.txt").write_text("not an image")
    return tmp_path


def test_images_are_listed_by_class_and_brought_to_size(directory):
    train, test = load_folder(directory, 8, 9)
    assert (len(train), len(test), train.classes) == (30, 12, ("ant", "bee", "cat"))
    images, targets = train.fetch(np.array([0, 29, 10]))
    assert images.shape == (3, 9, 9, 3)
    assert images.dtype == np.uint8
    assert targets.tolist() == [0, 2, 1]
    assert images.mean((1, 2)).argmax(1).tolist() == [0, 2, 1]


def test_the_middle_of_an_image_of_the_right_height_is_taken_as_it_is(tmp_path):
    pixels = RNG.integers(0, 255, (8, 14, 3), np.uint8)
    (tmp_path / "only").mkdir()
    Image.fromarray(pixels).save(tmp_path / "only" / "a.png")
    images, _ = ImageFolder(tmp_path, 8).fetch(np.array([0]))
    assert np.array_equal(images[0], pixels[:, 3:11])


def test_crops_are_pieces_of_the_image_and_the_middle_is_one():
    images = RNG.integers(0, 255, (40, 10, 10, 1), np.uint8)
    crops = np.asarray(crop_to(8, images, jax.random.key(0)))
    seen = set()
    for image, crop in zip(images, crops, strict=True):
        places = [
            (i, j, side)
            for i in range(3)
            for j in range(3)
            for side in (1, -1)
            if np.array_equal(image[i : i + 8, j : j + 8][:, ::side], crop)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 10
    assert np.array_equal(middle(8, images), images[:, 1:9, 1:9])


@pytest.mark.parametrize(
    ("path", "k"),
    [("scan", 2), ("loop", 1), *(pytest.param(*c, marks=pytest.mark.slow) for c in (("scan", 1), ("loop", 2)))],
)
def test_streaming_gives_what_memory_gives(directory, path, k):
    streamed = Problem("mlp", "image-folder", directory=directory, image_size=8, batch_size=3, hidden=[5])
    objective = streamed.objective()
    everything = [data.fetch(np.arange(len(data))) for data in (objective.train, objective.test)]
    kept = Problem.from_functions(
        objective.init,
        lambda params, batch, key: objective.loss(params, {}, batch, key)[0],
        train=everything[0],
        test=everything[1],
        batch_size=3,
        evaluate=lambda params, data: objective.evaluate(params, {}, data),
    )
    method = methods.k_async(k=k, learning_rate=0.05)
    trace = simulate(Cluster(workers=3, compute=Exponential(1.0)), method.synchrony, updates=50, seed=0)
    found, expected = (
        replay(trace, problem, method, execution=path, record=Record(updates=7)) for problem in (streamed, kept)
    )
    for column in ("train_loss", "test_loss", "test_error", "mean_gap"):
        np.testing.assert_allclose(found.history[column], expected.history[column], rtol=1e-4)
    assert found.history["train_loss"].iloc[-1] < 0.7 * found.history["train_loss"].iloc[0]


def test_it_stands_in_a_spec_and_augments(directory):
    problem = Problem(
        "mlp", "image-folder", directory=directory, image_size=8, batch_size=3, hidden=[5], augment=True
    )
    experiment = Experiment(
        problem, Cluster(workers=2, compute=Exponential(1.0)), methods.async_(learning_rate=0.05), updates=40
    )
    assert from_toml(experiment.to_toml()) == experiment
    result = run(experiment, progress=False)
    assert result.history["train_loss"].iloc[-1] < result.history["train_loss"].iloc[0]


def test_what_is_wrong_is_named(directory):
    with pytest.raises(ValueError, match="'image-folder' needs directory="):
        Problem("resnet-50", "image-folder")
    with pytest.raises(ValueError, match="image_size = 4 is not allowed: a whole number of at least 8"):
        Problem("resnet-50", "image-folder", directory=directory, image_size=4)
    with pytest.raises(
        ValueError, match="image_size = 32 is not allowed: only the data set 'image-folder' has one"
    ):
        Problem("mlp", "mnist", image_size=32)

    def objective():
        return Problem("mlp", "image-folder", directory=directory, image_size=8, batch_size=3).objective()

    (directory / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match="val has 4 classes; wrong or missing: dog"):
        objective()
    (directory / "val" / "dog").rename(directory / "train" / "dog")
    with pytest.raises(FileNotFoundError, match="dog has no images"):
        objective()
    (directory / "train").rename(directory / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*train: the data set 'image-folder' needs DIRECTORY/train"
    ):
        objective()
    (directory / "elsewhere" / "dog").rmdir()
    (directory / "elsewhere").rename(directory / "train")
    (directory / "train" / "bee" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png cannot be read as an image"):
        run(
            Experiment(
                Problem("mlp", "image-folder", directory=directory, image_size=8, batch_size=3),
                Cluster(workers=2, compute=Exponential(1.0)),
                methods.async_(learning_rate=0.05),
                updates=40,
            ),
            progress=False,
        )
