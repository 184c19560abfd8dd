"""The results of sweeps and stores."""

from __future__ import annotations

import html
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import pandas as pd

from stalegrad.simulator.experiments.experiment import flattened
from stalegrad.simulator.experiments.identity import text_of
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.sweeps.axes import Point, Run
from stalegrad.simulator.sweeps.store import Outline, Store
from stalegrad.simulator.timing.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = ("wallclock", "updates", "mean_staleness", "idle", "train_loss", "test_loss", "test_error")
"""Numbers of a run's summary that a table of means shows."""

T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are read from disk at each access."""

    def __init__(self, read: Callable[[Path], T], places: Sequence[Path]) -> None:
        self.read, self.places = read, places

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Lazy(self.read, self.places[index])
        return self.read(self.places[index])

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class SweepResult:
    """The result of a sweep: one row per finished run, and the histories of the runs.

    Attributes:
        runs: value of every axis, method and seed, losses of the last row and summary of the trace; row i belongs
            to ``histories[i]``, ``results[i]`` and ``traces[i]``.
        axes: names of the axes.
        histories: one tidy table per run.
        results: results of the runs; those in a store are read at each access.
        traces: traces of the runs, in the same order.
        failed: last line of the traceback of every run that raised, by the values of its axes.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> base = sg.Experiment(bowl, sg.Cluster(4), sg.methods.k_async(k=4), updates=8)
        >>> results = sg.sweep(base, **{"method.k": [2, 4]}, seed=[0, 1], progress=False)
        >>> results, list(results.by("method.k"))
        (SweepResult(4 runs over method.k, seed), ['k = 2', 'k = 4'])
    """

    runs: pd.DataFrame
    axes: Sequence[str]
    histories: Sequence[pd.DataFrame]
    results: Sequence[Result]
    traces: Sequence[Trace]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def history(self) -> pd.DataFrame:
        """All histories as one tidy table, with ``run``, the row of ``runs``, and a column for every axis.

        An axis with the name of a column of the history, for example ``wallclock``, is in ``runs`` only.
        """
        if not self.histories:
            return pd.DataFrame()
        table = pd.concat(self.histories, keys=range(len(self)), names=["run"])
        table = table.reset_index("run").reset_index(drop=True)
        further = [axis for axis in self.axes if axis not in table]
        return table.join(self.runs[further], on="run")

    def by(self, hue: str = "method") -> dict[str, list[pd.DataFrame]]:
        """Return the histories grouped by the values of an axis, as the functions of ``analysis`` take them.

        Runs to which the axis does not apply, e.g. runs of a method without k, are grouped by method.

        Raises:
            ValueError: for an unknown axis.
        """
        if hue not in self.runs:
            raise ValueError(f"hue = {hue!r} is not allowed: give one of {', '.join(self.runs.columns)}")
        groups: dict[str, list[pd.DataFrame]] = {}
        for value, method, history in zip(self.runs[hue], self.runs["method"], self.histories, strict=True):
            applies = value is not None and value == value
            groups.setdefault(_label(hue, value) if applies else method, []).append(history)
        return groups

    def plot(
        self, x: str = "wallclock", y: str | None = None, hue: str = "method", ax: Axes | None = None
    ) -> Axes:
        """Draw mean and range over the runs of each value of ``hue``: by default test errors, or else losses.

        For other bands use ``analysis.plot_curves(results.by(hue), band="std")``.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_curves
        from stalegrad.analysis.statistics.curves import shown_column

        return plot_curves(self.by(hue), x=x, y=y or shown_column(self.histories), ax=ax)

    def to_target(
        self, target: float, y: str = "test_error", x: str = "wallclock", hue: str = "method"
    ) -> pd.DataFrame:
        """Return the time to a target for each value of ``hue``, see :func:`stalegrad.analysis.to_target`."""
        from stalegrad.analysis import to_target

        return to_target(self.by(hue), target, y=y, x=x)

    def report(self, target: float | None = None) -> Any:
        """Return all runs as one HTML document; a notebook shows it, and ``.save(path)`` writes it."""
        from stalegrad.analysis import report

        return report(list(self.results), target)

    def means(self) -> pd.DataFrame:
        """Return the means over seeds for every combination of the other axes' values, and the numbers of runs."""
        by = [column for column in self.runs.columns if column in ("method", *self.axes) and column != "seed"]
        numbers = [name for name in NUMBERS if name not in by]
        if self.runs.empty:
            return pd.DataFrame(columns=[*by, "runs", *numbers])
        groups = self.runs.groupby(by, sort=False, dropna=False)
        return groups[numbers].mean().assign(runs=groups.size()).reset_index()[[*by, "runs", *numbers]]

    def __len__(self) -> int:
        return len(self.histories)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"SweepResult({len(self)} runs over {', '.join(self.axes) or 'nothing'}{failed})"

    def _repr_html_(self) -> str:
        means = self.means()
        table = means.to_html(index=False, float_format="{:.4g}".format, na_rep="-", border=0, max_rows=40)
        failed = "".join(f"<li>{html.escape(f'{run}: {said}')}</li>" for run, said in self.failed.items())
        return (
            f"<p><b>Sweep</b> of {len(self)} runs over {html.escape(', '.join(self.axes) or 'nothing')}; "
            f"means over {'the seeds' if 'seed' in self.axes else 'equal rows'}, at the end of the run:</p>{table}"
        ) + (f"<p>{len(self.failed)} failed:</p><ul>{failed}</ul>" if failed else "")


