"""Tables of logs: from CSV, gzip, Parquet or a DataFrame, as columns and a name for every row."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stalegrad._core.files import check_regular
from stalegrad._core.specs import shown

LARGEST_TEXT = 2**26
"""Largest number of bytes of a CSV log, uncompressed."""

MOST_ROWS = 20_000_000
"""Largest number of rows of a Parquet log."""

_BLOCK = 1 << 20


class LogTable(NamedTuple):
    """A table of a log.

    Attributes:
        columns: values by name in the log, lists or one-dimensional arrays.
        place: function from a row, counted from 0, to its place in the log, for errors.
        name: name of the table in errors.
    """

    columns: Mapping[str, Sequence[object] | np.ndarray]
    place: Callable[[int], str]
    name: str


def load(source: object, what: str, allowed: str) -> LogTable:
    """Return the table of a log.

    Args:
        source: a DataFrame; or the path of a CSV file (comma, semicolon or tab between columns, a header first,
            ``#`` starts a comment line), of a gzipped CSV file, or of a Parquet file.
        what: name of the log in errors, e.g. ``a log of intervals``.
        allowed: allowed content, for errors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is too large, damaged or not a table; it names the line.
    """
    if hasattr(source, "columns"):
        return frame_table(source, what)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"{what} = {shown(source)} is not allowed: give a path or a DataFrame")
    file = Path(source)
    if starts_with(file, b"PAR1", what):
        return _parquet(file, what)
    content = b"".join(blocks(file, LARGEST_TEXT, what))
    return csv_table(decoded(content, str(file), allowed), str(file), allowed)


def frame_table(frame: Any, what: str) -> LogTable:
    """Return the table of a DataFrame; rows are counted from 0 in errors.

    Raises:
        ValueError: if two columns have the same name.
    """
    names = [str(name) for name in frame.columns]
    _check_header(names, f"the table of {what}")
    columns = {name: _values(frame.iloc[:, i]) for i, name in enumerate(names)}
    return LogTable(columns, lambda row: f"row {row} of the table of {what}", f"the table of {what}")


def _values(column: Any) -> Sequence[object] | np.ndarray:
    """Return the values of a Series: times with a zone in UTC, numbers as arrays, others as a list."""
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufM"
    values: Sequence[object] | np.ndarray = column.to_numpy() if plain else column.tolist()
    return values


def csv_table(text: str, file: str, allowed: str) -> LogTable:
    """Return the table of a CSV text.

    Args:
        text: a header, then rows; comma, semicolon or tab between columns.
        file: path of the file, for errors.
        allowed: allowed content, for errors.

    Raises:
        ValueError: for a line whose number of columns is wrong; it names the line.
    """
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"]
    if not lines:
        raise ValueError(f"{file} has no rows: give {allowed}")
    between = next((mark for mark in ";\t" if mark in lines[0][1]), ",")
    reader = csv.reader((line for _, line in lines), delimiter=between)
    try:
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise ValueError(f"{file}, line {lines[reader.line_num - 1][0]}: {error}; give {allowed}") from None
    numbers = [number for number, _ in lines]
    if len(rows) != len(lines):
        raise ValueError(f"{file} has cells of several lines: give {allowed}")
    header, rows = rows[0], rows[1:]
    _check_header(header, file)
    for number, row in zip(numbers[1:], rows, strict=True):
        if len(row) != len(header):
            raise ValueError(f"{file}, line {number}: {len(row)} columns, but the header has {len(header)}")
    columns = (
        dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)) if rows else dict.fromkeys(header, ())
    )
    return LogTable(columns, lambda row: f"{file}, line {numbers[row + 1]}", file)


def _check_header(names: Sequence[str], table: str) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{table} has the column {shown(twice)} {names.count(twice)} times: give it once")


# Files


def starts_with(file: Path, magic: bytes, what: str) -> bool:
    """Return whether a regular file begins with these bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a device, a pipe or a directory, or cannot be read.
    """
    try:
        check_regular(file, what)  # before opening, which a pipe without a writer would block
        with file.open("rb") as opened:
            return opened.read(len(magic)) == magic
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} = {str(file)!r:.200} does not exist: give a path") from None
    except OSError as error:
        raise ValueError(f"{what} = {str(file)!r:.200} cannot be read: {error.strerror}") from None


def blocks(file: Path, at_most: int, what: str) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed if it is gzip.

    Args:
        file: path of the file.
        at_most: largest number of bytes, uncompressed.
        what: name of the log in errors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a regular file, too large or damaged.
    """
    zipped = starts_with(file, b"\x1f\x8b", what)
    size = check_regular(file, what)
    if size > at_most:
        raise ValueError(
            f"{file} has {size} bytes: {what} may have at most {at_most}; write it as Parquet, or leave rows out"
        )
    total = 0
    with file.open("rb") as opened:
        raw = iter(lambda: opened.read(_BLOCK), b"")
        for block in _unzipped(raw, file) if zipped else raw:
            total += len(block)
            if total > at_most:
                raise ValueError(
                    f"{file} has more than {at_most} bytes uncompressed: {what} may have at most {at_most}"
                )
            yield block


def _unzipped(raw: Iterator[bytes], file: Path) -> Iterator[bytes]:
    """Yield the content of gzip members, at most one block at a time: a member may expand to any size."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        for block in raw:
            while block:
                if unpack.eof:  # another member follows
                    unpack = zlib.decompressobj(wbits=31)
                yield unpack.decompress(block, _BLOCK)
                block = unpack.unconsumed_tail or unpack.unused_data
    except zlib.error as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    if not unpack.eof:
        raise ValueError(f"{file} is damaged: the gzip file ends too early")


def decoded(content: bytes, file: str, allowed: str) -> str:
    """Return bytes decoded as UTF-8 text.

    Raises:
        ValueError: for a line that is not UTF-8; it names the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}, line {line}: expected a text in UTF-8, {allowed}") from None


def _parquet(file: Path, what: str) -> LogTable:
    """Return the table of a Parquet file; text is read once per distinct value, to bound the memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as announced:
            rows, schema = announced.metadata.num_rows, announced.schema_arrow
            groups = (announced.metadata.row_group(i) for i in range(announced.metadata.num_row_groups))
            size = sum(group.total_byte_size for group in groups)
        if rows > MOST_ROWS or size > 32 * LARGEST_TEXT:
            raise ValueError(
                f"{file} has {rows} rows, {size} bytes uncompressed: {what} may have at most {MOST_ROWS} rows and "
                f"{32 * LARGEST_TEXT} bytes"
            )
        _check_header(schema.names, str(file))
        text = [field.name for field in schema if _is_text(field.type)]
        plain = [field.name for field in schema if _is_plain(field.type)]
        with pq.ParquetFile(file, page_checksum_verification=True, read_dictionary=text) as parquet:
            table = parquet.read(columns=plain, use_threads=False)
        columns = {name: _arrow_values(table[name]) for name in plain}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged or not Parquet: {error}") from None
    return LogTable(columns, lambda row: f"{file}, row {row}", str(file))


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_timestamp, _is_text)
    return any(check(kind) for check in checks)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _arrow_values(column: Any) -> Sequence[object] | np.ndarray:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return np.asarray(column.to_numpy())
    values: list[object] = []
    for chunk in column.chunks:
        names = [*chunk.dictionary.to_pylist(), None]
        values += [names[i] for i in chunk.indices.fill_null(len(names) - 1).to_pylist()]
    return values
