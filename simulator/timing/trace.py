"""The trace: what happened when. It is all that the replay knows of time."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stalegrad.policies.specs import PositiveFloat, PositiveInt, spec

FORMAT = "stalegrad-trace-1"

GRADIENT_COLUMNS: dict[str, Any] = {
    "worker": np.int32,
    "read_version": np.int64,
    "read_time": np.float64,
    "finish_time": np.float64,
    "receive_time": np.float64,
    "update": np.int64,
    "staleness": np.int64,
    "steps": np.int32,
    "fate": "U9",
}
UPDATE_COLUMNS: dict[str, Any] = {"time": np.float64, "messages": np.int64, "gradients": np.int64}


class TraceError(ValueError):
    """A trace that cannot be read, or that contradicts itself."""


class Fate(StrEnum):
    """What became of a message."""

    USED = "used"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    PENDING = "pending"


class Message:
    """One message in the making: a mini-batch gradient, or the result of ``steps`` local ones."""

    __slots__ = ("finish_time", "read_time", "read_version", "receive_time", "steps", "worker")

    def __init__(self, worker: int, read_version: int, read_time: float, steps: int) -> None:
        self.worker = worker
        self.read_version = read_version
        self.read_time = read_time
        self.finish_time = math.nan
        self.receive_time = math.nan
        self.steps = steps

    def row(self, fate: Fate, update: int = -1) -> tuple[Any, ...]:
        """Return its row of the trace: plain numbers, which the garbage collector need not follow."""
        return (
            self.worker,
            self.read_version,
            self.read_time,
            self.finish_time,
            self.receive_time,
            update,
            update - self.read_version if update >= 0 else -1,
            self.steps,
            fate.value,
        )


@spec
class Budget:
    """When a run ends: exactly one of ``updates``, ``wallclock`` (seconds) and ``gradients``."""

    updates: PositiveInt | None = None
    wallclock: PositiveFloat | None = None
    gradients: PositiveInt | None = None

    def check_fields(self) -> None:
        """Raise ValueError unless exactly one is given."""
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                f"a run needs exactly one budget of updates, wallclock and gradients; got {given or 'none'}"
            )


class Trace:
    """Two columnar tables, messages and updates, and the spec they came from.

    Args:
        gradients: columns ``worker, read_version, read_time, finish_time, receive_time, update,
            staleness, steps, fate``, one row per message, times in seconds. ``update`` is the index j of
            the update j -> j + 1 that consumed it (the first is 0), -1 (as ``staleness``) if none did; ``steps``
            counts its local mini-batch gradients, 1 without local steps; ``fate`` is ``used``, ``discarded``,
            ``cancelled`` or ``pending``.
        updates: columns ``time, messages, gradients``, one row per update.
        workers: their number.
        end: when the observation ended, in seconds.
        spec: where the trace came from; any JSON-like mapping.

    A trace measured on a real cluster is made in the same way; ``replay(trace, problem, method)`` takes it::

        columns = "worker read_version read_time finish_time receive_time update staleness steps fate".split()
        rows = [(0, 0, 0.0, 1.0, 1.2, 0, 0, 1, "used"), (1, 0, 0.0, 1.5, 1.7, 1, 1, 1, "used")]
        updates = {"time": [1.2, 1.7], "messages": [1, 1], "gradients": [1, 1]}
        trace = Trace(pd.DataFrame(rows, columns=columns), updates, workers=2).verify()
    """

    def __init__(
        self,
        gradients: pd.DataFrame | Mapping[str, Any],
        updates: pd.DataFrame | Mapping[str, Any],
        *,
        workers: int | None = None,
        end: float | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self._gradients = _columns(gradients, GRADIENT_COLUMNS, "gradients")
        self._updates = _columns(updates, UPDATE_COLUMNS, "updates")
        worker = self._gradients["worker"]
        self.workers = workers if workers is not None else int(worker.max(initial=-1)) + 1
        order = np.lexsort((worker, self._gradients["read_time"]))
        self._gradients = {name: values[order] for name, values in self._gradients.items()}
        times = self._updates["time"]
        self.end = end if end is not None else float(times[-1]) if len(times) else 0.0
        self.spec = dict(spec or {})

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[Any, ...]],
        update_times: Sequence[float],
        *,
        workers: int,
        end: float,
        spec: Mapping[str, Any],
    ) -> Self:
        """Build the trace of a simulation from the rows of its messages, in any order."""
        transposed = zip(*rows, strict=True) if rows else [()] * len(GRADIENT_COLUMNS)
        columns = {
            name: np.fromiter(values, dtype, len(rows))
            for (name, dtype), values in zip(GRADIENT_COLUMNS.items(), transposed, strict=True)
        }
        used = columns["update"] >= 0
        count = np.bincount(columns["update"][used], minlength=len(update_times))
        steps = np.bincount(columns["update"][used], columns["steps"][used], minlength=len(update_times))
        updates = {"time": np.asarray(update_times), "messages": count, "gradients": steps.astype(np.int64)}
        return cls(columns, updates, workers=workers, end=end, spec=spec)

    # What happened

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """One row per message, in the order of (read_time, worker)."""
        return pd.DataFrame(self._gradients)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """One row per server update."""
        return pd.DataFrame(self._updates)

    def column(self, name: str) -> Any:
        """Return a column of the message table as a numpy array."""
        return self._gradients[name]

    @property
    def update_times(self) -> Any:
        """Return the time of every update, in seconds, as a numpy array."""
        return self._updates["time"]

    @cached_property
    def used(self) -> Any:
        """Rows of the used messages in the order of their gradient ids: (update, receive_time, worker)."""
        g = self._gradients
        rows = np.flatnonzero(g["update"] >= 0)
        return rows[np.lexsort((g["worker"][rows], g["receive_time"][rows], g["update"][rows]))]

    # Summary statistics

    @property
    def staleness(self) -> Any:
        """Return the staleness of every used message, in the order of gradient ids."""
        return self._gradients["staleness"][self.used]

    def staleness_histogram(self) -> pd.Series[float]:
        """Return the fraction of used messages at each staleness 0, 1, ..."""
        counts = np.bincount(self.staleness)
        fractions = pd.Series(counts / max(1, counts.sum()), name="fraction")
        return fractions.rename_axis("staleness")

    def throughput(self) -> dict[str, float]:
        """Return updates and used gradients per simulated second."""
        seconds = self.end or math.nan
        return {
            "updates_per_second": len(self.update_times) / seconds,
            "gradients_per_second": float(self._updates["gradients"].sum()) / seconds,
        }

    def busy(self) -> pd.DataFrame:
        """Return how each worker spent its time, as fractions of the time from its joining to the end.

        Columns: ``used`` (computing what was used, or still may be), ``wasted`` (cancelled or discarded),
        ``idle``; NaN for a worker that never joined.
        """
        g = self._gradients
        finish = np.where(np.isnan(g["finish_time"]), self.end, np.minimum(g["finish_time"], self.end))
        spent = np.maximum(finish - np.minimum(g["read_time"], self.end), 0.0)
        wasted = np.isin(g["fate"], [str(Fate.CANCELLED), str(Fate.DISCARDED)])
        present = np.full(self.workers, np.nan)
        for worker, time in zip(g["worker"][::-1], g["read_time"][::-1], strict=True):
            present[worker] = self.end - time
        present[present <= 0] = np.nan
        table = pd.DataFrame(
            {
                "used": np.bincount(g["worker"], spent * ~wasted, self.workers) / present,
                "wasted": np.bincount(g["worker"], spent * wasted, self.workers) / present,
            }
        ).rename_axis("worker")
        table["idle"] = (1.0 - table["used"] - table["wasted"]).clip(lower=0.0)
        return table

    def idle_fraction(self) -> pd.Series[float]:
        """Return the fraction of its time that each worker neither computes nor is absent."""
        return self.busy()["idle"]

    def summary(self) -> dict[str, float]:
        """Return the trace in a few numbers."""
        staleness, busy = self.staleness, self.busy().mean()
        some = len(staleness) > 0
        return {
            "workers": self.workers,
            "wallclock": self.end,
            "updates": len(self.update_times),
            "gradients": int(self._updates["gradients"].sum()),
            **self.throughput(),
            "mean_staleness": float(staleness.mean()) if some else math.nan,
            "max_staleness": int(staleness.max()) if some else -1,
            "fresh": float((staleness == 0).mean()) if some else math.nan,
            "idle": float(busy["idle"]),
            "wasted": float(busy["wasted"]),
        }

    def __repr__(self) -> str:
        return (
            f"Trace({self.workers} workers, {len(self.update_times)} updates, {len(self.used)} used of "
            f"{len(self._gradients['worker'])} messages, {self.end:g} s)"
        )

    def _repr_html_(self) -> str:
        table = pd.Series(self.summary(), name="").to_frame().to_html(float_format="{:.4g}".format, header=False)
        return f"<b>Trace</b> of {self.spec.get('synchrony', 'a measured run')}{table}"

    # Checks

    def verify(self) -> Self:
        """Check that the trace can have happened: simulated or measured, the same laws hold.

        Raises:
            TraceError: naming the first row that breaks a law, and the law.
        """
        g, times = self._gradients, self._updates["time"]
        _law(np.isfinite(times) & (np.diff(times, prepend=0.0) >= 0), "updates", "time must not go backwards")
        _law((g["worker"] >= 0) & (g["worker"] < self.workers), "gradients", f"worker is below {self.workers}")
        _law(np.isin(g["fate"], [str(fate) for fate in Fate]), "gradients", f"fate is one of {', '.join(Fate)}")
        _law(
            np.isfinite(g["read_time"]) & (g["read_time"] >= 0), "gradients", "read_time is finite and at least 0"
        )
        _law(~(g["finish_time"] < g["read_time"]), "gradients", "finish_time >= read_time")
        _law(~(g["receive_time"] < g["finish_time"]), "gradients", "receive_time >= finish_time")
        _law(g["steps"] >= 1, "gradients", "steps >= 1")

        versions = np.concatenate([[0.0], times])
        known = (g["read_version"] >= 0) & (g["read_version"] <= len(times))
        _law(known, "gradients", f"read_version is between 0 and {len(times)}, the last version")
        exists = versions[g["read_version"]] <= g["read_time"]
        _law(exists, "gradients", "a version is read only after it exists")

        used = g["fate"] == Fate.USED
        _law(used == (g["update"] >= 0), "gradients", "update is -1 exactly if the message was not used")
        _law(g["update"] < len(times), "gradients", f"update is below {len(times)}")
        _law(~used | (g["read_version"] <= g["update"]), "gradients", "read_version <= update")
        expected = np.where(used, g["update"] - g["read_version"], -1)
        _law(g["staleness"] == expected, "gradients", "staleness = update - read_version (-1 if not used)")
        on_time = np.where(used, g["receive_time"] <= times[g["update"]], True) if len(times) else ~used
        _law(on_time, "gradients", "a used message is received before its update")

        _law(~used | np.isfinite(g["finish_time"]), "gradients", "a used message has finished")
        by_worker = np.lexsort((g["read_time"], g["worker"]))
        same = np.diff(g["worker"][by_worker]) == 0
        overlap = same & (g["read_time"][by_worker][1:] < g["finish_time"][by_worker][:-1])
        law = "a worker computes one message at a time"
        _law(~np.isin(np.arange(len(used)), by_worker[1:][overlap]), "gradients", law)
        _law(np.asarray([self.end >= times[-1]]) if len(times) else True, "updates", "the end is not before them")

        count = np.bincount(g["update"][used], minlength=len(times))
        steps = np.bincount(g["update"][used], g["steps"][used], minlength=len(times))
        _law(count > 0, "updates", "every update consumes at least one message")
        _law(self._updates["messages"] == count, "updates", "messages counts the rows that name this update")
        _law(self._updates["gradients"] == steps, "updates", "gradients sums their steps")
        return self

    # Storage

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a directory of two Parquet files; it appears whole or not at all.

        Raises:
            FileExistsError: if something else than a trace is there already.
        """
        path = Path(path)
        if path.exists() and not (path / "updates.parquet").exists():
            raise FileExistsError(f"{path} exists and is not a trace: choose another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"format": FORMAT, "workers": self.workers, "end": self.end, "spec": self.spec}
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            for name, frame in (("gradients", self._gradients), ("updates", self._updates)):
                table = pa.table({k: v.tolist() if v.dtype.kind == "U" else v for k, v in frame.items()})
                table = table.replace_schema_metadata({"stalegrad": json.dumps(meta, sort_keys=True)})
                pq.write_table(table, fresh / f"{name}.parquet", compression="zstd", write_page_checksum=True)
            fresh.chmod(0o755)
            if path.exists():
                path.rename(fresh.with_name(fresh.name + "-old"))
            fresh.rename(path)
            shutil.rmtree(fresh.with_name(fresh.name + "-old"), ignore_errors=True)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a trace that :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is none.
            TraceError: if a file is damaged, foreign or of another format, or the trace fails
                :meth:`verify`.
        """
        tables, meta = {}, {}
        for name, columns in (("gradients", GRADIENT_COLUMNS), ("updates", UPDATE_COLUMNS)):
            file = Path(path) / f"{name}.parquet"
            if not file.is_file():
                raise FileNotFoundError(f"no trace at {path}: {file} is missing")
            try:
                table = pq.read_table(file, page_checksum_verification=True)
                meta = json.loads((table.schema.metadata or {}).get(b"stalegrad", b"{}"))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise TraceError(f"{file} is damaged or not Parquet: {error}") from None
            if meta.get("format") != FORMAT or not {"workers", "end", "spec"} <= meta.keys():
                raise TraceError(f"{file} is not a stalegrad trace of format {FORMAT}: found {meta.get('format')}")
            if missing := set(columns) - set(table.column_names):
                raise TraceError(f"{file} lacks the columns {sorted(missing)}")
            tables[name] = {column: table[column].to_numpy(zero_copy_only=False) for column in columns}
        trace = cls(**tables, workers=meta["workers"], end=meta["end"], spec=meta["spec"])
        return trace.verify()


def _columns(table: Any, columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    if missing := [column for column in columns if column not in table]:
        raise TraceError(f"the {name} table lacks the columns {missing}; it needs {list(columns)}")
    arrays = {}
    for column, dtype in columns.items():
        values = np.asarray(table[column])
        if np.dtype(dtype).kind == "U":
            arrays[column] = values.astype(str)
            continue
        if values.dtype.kind not in "biuf" and len(values):
            raise TraceError(f"column {column} of the {name} table must hold numbers, not {values.dtype}")
        if np.dtype(dtype).kind == "i" and not np.array_equal(values, np.floor(values)):
            raise TraceError(f"column {column} of the {name} table must hold whole numbers")
        arrays[column] = values.astype(dtype)
    if len({len(array) for array in arrays.values()}) > 1:
        raise TraceError(f"the columns of the {name} table differ in length")
    return arrays


def _law(holds: Any, table: str, law: str) -> None:
    if not np.all(holds):
        raise TraceError(f"row {int(np.argmin(holds))} of the {table} table breaks a law: {law}")