def load(store: str | os.PathLike[str]) -> SweepResult:
    """Load the runs of a store, also while a sweep writes to it.

    A run that is damaged, or that its key does not match, is left out with a warning that names it.

    Raises:
        FileNotFoundError: if there is no store.
        ValueError: if the directory is not a store, or holds runs of other semantics.

    Example:
        >>> import stalegrad as sg
        >>> problem = sg.Problem("softmax-regression", "fashion-mnist-small")
        >>> base = sg.Experiment(problem, sg.Cluster(4), sg.methods.async_(), updates=5)
        >>> made = sg.sweep(base, store="results", seed=[0, 1], progress=False)
        >>> sg.load("results").runs["seed"].tolist()
        [0, 1]
    """
    if not (Path(store) / "store.json").exists():
        raise FileNotFoundError(f"no store at {store}")
    kept = Store(store)
    found = {key: outline for key in kept if (outline := kept.outline(key)) is not None}
    kept.write_manifest()
    flat = {key: flattened(tomllib.loads(outline.spec)) for key, outline in found.items()}
    for row in flat.values():
        row["method"] = row.pop("method.name")
    names = sorted({name for row in flat.values() for name in row}, key=lambda n: (n.split(".")[0] != "method", n))
    varied = [name for name in names if len({json.dumps(row.get(name)) for row in flat.values()}) > 1]
    order = sorted(flat, key=lambda key: [_rank(flat[key].get(name)) for name in varied])
    points = [{name: flat[key].get(name) for name in varied} for key in order]
    return collect(points, [found[key] for key in order], stored(kept, order))


def _rank(value: object) -> tuple[bool, float, str]:
    """Return the sort key of a value of one axis: None first, then numbers, then texts."""
    if isinstance(value, int | float):
        return True, float(value), ""
    return value is not None, float("inf"), str(value)


def stored(store: Store, keys: Iterable[str]) -> Lazy[Result]:
    """Return the results of these keys; each is read at access."""
    return Lazy(Result.load, [store.runs / key for key in keys])


def collect(
    points: Sequence[Point],
    outlines: Sequence[Outline],
    results: Sequence[Result],
    failed: Mapping[str, str] | None = None,
) -> SweepResult:
    """Return the result of a sweep: ``points``, ``outlines`` and ``results`` of its finished runs, in order."""
    fullest_first = sorted(points, key=len, reverse=True)  # keeps the axes in the order given
    axes = list(dict.fromkeys(name for point in fullest_first for name in point))
    rows = []
    for point, outline in zip(points, outlines, strict=True):
        row = {axis: text_of(point.get(axis), content=True) for axis in axes}
        row |= {"method": outline.method, "seed": outline.seed}
        rows.append(row | {name: value for name, value in outline.summary.items() if name not in row})
    if isinstance(results, Lazy):
        traces: Sequence[Trace] = Lazy(Trace.load, [place / "trace" for place in results.places])
    else:
        traces = [result.trace for result in results]
    histories = [outline.history for outline in outlines]
    return SweepResult(pd.DataFrame(rows), axes, histories, results, traces, failed or {})


def label(run: Run) -> str:
    """Return the values of the axes of a run as text."""
    return ", ".join(f"{name} = {text_of(value, content=True)}" for name, value in run.point.items())


def _label(hue: str, value: object) -> str:
    if isinstance(value, str):
        return value
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{hue.rpartition('.')[2]} = {number}"
