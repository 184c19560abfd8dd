"""Readers and writers of the files of a result. Readers trust nothing in the files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.files import read_regular
from stalegrad._core.types import Table

T = TypeVar("T")

MAX_TEXT = 16 << 20
"""Largest number of bytes of a spec or of a summary."""
WINDOWS = os.name == "nt"
BITS = " as bits of "
"""Text in the name of an array, before the type whose bits the array holds."""
MAX_ROWS = 100_000_000
"""Largest number of rows of a table."""


def write_table(table: pd.DataFrame, file: Path, *, index: bool = False) -> None:
    """Write a table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pandas(table, preserve_index=None if index else False), file)


def read_table(file: Path) -> pd.DataFrame:
    """Return the table of a Parquet file, after checking the number of rows that it announces."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        rows = opened.metadata.num_rows
        if rows > MAX_ROWS:
            raise ValueError(f"it announces {rows} rows: at most {MAX_ROWS}")
        table: pd.DataFrame = opened.read().to_pandas()
    return table


def write_arrays(arrays: Mapping[str, npt.ArrayLike], file: Path) -> None:
    """Write arrays uncompressed; arrays of a type that NumPy lacks, for example bfloat16, are written as bits."""
    np.savez(file, **dict(_stored(name, np.asarray(value)) for name, value in arrays.items()))  # type: ignore[arg-type]


def _stored(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if value.dtype.kind != "V":
        return name, value
    return f"{name}{BITS}{value.dtype.name}", value.view(f"u{value.dtype.itemsize}")


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return arrays that :func:`write_arrays` wrote; they must be uncompressed, so no larger than the file."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its arrays are compressed; those of a result are not")
        with np.load(file, allow_pickle=False) as arrays:
            return dict(_restored(name, value) for name, value in arrays.items())


def _restored(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    name, _, dtype = name.partition(BITS)
    if not dtype:
        return name, value
    import jax.numpy as jnp

    return name, value.view(jnp.dtype(dtype))


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8."""
    return read_regular(file, MAX_TEXT, "a text of a result").decode()


def read_json(file: Path) -> Table:
    """Return the table of a JSON file."""
    return dict(json.loads(read_text(file)))


def read_file(file: Path, read: Callable[[Path], T]) -> T:
    """Return the value that ``read`` returns for a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, for any reason; it names the file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no result at {file.parent}: {file.name} is missing")
    try:
        return read(file)
    except (Exception, RecursionError) as error:
        raise ValueError(f"{file} is damaged or not of a result: {type(error).__name__}: {error}") from None


def flush(directory: Path) -> None:
    """Wait until all files below a directory are on the disk, and directories where they can be opened."""
    for place in [*directory.rglob("*"), directory]:
        if place.is_dir() and WINDOWS:
            continue
        handle = os.open(place, os.O_RDWR if WINDOWS else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
