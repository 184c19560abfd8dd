"""What the data sets hold, where they are sought, and what is said when they are missing or wrong."""

import dataclasses
import gzip
import hashlib
import importlib.util
import math
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np
import pooch
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from stalegrad.models.datasets import Dataset, fetching, formats, list_datasets, load, load_dataset, sources

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "models" / "data" / "fashion-mnist-small"
SCRIPT = ROOT / "scripts" / "build_fashion_mnist_small.py"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MNIST = Path(os.environ.get("STALEGRAD_DATA") or pooch.os_cache("stalegrad")) / "mnist"

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Serve = Callable[[str], bytes]

pytestmark = pytest.mark.usefixtures("offline")

needs_official = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST files in {MNIST}")


# --- helpers, none of which uses the code under test -------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def raw(directory: Path, name: str) -> bytes:
    return gzip.decompress((directory / f"{name}.gz").read_bytes())


def examples(directory: Path, split: str) -> list[bytes]:
    """Label and pixels of each example, as one byte string."""
    labels = raw(directory, f"{split}-labels-idx1-ubyte")[8:]
    pixels = raw(directory, f"{split}-images-idx3-ubyte")[16:]
    return [bytes([label]) + pixels[784 * i : 784 * (i + 1)] for i, label in enumerate(labels)]


def tiny_files(seed: int = 0) -> dict[str, bytes]:
    """Contents of a well-formed data set of 6 + 4 images of 3 x 2 pixels in 10 classes."""
    rng = np.random.default_rng(seed)
    return {
        NAMES[0]: idx(rng.integers(0, 256, (6, 3, 2), np.uint8)),
        NAMES[1]: idx(rng.integers(0, 10, 6, np.uint8)),
        NAMES[2]: idx(rng.integers(0, 256, (4, 3, 2), np.uint8)),
        NAMES[3]: idx(rng.integers(0, 10, 4, np.uint8)),
    }


def lay(directory: Path, files: dict[str, bytes], *, gz: bool = False) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = directory / (f"{name}.gz" if gz else name)
        path.write_bytes(gzip.compress(data, mtime=0) if gz else data)
    return directory


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_fashion_mnist_small", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A further data set: one entry of the table. Its official files are those of `tiny_files`."""
    files = tiny_files()
    source = dataclasses.replace(
        sources.SOURCES["mnist"],
        files=tuple(
            fetching.File(
                name,
                hashlib.sha256(content).hexdigest(),
                hashlib.sha256(gzip.compress(content, mtime=0)).hexdigest(),
            )
            for name, content in files.items()
        ),
        url="https://example.org/tiny/",
        system=tmp_path / "system",
        package="dataset-tiny",
    )
    monkeypatch.setitem(sources.SOURCES._entries, "tiny", source)
    return "tiny"


def assert_is_tiny(loaded: Dataset) -> None:
    files = tiny_files()
    assert loaded.train_inputs.shape == (6, 3, 2, 1)
    assert loaded.test_inputs.shape == (4, 3, 2, 1)
    assert loaded.train_inputs.tobytes() == files[NAMES[0]][16:]
    assert loaded.train_targets.tolist() == list(files[NAMES[1]][8:])
    assert loaded.test_inputs.tobytes() == files[NAMES[2]][16:]
    assert loaded.test_targets.tolist() == list(files[NAMES[3]][8:])


# --- the embedded set --------------------------------------------------------------------------------


def test_embedded_set_has_1000_training_and_200_test_images_per_class() -> None:
    small = load_dataset("fashion-mnist-small")
    assert small.classes == 10
    assert np.bincount(small.train_targets).tolist() == [1000] * 10
    assert np.bincount(small.test_targets).tolist() == [200] * 10
    assert small.train_inputs.shape == (10_000, 28, 28, 1)
    assert small.test_inputs.shape == (2_000, 28, 28, 1)
    assert small.train_inputs.dtype == small.test_inputs.dtype == np.uint8
    assert small.train_targets.dtype == small.test_targets.dtype == np.int32


