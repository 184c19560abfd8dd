"""The result of a run, in memory and on disk."""

from __future__ import annotations

import html
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from stalegrad._core.files import check_sums, write_sums
from stalegrad._core.types import Params, PyTree, Stats, Table
from stalegrad.simulator.experiments.experiment import Experiment, from_toml
from stalegrad.simulator.experiments.formats import (
    flush,
    read_arrays,
    read_file,
    read_json,
    read_table,
    read_text,
    write_arrays,
    write_table,
)
from stalegrad.simulator.experiments.identity import Identity, canonical
from stalegrad.simulator.timing.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stalegrad._core.protocols import ResultLike, SynchronyLike
    from stalegrad.policies.synchrony import Synchrony
    from stalegrad.simulator.replays.run import Replay

    def _as_analysis_sees_them(result: Result, synchrony: Synchrony) -> tuple[ResultLike, SynchronyLike]:
        """Let mypy check that the concrete classes satisfy the protocols of analysis."""
        return result, synchrony


FORMAT = "stalegrad-result-3"

FILES = (
    "spec.toml",
    "result.json",
    "history.parquet",
    "params.npz",
    "gradients.parquet",
    "stats.npz",
    "snapshots.npz",
)
"""Files of a result, besides its trace; the last three exist only if they have content."""

