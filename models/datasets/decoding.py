"""Decoding of images of any mode to 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stalegrad.models.datasets.bounded import check_regular

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may decode; no other format is tried, whatever the name of a file."""

LARGEST_IMAGE = 2**26
"""Largest number of pixels of an image, before and after scaling."""

PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes that Pillow converts to RGB correctly."""

ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")


def read_image(file: Path) -> Image.Image:
    """Return an image in the mode RGB, rotated according to its EXIF orientation.

    Grey images of 16 bits are scaled to 8, transparent images get a white background, and an animation gives its
    first frame.

    Raises:
        ValueError: if the file is not a regular file, not an image of the formats above, damaged, larger than 2^26
            pixels, or of a mode whose range is not known (32-bit integers, floating point); the error names it.
    """
    check_regular(file)
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_IMAGE:
                return _as_rgb(ImageOps.exif_transpose(image), str(image.format))
            reason = f"it has {width} x {height} pixels, and {LARGEST_IMAGE} are allowed"
    except Exception as error:  # decoders raise errors of any kind on damaged files
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
    """Return an image of 8 bits per channel, scaled from 16 bits if necessary."""
    if image.mode in (*PLAIN, *ALPHA):
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    raise ValueError(
        f"mode {image.mode!r} is not supported, as the range of its values is unknown: save it with 8 or 16 bits"
    )