def test_embedded_files_match_their_checksums_and_fit_in_six_megabytes() -> None:
    sums = dict(line.split("  ")[::-1] for line in (SMALL / "SHA256SUMS").read_text().splitlines())
    assert sorted(sums) == sorted(f"{name}.gz" for name in NAMES)
    for name, expected in sums.items():
        assert hashlib.sha256((SMALL / name).read_bytes()).hexdigest() == expected
    assert "Copyright 2017 Zalando SE" in (SMALL / "LICENSE").read_text()
    assert sum(path.stat().st_size for path in SMALL.iterdir()) < 6e6


def test_embedded_gzip_headers_hold_neither_name_nor_time() -> None:
    for name in NAMES:
        assert (SMALL / f"{name}.gz").read_bytes()[:8] == b"\x1f\x8b\x08\x00\0\0\0\0"


@needs_official
@pytest.mark.parametrize("split", ["train", "t10k"])
def test_embedded_set_is_a_subsequence_of_the_official_one(split: str) -> None:
    official = iter(examples(DEBIAN, split))
    assert all(example in official for example in examples(SMALL, split))


@needs_official
def test_script_rebuilds_the_committed_files(script: ModuleType) -> None:
    for name, built in script.build(DEBIAN).items():
        committed = (SMALL / name).read_bytes()
        if name.endswith(".gz"):
            assert gzip.decompress(built) == gzip.decompress(committed)
        if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng compresses to other bytes
            assert built == committed


