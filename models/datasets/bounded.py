"""Reading of data files: regular files only, and no more bytes than a file may hold."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from importlib.resources.abc import Traversable
from pathlib import Path


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
        raise ValueError(f"{path} is not a regular file; only regular files are read.")
    return about


def read_bounded(path: Traversable, most: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, uncompressed, and whether there are more.

    Args:
        path: path of a regular file, or of a file in a package; a file whose name ends with .gz is uncompressed.
        most: largest number of bytes to return; hardly more than these are held in memory.

    Raises:
        ValueError: if it is not a regular file, or a .gz file is damaged.
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
