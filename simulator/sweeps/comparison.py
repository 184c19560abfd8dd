"""The comparison of two results or stores."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from stalegrad.simulator.experiments.experiment import flattened
from stalegrad.simulator.experiments.identity import text_of
from stalegrad.simulator.experiments.result import Result, load_results
from stalegrad.simulator.sweeps.results import SweepResult, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Runs: TypeAlias = Result | SweepResult | Sequence[Result] | str | os.PathLike[str]
"""One or several results, or their place: the directory of a result, a store, a directory of results."""

Settings: TypeAlias = dict[str, str]
"""Values of settings as text, by dotted name; the seed is left out."""

Kind: TypeAlias = tuple[Settings, dict[int, Result]]
"""Settings, and the runs with these settings by seed."""

Kinds: TypeAlias = list[Kind]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The comparison of two sets of runs, a and b.

    Attributes:
        table: one row per metric and kind of run that both sets have: ``a``, ``b`` (means over seeds),
            ``difference`` (b - a), its 95 % interval ``low``, ``high``, and ``pairs`` of seeds (0: not paired).
            See :func:`stalegrad.analysis.side_by_side`.
        words: sentences on the differing settings, the paired seeds, and the kinds that only one set has.
        runs: results of both sets by seed, by kind.
    """

    table: pd.DataFrame
    words: tuple[str, ...]
    runs: Mapping[str, tuple[Mapping[int, Result], Mapping[int, Result]]]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the error (or else a loss) of both against wallclock: mean and range over seeds of every kind.

        Returns:
            The matplotlib Axes; a notebook shows them at the end of a cell.
        """
        from stalegrad.analysis import plot_curves
        from stalegrad.analysis.statistics.curves import shown_column

        histories = {
            f"{kind}, {name}" if len(self.runs) > 1 else name: [run.history for run in runs.values()]
            for kind, sides in self.runs.items() for name, runs in zip("ab", sides, strict=True)
        }  # fmt: skip
        return plot_curves(histories, y=shown_column([h for runs in histories.values() for h in runs]), ax=ax)

    def __repr__(self) -> str:
        return "\n".join([self.table.to_string(float_format="{:.4g}".format), *self.words])

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.4g}".format, border=0)


def compare(a: Runs, b: Runs, *, target: float | None = None) -> Comparison:
    """Compare two results, or two stores.

    Runs that differ only in the seed are one kind. If a side has several kinds, kinds of the same method are
    compared. If a side has several kinds of a method, kinds are compared that agree in the settings that vary
    among these. Seeds that both sides have are paired.

    Args:
        a: a result, the result of a sweep, a list of results, or the directory of a result, of a store, or of
            several results.
        b: the other side, in the same forms.
        target: error whose time of arrival, in wallclock, is compared; see
            :func:`stalegrad.analysis.side_by_side`.

    Returns:
        The comparison: ``table``, ``words``, ``plot()``.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if the two have no kind of run in common, or one has two runs of the same experiment and seed.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> method = sg.methods.async_(learning_rate=0.5)
        >>> a = sg.run(sg.Experiment(bowl, sg.Cluster(1), method, updates=2), progress=False)
        >>> b = sg.run(a.experiment.but(updates=4), progress=False)
        >>> sg.compare(a, b).table.loc["last train_loss", ["a", "b"]].tolist()
        [0.0625, 0.00390625]
    """
    from stalegrad.analysis.statistics.side_by_side import same_events, side_by_side

    kinds = [_kinds(_results(side), name) for name, side in (("a", a), ("b", b))]
    named = _by_label(kinds)
    common = [label for label in named[0] if label in named[1]]
    if not common:
        raise ValueError(
            f"the two have no kind of run in common: a has {'; '.join(named[0])}, b has {'; '.join(named[1])}"
        )
    runs = {label: (named[0][label][1], named[1][label][1]) for label in common}
    tables = {label: side_by_side(*sides, target) for label, sides in runs.items()}
    table = pd.concat(tables, names=["runs"]) if len(common) > 1 else tables[common[0]]
    words = [_differences([named[0][label][0] for label in common], [named[1][label][0] for label in common])]
    for label, (ours, theirs) in runs.items():
        seeds = [seed for seed in ours if seed in theirs]
        same = sum(same_events(ours[seed], theirs[seed]) for seed in seeds)
        told = (
            f"{len(seeds)} seeds in common are paired; the events are the same in {same} of them"
            if seeds else f"no seed in common ({len(ours)} and {len(theirs)} runs): not paired"
        )  # fmt: skip
        words.append(f"{label}: {told}.")
    for side, other, name in ((0, 1, "a"), (1, 0, "b")):
        if alone := [label for label in named[side] if label not in named[other]]:
            words.append(f"Only {name} has {'; '.join(alone)}.")
    return Comparison(table, tuple(words), runs)


def _results(runs: Runs) -> Sequence[Result]:
    if isinstance(runs, Result):
        return [runs]
    if isinstance(runs, SweepResult):
        return runs.results
    if isinstance(runs, str | os.PathLike):
        return load(runs).results if (Path(runs) / "store.json").exists() else load_results(runs)
    return runs


def _kinds(results: Sequence[Result], name: str) -> Kinds:
    """Return the results as kinds: those that differ only in the seed are together."""
    if not len(results):
        raise ValueError(f"{name} has no results: give at least one")
    kinds: dict[Hashable, tuple[Settings, dict[int, Result]]] = {}
    for result in results:
        settings = _settings(result)
        _, seeds = kinds.setdefault(tuple(sorted(settings.items())), (settings, {}))
        seed = result.experiment.seed
        if seed in seeds:
            raise ValueError(f"{name} has two results of the same experiment, {result.experiment.method.name}, "
                             f"seed {seed}")  # fmt: skip
        seeds[seed] = result
    return list(kinds.values())


def _settings(result: Result) -> Settings:
    experiment = result.experiment
    try:
        table = flattened(experiment.table())
    except ValueError:  # parts of it exist in this process only
        names = ("problem", "cluster", "method", "budget", "record")
        table = {name: getattr(experiment, name) for name in names} | {"method.name": experiment.method.name}
    return {name: str(text_of(value, content=True)) for name, value in table.items() if name != "seed"}


def _varied(kinds: Sequence[Settings]) -> set[str]:
    """Return the names of the settings that have different values."""
    names = set().union(*kinds)
    return {name for name in names if len({settings.get(name) for settings in kinds}) > 1}


def _by_label(sides: Sequence[Kinds]) -> list[dict[str, Kind]]:
    """Return the kinds of both sides by label: method, and the settings that vary among its kinds in a side."""
    if all(len(side) == 1 for side in sides):
        return [{"runs": side[0]} for side in sides]
    found: list[dict[str, Kind]] = []
    for side in sides:
        labels = {}
        for kind in side:
            method = kind[0]["method.name"]
            varied = {
                name for other in sides
                for name in _varied([settings for settings, _ in other if settings["method.name"] == method])
            }  # fmt: skip
            told = [f"{name.removeprefix('method.')} = {kind[0].get(name, 'default')}" for name in sorted(varied)]
            labels[f"{method} ({', '.join(told)})" if told else method] = kind
        found.append(dict(sorted(labels.items())))
    return found


def _differences(ours: Sequence[Settings], theirs: Sequence[Settings]) -> str:
    """Return a sentence that names the settings in which the two differ, kind by kind."""
    told: dict[str, None] = {}
    for first, second in zip(ours, theirs, strict=True):
        for name in sorted({*first, *second}):
            if (old := first.get(name)) != (new := second.get(name)):
                told[f"{name} ({_short(old)} and {_short(new)})"] = None
    return f"They differ in {', '.join(told)}." if told else "All settings but the seeds are the same."


def _short(value: str | None) -> str:
    return "default" if value is None else value if len(value) <= 40 else f"{value[:39]}\N{HORIZONTAL ELLIPSIS}"
