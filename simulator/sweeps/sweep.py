"""Sweeps: many experiments, run once each, kept in a store, and looked at together."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from stalegrad.policies import methods
from stalegrad.simulator.sweeps.axes import Mode, Point, experiments
from stalegrad.simulator.sweeps.experiment import Experiment, from_toml
from stalegrad.simulator.sweeps.result import Result, run
from stalegrad.simulator.sweeps.store import Store, key_of
from stalegrad.simulator.timing.tables import changed_fields


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep gives: one row per finished run, and their histories.

    Attributes:
        runs: the value of every axis, the last row's losses and the summary of the trace; the index is the run.
        results: the runs themselves, in the same order.
        failed: the last line of the traceback of every run that raised, by its axes' values.
    """

    runs: pd.DataFrame
    results: Sequence[Result]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def history(self) -> pd.DataFrame:
        """All histories as one tidy table, with a column for every axis."""
        axes = [column for column in self.runs.columns if column in self.axes]
        parts = [
            result.history.assign(run=row, **{axis: self.runs[axis].iloc[row] for axis in axes})
            for row, result in enumerate(self.results)
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def axes(self) -> list[str]:
        """The names of the axes."""
        return list(self.runs.attrs["axes"])

    @property
    def traces(self) -> list[Any]:
        """The traces, in the order of ``runs``."""
        return [result.trace for result in self.results]

    def by(self, hue: str = "method") -> dict[str, list[pd.DataFrame]]:
        """Return the histories grouped by the values of an axis: what the functions of ``analysis`` take.

        Raises:
            ValueError: for an unknown axis.
        """
        if hue not in self.runs:
            raise ValueError(f"hue = {hue!r} is not allowed: give one of {', '.join(self.runs.columns)}")
        groups: dict[str, list[pd.DataFrame]] = {}
        for label, result in zip(self.runs[hue], self.results, strict=True):
            groups.setdefault(str(label), []).append(result.history)
        return groups

    def plot(self, x: str = "wallclock", y: str = "test_error", hue: str = "method", ax: Any = None) -> Any:
        """Draw mean and band over the runs of each value of ``hue``; returns the matplotlib Axes."""
        from stalegrad.analysis import plot_curves

        return plot_curves(self.by(hue), x=x, y=y, ax=ax)

    def to_target(self, target: float, y: str = "test_error", x: str = "wallclock", hue: str = "method") -> Any:
        """Return when each value of ``hue`` first reaches a target, see :func:`stalegrad.analysis.to_target`."""
        from stalegrad.analysis import to_target

        return to_target(self.by(hue), target, y=y, x=x)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"SweepResult({len(self)} runs over {', '.join(self.axes) or 'nothing'}{failed})"

    def _repr_html_(self) -> str:
        return f"<b>Sweep</b> of {len(self)} runs{self.runs.to_html(max_rows=20)}"


def sweep(
    base: Experiment,
    *,
    store: str | os.PathLike[str] | None = None,
    mode: Mode = "grid",
    executor: Executor | None = None,
    progress: bool = True,
    fail_fast: bool = False,
    retry_failed: bool = False,
    **axes: Iterable[Any],
) -> SweepResult:
    """Run an experiment at every combination of its axes' values.

    Args:
        base: what is the same everywhere.
        store: a directory that keeps the finished runs: interrupted at any moment, the same call goes on where it
            was. Without one the runs live in memory.
        mode: ``grid``: all combinations; ``zip``: the first values of all axes, the second ones, ...
        executor: anything with the interface of ``concurrent.futures.Executor``, e.g. a process pool or a Dask
            client's; needs experiments that can be written as a spec. None: in this process.
        progress: show a progress bar.
        fail_fast: raise as soon as a run raises; otherwise it is written down and the sweep goes on.
        retry_failed: run again what the store says has raised.
        **axes: as of :func:`stalegrad.simulator.sweeps.axes.experiments`; those with a dot as
            ``**{"cluster.workers": [8, 16]}``.

    Returns:
        The runs that finished, and what raised.

    Raises:
        ValueError: for a wrong axis or value, before anything runs.
    """
    todo = experiments(base, axes, mode)
    keys = [key_of(e) if store is not None else "" for _, e in todo]
    kept = Store(store) if store is not None else None
    done: dict[int, Result] = {}
    failed: dict[int, str] = {}

    def finish(i: int, outcome: Result | str) -> None:
        if isinstance(outcome, str):
            failed[i] = outcome
            if kept is not None:
                kept.fail(keys[i], todo[i][1], outcome)
            if fail_fast:
                raise RuntimeError(f"run {label(todo[i][0])} raised:\n{outcome}")
            return
        done[i] = outcome
        if kept is not None:
            kept.save(keys[i], outcome)

    def known(i: int) -> bool:
        """Take a run from the store, if it is there."""
        if kept is None:
            return False
        if keys[i] in kept and (found := kept.load(keys[i])) is not None:
            done[i] = found
        elif (said := kept.failure(keys[i])) is not None and not retry_failed:
            failed[i] = said
        return i in done or i in failed

    with tqdm(total=len(todo), unit=" runs", disable=not progress) as bar:

        def tell() -> None:
            bar.set_postfix(failed=len(failed))
            bar.update(len(done) + len(failed) - bar.n)

        if executor is None:
            for i, (_, experiment) in enumerate(todo):
                if kept is None:
                    finish(i, attempt(experiment))
                elif not known(i):
                    with kept.claim(keys[i]):
                        if not known(i):  # another process may have made it meanwhile
                            finish(i, attempt(experiment))
                tell()
        else:
            waiting: dict[Future[Any], int] = {}
            for i, (_, experiment) in enumerate(todo):
                if not known(i):
                    waiting[executor.submit(attempt_text, experiment.to_toml())] = i
            tell()
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    i = waiting.pop(future)
                    with kept.claim(keys[i]) if kept is not None else nullcontext():
                        if not known(i):
                            finish(i, future.result())
                    tell()
    return collect(todo, done, failed)


def attempt(experiment: Experiment) -> Result | str:
    """Run an experiment; return its result, or the traceback of what it raised."""
    try:
        return run(experiment, progress=False)
    except Exception:
        return traceback.format_exc()


def attempt_text(text: str) -> Result | str:
    """Do as :func:`attempt` with the text of a spec: what executors are given."""
    return attempt(from_toml(text))


def load(store: str | os.PathLike[str]) -> SweepResult:
    """Open a store made elsewhere, also while it is being written.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is another thing, or holds runs of other semantics.
    """
    if not (Path(store) / "store.json").exists():
        raise FileNotFoundError(f"no store at {store}")
    kept = Store(store)
    results = [result for key in kept if (result := kept.load(key)) is not None]
    flat = [flattened(r.experiment) for r in results]
    names = sorted({name for row in flat for name in row})
    varied = [name for name in names if len({repr(row.get(name)) for row in flat}) > 1]
    todo = [({name: row.get(name) for name in varied}, r.experiment) for row, r in zip(flat, results, strict=True)]
    return collect(todo, dict(enumerate(results)), {})


def flattened(experiment: Experiment) -> dict[str, Any]:
    """Return the spec of an experiment with names like ``cluster.workers``."""
    row: dict[str, Any] = {}
    for name, value in experiment.table().items():
        row |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return row


def method_label(experiment: Experiment) -> str:
    """Return a method with its parameters, the learning rate aside: ``k-async(k=4)``."""
    method = experiment.method
    defaults = methods.REGISTRY[method.name].parameters
    given = changed_fields(method.synchrony) | {k: v for k, v in method.parameters if v != defaults[k]}
    return method.name + (f"({', '.join(f'{k}={v}' for k, v in given.items())})" if given else "")


def collect(
    todo: Sequence[tuple[Point, Experiment]], done: Mapping[int, Result], failed: Mapping[int, str]
) -> SweepResult:
    """Return what a sweep gives."""
    axes = list(dict.fromkeys(name for point, _ in todo for name in point))
    order = sorted(done)
    rows = []
    for i in order:
        point, experiment = todo[i]
        row = {axis: point.get(axis) for axis in axes} | {
            "method": method_label(experiment),
            "seed": experiment.seed,
        }
        rows.append(row | done[i].summary())
    table = pd.DataFrame(rows)
    table.attrs["axes"] = axes
    said = {label(todo[i][0]): text.strip().splitlines()[-1] for i, text in sorted(failed.items())}
    return SweepResult(table, [done[i] for i in order], said)


def label(point: Point) -> str:
    """Return the values of a point as text."""
    return ", ".join(f"{name} = {value}" for name, value in point.items())
