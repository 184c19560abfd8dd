"""The trace: the tables of all events with their times. The replay knows nothing else about time."""

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
    """Columnar tables of messages, updates and absences, and the spec of the simulation. It is immutable.

    Args:
        messages: columns ``worker, read_version, read_time, finish_time, receive_time, update,
            staleness, steps, fate``, one row per message, times in seconds. ``update`` is the index j of
            the update j -> j + 1 that consumed the message (the first is 0); it and ``staleness`` are -1 if none
            did. ``steps`` counts the local mini-batch gradients, 1 without local steps. ``fate`` is ``used``,
            ``discarded``, ``cancelled``, ``lost`` (the worker left before it was sent) or ``pending``. Rows are
            sorted by (read_time, worker); rows in which both are equal must be in the order in which the worker
            computed them, and keep it.
        updates: columns ``time, messages, gradients``, one row per update, and ``start`` if updates take time: an
            update lasts from ``start`` to ``time``, when the new version appears.
        workers: number of workers, at most 10,000,000; by default one more than the largest that occurs.
        end: end of the observation, in seconds; by default the time of the last update.
        spec: origin of the trace: a mapping of values that JSON can hold.
        absences: columns ``worker, leave_time, return_time``, in seconds, one row for each absence of a worker;
            ``return_time`` is NaN if the worker was absent at the end. Default: no absences.
        resolution: seconds to which measured times are rounded, e.g. 0.001; :meth:`verify` allows contradictions
            between times up to twice that.

    :meth:`from_log` makes a trace of a real cluster's log.

    Raises:
        TraceError: if a column or another argument has a wrong type or range; it names the argument. Whether the
            rows are consistent is checked by :meth:`verify`.

    Example:
        >>> import stalegrad as sg
        >>> sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=4).summary()["mean_staleness"]
        0.75
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
        """Build the trace of a simulation from its messages' columns, in the order in which the messages began."""
        used = columns["update"] >= 0
        count = np.bincount(columns["update"][used], minlength=len(update_times))
        steps = np.bincount(columns["update"][used], columns["steps"][used], minlength=len(update_times))
        updates = {"time": np.asarray(update_times), "messages": count, "gradients": steps.astype(np.int64)}
        if update_starts is not None:
            updates["start"] = np.asarray(update_starts, float)
        trace = cls(columns, updates, workers=workers, end=end, spec=spec, absences=absences)
        trace._given = None  # a user has not seen the order of these rows
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
        """Build and verify the trace of a parameter server's log; the guide to logs lists the columns derived.

        Args:
            source: a DataFrame or a file (CSV, gzipped CSV, Parquet): one row per message.
            columns: names of columns in the log, by meaning. One column may stand for several moments.
            unit: unit of numeric times: ``s``, ``ms``, ``us`` or ``ns``; default: as columns' names say, or ``s``.
            read_version: ``newest`` if the log has no versions, and workers read the newest one.
            per_update: without a column ``update``: messages per update, or ``equal times`` of applying.
            origin: time in the log that becomes 0 s; default: the earliest read.
            resolution: seconds to which times are rounded.
            **about: ``workers``, ``end`` (default: the last time) and ``absences``, as for the class.

        Raises:
            ValueError: if a row is wrong, or a column is missing and cannot be derived; it names it.
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
        """The end of the observation, in seconds."""
        return self._end

    @property
    def resolution(self) -> float:
        """The number of seconds to which times are rounded; 0 if they are exact."""
        return self._resolution

    @cached_property
    def messages(self) -> pd.DataFrame:
        """One row per message, sorted by read_time, then worker, then the order in which the worker computed."""
        return pd.DataFrame(self._messages)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """One row per server update."""
        return pd.DataFrame(self._updates)

    @cached_property
    def absences(self) -> pd.DataFrame:
        """One row per absence of a worker."""
        return pd.DataFrame(self._absences)

    def column(self, name: str) -> np.ndarray:
        """Return a column of the message table as a read-only NumPy array."""
        return self._messages[name]

    @property
    def update_times(self) -> npt.NDArray[np.float64]:
        """The time of every update, in seconds, as a NumPy array."""
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
        """The staleness of every used message, in the order of gradient ids."""
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
        """Return how each worker spent its time, as fractions of the time in which it was present.

        Columns: ``used`` (computing messages that were used or may still be), ``wasted`` (computing messages that
        were cancelled, discarded or lost), ``idle``; NaN for a worker that never joined.
        """
        g = self._messages
        finish = np.where(np.isnan(g["finish_time"]), self.end, np.minimum(g["finish_time"], self.end))
        spent = np.maximum(finish - np.minimum(g["read_time"], self.end), 0.0)
        wasted = np.isin(g["fate"], [str(Fate.CANCELLED), str(Fate.DISCARDED), str(Fate.LOST)])
        present = np.full(self.workers, np.nan)
        for worker, time in zip(g["worker"][::-1], g["read_time"][::-1], strict=True):
            present[worker] = self.end - time
        for worker, leave, back in zip(*self._absences.values(), strict=True):  # not those before joining
            since = max(leave, self.end - present[worker])
            present[worker] -= max((self.end if math.isnan(back) else back) - since, 0.0)
        present[present <= 0] = np.nan
        parts = {"used": spent * ~wasted, "wasted": spent * wasted}
        shares = {name: np.bincount(g["worker"], part, self.workers) / present for name, part in parts.items()}
        table = pd.DataFrame(shares).rename_axis("worker")
        table["idle"] = (1.0 - table["used"] - table["wasted"]).clip(lower=0.0)
        return table

    def idle_fraction(self) -> pd.Series[float]:
        """Return the fraction of the time of its presence in which each worker does not compute."""
        return self.busy()["idle"]

    def anatomy(self) -> Anatomy:
        """Return the parts of staleness (computing, travelling, waiting, ...), and which work was used.

        Raises:
            TraceError: if the trace fails :meth:`verify`.
        """
        return Anatomy(self.verify())

    def summary(self) -> dict[str, float]:
        """Return a summary of the trace in a few numbers."""
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
        """Check that the trace is consistent; simulated and measured traces obey the same laws.

        Times may contradict each other by rounding: by 1e-12 of their magnitude
        (:data:`~stalegrad.simulator.timing.clock.TOLERANCE`) plus twice the ``resolution`` of the trace. A trace
        that has been verified is not verified again.

        Raises:
            TraceError: if a row breaks a law; it names the law and the first such row of the table that was given,
                counted from 0.
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
        """Write the trace to a directory of Parquet files and checksums, completely or not at all.

        Raises:
            FileExistsError: if the path exists and is not a trace.
        """
        path = Path(path)
        about = {"workers": self.workers, "end": self.end, "resolution": self.resolution}
        tables = {"messages": self._messages, "updates": self._updates}
        tables |= {"absences": self._absences} if len(self._absences["worker"]) else {}
        from stalegrad.simulator.timing import storage

        storage.write(path, tables, about | {"spec": checked_spec(self.spec)})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, at_most: int = ROWS) -> Self:
        """Read a trace that :meth:`save` wrote.

        Args:
            path: directory of the trace.
            at_most: largest number of rows of each table (100 bytes each), so that no file can take all memory.

        Raises:
            FileNotFoundError: if there is no trace.
            TraceError: if a file is damaged, not of a trace, of another format or too large, or the trace fails
                :meth:`verify`.
        """
        from stalegrad.simulator.timing import storage

        tables, about = storage.read(path, at_most)
        found: dict[str, Any] = tables | about
        return cls(**found).verify()
