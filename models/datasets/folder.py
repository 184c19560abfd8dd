"""Images in folders, one per class, in the layout of ImageNet: listed at the start, read when needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from stalegrad._core.types import Ints
from stalegrad.models.datasets.bounded import check_regular
from stalegrad.models.datasets.decoding import LARGEST_IMAGE, read_image
from stalegrad.models.datasets.fingerprints import fingerprint

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class ImageFolder:
    """The images below one folder: ``<folder>/<class>/<name>.jpg``, ``.png`` and so on.

    Hidden folders and files, and the ones that macOS and Windows add, are ignored.

    Args:
        folder: folder that holds a folder for each class.
        side: height and width of an image in pixels: its shorter side is scaled to it, and the middle is cropped.
        classes: names of the classes in order; by default the sorted names of the folders.

    Raises:
        FileNotFoundError: if there is no such folder, or a class has no images.
        ValueError: if the folders are not those of ``classes``, or an image is not a regular file.
    """

    def __init__(self, folder: Path, side: int, classes: tuple[str, ...] | None = None) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}: the data set 'image-folder' needs DIRECTORY/train/<class>/<image> and "
                "DIRECTORY/test/<class>/<image> (or val)"
            )
        found = tuple(sorted(place.name for place in folder.iterdir() if place.is_dir() and _visible(place.name)))
        if not found or (classes is not None and found != classes):
            missing = sorted({*(classes or ())} ^ {*found})
            raise ValueError(
                f"{folder} has {len(found)} classes; wrong or missing: {', '.join(missing[:5]) or 'all'}"
            )
        self.classes, self.side = found, side
        self.files: list[Path] = []
        targets: list[int] = []
        for target, name in enumerate(found):
            files = _images(folder / name)
            if not files:
                raise FileNotFoundError(f"{folder / name} has no images ({', '.join(ENDINGS)})")
            self.files += files
            targets += [target] * len(files)
        self.targets = np.array(targets, np.int32)

    def __len__(self) -> int:
        return len(self.files)

    def fetch(self, indices: Ints) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """Return images, uint8 (n, side, side, 3), and targets (n,).

        Raises:
            ValueError: if a file is not an image; the error names it.
        """
        return np.stack([self.read(self.files[i]) for i in indices]), self.targets[indices]

    def read(self, file: Path) -> npt.NDArray[np.uint8]:
        """Return one image, uint8 (side, side, 3)."""
        colour = read_image(file)
        scale = self.side / min(colour.size)
        width, height = (max(self.side, round(length * scale)) for length in colour.size)
        if width * height > LARGEST_IMAGE:
            raise ValueError(
                f"{file} has {colour.width} x {colour.height} pixels: scaled to a shorter side of {self.side} it "
                f"would have {width} x {height}, and {LARGEST_IMAGE} are allowed in all"
            )
        left, top = (width - self.side) // 2, (height - self.side) // 2
        resized = colour.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((left, top, left + self.side, top + self.side)), np.uint8)


def _visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _images(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        named = [e for e in entries if _visible(e.name) and os.path.splitext(e.name)[1].lower() in ENDINGS]
    for entry in named:
        if not entry.is_file() and not entry.is_dir():
            check_regular(Path(entry.path))
    return sorted(folder / entry.name for entry in named if not entry.is_dir())


def load_folder(directory: Path, side: int, train_side: int) -> tuple[ImageFolder, ImageFolder]:
    """Return the training and the test images below a directory: ``train`` and ``test`` (or ``val``).

    Raises:
        FileNotFoundError: if a folder is missing or a class has no images.
        ValueError: if the two have different classes.
    """
    train = ImageFolder(directory / "train", train_side)
    test = directory / "test"
    return train, ImageFolder(test if test.is_dir() else directory / "val", side, train.classes)


def folder_fingerprint(directory: Path) -> str:
    """Return the fingerprint of the training and the test images below a directory.

    Raises:
        As :func:`load_folder`.
    """
    return fingerprint(directory, [file for folder in load_folder(directory, 8, 8) for file in folder.files])
