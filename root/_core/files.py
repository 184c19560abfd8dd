"""Atomic writing of files, so that a file exists completely or not at all, and checksums of files."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
"""File with the SHA-256 of every other file of a directory; ``sha256sum -c SHA256SUMS`` verifies them, too."""

_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")


def put(file: Path, content: bytes) -> None:
    """Write a file atomically, replacing an existing one; its content is on disk before the file appears.

    Raises:
        OSError: if it cannot be written; an existing file is kept.
    """
    handle, fresh = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with open(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(handle)
        os.chmod(fresh, 0o644)
        os.replace(fresh, file)
    except BaseException:
        os.unlink(fresh)
        raise


def check_regular(file: Path, what: str = "a file of a store") -> int:
    """Return the number of bytes of a regular file.

    Args:
        file: its path.
        what: the kind of file, for errors.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is a device, a pipe or a directory.
    """
    try:
        about = os.stat(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {file}") from None
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{file} is not a regular file: {what} must be one")
    return about.st_size


def read_regular(file: Path, at_most: int, what: str) -> bytes:
    """Return the bytes of a regular file.

    Args:
        file: its path.
        at_most: largest number of bytes that it may hold.
        what: the kind of file, for errors.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is a device, a pipe or a directory, or larger than ``at_most``.
    """
    size = check_regular(file, what)  # before opening: a pipe without a writer would block
    if size > at_most:
        raise ValueError(f"{file} has {size} bytes: {what} may have at most {at_most}")
    with file.open("rb") as opened:
        content = opened.read(at_most + 1)
    if len(content) > at_most:
        raise ValueError(f"{file} has more than {at_most} bytes: {what} may have at most that")
    return content


def write_sums(directory: Path) -> None:
    """Write the checksums of all files below a directory to its :data:`SUMS`."""
    lines = [f"{_sum(directory / name)}  {name}\n" for name in _names(directory)]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def check_sums(directory: Path, names: Iterable[str] = ()) -> None:
    """Check the files that the :data:`SUMS` of a directory names; further files, such as pictures, are allowed.

    Args:
        directory: a directory with checksums by :func:`write_sums`.
        names: files that must have a checksum, if they exist.

    Raises:
        FileNotFoundError: if there are no checksums, or a file that they name is missing.
        ValueError: if a file is not as it was written, or has no checksum.
    """
    sums = directory / SUMS
    if not sums.is_file():
        raise FileNotFoundError(f"{sums} is missing: {directory} is incomplete")
    content = read_regular(sums, 1 << 24, "a file of checksums")
    lines = _LINE.findall(content)
    if b"".join(digest + b"  " + name + b"\n" for digest, name in lines) != content:
        raise ValueError(f"{sums} is damaged: each line must hold a SHA-256, two blanks and the name of a file")
    for digest, encoded in lines:
        name = encoded.decode(errors="replace")
        if not (directory / name).exists():
            raise FileNotFoundError(f"{directory / name} is missing")
        if _sum(directory / name) != digest.decode():
            raise ValueError(f"{directory / name} is damaged: its SHA-256 is not that in {sums}")
    covered = {encoded.decode(errors="replace") for _, encoded in lines}
    for name in names:
        if name not in covered and (directory / name).exists():
            raise ValueError(f"{directory / name} has no checksum in {sums}: it was not written with the rest")


def _names(directory: Path) -> list[str]:
    files = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if not file.is_dir())
    return sorted(name for name in files if name != SUMS)


def _sum(file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"{file} is not a regular file")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
