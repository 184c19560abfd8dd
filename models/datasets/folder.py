"""Images in folders, one per class, as ImageNet comes: listed at once, read when they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, per channel."""


class ImageFolder:
    """The images below one folder: ``<folder>/<class>/<name>.jpg``, ``.png`` and so on.

    Args:
        folder: with a folder for each class.
        side: of the square in the middle that is taken of each image, whose shorter side is scaled to it.
        classes: their names in order; by default those of the folders, sorted.

    Raises:
        FileNotFoundError: if there is no such folder, or a class without images.
        ValueError: if the folders are not those of ``classes``.
    """

    def __init__(self, folder: Path, side: int, classes: tuple[str, ...] | None = None) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}: the data set 'image-folder' needs DIRECTORY/train/<class>/<image> and "
                "DIRECTORY/test/<class>/<image> (or val)"
            )
        found = tuple(sorted(place.name for place in folder.iterdir() if place.is_dir()))
        if not found or (classes is not None and found != classes):
            missing = sorted({*(classes or ())} ^ {*found})
            raise ValueError(
                f"{folder} has {len(found)} classes; wrong or missing: {', '.join(missing[:5]) or 'all'}"
            )
        self.classes, self.side = found, side
        self.files: list[Path] = []
        targets: list[int] = []
        for target, name in enumerate(found):
            files = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in ENDINGS)
            if not files:
                raise FileNotFoundError(f"{folder / name} has no images ({', '.join(ENDINGS)})")
            self.files += files
            targets += [target] * len(files)
        self.targets = np.array(targets, np.int32)

    def __len__(self) -> int:
        return len(self.files)

    def fetch(self, indices: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """Return images, uint8 (n, side, side, 3), and targets (n,).

        Raises:
            ValueError: if a file is no image, naming it.
        """
        return np.stack([self.read(self.files[i]) for i in indices]), self.targets[indices]

    def read(self, file: Path) -> npt.NDArray[np.uint8]:
        """Return one image, uint8 (side, side, 3)."""
        try:
            with Image.open(file) as image:
                colour = image.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ValueError(f"{file} cannot be read as an image: {error}") from None
        scale = self.side / min(colour.size)
        width, height = (max(self.side, round(length * scale)) for length in colour.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        resized = colour.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((left, top, left + self.side, top + self.side)), np.uint8)


def load_folder(directory: Path, side: int, train_side: int) -> tuple[ImageFolder, ImageFolder]:
    """Return the training and the test images below a directory: ``train`` and ``test`` (or ``val``).

    Raises:
        FileNotFoundError: if a folder is missing or a class has no images.
        ValueError: if the two have different classes.
    """
    train = ImageFolder(directory / "train", train_side)
    test = directory / "test"
    return train, ImageFolder(test if test.is_dir() else directory / "val", side, train.classes)
