"""Fingerprints of local data, which show whether files without an official checksum have changed."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from stalegrad.models.datasets.bounded import check_regular

SETTLED = 2_000_000_000
"""Nanoseconds after its last change from which the state of a file identifies its content. The clocks of file
systems are coarse: a file that is written twice within one tick looks unchanged."""

_known: dict[tuple[str, int, int, int, int], bytes] = {}


def fingerprint(place: Path, files: Iterable[Path] | None = None) -> str:
    """Return the SHA-256 over the names and contents of files below a directory, in hexadecimal digits.

    Names are relative to the directory, with slashes, in sorted order, so that a copy elsewhere has the same
    fingerprint. Within one process a file is read again only if its size, its times or its inode changed; a
    repeated call takes one ``stat`` per file.

    Args:
        place: the directory.
        files: the files to include; by default all below the directory except hidden ones.

    Raises:
        ValueError: if a file cannot be read or is not a regular file.
    """
    chosen = _all_files(place) if files is None else list(files)
    names = sorted((Path(os.path.relpath(file, place)).as_posix(), file) for file in chosen)
    digest = hashlib.sha256()
    for name, file in names:
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big") + encoded + _digest_of(file))
    return digest.hexdigest()


def _all_files(place: Path) -> list[Path]:
    files = (file for file in place.rglob("*") if not file.is_dir())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]


def _digest_of(file: Path) -> bytes:
    about = check_regular(file)
    state = (os.path.abspath(file), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if state in _known:
        return _known[state]
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from None
    if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > SETTLED:
        _known[state] = digest
    return digest
