"""Parsers of file formats: IDX, the binary version of CIFAR, and texts. Nothing is unpickled."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from stalegrad.models.datasets.dataset import Inputs, Targets, Tokens
from stalegrad.models.datasets.fetching import Content

Arrays = tuple[Inputs, Targets, Inputs, Targets]
Words = tuple[Tokens, Tokens, tuple[str, ...]]

END_OF_LINE = "<eos>"

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors write before a text in UTF-8."""


def parse_idx(content: Content, dimensions: int) -> Inputs:
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


def idx_bytes(header: bytes) -> int | None:
    """Return the number of bytes of an IDX file according to its first 16, or None if they are not a header."""
    dimensions = header[3] if header[:3] == bytes([0, 0, 8]) else 0
    if not 1 <= dimensions <= 3 or len(header) < 4 + 4 * dimensions:
        return None
    sizes = [int.from_bytes(header[i : i + 4], "big") for i in range(4, 4 + 4 * dimensions, 4)]
    return 4 + 4 * dimensions + math.prod(sizes)


def _read_pair(images: Content, labels: Content, classes: int) -> tuple[Inputs, Targets]:
    inputs, targets = parse_idx(images, 3), parse_idx(labels, 1)
    if len(inputs) != len(targets):
        raise ValueError(
            f"{images.where} holds {len(inputs)} images and {labels.where} {len(targets)} labels; "
            "expected as many labels as images."
        )
    if (targets >= classes).any():
        raise ValueError(f"{labels.where}: expected labels below {classes}, found {targets.max()}.")
    return inputs[..., None], targets.astype(np.int32)


def read_idx(contents: Sequence[Content], classes: int) -> Arrays:
    """Read the files of training images, training labels, test images and test labels, in this order."""
    train_images, train_labels, test_images, test_labels = contents
    train = _read_pair(train_images, train_labels, classes)
    test = _read_pair(test_images, test_labels, classes)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{test_images.where}: expected images of {train[0].shape[1:3]} pixels as in "
            f"{train_images.where}, found {test[0].shape[1:3]}."
        )
    return *train, *test


def read_cifar(contents: Sequence[Content], classes: int) -> Arrays:
    """Read the binary version of CIFAR: training files, then the test file.

    A record consists of one byte of label (CIFAR-100: the coarse label, then the fine one, which is used), then
    32 x 32 bytes each of red, green and blue, row by row.

    Reference: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    labels = 2 if classes == 100 else 1
    *train, test = (_read_cifar_file(content, labels, classes) for content in contents)
    inputs, targets = zip(*train, strict=True)
    return np.concatenate(inputs), np.concatenate(targets), *test


def _read_cifar_file(content: Content, labels: int, classes: int) -> tuple[Inputs, Targets]:
    record = labels + 32 * 32 * 3
    count, rest = divmod(len(content.data), record)
    if rest or not count:
        raise ValueError(
            f"{content.where}: expected records of {record} bytes ({labels} of label, 3072 of pixels), found "
            f"{len(content.data)} bytes."
        )
    records = np.frombuffer(content.data, np.uint8).reshape(count, record)
    targets = records[:, labels - 1].astype(np.int32)
    if (targets >= classes).any():
        raise ValueError(f"{content.where}: expected labels below {classes}, found {targets.max()}.")
    pixels = records[:, labels:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), targets


def read_characters(contents: Sequence[Content]) -> Words:
    """Read a training and a test text in ASCII, as one token per character."""
    train, test = (np.frombuffer(content.data, np.uint8) for content in contents)
    characters = np.unique(np.concatenate([train, test]))
    numbers = np.zeros(256, np.int32)
    numbers[characters] = np.arange(len(characters))
    return numbers[train], numbers[test], tuple(map(chr, characters))


def read_words(contents: Sequence[Content]) -> Words:
    """Read a training and a test text, as one token per word between blanks, and ``<eos>`` after every line.

    Words are numbered in the order of their first appearance in the training text.
    """
    train, test = contents
    numbers: dict[str, int] = {}
    trained = np.fromiter((numbers.setdefault(word, len(numbers)) for word in _words(train)), np.int32)
    try:
        tested = np.fromiter((numbers[word] for word in _words(test)), np.int32)
    except KeyError as error:
        raise ValueError(
            f"{test.where}: expected words of the training text {train.where} only (rare ones replaced by "
            f"<unk>), found {error.args[0]!r}."
        ) from None
    return trained, tested, tuple(numbers)


def _words(content: Content) -> Iterable[str]:
    """Yield the words of a text line by line, without a list of all words."""
    try:
        for line in content.data.removeprefix(BOM).splitlines():
            yield from line.decode().split()
            yield END_OF_LINE
    except UnicodeDecodeError as error:
        raise ValueError(f"{content.where}: expected a text in UTF-8, found {error.reason}.") from None
