"""Image data sets: one table says what each is made of, where it is sought and what it must hash to.

A further data set in IDX format is one entry of ``_SOURCES``; another format is an entry with its own
``read``. Nothing here ever unpickles.
"""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pooch
from numpy.typing import NDArray

from stalegrad.models.naming import unknown_name

DATA_VARIABLE = "STALEGRAD_DATA"

Inputs = NDArray[np.uint8]
Targets = NDArray[np.int32]
Arrays = tuple[Inputs, Targets, Inputs, Targets]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set held in memory; its arrays are read-only, since loads share them.

    Attributes:
        name: the name it was loaded by.
        train_inputs: uint8 (n, height, width, channels), intensities 0 to 255.
        train_targets: int32 (n,), each in [0, classes).
        test_inputs: as ``train_inputs``, the official test set.
        test_targets: as ``train_targets``.
        classes: number of classes.
        mean: per channel, of the official training inputs scaled to [0, 1].
        std: per channel, likewise.
    """

    name: str
    train_inputs: Inputs
    train_targets: Targets
    test_inputs: Inputs
    test_targets: Targets
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, split: Literal["train", "test"]) -> NDArray[np.float32]:
        """Return the inputs of one split as ``(x / 255 - mean) / std``.

        Args:
            split: ``"train"`` or ``"test"``; both use the statistics of the training set.

        Returns:
            float32 (n, height, width, channels), a new array at each call.

        Raises:
            ValueError: if ``split`` is neither.
        """
        if split not in ("train", "test"):
            raise ValueError(f"A data set has the splits 'train' and 'test', not {split!r}.")
        inputs = self.train_inputs if split == "train" else self.test_inputs
        scaled = inputs.astype(np.float32)
        scaled /= 255
        scaled -= np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return scaled


def list_datasets() -> dict[str, str]:
    """Return every name that `load_dataset` knows, with one line on what it is."""
    return {name: source.summary for name, source in _SOURCES.items()}


def check_name(name: str) -> None:
    """Raise ValueError unless ``load_dataset`` knows the name."""
    if name not in list(_SOURCES):
        raise ValueError(unknown_name("data set", name, _SOURCES))


def load_dataset(name: str, directory: str | Path | None = None) -> Dataset:
    """Load a data set by name, fetching it from its official source if no local copy is found.

    With ``directory`` the files are sought there and nowhere else. Without it, in this order:
    ``$STALEGRAD_DATA/<name>/`` (or ``<name>/`` in the user's cache directory), the directory of the
    Debian package, the official source; a download is stored in the first of these once its SHA-256
    is right. Files may be plain or gzipped, under their official names; their uncompressed contents
    must be the official ones. ``fashion-mnist-small`` comes with the package and needs no files.
    Loading the same thing again returns the same object.

    Args:
        name: one of `list_datasets`.
        directory: the folder that holds the official files.

    Returns:
        The data set, training and test examples in the official order.

    Raises:
        ValueError: if the name is unknown, ``directory`` is given for a data set that comes with the
            package, or a file is damaged or not the official one.
        FileNotFoundError: if files are missing and cannot be downloaded.

    References:
        Fashion-MNIST: Xiao, Rasul, Vollgraf (2017), "Fashion-MNIST: a Novel Image Dataset for
        Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
        MNIST: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86(11), 2278-2324.
    """
    check_name(name)
    if _SOURCES[name].url is None:
        if directory is not None:
            raise ValueError(f"The data set {name!r} comes with the package: leave directory= out.")
        return _load(name, None, only=True)
    if directory is not None:
        return _load(name, Path(directory).expanduser().resolve(), only=True)
    root = os.environ.get(DATA_VARIABLE) or pooch.os_cache("stalegrad")
    return _load(name, Path(root).expanduser().resolve() / name, only=False)


@lru_cache(maxsize=4)
def _load(name: str, directory: Path | None, *, only: bool) -> Dataset:
    """Load from ``directory`` (None: from the package); if not ``only``, look further and download."""
    source = _SOURCES[name]
    place: Traversable
    if directory is None:
        place = resources.files("stalegrad.models") / "data" / name
    else:
        place = _find(name, source, directory, only=only)
    contents = [_content(place, file) for file in source.files]
    arrays = source.read(contents, source.classes)
    for content, file in zip(contents, source.files, strict=True):
        _check(content, file, name)
    for array in arrays:
        array.setflags(write=False)
    return Dataset(name, *arrays, source.classes, source.mean, source.std)


# --- finding -----------------------------------------------------------------------------------------


class _File(NamedTuple):
    """An official file: name without ``.gz``, SHA-256 of its content and of the official ``.gz``."""

    name: str
    sha256: str | None = None
    gz_sha256: str | None = None


class _Content(NamedTuple):
    """The uncompressed bytes of a file and where they came from, for error messages."""

    where: str
    data: bytes


@dataclass(frozen=True)
class _Source:
    """What a data set is made of and where it is to be had."""

    summary: str
    files: tuple[_File, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    read: Callable[[Sequence[_Content], int], Arrays]
    classes: int = 10
    url: str | None = None  # of the folder that holds the .gz files; None: shipped with the package
    system: Path | None = None  # where a Debian package installs it
    package: str | None = None  # the name of that package


def _find(name: str, source: _Source, directory: Path, *, only: bool) -> Path:
    """Return the first place that holds every file, downloading into ``directory`` as a last resort."""
    places = [directory] if only or source.system is None else [directory, source.system]
    for place in places:
        if not _missing(place, source):
            return place
    looked = [f"  {place}: {_absence(place, source)}" for place in places]
    failure = "" if only else _download(source, directory)
    if failure is None:
        return directory
    advice = f"Put the files from {source.url} into {directory}"
    if not only:
        advice += f", set {DATA_VARIABLE} to a folder that has them under {name}/, or pass directory="
        advice += f"; or run `apt-get install {source.package}`" if source.package else ""
    needed = ", ".join(file.name for file in source.files)
    lines = [f"The data set {name!r} needs {needed} (plain or .gz). Looked in:", *looked]
    raise FileNotFoundError("\n".join([*lines, *([failure] if failure else []), advice + "."]))


def _missing(place: Path, source: _Source) -> list[_File]:
    return [file for file in source.files if _path(place, file) is None]


def _absence(place: Path, source: _Source) -> str:
    if not place.is_dir():
        return "no such directory"
    return "no " + ", ".join(file.name for file in _missing(place, source))


def _path(place: Traversable, file: _File) -> Traversable | None:
    candidates = (place / file.name, place / f"{file.name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _download(source: _Source, directory: Path) -> str | None:
    """Fetch what ``directory`` lacks; return None, or a sentence on what went wrong."""
    for file in _missing(directory, source):
        url = f"{source.url}{file.name}.gz"
        try:
            pooch.retrieve(url, known_hash=file.gz_sha256, fname=f"{file.name}.gz", path=directory)
        except OSError as error:  # that of the disk, or requests' own, which derive from it
            return f"Downloading {url} failed: {type(error).__name__}: {error}"
    return None


def _content(place: Traversable, file: _File) -> _Content:
    path = _path(place, file)
    if path is None:
        raise FileNotFoundError(f"{place / file.name} is missing, plain and .gz: reinstall stalegrad.")
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: expected a complete gzip file, found damage: {error}.") from error
    return _Content(str(path), data)


def _check(content: _Content, file: _File, name: str) -> None:
    found = hashlib.sha256(content.data).hexdigest()
    if file.sha256 is not None and found != file.sha256:
        raise ValueError(
            f"{content.where} is a well-formed file but not that of the official {name!r} "
            f"(other data sets use the same file names): expected content of SHA-256 {file.sha256}, "
            f"found {found}. Replace it, or delete it so that it is downloaded."
        )


# --- the IDX format ----------------------------------------------------------------------------------


def _parse_idx(content: _Content, dimensions: int) -> Inputs:
    """Parse an IDX file of unsigned bytes: 0, 0, 8, number of dimensions; big-endian sizes; the data.

    Reference: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
    """
    where, data = content
    magic = bytes([0, 0, 8, dimensions])
    if data[:4] != magic:
        raise ValueError(
            f"{where}: expected an IDX file of unsigned bytes in {dimensions} dimension(s), which starts "
            f"with {magic.hex(' ')}; found {data[:4].hex(' ') or 'an empty file'}."
        )
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise ValueError(f"{where}: expected an IDX header of {header} bytes, found {len(data)} bytes.")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise ValueError(f"{where}: expected {expected} bytes for the shape {shape}, found {len(data)}.")
    return np.frombuffer(data, np.uint8)[header:].reshape(shape)


def _read_pair(images: _Content, labels: _Content, classes: int) -> tuple[Inputs, Targets]:
    inputs, targets = _parse_idx(images, 3), _parse_idx(labels, 1)
    if len(inputs) != len(targets):
        raise ValueError(
            f"{images.where} holds {len(inputs)} images and {labels.where} {len(targets)} labels; "
            "expected as many labels as images."
        )
    if (targets >= classes).any():
        raise ValueError(f"{labels.where}: expected labels below {classes}, found {targets.max()}.")
    return inputs[..., None], targets.astype(np.int32)


def _read_idx(contents: Sequence[_Content], classes: int) -> Arrays:
    """Read training images, training labels, test images, test labels."""
    train_images, train_labels, test_images, test_labels = contents
    train = _read_pair(train_images, train_labels, classes)
    test = _read_pair(test_images, test_labels, classes)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{test_images.where}: expected images of {train[0].shape[1:3]} pixels as in "
            f"{train_images.where}, found {test[0].shape[1:3]}."
        )
    return *train, *test


# --- the table ---------------------------------------------------------------------------------------

_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx_files(sha256: Sequence[str | None], gz_sha256: Sequence[str | None]) -> tuple[_File, ...]:
    return tuple(map(_File, _IDX_NAMES, sha256, gz_sha256))


_SOURCES: dict[str, _Source] = {
    "fashion-mnist-small": _Source(
        summary="Fashion-MNIST, 1,000 training and 200 test images per class; comes with the package",
        files=tuple(map(_File, _IDX_NAMES)),  # their checksums lie beside them, in SHA256SUMS
        mean=(0.2860,),
        std=(0.3530,),
        read=_read_idx,
    ),
    "fashion-mnist": _Source(
        summary="Fashion-MNIST, 60,000 + 10,000 grey images of clothing, 28 x 28, 10 classes",
        files=_idx_files(
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        mean=(0.2860,),
        std=(0.3530,),
        read=_read_idx,
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        system=Path("/usr/share/datasets/fashion-mnist"),
        package="dataset-fashion-mnist",
    ),
    "mnist": _Source(
        summary="MNIST, 60,000 + 10,000 grey images of handwritten digits, 28 x 28, 10 classes",
        files=_idx_files(
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        mean=(0.1307,),
        std=(0.3081,),
        read=_read_idx,
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
}
