"""Storage of a trace: a directory of Parquet files and their checksums. Nothing in it can be executed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stalegrad._core.files import SUMS, check_sums, write_sums
from stalegrad._core.types import Columns, Table
from stalegrad.simulator.timing.columns import (
    ABSENCE_COLUMNS,
    MESSAGE_COLUMNS,
    START_COLUMN,
    UPDATE_COLUMNS,
    Fate,
    TraceError,
    checked_seconds,
    checked_spec,
    checked_workers,
)

FORMAT = "stalegrad-trace-3"

TABLES = {"messages": MESSAGE_COLUMNS, "updates": UPDATE_COLUMNS, "absences": ABSENCE_COLUMNS}
OPTIONAL = ("absences",)
"""Tables that exist only if they have rows."""


ROW_BYTES = 128
"""Largest number of uncompressed bytes per row that a file may announce: twice those of a trace."""

FIELDS = ("workers", "end", "resolution", "spec")
"""Fields of a trace in the files' metadata, besides its tables."""


def write(path: Path, tables: Mapping[str, Columns], about: Table) -> None:
    """Write a trace to a directory, completely or not at all; an existing trace is replaced.

    Args:
        path: the directory.
        tables: columns of ``messages``, ``updates`` and, if there are any, ``absences``.
        about: other fields of the trace, as plain values.

    Raises:
        FileExistsError: if the path exists and is not a trace.
    """
    if path.exists() and not (path / "updates.parquet").exists():
        raise FileExistsError(f"{path} exists and is not a trace: choose another place")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **about}, sort_keys=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, columns in tables.items():
            table = pa.table({k: v.tolist() if v.dtype.kind == "U" else v for k, v in columns.items()})
            table = table.replace_schema_metadata({"stalegrad": text})
            pq.write_table(table, fresh / f"{name}.parquet", compression="zstd", write_page_checksum=True)
        write_sums(fresh)
        fresh.chmod(0o755)
        if path.exists():
            path.rename(fresh.with_name(fresh.name + "-old"))
        fresh.rename(path)
        shutil.rmtree(fresh.with_name(fresh.name + "-old"), ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def read(path: str | os.PathLike[str], at_most: int) -> tuple[dict[str, Columns], Table]:
    """Return the tables and the other fields of a trace.

    Checksums are verified before anything is decoded, and the sizes that a file announces are compared with the
    limits before anything is decompressed.

    Args:
        path: the directory.
        at_most: largest number of rows of a table.

    Raises:
        FileNotFoundError: if there is no trace.
        TraceError: if a file is damaged, not of a trace, of another format, or too large.
    """
    path = Path(path)
    names = [name for name in TABLES if name not in OPTIONAL or (path / f"{name}.parquet").exists()]
    for name in names:
        if not (path / f"{name}.parquet").is_file():
            raise FileNotFoundError(f"no trace at {path}: {path / name}.parquet is missing")
    if not (path / SUMS).is_file():
        raise TraceError(f"{path / SUMS} is missing: the trace is incomplete, or of an older format than {FORMAT}")
    try:
        check_sums(path, [f"{name}.parquet" for name in names])
    except ValueError as error:
        raise TraceError(str(error)) from None
    found = {name: _read(path / f"{name}.parquet", TABLES[name], at_most) for name in names}
    (tables, abouts) = zip(*found.values(), strict=True)
    if any(about != abouts[0] for about in abouts):
        raise TraceError(f"the files of {path} contradict each other: they are of two traces")
    about = abouts[0]
    fields = {"workers": checked_workers(about["workers"]), "spec": checked_spec(about["spec"])}
    fields |= {field: checked_seconds(field, about[field]) for field in ("end", "resolution")}
    return dict(zip(found, tables, strict=True)), fields


def _read(file: Path, columns: Mapping[str, type | str], at_most: int) -> tuple[Columns, Table]:
    try:
        with pq.ParquetFile(file) as announced:
            about = _about(announced, file)
            if columns is UPDATE_COLUMNS and "start" in announced.schema_arrow.names:
                columns = UPDATE_COLUMNS | START_COLUMN
            _check_schema(announced, columns, file, at_most)
        text = [name for name, dtype in columns.items() if np.dtype(dtype).kind == "U"]
        with pq.ParquetFile(file, page_checksum_verification=True, read_dictionary=text) as parquet:
            table = parquet.read(columns=list(columns), use_threads=False)
        return {name: _values(table[name], file) for name in columns}, about
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{file} is damaged or not Parquet: {error}") from None


def _about(parquet: Any, file: Path) -> Table:
    """Return the metadata of a file of a trace."""
    try:
        about = json.loads((parquet.metadata.metadata or {}).get(b"stalegrad", b"{}"))
    except (ValueError, RecursionError) as error:
        raise TraceError(f"the metadata of {file} are not the JSON of a trace: {error}") from None
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT or (missing := [field for field in FIELDS if field not in about]):
        lacks = f"found {found!r:.60}" if found != FORMAT else f"its metadata lack {missing}"
        raise TraceError(f"{file} is not a stalegrad trace of format {FORMAT}: {lacks}")
    return dict(about)


def _check_schema(parquet: Any, columns: Mapping[str, type | str], file: Path, at_most: int) -> None:
    """Raise TraceError unless a file announces the columns, types that can be read, and an allowed size."""
    schema, metadata = parquet.schema_arrow, parquet.metadata
    if missing := set(columns) - set(schema.names):
        raise TraceError(f"{file} lacks the columns {sorted(missing)}")
    for name, dtype in columns.items():
        if schema.names.count(name) > 1:
            raise TraceError(f"{file} has the column {name} {schema.names.count(name)} times")
        found = schema.field(name).type
        if pa.types.is_dictionary(found):
            found = found.value_type
        text = pa.types.is_string(found) or pa.types.is_large_string(found)
        number = pa.types.is_integer(found) or pa.types.is_floating(found)
        if not (text if np.dtype(dtype).kind == "U" else number):
            raise TraceError(f"column {name} of {file} holds {found}: it must hold {_kind(dtype)}")
    if metadata.num_rows > at_most:
        raise TraceError(f"{file} has {metadata.num_rows} rows: at most {at_most} are allowed, see Trace.load")
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if size > at_most * ROW_BYTES:
        raise TraceError(f"{file} has {size} bytes uncompressed: at most {at_most * ROW_BYTES} are allowed")


def _kind(dtype: type | str) -> str:
    return "text" if np.dtype(dtype).kind == "U" else "numbers"


def _values(column: Any, file: Path) -> np.ndarray:
    """Return a column as an array; text is checked once per distinct value, before it takes its full memory."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(column.to_numpy())
    parts = [np.empty(0, MESSAGE_COLUMNS["fate"])]
    for chunk in column.chunks:
        names = chunk.dictionary.to_pylist()
        if chunk.null_count or not set(names) <= set(Fate):
            wrong = next((name for name in names if name not in set(Fate)), None)
            raise TraceError(f"{file} holds the fate {wrong!r:.60}: fate is one of {', '.join(Fate)}")
        parts.append(np.array(names, MESSAGE_COLUMNS["fate"])[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(parts)
