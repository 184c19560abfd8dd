"""Protocols that analysis works on: the parts of a trace, a result, an experiment and a synchrony that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.types import Table


class AnatomyLike(Protocol):
    """The parts of the staleness of a trace's used messages, and the shares of work that was used."""

    @property
    def fates(self) -> Sequence[str]:
        """Columns of the tables that hold shares of gradients, by fate."""
        ...

    @property
    def messages(self) -> pd.DataFrame:
        """One row per used message: ``worker``, ``staleness`` and its parts, in updates."""
        ...

    @property
    def workers(self) -> pd.DataFrame:
        """One row per worker: mean ``staleness`` and its parts, shares of gradients, ``work_used``, ``speed``."""
        ...

    @property
    def pooled(self) -> pd.Series:
        """The columns of ``workers`` for all workers together."""
        ...

    def table(self, most: int = ...) -> pd.DataFrame:
        """Return a row per worker, or per group of them by speed if there are more than ``most``, and ``all``."""
        ...


@runtime_checkable
class TraceLike(Protocol):
    """The events of a run: messages from workers and updates of the server. All times are simulated seconds."""

    @property
    def workers(self) -> int:
        """The number of workers."""
        ...

    @property
    def end(self) -> float:
        """The time at which the observation ended, in seconds."""
        ...

    @property
    def spec(self) -> Table:
        """The origin of the trace, as plain tables that JSON can hold."""
        ...

    @property
    def updates(self) -> pd.DataFrame:
        """One row per update: ``time`` (seconds), ``messages`` and ``gradients`` (counts)."""
        ...

    @property
    def absences(self) -> pd.DataFrame:
        """One row per absence of a worker: ``worker, leave_time, return_time`` (NaN: not yet back)."""
        ...

    @property
    def update_times(self) -> npt.NDArray[np.float64]:
        """The time of every update, in seconds; shape (updates,)."""
        ...

    @property
    def used(self) -> npt.NDArray[np.int64]:
        """Row numbers of the used messages in the order of gradient ids; shape (used,)."""
        ...

    @property
    def staleness(self) -> npt.NDArray[np.int64]:
        """The staleness of every used message, in updates, in the order of ``used``; shape (used,)."""
        ...

    def column(self, name: str) -> np.ndarray:
        """Return a column of the message table; shape (messages,), in the order of (read_time, worker).

        Columns: ``worker, read_version``, the seconds ``read_time, finish_time, receive_time`` (NaN if it did not
        happen), ``update, staleness`` (-1 if not used), ``steps``, ``fate`` (a string).
        """
        ...

    def busy(self) -> pd.DataFrame:
        """Return ``used, wasted, idle`` per worker, as shares of its time; NaN for a worker that never joined."""
        ...

    def anatomy(self) -> AnatomyLike:
        """Return the parts of staleness, per message, per worker and pooled.

        Raises:
            ValueError: if the trace breaks a law, see :meth:`verify`.
        """
        ...

    def summary(self) -> Mapping[str, float]:
        """Return scalars: ``updates``, ``mean_staleness`` (updates), ``idle``, ``wasted`` (shares) and others."""
        ...

    def verify(self) -> Self:
        """Check the laws that every trace obeys, and return the trace itself.

        Raises:
            ValueError: if a law is broken; the error names the row and the law.
        """
        ...


class MethodLike(Protocol):
    """A method; only its name is used."""

    @property
    def name(self) -> str:
        """Its name in the registry, e.g. ``k-async``."""
        ...


class ExperimentLike(Protocol):
    """All settings of a run, as a value that can be written to a file."""

    @property
    def method(self) -> MethodLike:
        """The method that was run."""
        ...

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        ...

    def table(self) -> Table:
        """Return the experiment as nested plain tables.

        Raises:
            ValueError: if a part of it exists in this process only.
        """
        ...

    def to_toml(self) -> str:
        """Return the experiment as TOML.

        Raises:
            ValueError: if a part of it exists in this process only.
        """
        ...

    def but(self, **changes: object) -> Self:
        """Return the same experiment with some fields changed."""
        ...


class ResultLike(Protocol):
    """The outcome of one run."""

    @property
    def experiment(self) -> ExperimentLike:
        """The experiment that was run."""
        ...

    @property
    def trace(self) -> TraceLike:
        """The trace of the run."""
        ...

    @property
    def history(self) -> pd.DataFrame:
        """One row per recorded point: ``wallclock`` (seconds, ascending), ``train_loss``, ``test_error``, ..."""
        ...

    @property
    def diverged_at(self) -> float | None:
        """Wallclock, in seconds, of the first recorded loss that is not finite; None if there is none."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that were used, by package."""
        ...


class WhatIfLike(Protocol):
    """A job under other synchronies, see ``stalegrad.simulator.WhatIf``."""

    @property
    def name(self) -> str:
        """The name of the log."""
        ...

    @property
    def table(self) -> pd.DataFrame:
        """One row per synchrony: ``throughput``, ``speedup``, ``low``, ``high``, ``staleness`` and others."""
        ...

    @property
    def workers(self) -> pd.DataFrame:
        """One row per worker: ``mean`` (s), ``slowdown``, ``slow``."""
        ...

    @property
    def slowdown(self) -> float:
        """The time of the synchronous job over that of the ideal one."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """Sentences on the job, its stragglers, the gain, and the uncertainty of these figures."""
        ...

    @property
    def histories(self) -> Mapping[str, Sequence[pd.DataFrame]]:
        """The histories of each label, one per seed; empty without a problem."""
        ...


class SynchronyLike(Protocol):
    """Who waits for whom. Theory also reads ``k``, the number of messages per update, if a synchrony has it."""

    @property
    def name(self) -> str:
        """The name that users type, e.g. ``k-batch-async``."""
        ...

    @property
    def local_steps(self) -> int:
        """The number of mini-batch gradients in one message."""
        ...

    def check(self, workers: int) -> None:
        """Raise ValueError if this synchrony cannot work with ``workers`` workers."""
        ...
