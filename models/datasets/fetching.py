"""Search, download and checks of the files of a data set, with errors for missing and wrong files."""

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stalegrad.models.datasets.bounded import read_bounded

DATA_VARIABLE = "STALEGRAD_DATA"


class File(NamedTuple):
    """An official file: its name without ``.gz``, the SHA-256 of its content and that of the official ``.gz``."""

    name: str
    sha256: str | None = None
    gz_sha256: str | None = None


class Content(NamedTuple):
    """The uncompressed bytes of a file and where they came from, for error messages."""

    where: str
    data: bytes


@dataclass(frozen=True)
class Source:
    """The files of a data set and the places that provide them.

    Attributes:
        summary: description in one line.
        files: the files, in the order in which ``read`` takes their contents.
        read: function from the contents (for images: and the number of classes) to the arrays of a `Dataset` or a
            `Text`.
        announced: function from the first 16 bytes of a file to the number of bytes that this header announces,
            or to None if they are not a header; None for a format without a header.
        largest: largest number of bytes of a file, uncompressed.
        kind: ``images`` or ``text``.
        mean: mean of each channel, for images.
        std: standard deviation of each channel, for images.
        classes: number of classes, for images.
        url: address of the folder of the .gz files or the archive; None: they are part of the package.
        archive: the .tar.gz that holds the files in ``folder``, and its SHA-256; None: each file is separate.
        folder: folder of the files in the official archive.
        download: whether files can be downloaded from ``url``; otherwise errors name it as the place to look.
        system: directory where a Debian package installs the files.
        package: name of that Debian package.
    """

    summary: str
    files: tuple[File, ...]
    read: Callable[..., Any]
    announced: Callable[[bytes], int | None] | None = None
    largest: int = 2**28
    kind: Literal["images", "text"] = "images"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: int = 10
    url: str | None = None
    archive: File | None = None
    folder: str = "."
    download: bool = True
    system: Path | None = None
    package: str | None = None


def find(name: str, source: Source, directory: Path, *, only: bool) -> Path:
    """Return the first place that holds every file, downloading into ``directory`` as a last resort.

    Raises:
        FileNotFoundError: if there is none; the error names the files, the places searched, and what to do.
        ValueError: if a download or an archive is not the official one.
    """
    places = [directory] if only or source.system is None else [directory, source.system]
    for place in places:
        if not _missing(place, source) or _unpack(place, source):
            return place
    looked = [f"  {place}: {_absence(place, source)}" for place in places]
    failure = "" if only or not source.download else _download(source, directory)
    if failure is None:
        return directory
    what = "the files" if source.archive is None else f"{source.archive.name} (or the files in it)"
    advice = f"Put {what} from {source.url} into {directory}"
    if not only:
        advice += f", set {DATA_VARIABLE} to a folder that has them under {name}/, or pass directory="
        advice += f"; or run `apt-get install {source.package}`" if source.package else ""
    needed = ", ".join(file.name for file in source.files)
    lines = [f"The data set {name!r} needs {needed} (plain or .gz). Looked in:", *looked]
    raise FileNotFoundError("\n".join([*lines, *([failure] if failure else []), advice + "."]))


def content(place: Traversable, file: File, source: Source) -> Content:
    """Return the content of a file, uncompressed; no more bytes are read than its header announces.

    Raises:
        ValueError: if it is not a regular file, is damaged, or holds more bytes than announced or allowed.
        FileNotFoundError: if it is missing from the package.
    """
    path = _path(place, file, source.folder)
    if path is None:
        raise FileNotFoundError(f"{place / file.name} is missing, plain and .gz: reinstall stalegrad.")
    most = source.largest
    if source.announced is not None:
        start = read_bounded(path, 16)[0]
        announced = source.announced(start)
        if announced is None:
            return Content(str(path), start)  # the parser of the format reports what is wrong
        if announced > most:
            raise ValueError(f"{path}: its header announces {announced} bytes; at most {most} are allowed.")
        most = announced
    data, more = read_bounded(path, most)
    if more:
        why = "as its header announces" if source.announced is not None else "at most"
        raise ValueError(f"{path}: expected {most} bytes {why}, found more.")
    return Content(str(path), data)


def local_files(place: Path, source: Source) -> list[Path]:
    """Return the paths of a data set's files in a place that has all of them."""
    found = [_path(place, file, source.folder) for file in source.files]
    return [Path(str(path)) for path in found if path is not None]


def check(content: Content, file: File, name: str) -> None:
    """Raise ValueError unless this is the official content."""
    found = hashlib.sha256(content.data).hexdigest()
    if file.sha256 is not None and found != file.sha256:
        raise ValueError(
            f"{content.where} is a well-formed file but not that of the official {name!r} "
            f"(other data sets use the same file names): expected content of SHA-256 {file.sha256}, "
            f"found {found}. Replace it, or delete it so that it is downloaded."
        )


def _missing(place: Path, source: Source) -> list[File]:
    return [file for file in source.files if _path(place, file, source.folder) is None]


def _absence(place: Path, source: Source) -> str:
    if not place.is_dir():
        return "no such directory"
    return "no " + ", ".join(file.name for file in _missing(place, source))


def _path(place: Traversable, file: File, folder: str) -> Traversable | None:
    candidates = (place / file.name, place / f"{file.name}.gz", place / folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


def _download(source: Source, directory: Path) -> str | None:
    """Download the files missing from ``directory``; return None, or a sentence that describes the failure."""
    import pooch

    for file in _missing(directory, source) if source.archive is None else [source.archive]:
        fname = f"{file.name}.gz" if source.archive is None else file.name
        url = f"{source.url}{fname}"
        try:
            pooch.retrieve(url, known_hash=file.gz_sha256, fname=fname, path=directory)
        except OSError as error:  # errors of the disk, and those of requests, which derive from OSError
            return f"Downloading {url} failed: {type(error).__name__}: {error}"
    if source.archive is not None:
        _unpack(directory, source)
    return None


def _unpack(place: Path, source: Source) -> bool:
    """Unpack the official archive if ``place`` has it; return whether it does."""
    if source.archive is None or not (place / source.archive.name).is_file():
        return False
    import pooch

    archive = place / source.archive.name
    found = pooch.file_hash(str(archive))
    if found != source.archive.gz_sha256:
        raise ValueError(
            f"{archive} is not the official archive: expected SHA-256 {source.archive.gz_sha256}, found {found}. "
            "Replace it, or delete it so that it is downloaded."
        )
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return True
