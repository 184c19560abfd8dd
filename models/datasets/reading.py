"""Files read with care: regular ones only, no more bytes than they may hold, images of every mode as 8-bit RGB."""

import gzip
import os
import stat
import zlib
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may decode; no other one is tried, whatever a file is called."""

LARGEST_IMAGE = 2**26
"""Largest number of pixels of an image, before and after it is brought to size."""

PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes that Pillow converts to RGB as they are meant."""

ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")


def check_regular(path: Path) -> os.stat_result:
    """Return the state of a regular file.

    Raises:
        ValueError: if it is a device, a pipe, a directory or a dangling link.
    """
    try:
        about = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path} is not a regular file, and no other is read.")
    return about


def read_bounded(path: Traversable, most: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, uncompressed, and whether there are more.

    Args:
        path: of a regular file, or of one in a package; a name that ends with .gz is uncompressed.
        most: bytes to return; no more than that, and a little, is ever in memory.

    Raises:
        ValueError: if it is no regular file, or a .gz file is damaged.
    """
    if isinstance(path, Path):
        check_regular(path)
    with path.open("rb") as opened:
        if not path.name.endswith(".gz"):
            data = opened.read(most + 1)
        else:
            try:
                with gzip.GzipFile(fileobj=opened) as unpacked:
                    data = unpacked.read(most + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{path}: expected a complete gzip file, found damage: {error}.") from error
    return data[:most], len(data) > most


def read_image(file: Path) -> Image.Image:
    """Return an image in the mode RGB, turned as its EXIF orientation says.

    Grey images of 16 bits are scaled to 8, transparent ones laid on white; an animation gives its first frame.

    Raises:
        ValueError: naming the file, if it is no regular file, no image of the formats above, damaged, larger than
            2^26 pixels, or of a mode whose range is not known (32-bit integers, floating point).
    """
    check_regular(file)
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_IMAGE:
                return _as_rgb(ImageOps.exif_transpose(image), str(image.format))
            reason = f"it has {width} x {height} pixels, and {LARGEST_IMAGE} are allowed"
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = str(error) or type(error).__name__
    raise ValueError(f"{file} cannot be read as an image: {reason}")


def _as_rgb(image: Image.Image, kind: str) -> Image.Image:
    if image.mode in ALPHA or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # multiplied by alpha already
            image = image.convert(image.mode.replace("a", "A"))
        layer = _eight_bits(image, kind).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
    return _eight_bits(image, kind).convert("RGB")


def _eight_bits(image: Image.Image, kind: str) -> Image.Image:
    """Return an image of 8 bits a channel, scaled from 16 where it has them."""
    if image.mode in (*PLAIN, *ALPHA):
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    raise ValueError(
        f"mode {image.mode!r} is not supported, as the range of its values is unknown: save it with 8 or 16 bits"
    )
