"""The binary version of CIFAR, from tiny files in exactly the official format."""

import dataclasses
import hashlib
import io
import tarfile

import numpy as np
import pytest

from stalegrad.models.datasets import SOURCES, load, load_dataset
from stalegrad.models.datasets.fetching import File

pytestmark = pytest.mark.usefixtures("offline")

CIFAR10 = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "cifar-10-batches-bin"
CIFAR100 = ("train.bin",), "test.bin", "cifar-100-binary"


def official(name, records=3):
    """Images (n, 32, 32, 3) and labels by file, and the files' contents: label(s), red, green, blue planes."""
    rng, files, images, labels = np.random.default_rng(0), {}, {}, {}
    train, test, _ = CIFAR10 if name == "cifar-10" else CIFAR100
    for file in (*train, test):
        images[file] = rng.integers(0, 256, (records, 32, 32, 3), np.uint8)
        labels[file] = rng.integers(0, 10 if name == "cifar-10" else 100, records)
        content = b""
        for image, label in zip(images[file], labels[file], strict=True):
            head = [label] if name == "cifar-10" else [19, label]  # 19 stands for a coarse label
            content += bytes(head) + b"".join(image[..., channel].tobytes() for channel in range(3))
        files[file] = content
    return files, images, labels


def archive(files, folder):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(params=["cifar-10", "cifar-100"])
def tiny(request, monkeypatch):
    """The entry of the table, as if the official files were tiny."""
    files, images, labels = official(request.param)
    source = SOURCES[request.param]
    packed = archive(files, source.folder)
    monkeypatch.setitem(
        SOURCES._entries,
        request.param,
        dataclasses.replace(
            source,
            files=tuple(File(file.name, hashlib.sha256(files[file.name]).hexdigest()) for file in source.files),
            archive=File(source.archive.name, gz_sha256=hashlib.sha256(packed).hexdigest()),
        ),
    )
    return request.param, files, images, labels, packed


def lay(directory, files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def assert_is(loaded, name, images, labels):
    train, test, _ = CIFAR10 if name == "cifar-10" else CIFAR100
    np.testing.assert_array_equal(loaded.train_inputs, np.concatenate([images[file] for file in train]))
    np.testing.assert_array_equal(loaded.train_targets, np.concatenate([labels[file] for file in train]))
    np.testing.assert_array_equal(loaded.test_inputs, images[test])
    np.testing.assert_array_equal(loaded.test_targets, labels[test])
    assert loaded.train_inputs.dtype == np.uint8
    assert loaded.train_targets.dtype == np.int32
    assert loaded.classes == (10 if name == "cifar-10" else 100)


def test_files_may_lie_in_the_directory_or_in_the_folder_of_the_archive(tiny, tmp_path):
    name, files, images, labels, _ = tiny
    assert_is(load_dataset(name, lay(tmp_path / "a", files)), name, images, labels)
    lay(tmp_path / "b" / SOURCES[name].folder, files)
    assert_is(load_dataset(name, tmp_path / "b"), name, images, labels)


def test_an_archive_in_the_directory_is_unpacked(tiny, tmp_path):
    name, _, images, labels, packed = tiny
    lay(tmp_path, {SOURCES[name].archive.name: packed})
    assert_is(load_dataset(name, tmp_path), name, images, labels)
    assert (tmp_path / SOURCES[name].folder / SOURCES[name].files[0].name).is_file()


def test_the_archive_is_downloaded_once(tiny, data, serve, requested):
    name, _, images, labels, packed = tiny
    serve(lambda url: packed)
    assert_is(load_dataset(name), name, images, labels)
    load._load.cache_clear()
    assert_is(load_dataset(name), name, images, labels)
    assert requested == [f"https://www.cs.toronto.edu/~kriz/{name}-binary.tar.gz"]
    assert (data / name / SOURCES[name].folder).is_dir()


def test_an_archive_of_wrong_checksum_is_refused(tiny, tmp_path, serve, data):
    name, files, *_ = tiny
    other = archive(files, "elsewhere")
    with pytest.raises(ValueError, match=r"tar\.gz is not the official archive: expected SHA-256"):
        load_dataset(name, lay(tmp_path, {SOURCES[name].archive.name: other}))
    serve(lambda url: other)
    with pytest.raises(ValueError, match="does not match the known hash"):
        load_dataset(name)


def test_an_archive_cannot_write_outside_its_directory(tiny, tmp_path, monkeypatch):
    name, files, *_ = tiny
    evil = archive(files, "../../outside")
    source = SOURCES[name]
    changed = File(source.archive.name, gz_sha256=hashlib.sha256(evil).hexdigest())
    monkeypatch.setitem(SOURCES._entries, name, dataclasses.replace(source, archive=changed))
    with pytest.raises(tarfile.OutsideDestinationError):
        load_dataset(name, lay(tmp_path / "deep" / "er", {source.archive.name: evil}))
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_missing_files_are_reported_with_the_archive_to_get(name, data):
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name)
    said = str(caught.value)
    assert f"Downloading https://www.cs.toronto.edu/~kriz/{name}-binary.tar.gz failed" in said
    assert f"Put {name}-binary.tar.gz (or the files in it) from https://www.cs.toronto.edu/~kriz/ into" in said
    assert f"{data / name}: no such directory" in said
    assert SOURCES[name].files[0].name in said


def test_files_that_are_not_whole_records_or_hold_wrong_labels_are_refused(tiny, tmp_path):
    name, files, *_ = tiny
    first = SOURCES[name].files[0].name
    size = 3073 if name == "cifar-10" else 3074
    with pytest.raises(
        ValueError, match=rf"{first}: expected records of {size} bytes .* found {3 * size - 1} bytes"
    ):
        load_dataset(name, lay(tmp_path / "a", files | {first: files[first][:-1]}))
    with pytest.raises(ValueError, match=rf"{first}: expected records"):
        load_dataset(name, lay(tmp_path / "b", files | {first: b""}))
    with pytest.raises(ValueError, match=rf"{first}: expected labels below \d+, found 200"):
        load_dataset(name, lay(tmp_path / "c", files | {first: b"\xc8\xc8" + files[first][2:]}))
    changed = files[first][:-1] + bytes([files[first][-1] ^ 1])
    with pytest.raises(ValueError, match=rf"{first} is a well-formed file but not that of the official"):
        load_dataset(name, lay(tmp_path / "d", files | {first: changed}))
