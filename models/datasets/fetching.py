"""Where the files of a data set are sought, and what is said when they are missing or wrong."""

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
    """An official file: name without ``.gz``, SHA-256 of its content and of the official ``.gz``."""

    name: str
    sha256: str | None = None
    gz_sha256: str | None = None


class Content(NamedTuple):
    """The uncompressed bytes of a file and where they came from, for error messages."""

    where: str
    data: bytes


@dataclass(frozen=True)
class Source:
    """What a data set is made of and where it is to be had.

    Attributes:
        summary: one line on what it is.
        files: in the order in which ``read`` takes their contents.
        read: from contents (of images: and the number of classes) to what a `Dataset` or a `Text` is made of.
        announced: from the first 16 bytes of a file to the number of bytes that they announce, None if they are
            no header; None for a format without one.
        largest: bytes that a file may hold, uncompressed.
        kind: ``images`` or ``text``.
        mean: of images, per channel.
        std: of images, per channel.
        classes: of images.
        url: of the folder that holds the .gz files, or the archive; None: shipped with the package.
        archive: the .tar.gz that holds the files in ``folder``, and its SHA-256; None: they come one by one.
        folder: where the official archive has the files.
        download: whether the address can be downloaded from; else it is only where users find the files.
        system: where a Debian package installs it.
        package: the name of that package.
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
        FileNotFoundError: if there is none, saying what was looked for, where, and how to put it there.
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
    """Return the content of a file, uncompressed: the header is read first, then no more than it announces.

    Raises:
        ValueError: if it is no regular file, is damaged, or holds more than it announces or may hold.
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
            return Content(str(path), start)  # what is wrong is for the format to say
        if announced > most:
            raise ValueError(f"{path}: its header announces {announced} bytes; at most {most} are allowed.")
        most = announced
    data, more = read_bounded(path, most)
    if more:
        why = "as its header announces" if source.announced is not None else "at most"
        raise ValueError(f"{path}: expected {most} bytes {why}, found more.")
    return Content(str(path), data)


def local_files(place: Path, source: Source) -> list[Path]:
    """Return the files of a data set in a place that has them all."""
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
    """Fetch what ``directory`` lacks; return None, or a sentence on what went wrong."""
    import pooch

    for file in _missing(directory, source) if source.archive is None else [source.archive]:
        fname = f"{file.name}.gz" if source.archive is None else file.name
        url = f"{source.url}{fname}"
        try:
            pooch.retrieve(url, known_hash=file.gz_sha256, fname=fname, path=directory)
        except OSError as error:  # that of the disk, or requests' own, which derive from it
            return f"Downloading {url} failed: {type(error).__name__}: {error}"
    if source.archive is not None:
        _unpack(directory, source)
    return None


def _unpack(place: Path, source: Source) -> bool:
    """Unpack the official archive, if it lies there; return whether it does."""
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