def test_script_check_writes_nothing_and_names_what_differs(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = {"same": b"1", "changed": b"2", "absent": b"3"}
    monkeypatch.setattr(script, "build", lambda directory: built)
    monkeypatch.setattr(script, "TARGET", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    lay(tmp_path, {"same": b"1", "changed": b"0"})
    with pytest.raises(SystemExit, match=r"differs .*: changed, absent$"):
        script.main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"same": b"1", "changed": b"0"}
    lay(tmp_path, built)
    with pytest.raises(SystemExit) as caught:
        script.main()
    assert caught.value.code == 0


# --- the official sets -------------------------------------------------------------------------------


@needs_official
def test_official_fashion_mnist_loads_with_its_known_statistics() -> None:
    full = load_dataset("fashion-mnist", DEBIAN)
    assert np.bincount(full.train_targets).tolist() == [6000] * 10
    assert np.bincount(full.test_targets).tolist() == [1000] * 10
    assert full.train_targets[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    scaled = full.train_inputs / 255
    assert full.mean == pytest.approx([scaled.mean()], abs=5e-5)
    assert full.std == pytest.approx([scaled.std()], abs=5e-5)
    small = load_dataset("fashion-mnist-small")
    assert (small.mean, small.std) == (full.mean, full.std)


@needs_mnist
def test_official_mnist_loads_with_its_known_statistics() -> None:
    full = load_dataset("mnist", MNIST)
    assert full.train_inputs.shape == (60_000, 28, 28, 1)
    assert full.test_inputs.shape == (10_000, 28, 28, 1)
    assert full.train_targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert full.test_targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    scaled = full.train_inputs / 255
    assert full.mean == pytest.approx([scaled.mean()], abs=5e-5)
    assert full.std == pytest.approx([scaled.std()], abs=5e-5)


@needs_official
def test_fashion_mnist_downloads_as_published(
    data: Path, serve: Callable[[Serve], None], requested: list[str]
) -> None:
    """Debian removed name and time from the gzip headers; put back, the files have Zalando's MD5 sums."""
    published = {
        "train-images-idx3-ubyte": (1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        "train-labels-idx1-ubyte": (1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
        "t10k-images-idx3-ubyte": (1504176627, "bef4ecab320f06d8554ea6380940ec79"),
        "t10k-labels-idx1-ubyte": (1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
    }

    def official(url: str) -> bytes:
        name = url.rpartition("/")[2].removesuffix(".gz")
        time, md5 = published[name]
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + name.encode() + b"\0"
        content = header + (DEBIAN / f"{name}.gz").read_bytes()[10:]
        assert hashlib.md5(content).hexdigest() == md5
        return content

    serve(official)
    assert len(load_dataset("fashion-mnist").train_inputs) == 60_000
    address = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    assert requested == [f"{address}/{name}.gz" for name in NAMES]
    assert sorted(path.name for path in (data / "fashion-mnist").iterdir()) == sorted(
        f"{name}.gz" for name in NAMES
    )


# --- what a data set offers --------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_normalised_inputs_follow_the_definition(split: str) -> None:
    small = load_dataset("fashion-mnist-small")
    inputs = small.train_inputs if split == "train" else small.test_inputs
    normalised = small.normalised(split)  # type: ignore[arg-type]
    assert normalised.dtype == np.float32
    expected = (inputs.astype(np.float64) / 255 - 0.2860) / 0.3530
    np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="'train' and 'test', not 'valid'"):
        small.normalised("valid")  # type: ignore[arg-type]


def test_loading_twice_returns_the_same_read_only_object(tiny: str, data: Path) -> None:
    lay(data / tiny, tiny_files())
    loaded = load_dataset(tiny)
    assert load_dataset(tiny) is loaded
    assert load_dataset("fashion-mnist-small") is load_dataset("fashion-mnist-small")
    for array in (loaded.train_inputs, loaded.train_targets, loaded.test_inputs, loaded.test_targets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_every_listed_data_set_has_a_one_line_description() -> None:
    listed = list_datasets()
    assert list(listed) == [
        "fashion-mnist-small",
        "fashion-mnist",
        "mnist",
        "cifar-10",
        "cifar-100",
        "image-folder",
        "shakespeare",
        "penn-treebank",
        "wikitext-2",
        "wikitext-103",
    ]
    assert all(text and "\n" not in text for text in listed.values())


def test_unknown_name_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'fashion-mnits'.*Allowed: .*\bmnist\b") as caught:
        load_dataset("fashion-mnits")
    assert "Did you mean 'fashion-mnist'?" in str(caught.value)
    with pytest.raises(ValueError, match=r"Allowed: .*\.$"):
        load_dataset("zzz")


def test_directory_is_refused_for_the_embedded_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comes with the package"):
        load_dataset("fashion-mnist-small", tmp_path)


# --- where files are sought --------------------------------------------------------------------------


@pytest.mark.parametrize("gz", [False, True])
def test_plain_and_gzipped_files_are_read_from_a_directory(tiny: str, tmp_path: Path, gz: bool) -> None:
    assert_is_tiny(load_dataset(tiny, lay(tmp_path / "mine", tiny_files(), gz=gz)))


def test_plain_and_gzipped_files_may_be_mixed(tiny: str, tmp_path: Path) -> None:
    files = tiny_files()
    lay(tmp_path / "mine", dict(list(files.items())[:2]))
    lay(tmp_path / "mine", dict(list(files.items())[2:]), gz=True)
    assert_is_tiny(load_dataset(tiny, str(tmp_path / "mine")))


def test_a_given_directory_is_the_only_place_looked_at(
    tiny: str, tmp_path: Path, data: Path, requested: list[str]
) -> None:
    lay(data / tiny, tiny_files())
    lay(tmp_path / "system", tiny_files())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(tiny, tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value)
    assert str(data) not in str(caught.value)
    assert not requested


def test_the_data_directory_comes_before_the_debian_package(tiny: str, tmp_path: Path, data: Path) -> None:
    lay(tmp_path / "system", {name: b"not an IDX file" for name in NAMES})
    lay(data / tiny, tiny_files())
    assert_is_tiny(load_dataset(tiny))


def test_the_debian_package_comes_before_a_download(
    tiny: str, tmp_path: Path, data: Path, requested: list[str]
) -> None:
    lay(tmp_path / "system", tiny_files(), gz=True)
    lay(data / tiny, {NAMES[0]: b"an incomplete place is passed over"})
    assert_is_tiny(load_dataset(tiny))
    assert not requested


def test_a_download_fetches_what_the_data_directory_lacks(
    tiny: str, data: Path, serve: Callable[[Serve], None], requested: list[str]
) -> None:
    files = tiny_files()
    lay(data / tiny, {NAMES[0]: files[NAMES[0]]})
    serve(lambda url: gzip.compress(files[url.rpartition("/")[2].removesuffix(".gz")], mtime=0))
    assert_is_tiny(load_dataset(tiny))
    assert requested == [f"https://example.org/tiny/{name}.gz" for name in NAMES[1:]]
    load._load.cache_clear()
    assert_is_tiny(load_dataset(tiny))
    assert len(requested) == 3


def test_without_the_variable_the_user_cache_is_the_data_directory(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STALEGRAD_DATA")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    lay(tmp_path / "cache" / "stalegrad" / tiny, tiny_files())
    assert_is_tiny(load_dataset(tiny))


def test_changing_the_data_directory_changes_what_is_loaded(
    tiny: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(data / tiny, tiny_files())
    first = load_dataset(tiny)
    monkeypatch.setenv("STALEGRAD_DATA", str(lay(tmp_path / "other" / tiny, tiny_files()).parent))
    assert load_dataset(tiny) is not first


# --- what is said when something is wrong ------------------------------------------------------------


def test_missing_files_are_reported_with_every_place_and_the_remedies(
    tiny: str, tmp_path: Path, data: Path, requested: list[str]
) -> None:
    lay(data / tiny, {NAMES[0]: b""})
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(tiny)
    said = str(caught.value)
    for name in NAMES:
        assert name in said
    assert f"{data / tiny}: no {', '.join(NAMES[1:])}\n" in said
    assert f"{tmp_path / 'system'}: no such directory" in said
    assert f"Downloading https://example.org/tiny/{NAMES[1]}.gz failed: ConnectionError: the cable is cut" in said
    assert f"Put the files from https://example.org/tiny/ into {data / tiny}, set STALEGRAD_DATA" in said
    assert "apt-get install dataset-tiny" in said
    assert len(requested) == 1


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_sets_say_where_to_put_them(name: str, data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"(?s)'{name}' needs .*Put the files from http") as caught:
        load_dataset(name)
    assert f"{data / name}: no such directory" in str(caught.value)
    assert ("apt-get" in str(caught.value)) == (name == "fashion-mnist")


def test_a_download_of_wrong_checksum_is_refused_and_not_kept(
    tiny: str, data: Path, serve: Callable[[Serve], None]
) -> None:
    serve(lambda url: gzip.compress(tiny_files(seed=1)[url.rpartition("/")[2].removesuffix(".gz")], mtime=0))
    with pytest.raises(ValueError, match=r"hash of downloaded file .* does not match"):
        load_dataset(tiny)
    assert list((data / tiny).iterdir()) == []


@pytest.mark.parametrize("gz", [False, True])
def test_well_formed_files_of_another_data_set_are_refused(tiny: str, tmp_path: Path, gz: bool) -> None:
    with pytest.raises(ValueError, match=r"train-images.* not that of the official 'tiny'.*SHA-256"):
        load_dataset(tiny, lay(tmp_path / "mine", tiny_files(seed=1), gz=gz))


def damaged(**changes: bytes) -> dict[str, bytes]:
    """`tiny_files` with some replaced, keyed by train_images, train_labels, ..."""
    keys = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), NAMES, strict=True))
    return tiny_files() | {keys[key]: content for key, content in changes.items()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (damaged(train_images=tiny_files()[NAMES[0]][:-1]), r"train-images.*expected 52 bytes .* found 51"),
        (damaged(test_labels=tiny_files()[NAMES[3]] + b"\0"), r"t10k-labels.*expected 12 bytes .* found more"),
        (damaged(train_images=b"\0\0\x08\x03\0\0"), r"train-images.*header of 16 bytes, found 6"),
        (damaged(train_images=b""), r"train-images.*00 00 08 03; found an empty file"),
        (damaged(train_images=b"\x80\x04pickle"), r"train-images.*00 00 08 03; found 80 04 70 69"),
        (damaged(train_images=b"\0\0\x0d\x03" + bytes(12)), r"unsigned bytes.*found 00 00 0d 03"),
        (damaged(train_images=tiny_files()[NAMES[1]]), r"train-images.*3 dim.*found 00 00 08 01"),
        (damaged(train_labels=idx(np.zeros(5, np.uint8))), r"holds 6 images and .* 5 labels"),
        (damaged(test_labels=idx(np.array([0, 1, 10, 2], np.uint8))), r"t10k-labels.*below 10, found 10"),
        (damaged(test_images=idx(np.zeros((4, 2, 3), np.uint8))), r"t10k-images.*\(3, 2\).*\(2, 3\)"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_malformed_files_are_refused_by_name(
    tiny: str, tmp_path: Path, files: dict[str, bytes], message: str, gz: bool
) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(tiny, lay(tmp_path / "mine", files, gz=gz))


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(tiny_files()[NAMES[0]])[:-9],
        gzip.compress(tiny_files()[NAMES[0]])[:-8] + bytes(8),
        gzip.compress(tiny_files()[NAMES[0]])[:10] + b"\xff" * 40,
        tiny_files()[NAMES[0]],
    ],
    ids=["truncated", "wrong CRC", "bad stream", "not gzip"],
)
def test_damaged_gzip_files_are_refused_by_name(tiny: str, tmp_path: Path, content: bytes) -> None:
    mine = lay(tmp_path / "mine", tiny_files(), gz=True)
    (mine / f"{NAMES[0]}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: expected a complete gzip file"):
        load_dataset(tiny, mine)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_idx_arrays_survive_the_round_trip(array: np.ndarray) -> None:
    parsed = formats.parse_idx(fetching.Content("here", idx(array)), array.ndim)
    np.testing.assert_array_equal(parsed, array, strict=True)


@given(
    st.binary(max_size=20)
    | st.binary(max_size=8).map(lambda tail: b"\0\0\x08\x01" + tail)
    | st.tuples(st.integers(0, 3), st.binary(max_size=4)).map(
        lambda it: bytes([0, 0, 8, 1, 0, 0, 0, it[0]]) + it[1]
    ),
    st.integers(1, 2),
)
def test_arbitrary_bytes_are_parsed_exactly_or_refused(content: bytes, dimensions: int) -> None:
    well_formed = (
        content[:4] == bytes([0, 0, 8, dimensions])
        and len(content) >= 4 + 4 * dimensions
        and len(content) == 4 + 4 * dimensions + math.prod(struct.unpack_from(f">{dimensions}I", content, 4))
    )
    with nullcontext() if well_formed else pytest.raises(ValueError, match=r"^here: expected"):
        assert idx(formats.parse_idx(fetching.Content("here", content), dimensions)) == content


# --- files that hold more than they should ------------------------------------------------------------


def zeros(place: Path, header: bytes, count: int) -> None:
    """Write a gzip file of a header and many zeros."""
    with gzip.open(place, "wb", compresslevel=1) as opened:
        opened.write(header)
        for _ in range(count // 2**24):
            opened.write(bytes(2**24))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"", "expected an IDX file"),
        (idx(np.zeros((6, 3, 2), np.uint8))[:16], "expected 52 bytes as its header announces, found more"),
        (
            struct.pack(">HBBIII", 0, 8, 3, 2**20, 28, 28),
            "its header announces 822083600 bytes; at most 268435456",
        ),
    ],
    ids=["no header", "more than announced", "too much announced"],
)
def test_a_gz_file_of_many_zeros_is_refused_before_memory_is_taken(data, header, match):
    place = lay(data / "mnist", tiny_files())
    (place / NAMES[0]).unlink()
    zeros(place / f"{NAMES[0]}.gz", header, 2**28)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            load_dataset("mnist", place)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_text_that_is_too_large_is_refused(data, monkeypatch):
    lay(data, {"ptb.train.txt": b"a b\n", "ptb.test.txt": b"b\n" * 9})
    small = dataclasses.replace(sources.SOURCES["penn-treebank"], largest=10)
    monkeypatch.setitem(sources.SOURCES._entries, "penn-treebank", small)
    with pytest.raises(ValueError, match=r"ptb\.test\.txt: expected 10 bytes at most, found more"):
        load.load_text("penn-treebank", data)


def test_a_pipe_is_no_data_file(data):
    place = lay(data, tiny_files())
    (place / NAMES[0]).unlink()
    os.mkfifo(place / NAMES[0])
    with pytest.raises(FileNotFoundError, match=f"no {NAMES[0]}"):
        load_dataset("mnist", place)
