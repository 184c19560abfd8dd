"""Loading of data sets by name."""

import os
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from stalegrad.models.datasets.dataset import Dataset, Text
from stalegrad.models.datasets.fetching import DATA_VARIABLE, check, content, find, local_files
from stalegrad.models.datasets.fingerprints import fingerprint
from stalegrad.models.datasets.folder import folder_fingerprint
from stalegrad.models.datasets.formats import Arrays
from stalegrad.models.datasets.sources import FOLDER, SOURCES


def load_dataset(name: str, directory: str | Path | None = None) -> Dataset:
    """Load images by name, downloading them from their official source if no local copy is found.

    With ``directory`` the files are searched only there. Without it, they are searched in this order:
    ``$STALEGRAD_DATA/<name>/`` (or ``<name>/`` in the user's cache directory), the directory of the Debian
    package, the official source. A download is stored in the first of these after its SHA-256 has been checked.

    Files may be plain or gzipped, under their official names, or in the official folder or archive (which is
    unpacked beside it). Their uncompressed contents must be the official ones. ``fashion-mnist-small`` comes with
    the package and needs no files. Repeated loads return the same object.

    Args:
        name: one of `list_datasets`.
        directory: the folder that holds the official files.

    Returns:
        The data set, with training and test examples in the official order.

    Raises:
        ValueError: if the name is unknown or that of a text, ``directory`` is given for a data set that comes
            with the package, or a file is damaged or not the official one.
        FileNotFoundError: if files are missing and cannot be downloaded.

    References:
        Fashion-MNIST: Xiao, Rasul, Vollgraf (2017), "Fashion-MNIST: a Novel Image Dataset for
        Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
        MNIST: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86(11), 2278-2324.
        CIFAR-10, CIFAR-100: Krizhevsky (2009), "Learning multiple layers of features from tiny images".

    Example:
        >>> from stalegrad.models import load_dataset
        >>> load_dataset("fashion-mnist-small").train_inputs.shape
        (10000, 28, 28, 1)
    """
    if SOURCES.find(name).kind != "images":
        raise ValueError(f"The data set {name!r} is a text: load it with load_text.")
    if name == FOLDER:
        raise ValueError(f"The data set {name!r} is not loaded but streamed: give it to a Problem.")
    loaded = _find_and_load(name, directory)
    assert isinstance(loaded, Dataset)
    return loaded


def load_text(name: str, directory: str | Path | None = None) -> Text:
    """Load a text by name, from the places that `load_dataset` searches; texts of the package need no files.

    Args:
        name: one of `list_datasets`.
        directory: the folder that holds the official files.

    Raises:
        ValueError: if the name is unknown or that of images, ``directory`` is given for a text that comes with
            the package, or a file is damaged.
        FileNotFoundError: if files are missing.

    References:
        Penn Treebank: Marcus, Santorini, Marcinkiewicz (1993), Computational Linguistics 19(2); as prepared by
        Mikolov et al. (2010), "Recurrent neural network based language model".
        WikiText: Merity, Xiong, Bradbury, Socher (2017), "Pointer sentinel mixture models" (ICLR).

    Example:
        >>> from stalegrad.models import load_text
        >>> text = load_text("shakespeare")
        >>> "".join(text.vocabulary[token] for token in text.train[:6])
        'HAMLET'
    """
    if SOURCES.find(name).kind != "text":
        raise ValueError(f"The data set {name!r} is made of images: load it with load_dataset.")
    loaded = _find_and_load(name, directory)
    assert isinstance(loaded, Text)
    return loaded


def data_fingerprint(name: str, directory: str | os.PathLike[str] | None = None) -> str | None:
    """Return the fingerprint of a data set's local files, or None if an official checksum identifies them.

    Args:
        name: one of `list_datasets`.
        directory: directory of its files, if they are not in the usual places.

    Returns:
        64 hexadecimal digits that change with the name or the content of a file that is read; None for data sets
        that come with the package or are verified by an official SHA-256.

    Raises:
        ValueError: if the name is unknown, or a file is not a regular file or cannot be read.
        FileNotFoundError: if files are missing.
    """
    source = SOURCES.find(name)
    if name == FOLDER:
        return folder_fingerprint(Path(os.fspath(directory or ".")).expanduser().resolve())
    if source.url is None or all(file.sha256 is not None for file in source.files):
        return None
    place, only = _place(name, directory)
    found = find(name, source, place, only=only)
    return fingerprint(found, local_files(found, source))


def _place(name: str, directory: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Return the first place to search for files, and whether it is the only one."""
    if directory is not None:
        return Path(directory).expanduser().resolve(), True
    import pooch

    root = os.environ.get(DATA_VARIABLE) or pooch.os_cache("stalegrad")
    return Path(root).expanduser().resolve() / name, False


def _find_and_load(name: str, directory: str | Path | None) -> Dataset | Text:
    if SOURCES[name].url is None:
        if directory is not None:
            raise ValueError(f"The data set {name!r} comes with the package: leave directory= out.")
        return _load(name, None, None, only=True)
    place, only = _place(name, directory)
    return _load(name, place, data_fingerprint(name, directory), only=only)


@lru_cache(maxsize=4)
def _load(name: str, directory: Path | None, fingerprint: str | None, *, only: bool) -> Dataset | Text:
    """Load from ``directory`` (None: from the package); unless ``only``, search further places and download.

    The fingerprint is a key of the cache: changed local files are another data set.
    """
    source = SOURCES[name]
    place: Traversable
    if directory is None:
        place = resources.files("stalegrad.models") / "data" / name
    else:
        place = find(name, source, directory, only=only)
    contents = [content(place, file, source) for file in source.files]
    loaded: Dataset | Text
    if source.kind == "text":
        train, test, vocabulary = source.read(contents)
        arrays, loaded = [train, test], Text(name, train, test, vocabulary)
    else:
        images: Arrays = source.read(contents, source.classes)
        arrays, loaded = list(images), Dataset(name, *images, source.classes, source.mean, source.std)
    for found, file in zip(contents, source.files, strict=True):
        check(found, file, name)
    for array in arrays:
        array.setflags(write=False)
    return loaded