PACKAGES = ("stalegrad", "jax", "jaxlib", "numpy", "scipy", "optax", "flax", "simpy")
"""Packages whose versions can change a number."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a run.

    Attributes:
        experiment: experiment that was run.
        trace: trace of the run.
        history: tidy table of the recorded points: ``wallclock`` (simulated seconds), ``update``,
            ``gradients``, ``epoch``, ``train_loss``, ``test_loss``, ``test_error``, ``mean_staleness``,
            ``max_staleness``, ``mean_gap``, ``learning_rate`` and the user's columns.
        params: parameters of the server at the end (a flat ``{path: array}`` if loaded from disk).
        diverged_at: wallclock in seconds of the first recorded point whose loss is not finite, at which the run
            ended; None if there is no such point.
        execution: execution of the replay, see ``Replay``.
        gradients: one row per used message, if the record requests it (see
            :class:`~stalegrad.simulator.replays.run.Replay`); else None.
        stats: running statistics of batch norm at the end, in the form of ``params``; empty without batch norm.
        snapshots: parameters at the rows of the history, if the record requests them (see
            :class:`~stalegrad.simulator.replays.run.Replay`); flat, like ``params``, if loaded from disk.
        versions: versions of the packages that executed the run.
        parts: digests of the functions and local data that the experiment's spec names, see
            :func:`~stalegrad.simulator.experiments.identity.parts_of`.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> method = sg.methods.async_(learning_rate=0.5)
        >>> result = sg.run(sg.Experiment(bowl, sg.Cluster(1), method, updates=2), progress=False)
        >>> result.params.tolist(), result.history["train_loss"].tolist()
        ([0.25, 0.25], [1.0, 0.25, 0.0625])
    """

    experiment: Experiment
    trace: Trace
    history: pd.DataFrame
    params: Params
    diverged_at: float | None
    execution: str
    gradients: pd.DataFrame | None = None
    stats: Stats = ()
    snapshots: dict[str, PyTree] | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, trace: Trace, replayed: Replay, parts: Mapping[str, str]) -> Self:
        """Return the result of replaying the trace of an experiment."""
        return cls(experiment=experiment, trace=trace, parts=parts, **replayed._asdict())

    @property
    def lanes(self) -> int | None:
        """The number of lanes in which the run was executed; None if it was executed alone."""
        lanes = re.fullmatch(r"(\d+) lanes", self.execution)
        return int(lanes[1]) if lanes else None

    @property
    def identity(self) -> Identity:
        """The identity of the run as it was executed.

        Raises:
            ValueError: if the experiment cannot be written to a spec.
        """
        return Identity(canonical(self.experiment), self.parts, self.lanes)

    def plot(self, x: str = "wallclock", y: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw a column of the history against another, by default the test error, or else a loss.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_curves
        from stalegrad.analysis.statistics.curves import shown_column

        y = y or shown_column([self.history])
        return plot_curves({self.experiment.method.name: [self.history]}, x=x, y=y, ax=ax)

    def report(self, target: float | None = None) -> Any:
        """Return the run as one HTML document; a notebook shows it, and ``.save(path)`` writes it."""
        from stalegrad.analysis import report

        return report([self], target)

    def summary(self) -> Table:
        """Return a summary in a few numbers: those of the trace, and the losses of the last row."""
        last = self.history.iloc[-1]
        final = {name: float(last[name]) for name in ("train_loss", "test_loss", "test_error")}
        return self.trace.summary() | final | {"diverged_at": self.diverged_at, "execution": self.execution}

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write everything to a new directory, completely or not at all, even if writing fails.

        The directory holds ``spec.toml``, ``trace/``, ``history.parquet``, ``params.npz``, ``result.json`` and, if
        they have content, ``gradients.parquet``, ``stats.npz`` and ``snapshots.npz``; ``SHA256SUMS`` covers them
        all. Nothing is pickled.

        Raises:
            FileExistsError: if the directory exists and is not empty.
            ValueError: if the experiment cannot be written to a spec.
        """
        directory = self.check_free(directory)
        spec = self.experiment.to_toml()
        about: Table = {"format": FORMAT, "diverged_at": self.diverged_at, "execution": self.execution}
        about |= {"versions": dict(self.versions), "parts": dict(self.parts)}
        directory.parent.mkdir(parents=True, exist_ok=True)
        from stalegrad._core.trees import flat

        fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            (fresh / "spec.toml").write_text(spec, encoding="utf-8", newline="\n")
            (fresh / "result.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8", newline="\n")
            self.trace.save(fresh / "trace")
            write_table(self.history, fresh / "history.parquet")
            if self.gradients is not None:
                write_table(self.gradients, fresh / "gradients.parquet", index=True)
            write_arrays(flat(self.params), fresh / "params.npz")
            for name, tree in (("stats", self.stats), ("snapshots", self.snapshots)):
                if arrays := flat(tree):
                    write_arrays(arrays, fresh / f"{name}.npz")
            write_sums(fresh)
            fresh.chmod(0o755)
            flush(fresh)
            fresh.replace(directory)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return directory

    @staticmethod
    def check_free(directory: str | os.PathLike[str]) -> Path:
        """Raise FileExistsError if the directory exists and is not empty."""
        directory = Path(directory)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FileExistsError(f"{directory} exists and is not empty: choose another place")
        return directory

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Read a result that :meth:`save` wrote. Functions that its spec names are not imported.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged or not of a result; it names the file.
        """
        directory = Path(directory)
        about = read_file(directory / "result.json", read_json)
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{directory} is not a stalegrad result of format {FORMAT}: found {about.get('format')}"
            )
        check_sums(directory, FILES)
        further: Table = {
            name: read_file(file, read) if (file := directory / f"{name}{ending}").exists() else missing
            for name, ending, read, missing in [
                ("gradients", ".parquet", read_table, None),
                ("stats", ".npz", read_arrays, ()),
                ("snapshots", ".npz", read_arrays, None),
            ]
        }
        return cls(
            experiment=read_file(directory / "spec.toml", lambda file: from_toml(read_text(file))),
            trace=Trace.load(directory / "trace"),
            history=read_file(directory / "history.parquet", read_table),
            params=read_file(directory / "params.npz", read_arrays),
            **read_file(directory / "result.json", _about),
            **further,
        )

    def __repr__(self) -> str:
        error = self.history["test_error"].iloc[-1]
        last = (
            f"loss {self.history['train_loss'].iloc[-1]:.4g}" if math.isnan(error) else f"test error {error:.4g}"
        )
        diverged = "" if self.diverged_at is None else f", diverged at {self.diverged_at:g} s"
        return (
            f"Result({self.experiment.method.name}, seed {self.experiment.seed}: {last}{diverged}; {self.trace!r})"
        )

    def _repr_html_(self) -> str:
        table = pd.Series(self.summary(), name="").to_frame().to_html(header=False)
        return f"<b>{html.escape(self.experiment.method.name)}</b>, seed {self.experiment.seed}{table}"


def load_results(directory: str | os.PathLike[str]) -> list[Result]:
    """Read the result in a directory, or all results below it.

    Raises:
        NotADirectoryError: if it is not a directory.
        FileNotFoundError: if there is no result, or a file of a result is missing.
        ValueError: if a file is damaged or not of a result; it names the file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory of results")
    files = [file for file in directory.rglob("result.json") if not file.parent.name.startswith(".")]  # unfinished
    if not files:
        raise FileNotFoundError(f"no result in {directory}: write one with stalegrad run SPEC.toml -o {directory}")
    alone = (directory / "result.json").exists()
    return [Result.load(place) for place in ([directory] if alone else sorted(file.parent for file in files))]


def _about(file: Path) -> Table:
    about = read_json(file)
    tables = {
        name: {str(key): str(value) for key, value in dict(about[name]).items()} for name in ("versions", "parts")
    }
    diverged_at = None if about["diverged_at"] is None else float(about["diverged_at"])
    return {"diverged_at": diverged_at, "execution": str(about["execution"]), **tables}
