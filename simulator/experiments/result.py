"""Running an experiment, and what comes of it."""

from __future__ import annotations

import functools
import html
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import pandas as pd
from tqdm.auto import tqdm

from stalegrad._core.files import check_sums, write_sums
from stalegrad.simulator.experiments.describe import UnknownPartError
from stalegrad.simulator.experiments.experiment import Experiment, from_toml
from stalegrad.simulator.experiments.formats import (
    flat,
    flush,
    read_arrays,
    read_file,
    read_json,
    read_table,
    read_text,
    write_arrays,
    write_table,
)
from stalegrad.simulator.experiments.identity import Identity, canonical, digest, parts_of
from stalegrad.simulator.experiments.traces import trace_of
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.run import Replay, check, replay, simulate_and_replay
from stalegrad.simulator.timing.trace import Trace

if TYPE_CHECKING:
    from stalegrad._core.protocols import ResultLike, SynchronyLike
    from stalegrad.policies.synchrony import Synchrony
    from stalegrad.simulator.experiments.observers import Observer

    def _as_analysis_sees_them(result: Result, synchrony: Synchrony) -> tuple[ResultLike, SynchronyLike]:
        """Let mypy check that the concrete classes satisfy the protocols of analysis."""
        return result, synchrony


FORMAT = "stalegrad-result-2"

FILES = ("spec.toml", "result.json", "history.parquet", "params.npz", "gradients.parquet", "stats.npz")
"""What a result consists of, beside its trace; the last two are there if there is something to hold."""

