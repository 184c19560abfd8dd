"""Checks of the files and lists of measured times that users give."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad._core.files import read_regular
from stalegrad.simulator.timing.logs.sources import decoded

LARGEST_FILE = 2**26
"""Largest number of bytes of a file of times, enough for about six million times."""

LARGEST = float(np.finfo(float).max)


def path_of(owner: str, value: Any) -> str:
    """Return the path of a file as a text.

    Args:
        owner: name of the delay that has the file, for errors.
        value: a text or a path.

    Raises:
        ValueError: for any other value.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"file of {owner} = {value!r:.200} is not allowed: give the path of a text file")
    return path


def checksum(owner: str, file: str, expected: str | None) -> str:
    """Return the SHA-256 of a file.

    Raises:
        ValueError: if the checksum is not the expected one, or the file cannot be read.
        FileNotFoundError: if there is no such file.
    """
    found = hashlib.sha256(_content(owner, file)).hexdigest()
    if expected not in (None, found):
        raise ValueError(f"sha256 of {file} is {found}, but the spec says {expected}")
    return found


def read(owner: str, file: str, sha256: str, allowed: str) -> str:
    """Return the text of a file, which must have this checksum.

    Args:
        owner: name of the delay that has the file, for errors.
        file: path of the file.
        sha256: checksum of the file.
        allowed: allowed content of the file, for errors.

    Raises:
        ValueError: if the checksum differs, or the file is not text in UTF-8.
    """
    content = _content(owner, file)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"file of {owner} = {file!r} has changed since the delay was made")
    return decoded(content, file, allowed)


def _content(owner: str, file: str) -> bytes:
    try:
        return read_regular(Path(file), LARGEST_FILE, "a file of times")
    except FileNotFoundError:
        raise FileNotFoundError(f"file of {owner} = {file!r} does not exist: give a text file of times") from None
    except OSError as error:
        raise ValueError(f"file of {owner} = {file!r:.200} cannot be read: {error.strerror}") from None


def numbers(where: str, values: Any, above_zero: bool = False) -> Floats:
    """Return numbers as an array.

    Args:
        where: name of the numbers in errors, e.g. ``samples of empirical``.
        values: a list or a one-dimensional array of finite numbers of at least 0.
        above_zero: whether 0 is an error, too.

    Raises:
        ValueError: for a number that is not allowed; it names the first such number.
    """
    least = "greater than 0" if above_zero else "of at least 0"
    array = isinstance(getattr(values, "ndim", None), int) and hasattr(values, "tolist")
    if array and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray):
        raise ValueError(
            f"{where} = {values!r:.200} is not allowed: give a list or a one-dimensional array of finite numbers "
            f"{least}"
        )
    for i, value in enumerate(values):
        plain = value.item() if getattr(value, "ndim", None) == 0 else value
        number = isinstance(plain, int | float) and not isinstance(plain, bool)
        if not number or not 0 <= plain <= LARGEST or (above_zero and plain == 0):
            raise ValueError(f"{where}: number {i} = {plain!r:.60} is not allowed: finite and {least}")
    return np.array(values, float)
