"""Running an experiment, and what comes of it."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import platform
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from stalegrad.simulator.replay.checkpoint import Checkpoint
from stalegrad.simulator.replay.run import check, replay, simulate_and_replay
from stalegrad.simulator.sweeps.experiment import Experiment, from_toml
from stalegrad.simulator.sweeps.traces import trace_of
from stalegrad.simulator.timing.trace import Trace

if TYPE_CHECKING:
    from stalegrad.simulator.sweeps.observers import Observer

FORMAT = "stalegrad-result-1"

PACKAGES = ("stalegrad", "jax", "jaxlib", "numpy", "scipy", "optax", "flax", "simpy")
"""Those whose versions can change a number."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def shown(histories: Sequence[pd.DataFrame]) -> str:
    """Return the column that pictures show unless another is asked for: the test error, or else a loss."""
    columns = ("test_error", "test_loss")
    return next((c for c in columns if any(h[c].notna().any() for h in histories)), "train_loss")


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
            :class:`~stalegrad.simulator.replay.run.Replay`).
        stats: the running statistics of batch norm at the end, like ``params``; empty where there is none.
        versions: of the packages that ran it; empty if they were not recorded.
    """

    experiment: Experiment
    trace: Trace
    history: pd.DataFrame
    params: Any
    diverged_at: float | None
    path: str
    gradients: pd.DataFrame | None = None
    stats: Any = ()
    versions: dict[str, str] = field(default_factory=versions)

    def plot(self, x: str = "wallclock", y: str | None = None, ax: Any = None) -> Any:
        """Draw a column of the history against another, by default the test error, or else a loss.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_curves

        y = y or shown([self.history])
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
        ``gradients.parquet`` and ``stats.npz``; no pickle.

        Raises:
            FileExistsError: if the directory exists and is not empty.
            ValueError: if the experiment cannot be written to a spec.
        """
        directory = self.check_free(directory)
        spec = self.experiment.to_toml()
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            (fresh / "spec.toml").write_text(spec, encoding="utf-8")
            self.trace.save(fresh / "trace")
            pq.write_table(pa.Table.from_pandas(self.history, preserve_index=False), fresh / "history.parquet")
            if self.gradients is not None:
                pq.write_table(pa.Table.from_pandas(self.gradients), fresh / "gradients.parquet")
            np.savez(fresh / "params.npz", **flat(self.params))  # type: ignore[arg-type]
            if jax.tree.leaves(self.stats):
                np.savez(fresh / "stats.npz", **flat(self.stats))  # type: ignore[arg-type]
            about = {
                "format": FORMAT,
                "diverged_at": self.diverged_at,
                "path": self.path,
                "versions": self.versions,
            }
            (fresh / "result.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            fresh.chmod(0o755)
            _flush(fresh)
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
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged or foreign, naming it.
        """
        directory = Path(directory)
        about = _read(directory / "result.json", _about)
        history = _read(directory / "history.parquet", lambda file: pq.read_table(file).to_pandas())
        params = _read(directory / "params.npz", _arrays)
        gradients = directory / "gradients.parquet"
        table = _read(gradients, lambda file: pq.read_table(file).to_pandas()) if gradients.exists() else None
        stats = _read(file, _arrays) if (file := directory / "stats.npz").exists() else ()
        if about.get("format") != FORMAT:
            raise ValueError(
                f"{directory} is not a stalegrad result of format {FORMAT}: found {about.get('format')}"
            )
        experiment = _read(directory / "spec.toml", lambda file: from_toml(file.read_text(encoding="utf-8")))
        trace = Trace.load(directory / "trace")
        rest = (about["diverged_at"], about["path"], table, stats, about["versions"])
        return cls(experiment, trace, history, params, *rest)

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
        return f"<b>{self.experiment.method.name}</b>, seed {self.experiment.seed}{table}"


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
            how["checkpoint"] = Checkpoint(checkpoint, identity(experiment, path), checkpoint_every)
            stack.enter_context(how["checkpoint"].guarding())
        result = _run(experiment, bar, how)
    for observer in observers:
        observer.finished(result)
    return result


def _run(e: Experiment, bar: Any, how: dict[str, Any]) -> Result:
    if e.method.adaptive:
        with bar() as told:
            trace, done = simulate_and_replay(
                e.cluster, e.problem, e.method, e.budget, progress=told.update, **how
            )
        return Result(e, trace, *done)
    trace = trace_of(e)
    with bar(total=len(trace.update_times)) as told:
        done = replay(trace, e.problem, e.method, progress=told.update, **how)
    return Result(e, trace, *done)


def identity(experiment: Experiment, path: str | None) -> dict[str, str]:
    """Return all that decides the bytes of a run.

    Raises:
        ValueError: if a part of the experiment exists in this process only.
    """
    used = {f"version of {name}": version for name, version in versions().items()}
    return {"spec": experiment.to_toml(), "path": str(path), "device": jax.devices()[0].device_kind} | used


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


def _flush(directory: Path) -> None:
    """Wait until all below a directory has reached the disk."""
    for place in [*directory.rglob("*"), directory]:
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"no result at {file.parent}: {file.name} is missing")
    try:
        return read(file)
    except (
        ValueError, TypeError, KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException,
    ) as error:  # fmt: skip
        raise ValueError(f"{file} is damaged: {error}") from None


def _about(file: Path) -> dict[str, Any]:
    about = dict(json.loads(file.read_text(encoding="utf-8")))
    if about.get("format") != FORMAT:
        return about
    versions = {str(name): str(version) for name, version in dict(about.get("versions", {})).items()}
    return {name: about[name] for name in ("format", "diverged_at", "path")} | {"versions": versions}


def _arrays(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def flat(params: Any) -> dict[str, Any]:
    """Return a pytree as ``{"path/to/leaf": array}``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
        or "params": np.asarray(leaf)
        for path, leaf in leaves
    }
