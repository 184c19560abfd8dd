"""Images of every mode and files of every kind: brought to 8-bit RGB as they are meant, or refused by name."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stalegrad.models.datasets import ImageFolder, decoding

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)


def read(file) -> np.ndarray:
    return np.asarray(decoding.read_image(file))


def saved(place, image, kind="PNG", **options):
    file = place / "image.png"
    image.save(file, kind, **options)
    return file


def png(place, depth: int, colour: int, rows: bytes, *, size=(2, 2), chunks=b"") -> object:
    """A PNG written by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    file = place / "hand.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return file


def test_modes_without_alpha_keep_their_colours(tmp_path):
    grey = np.repeat(GREY[..., None], 3, axis=-1)
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(GREY))), grey)
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(COLOUR))), COLOUR)
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(GREY > 100))), np.where(grey > 100, 255, 0))
    palette = Image.fromarray(COLOUR).quantize(64)
    assert np.array_equal(read(saved(tmp_path, palette)), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(np.stack([255 - COLOUR[..., i] for i in range(3)] + [0 * GREY], -1), "CMYK")
    assert np.array_equal(read(saved(tmp_path, cmyk, "TIFF")), COLOUR)


@pytest.mark.parametrize(
    ("mode", "pixel", "rgb"),
    [
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
    ],
)
def test_other_colour_spaces_become_rgb(mode, pixel, rgb):
    """No format of the allowed ones keeps all of these modes, so images are given as they would be opened."""
    assert np.asarray(decoding._as_rgb(Image.new(mode, (4, 4), pixel), "TIFF"))[0, 0].tolist() == pytest.approx(
        rgb, abs=2
    )


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    values = np.array([[0, 257 * 7], [257 * 200, 65535]], np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    by_hand = png(tmp_path, 16, 0, rows)
    expected = [[0, 7], [200, 255]]
    assert read(by_hand)[..., 0].tolist() == expected
    assert read(saved(tmp_path, Image.fromarray(values), "TIFF"))[..., 2].tolist() == expected
    colour = png(tmp_path, 16, 2, b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values))
    assert read(colour)[..., 1].tolist() == expected


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_of_unknown_range_are_refused_by_name(tmp_path, mode):
    file = saved(tmp_path, Image.new(mode, (4, 4), 70_000), "TIFF")
    with pytest.raises(
        ValueError, match=rf"image\.png cannot be read as an image: mode '{mode}' is not supported"
    ):
        decoding.read_image(file)


def test_transparent_pixels_are_white_whatever_colour_hides_there(tmp_path):
    pixels = np.full((2, 2, 4), 10, np.uint8)
    pixels[..., 3] = [[255, 0], [0, 51]]
    white = round(10 * 0.2 + 255 * 0.8)
    for mode in ("RGBA", "LA"):
        found = read(saved(tmp_path, Image.fromarray(pixels).convert(mode)))
        assert found[..., 1].tolist() == [[10, 255], [255, white]]
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 0, 0])
    found = read(saved(tmp_path, palette, transparency=1))
    assert found.tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]]
    rgb = read(saved(tmp_path, Image.fromarray(pixels[..., :3]), transparency=(10, 10, 10)))
    assert (rgb == 255).all()
    grey = read(saved(tmp_path, Image.fromarray(pixels[..., 0]), transparency=9))
    assert (grey == 10).all()


def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(COLOUR[:4]), exif=exif)), np.rot90(COLOUR[:4], -1))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(saved(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (found == (255, 0, 0)).all()


def test_an_image_that_unpacks_to_too_much_is_refused_by_its_header(tmp_path):
    bomb = png(tmp_path, 8, 0, b"", size=(100_000, 100_000))
    for size in ((9_000, 9_000), (100_000, 100_000)):
        bomb = png(tmp_path, 8, 0, b"", size=size)
        with pytest.raises(
            ValueError, match=r"hand\.png cannot be read as an image: .*(pixels|decompression bomb)"
        ):
            decoding.read_image(bomb)
    (tmp_path / "long" / "a").mkdir(parents=True)
    Image.new("L", (1, 60_000)).save(tmp_path / "long" / "a" / "thin.png")
    with pytest.raises(
        ValueError, match=r"thin\.png has 1 x 60000 pixels: scaled to a shorter side of 224 it would"
    ):
        ImageFolder(tmp_path / "long", 224).fetch(np.array([0]))


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x89PNG\r\n\x1a\n\0"]
)
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        decoding.read_image(tmp_path / "a.png")


def test_a_damaged_image_is_refused_by_name(tmp_path):
    whole = saved(
        tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG"
    )
    whole.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"image\.png cannot be read as an image: .*truncated"):
        decoding.read_image(whole)


def test_hidden_folders_and_files_and_those_of_other_systems_are_not_looked_at(tmp_path):
    for name in ("a.b", "c"):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY).save(tmp_path / name / "x.y.z.png")
        (tmp_path / name / "._x.y.z.png").write_bytes(b"resource fork")
        (tmp_path / name / ".DS_Store").write_bytes(b"")
        (tmp_path / name / "Thumbs.db").write_bytes(b"")
        (tmp_path / name / "folder.png").mkdir()
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        (tmp_path / name).mkdir()
    folder = ImageFolder(tmp_path, 8)
    assert folder.classes == ("a.b", "c")
    assert [file.name for file in folder.files] == ["x.y.z.png"] * 2


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling"])
def test_an_image_that_is_no_regular_file_is_named(tmp_path, kind):
    (tmp_path / "a").mkdir()
    place = tmp_path / "a" / "b.png"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"b\.png (is not a regular file|cannot be read: No such file)"):
        ImageFolder(tmp_path, 8)
