"""The trace: what happened when. It is all that the replay knows of time."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.types import Columns
from stalegrad.simulator.timing import consistency
from stalegrad.simulator.timing.anatomy import Anatomy
from stalegrad.simulator.timing.columns import (
    ABSENCE_COLUMNS,
    MESSAGE_COLUMNS,
    START_COLUMN,
    UPDATE_COLUMNS,
    Fate,
    checked_columns,
    checked_seconds,
    checked_spec,
    checked_workers,
    labels_of,
    read_only,
)
from stalegrad.simulator.timing.limits import ROWS


class Trace:
    """Columnar tables of messages, updates and absences, and the spec they came from. It cannot be changed.

    Args:
        messages: columns ``worker, read_version, read_time, finish_time, receive_time, update,
            staleness, steps, fate``, one row per message, times in seconds. ``update`` is the index j of
            the update j -> j + 1 that consumed it (the first is 0), -1 (as ``staleness``) if none did; ``steps``
            counts its local mini-batch gradients, 1 without local steps; ``fate`` is ``used``, ``discarded``,
            ``cancelled``, ``lost`` (its worker left before it was sent) or ``pending``. Rows are sorted by
            (read_time, worker); those in which both are equal keep the order given, which is that in which the
            worker computed them.
        updates: columns ``time, messages, gradients``, one row per update, and ``start`` if updates take time: an
            update is under way from ``start`` to ``time``, when the new version appears.
        workers: their number, at most 10,000,000; by default one more than the largest that occurs.
        end: when the observation ended, in seconds; by default the time of the last update.
        spec: where the trace came from: a mapping of what JSON can hold.
        absences: columns ``worker, leave_time, return_time``, one row for each time that a worker was away: from
            when to when, in seconds; ``return_time`` is NaN if it was away at the end. Default: nobody ever was.
        resolution: seconds to which measured times are rounded, e.g. 0.001: :meth:`verify` then lets times
            contradict one another by up to twice that.

    A log of a real cluster becomes a trace by :meth:`from_log`.

    Raises:
        TraceError: if a column or another argument has a wrong type or range, naming it; that the rows go together
            is checked by :meth:`verify`.
    """

    def __init__(
        self,
        messages: pd.DataFrame | Mapping[str, npt.ArrayLike],
        updates: pd.DataFrame | Mapping[str, npt.ArrayLike],
        *,
        workers: int | None = None,
        end: float | None = None,
        spec: Mapping[str, object] | None = None,
        absences: pd.DataFrame | Mapping[str, npt.ArrayLike] | None = None,
        resolution: float = 0.0,
    ) -> None:
        columns = checked_columns(messages, MESSAGE_COLUMNS, "messages")
        further = START_COLUMN if isinstance(updates, pd.DataFrame | Mapping) and "start" in updates else {}
        self._updates = read_only(checked_columns(updates, UPDATE_COLUMNS | further, "updates"))
        absences = {name: [] for name in ABSENCE_COLUMNS} if absences is None else absences
        self._absences = read_only(checked_columns(absences, ABSENCE_COLUMNS, "absences"))
        worker, read, times = columns["worker"], columns["read_time"], self._updates["time"]
        self._given = None
        if not np.all((read[:-1] < read[1:]) | ((read[:-1] == read[1:]) & (worker[:-1] <= worker[1:]))):
            order = self._given = np.lexsort((worker, read))  # stable
            columns = {name: values[order] for name, values in columns.items()}
        self._messages = read_only(columns)
        self._labels = labels_of(messages), labels_of(updates)
        self._workers = checked_workers(workers if workers is not None else int(worker.max(initial=-1)) + 1)
        last = float(times[-1]) if len(times) else 0.0
        self._end = checked_seconds("end", end) if end is not None else last
        self._resolution = checked_seconds("resolution", resolution)
        self.spec = checked_spec({} if spec is None else spec)
        self._verified = False

    @classmethod
    def of(
        cls,
        columns: Columns,
        update_times: Sequence[float],
        *,
        workers: int,
        end: float,
        spec: Mapping[str, object],
        absences: Columns | None = None,
        update_starts: Sequence[float] | None = None,
    ) -> Self:
        """Build the trace of a simulation from the columns of its messages, in the order in which they began."""
        used = columns["update"] >= 0
        count = np.bincount(columns["update"][used], minlength=len(update_times))
        steps = np.bincount(columns["update"][used], columns["steps"][used], minlength=len(update_times))
        updates = {"time": np.asarray(update_times), "messages": count, "gradients": steps.astype(np.int64)}
        if update_starts is not None:
            updates["start"] = np.asarray(update_starts, float)
        trace = cls(columns, updates, workers=workers, end=end, spec=spec, absences=absences)
        trace._given = None  # nobody else has seen the order of the rows
        return trace

    @classmethod
    def from_log(
        cls,
        source: pd.DataFrame | str | os.PathLike[str],
        *,
        columns: Mapping[str, str] | None = None,
        unit: str | None = None,
        read_version: Literal["newest"] | None = None,
        per_update: int | Literal["equal times"] | None = None,
        origin: float | None = None,
        resolution: float = 0.0,
        **about: Any,
    ) -> Self:
        """Build the trace of a parameter server's log, and verify it; ``docs/logs.md`` says what is derived.

        Args:
            source: a DataFrame or a file (CSV, the same in gzip, Parquet): one row per message.
            columns: what a column is -> its name in the log. One column may stand for several moments.
            unit: of times that are numbers: ``s``, ``ms``, ``us`` or ``ns``; default: as columns say, or seconds.
            read_version: ``newest`` if the log has no versions, and workers read the newest one.
            per_update: without a column ``update``: messages of an update, or ``equal times`` of applying.
            origin: the time that becomes 0 s, as the log has it; default: the earliest read.
            resolution: seconds to which times are rounded.
            **about: ``workers``, ``end`` (default: the last time) and ``absences``, as of the class.

        Raises:
            ValueError: naming the row, or the column that is missing and cannot be derived.
            FileNotFoundError: if there is no such file.

        Example:
            >>> import pandas as pd
            >>> log = {"rank": [0, 1], "version": [0, 0], "start": [5.0, 5.0], "end": [6.0, 6.5], "update": [0, 1]}
            >>> Trace.from_log(pd.DataFrame(log), columns={"receive_time": "end"}).staleness
            array([0, 1])
        """
        from stalegrad.simulator.timing.logs import messages

        found = messages.tables_of(source, columns, unit, read_version, per_update, origin, resolution)
        return cls(**found | about).verify()

    # What happened

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self._workers

    @property
    def end(self) -> float:
        """When the observation ended, in seconds."""
        return self._end

    @property
    def resolution(self) -> float:
        """Seconds to which the times are rounded, 0 if they are exact."""
        return self._resolution

    @cached_property
    def messages(self) -> pd.DataFrame:
        """One row per message, in the order of (read_time, worker, which the worker computed first)."""
        return pd.DataFrame(self._messages)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """One row per server update."""
        return pd.DataFrame(self._updates)

    @cached_property
    def absences(self) -> pd.DataFrame:
        """One row for each time that a worker was away."""
        return pd.DataFrame(self._absences)

    def column(self, name: str) -> np.ndarray:
        """Return a column of the message table as a numpy array that cannot be written to."""
        return self._messages[name]

    @property
    def update_times(self) -> npt.NDArray[np.float64]:
        """Return the time of every update, in seconds, as a numpy array."""
        return self._updates["time"]

    @cached_property
    def used(self) -> npt.NDArray[np.int64]:
        """Rows of the used messages in the order of gradient ids: by (update, receive_time, worker), then row."""
        g = self._messages
        rows = np.flatnonzero(g["update"] >= 0)
        return rows[np.lexsort((g["worker"][rows], g["receive_time"][rows], g["update"][rows]))]

    # Summary statistics

    @property
    def staleness(self) -> npt.NDArray[np.int64]:
        """Return the staleness of every used message, in the order of gradient ids."""
        return self._messages["staleness"][self.used]

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
        """Return how each worker spent its time, as fractions of the time that it was there, from its joining on.

        Columns: ``used`` (computing what was used, or still may be), ``wasted`` (cancelled, discarded or lost),
        ``idle``; NaN for a worker that never joined.
        """
        g = self._messages
        finish = np.where(np.isnan(g["finish_time"]), self.end, np.minimum(g["finish_time"], self.end))
        spent = np.maximum(finish - np.minimum(g["read_time"], self.end), 0.0)
        wasted = np.isin(g["fate"], [str(Fate.CANCELLED), str(Fate.DISCARDED), str(Fate.LOST)])
        present = np.full(self.workers, np.nan)
        for worker, time in zip(g["worker"][::-1], g["read_time"][::-1], strict=True):
            present[worker] = self.end - time
        for worker, leave, back in zip(*self._absences.values(), strict=True):  # those before joining do not count
            since = max(leave, self.end - present[worker])
            present[worker] -= max((self.end if math.isnan(back) else back) - since, 0.0)
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

    def anatomy(self) -> Anatomy:
        """Return what staleness consists of (computing, travelling, waiting, ...), and whose work is used.

        Raises:
            TraceError: if the trace fails :meth:`verify`.
        """
        return Anatomy(self.verify())

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
            f"{len(self._messages['worker'])} messages, {self.end:g} s)"
        )

    def _repr_html_(self) -> str:
        table = pd.Series(self.summary(), name="").to_frame().to_html(float_format="{:.4g}".format, header=False)
        return f"<b>Trace</b> of {escape(str(self.spec.get('synchrony', 'a measured run')))}{table}"

    # Checks

    def verify(self) -> Self:
        """Check that the trace can have happened: simulated or measured, the same laws hold.

        Times may contradict one another by rounding: by 1e-12 of their magnitude
        (:data:`~stalegrad.simulator.timing.clock.TOLERANCE`) plus twice the ``resolution`` of the trace. A trace
        that has been verified is not verified again.

        Raises:
            TraceError: naming the first row that breaks a law, counted from 0 in the table that was given, and the
                law.
        """
        if not self._verified:
            consistency.verify(
                consistency.Table("messages", self._messages, self._given, self._labels[0]),
                consistency.Table("updates", self._updates, None, self._labels[1]),
                consistency.Table("absences", self._absences),
                workers=self.workers, end=self.end, resolution=self.resolution,
            )  # fmt: skip
            self._verified = True
        return self

    # Storage

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a directory of Parquet files and their checksums; it appears whole or not at all.

        Raises:
            FileExistsError: if something else than a trace is there already.
        """
        path = Path(path)
        about = {"workers": self.workers, "end": self.end, "resolution": self.resolution}
        tables = {"messages": self._messages, "updates": self._updates}
        if len(self._absences["worker"]):
            tables["absences"] = self._absences
        from stalegrad.simulator.timing import storage

        storage.write(path, tables, about | {"spec": checked_spec(self.spec)})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, at_most: int = ROWS) -> Self:
        """Read a trace that :meth:`save` wrote.

        Args:
            path: its directory.
            at_most: rows that each table may hold (100 bytes each), so that a foreign file cannot take all memory.

        Raises:
            FileNotFoundError: if there is none.
            TraceError: if a file is damaged, foreign, of another format or too large, or the trace fails
                :meth:`verify`.
        """
        from stalegrad.simulator.timing import storage

        tables, about = storage.read(path, at_most)
        found: dict[str, Any] = tables | about
        return cls(**found).verify()