PACKAGES = ("stalegrad", "jax", "jaxlib", "numpy", "scipy", "optax", "flax", "simpy")
"""Those whose versions can change a number."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gives.

    Attributes:
        experiment: what was run.
        trace: when everything happened.
        history: tidy table of the recorded points: ``wallclock`` (simulated seconds), ``update``,
            ``gradients``, ``epoch``, ``train_loss``, ``test_loss``, ``test_error``, ``mean_staleness``,
            ``max_staleness``, ``mean_gap``, ``learning_rate`` and the columns of your own.
        params: the server's parameters at the end (a flat ``{path: array}`` if loaded from disk).
        diverged_at: wallclock of the first recorded point whose loss is not finite, where the run ended; or
            None.
        path: how the replay was executed, see ``Replay``.
        gradients: one row per used message, if the record asks for it (see
            :class:`~stalegrad.simulator.replays.run.Replay`).
        stats: the running statistics of batch norm at the end, like ``params``; empty where there is none.
        versions: of the packages that ran it.
        parts: digests of the functions and local data that the experiment's spec names, see
            :func:`~stalegrad.simulator.experiments.identity.parts_of`.
    """

    experiment: Experiment
    trace: Trace
    history: pd.DataFrame
    params: Any
    diverged_at: float | None
    path: str
    gradients: pd.DataFrame | None = None
    stats: Any = ()
    versions: Mapping[str, str] = field(default_factory=versions)
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, trace: Trace, replayed: Replay, parts: Mapping[str, str]) -> Self:
        """Return the result of replaying the trace of an experiment."""
        return cls(experiment=experiment, trace=trace, parts=parts, **replayed._asdict())

    @property
    def lanes(self) -> int | None:
        """In how many lanes it was executed beside other runs; None: alone."""
        group = re.fullmatch(r"group of (\d+)", self.path)
        return int(group[1]) if group else None

    @property
    def identity(self) -> Identity:
        """What its bytes depend on, as it was executed.

        Raises:
            ValueError: if the experiment cannot be written to a spec.
        """
        return Identity(canonical(self.experiment), self.parts, self.lanes)

    def plot(self, x: str = "wallclock", y: str | None = None, ax: Any = None) -> Any:
        """Draw a column of the history against another, by default the test error, or else a loss.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_curves
        from stalegrad.analysis.statistics.curves import shown_column

        y = y or shown_column([self.history])
        return plot_curves({self.experiment.method.name: [self.history]}, x=x, y=y, ax=ax)

    def report(self, target: float | None = None) -> Any:
        """Return the run as one HTML document: shown in a notebook, ``.save(path)`` writes it."""
        from stalegrad.analysis import report

        return report([self], target)

    def summary(self) -> dict[str, Any]:
        """Return the run in a few numbers: the trace's, and the last row's losses."""
        last = self.history.iloc[-1]
        final = {name: float(last[name]) for name in ("train_loss", "test_loss", "test_error")}
        return self.trace.summary() | final | {"diverged_at": self.diverged_at, "path": self.path}

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write everything to a new directory, which appears whole or not at all, whatever fails meanwhile.

        ``spec.toml``, ``trace/``, ``history.parquet``, ``params.npz``, ``result.json`` and, where there are such,
        ``gradients.parquet`` and ``stats.npz``; ``SHA256SUMS`` covers them all. No pickle.

        Raises:
            FileExistsError: if the directory exists and is not empty.
            ValueError: if the experiment cannot be written to a spec.
        """
        directory = self.check_free(directory)
        spec = self.experiment.to_toml()
        about: dict[str, Any] = {"format": FORMAT, "diverged_at": self.diverged_at, "path": self.path}
        about |= {"versions": dict(self.versions), "parts": dict(self.parts)}
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            (fresh / "spec.toml").write_text(spec, encoding="utf-8", newline="\n")
            (fresh / "result.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8", newline="\n")
            self.trace.save(fresh / "trace")
            write_table(self.history, fresh / "history.parquet")
            if self.gradients is not None:
                write_table(self.gradients, fresh / "gradients.parquet", index=True)
            write_arrays(flat(self.params), fresh / "params.npz")
            if jax.tree.leaves(self.stats):
                write_arrays(flat(self.stats), fresh / "stats.npz")
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
        """Read what :meth:`save` wrote. Functions that its spec names are not imported.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged or foreign, naming it.
        """
        directory = Path(directory)
        about = read_file(directory / "result.json", read_json)
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{directory} is not a stalegrad result of format {FORMAT}: found {about.get('format')}"
            )
        check_sums(directory, FILES)
        further: dict[str, Any] = {
            name: read_file(file, read) if (file := directory / f"{name}{ending}").exists() else missing
            for name, ending, read, missing in [
                ("gradients", ".parquet", read_table, None),
                ("stats", ".npz", read_arrays, ()),
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


def run(
    experiment: Experiment,
    *,
    progress: bool = True,
    path: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    observers: Sequence[Observer] = (),
) -> Result:
    """Run an experiment: simulate its timing, then replay it.

    Args:
        experiment: what to run.
        progress: show a progress bar (in a terminal or notebook).
        path: ``scan``, ``windows`` or ``loop``; by default chosen by backend and problem.
        checkpoint: a file that keeps the state of the run. Whatever interrupts it, the same call goes on from
            there and gives the same bytes; Ctrl-C saves and stops. The file stays: remove it when the result
            is safe.
        checkpoint_every: real seconds from one state to the next.
        observers: told about the result, e.g. ``[TensorBoard("logs")]``.

    Returns:
        The result. A run that diverges is one, too.

    Raises:
        ValueError: if the experiment is impossible, or the checkpoint is damaged or that of another run; before
            any work.
        KeyboardInterrupt: after Ctrl-C, when the state is safe.
    """
    check(experiment.problem, experiment.method, experiment.cluster.size, path)
    e, silent = experiment, None if progress else True
    bar = functools.partial(tqdm, desc=f"{e.method.name}, seed {e.seed}", unit=" updates", disable=silent)
    how: dict[str, Any] = {"record": e.record, "seed": e.seed, "path": path}
    with ExitStack() as stack:
        if checkpoint is not None:
            how["checkpoint"] = Checkpoint(checkpoint, _checkpoint_identity(experiment, path), checkpoint_every)
            stack.enter_context(how["checkpoint"].guarding())
        result = _run(experiment, bar, how)
    for observer in observers:
        with never_failing(observer, f"the run ({e.method.name}, seed {e.seed})"):
            observer.finished(result)
    return result


@contextmanager
def never_failing(observer: Observer, run: str) -> Iterator[None]:
    """Let an observer take note of a run; what it raises becomes a warning, so that no run is lost."""
    try:
        yield
    except Exception as error:
        name = type(observer).__name__
        said = f"observer {name} missed {run}: {type(error).__name__}: {error}"
        try:
            warnings.warn(said, stacklevel=4)
        except Warning:  # where warnings are errors
            logging.getLogger("stalegrad").error(said)


def _run(e: Experiment, bar: Any, how: dict[str, Any]) -> Result:
    parts = known_parts(e)
    if e.method.adaptive:
        with bar() as told:
            trace, done = simulate_and_replay(
                e.cluster, e.problem, e.method, e.budget, progress=told.update, **how
            )
        return Result.of(e, trace, done, parts)
    trace = trace_of(e)
    with bar(total=len(trace.update_times)) as told:
        done = replay(trace, e.problem, e.method, progress=told.update, **how)
    return Result.of(e, trace, done, parts)


def known_parts(experiment: Experiment) -> dict[str, str]:
    """Return the digests of what the experiment's spec names; a part that cannot be compared is called unknown."""
    try:
        return parts_of(experiment)
    except UnknownPartError as error:
        return {"unknown": str(error)}


def _checkpoint_identity(experiment: Experiment, path: str | None) -> dict[str, str]:
    """Return all that decides the bytes of a run.

    Raises:
        ValueError: if nobody can tell whether a part of the experiment is the same in another process.
    """
    found = digest(experiment)
    if found is None:
        raise ValueError(
            "a checkpoint is not allowed for this experiment: it holds an object that cannot be compared with one "
            "of another process"
        )
    try:
        about = {"spec": experiment.to_toml()}
    except ValueError:
        about = {}
    about |= {"spec's functions or data": found, "path": str(path), "device": jax.devices()[0].device_kind}
    return about | {f"version of {name}": version for name, version in versions().items()}


def load_results(directory: str | os.PathLike[str]) -> list[Result]:
    """Read the result that is in a directory, or all that are below it.

    Raises:
        NotADirectoryError: if it is none.
        FileNotFoundError: if there is no result, or a file of one is missing.
        ValueError: if a file is damaged or foreign, naming it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory of results")
    files = [file for file in directory.rglob("result.json") if not file.parent.name.startswith(".")]  # unfinished
    if not files:
        raise FileNotFoundError(f"no result in {directory}: write one with stalegrad run SPEC.toml -o {directory}")
    alone = (directory / "result.json").exists()
    return [Result.load(place) for place in ([directory] if alone else sorted(file.parent for file in files))]


def _about(file: Path) -> dict[str, Any]:
    about = read_json(file)
    tables = {
        name: {str(key): str(value) for key, value in dict(about[name]).items()} for name in ("versions", "parts")
    }
    diverged_at = None if about["diverged_at"] is None else float(about["diverged_at"])
    return {"diverged_at": diverged_at, "path": str(about["path"]), **tables}
