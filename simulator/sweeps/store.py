"""The store: a directory of finished runs, each under the hash of its identity. Writers can be killed at any time.

A run is added by renaming a complete directory, so every run is complete; nothing else is written into it, so two
stores of the same runs are equal byte for byte. Several processes may work on one store: a run is executed under a
file lock, which the operating system releases when the process dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import lock_descriptor, unlock_descriptor

from stalegrad._core.files import check_regular, put, read_regular
from stalegrad._core.types import Table
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.formats import MAX_TEXT, flush
from stalegrad.simulator.experiments.identity import SEMANTICS, method_label
from stalegrad.simulator.experiments.result import Result

FORMAT = "stalegrad-store-2"


class Outline(NamedTuple):
    """The part of a result that tables and pictures of many runs need.

    Attributes:
        spec: TOML text of the experiment; empty if a part of it exists in this process only.
        method: name of the method with its parameters.
        seed: seed of the experiment.
        summary: summary of the run, see :meth:`Result.summary`.
        history: history of the run.
    """

    spec: str
    method: str
    seed: int
    summary: Table
    history: pd.DataFrame

    @classmethod
    def of(cls, result: Result) -> Outline:
        """Return the outline of a result."""
        experiment, spec = result.experiment, ""
        with suppress(ValueError):
            spec = experiment.to_toml()
        return cls(spec, method_label(experiment.method), experiment.seed, result.summary(), result.history)


class Store:
    """The runs in a directory, which is created if it does not exist.

    Args:
        directory: path of the store. ``runs/<key>`` holds a finished run; ``failed/<key>`` holds the spec and the
            traceback of a run that raised; ``planned/<key>`` holds another key if the run with this planned key
            was executed differently (for example in fewer lanes); ``log.jsonl`` holds time, place and real time of
            the executions. ``manifest.parquet`` (outlines of the runs) may be deleted at any time, ``locks/`` only
            while no process uses the store.

    Raises:
        ValueError: if the directory holds something else, or runs of other semantics.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        folders = [self.directory / name for name in ("runs", "failed", "planned", "locks")]
        self.runs, self.failed, self.planned, self.locks = folders
        self.manifest = self.directory / "manifest.parquet"
        about = self.directory / "store.json"
        if not about.exists():
            found = self.directory.iterdir() if self.directory.exists() else ()
            ours = {about.name, *(folder.name for folder in folders)}  # of another process that creates it now
            if any(entry.name not in ours and not entry.name.startswith(f".{about.name}") for entry in found):
                raise ValueError(f"{self.directory} is not empty and not a store: choose another place")
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            put(about, (json.dumps({"format": FORMAT, "semantics": SEMANTICS}) + "\n").encode())
        try:
            text = json.loads(read_regular(about, 10_000, "a file of a store"))
        except (ValueError, RecursionError):
            raise ValueError(f"{about} is damaged: it should be {{'format': {FORMAT!r}, ...}}") from None
        if text != {"format": FORMAT, "semantics": SEMANTICS}:
            raise ValueError(
                f"{self.directory} is a store of {text}; this version needs {FORMAT} with semantics {SEMANTICS}"
            )
        self._outlines: dict[str, tuple[str, Outline]] | None = None
        self._in_manifest: dict[str, str] = {}

    def __contains__(self, key: str) -> bool:
        return (self.runs / key).is_dir()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys of the finished runs, in alphabetical order."""
        return iter(sorted(run.name for run in self.runs.iterdir() if not run.name.startswith(".")))

    # Finished runs

    def specs(self) -> dict[str, str]:
        """Return the specs of the finished runs, by key."""
        found = {key: self.outline(key) for key in self}
        return {key: outline.spec for key, outline in found.items() if outline is not None}

    def find(self, key: str) -> str | None:
        """Return the key under which the run with a planned key is stored; None if it is not stored.

        The two keys differ if the run was executed differently from its plan.
        """
        if key in self:
            return key
        try:
            made = read_regular(self.planned / key, 1_000, "a pointer of a store").decode("ascii").strip()
        except (OSError, ValueError):
            return None
        return made if re.fullmatch("[0-9a-f]{20}", made) and made in self else None

    def load(self, key: str) -> Result:
        """Return a finished run.

        Raises:
            FileNotFoundError: if a file of the run is missing.
            ValueError: if a file is damaged, or the key of the run is another one.
        """
        result = Result.load(self.runs / key)
        if (found := result.identity.key) != key:
            raise ValueError(f"{self.runs / key} is not the run of that key but that of {found}")
        return result

    def outline(self, key: str) -> Outline | None:
        """Return the outline of a finished run; None, with a warning that names the run, if it cannot be read.

        The whole run is read, and so checked, if it or one of its files has changed since the manifest.
        """
        try:
            state = self._state(key)
            known = self._known().get(key)
            if known is None or known[0] != state:
                known = (state, Outline.of(self.load(key)))
                self._known()[key] = known
        except (ValueError, OSError) as error:
            warnings.warn(f"run {key} is left out: {error}", stacklevel=2)
            return None
        return known[1]

    def save(self, planned: str, result: Result) -> tuple[str, Outline]:
        """Store a finished run, in place of one that cannot be read; the caller holds it with :meth:`claim`.

        Args:
            planned: planned key of the run.
            result: result of the run.

        Returns:
            The key of the run as executed, which :meth:`find` returns for the planned key; and the outline.
        """
        key = result.identity.key
        if key in self:
            shutil.rmtree(self.runs / key)
        result.save(self.runs / key)
        if key != planned:
            put(self.planned / planned, f"{key}\n".encode("ascii"))
        self.forget_failure(planned)
        outline = Outline.of(result)
        self._known()[key] = (self._state(key), outline)
        return key, outline

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold a run while it is executed; yield False if another process holds it.

        Unfinished files of a killed process are removed.

        Raises:
            OSError: if the file system has no locks.
        """
        self.locks.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        with open(os.open(self.locks / key, flags, 0o644), "r+b", buffering=0) as file:
            try:
                ours = lock_descriptor(file.fileno(), blocking=False)
            except OSError as error:
                raise OSError(
                    f"the file system gives no lock on {self.locks / key} ({error.strerror}), and two processes "
                    "could make the same run: put the store on a local disk, or mount it with locks"
                ) from None
            if not ours:
                yield False
                return
            try:
                self._sign(file)
                for unfinished in self.runs.glob(f".{key}-*"):
                    shutil.rmtree(unfinished)
                yield True
            finally:
                with suppress(OSError):
                    file.truncate(0)
                unlock_descriptor(file.fileno())  # explicitly: a forked child may hold the file, too

    def holder(self, key: str) -> str | None:
        """Return the holder of a run, ``process 17 on node3 since 2026-01-31 12:00:00 UTC``, or None if unknown.

        Call it only after :meth:`claim` yielded False: the file may still name a process that was killed.
        """
        try:
            with (self.locks / key).open("rb") as file:
                file.seek(1)  # Windows forbids reading the locked byte
                said = json.loads(file.read(1_000))
            return f"process {int(said['process'])} on {said['host']} since {said['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _sign(self, file: BinaryIO) -> None:
        """Write this process as the holder of a lock."""
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        said = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        with suppress(OSError):  # a disk may be full
            file.truncate(0)
            file.write(b" " + json.dumps(said).encode())

    # Runs that raised

    def fail(self, key: str, experiment: Experiment, traceback: str) -> None:
        """Store the spec and the traceback of a run that raised, completely or not at all."""
        self.forget_failure(key)
        fresh = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=self.failed))
        try:
            (fresh / "spec.toml").write_text(experiment.to_toml(), encoding="utf-8", newline="\n")
            (fresh / "traceback.txt").write_text(traceback, encoding="utf-8", newline="\n")
            fresh.chmod(0o755)
            flush(fresh)
            fresh.replace(self.failed / key)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def failure(self, key: str) -> str | None:
        """Return the traceback of a run that raised, empty if it cannot be read; None if it did not raise."""
        if not (self.failed / key).is_dir():
            return None
        try:
            file = self.failed / key / "traceback.txt"
            return read_regular(file, MAX_TEXT, "a traceback").decode()
        except (OSError, ValueError):
            return ""

    def forget_failure(self, key: str) -> None:
        """Delete the record that a run raised."""
        if (self.failed / key).is_dir():
            shutil.rmtree(self.failed / key)

    # Besides the runs: the log, and the manifest, which can be rebuilt

    def log(self, key: str, entry: Table) -> None:
        """Append a line to the log; errors of writing are ignored."""
        place = self.directory / "log.jsonl"
        with suppress(OSError, ValueError):
            if place.exists():
                check_regular(place)
            with place.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": key, **entry}) + "\n")

    def write_manifest(self) -> None:
        """Write the outlines known so far, so that the store opens faster; errors of writing are ignored."""
        known = {key: entry for key, entry in self._known().items() if key in self}
        states = {key: state for key, (state, _) in known.items()}
        if states == self._in_manifest:
            return
        outlines = [outline for _, outline in known.values()]
        table = pa.table(
            {
                "key": list(states),
                "state": list(states.values()),
                "spec": [outline.spec for outline in outlines],
                "method": [outline.method for outline in outlines],
                "seed": [outline.seed for outline in outlines],
                "summary": [json.dumps(outline.summary) for outline in outlines],
                "history": pa.array([_packed(outline.history) for outline in outlines], pa.binary()),
            }
        )
        digests = [_row_digest(row) for row in table.to_pylist()]
        table = table.append_column("sha256", pa.array(digests, pa.string()))
        file = pa.BufferOutputStream()
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        with suppress(OSError):
            put(self.manifest, file.getvalue().to_pybytes())
            self._in_manifest = states

    def _known(self) -> dict[str, tuple[str, Outline]]:
        """Return the outlines known so far, each with the state of the files from which it was read."""
        if self._outlines is None:
            self._outlines = {}
            # A manifest with any fault is ignored: it can be rebuilt.
            with suppress(OSError, ValueError, KeyError, TypeError, pa.ArrowException):
                check_regular(self.manifest)
                for row in pq.read_table(self.manifest, page_checksum_verification=True).to_pylist():
                    if row.pop("sha256") != _row_digest(row):
                        continue
                    summary, history = json.loads(row["summary"]), _unpacked(row["history"])
                    outline = Outline(row["spec"], row["method"], row["seed"], summary, history)
                    self._outlines[row["key"]] = (row["state"], outline)
            self._in_manifest = {key: state for key, (state, _) in self._outlines.items()}
        return self._outlines

    def _state(self, key: str) -> str:
        """Return sizes and times of a run's files; if they change, the run must be read again."""
        found = []
        for folder, _, names in sorted(os.walk(self.runs / key)):
            for name in sorted(names):
                about = os.stat(os.path.join(folder, name))
                found.append(f"{name} {about.st_size} {about.st_mtime_ns}")
        return ", ".join(found)


def _row_digest(row: Table) -> str:
    """Return a checksum of a row of the manifest; for a damaged row the run itself is read again."""
    text = json.dumps({**row, "history": row["history"].hex()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(frame: pd.DataFrame) -> bytes:
    # Without the metadata of pandas: reading these takes longer than reading the numbers.
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _unpacked(content: bytes) -> pd.DataFrame:
    frame: pd.DataFrame = pa.ipc.open_stream(content).read_all().to_pandas(use_threads=False)
    return frame
