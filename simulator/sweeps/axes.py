"""The axes of a sweep, and the experiments that they define."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from stalegrad._core.specs import NonNegativeInt, PositiveInt, builtin, check_keys, spec, unknown_name, validate
from stalegrad._core.types import Table
from stalegrad.models import Problem
from stalegrad.policies import Method, methods
from stalegrad.simulator.experiments.experiment import (
    Experiment,
    method_settings,
    read_experiment,
    read_method,
    read_toml,
)
from stalegrad.simulator.experiments.identity import canonical, digest

Mode = Literal["grid", "zip", "random"]
FIELDS = tuple(f.name for f in fields(Experiment))
TABLES = ("problem", "cluster", "method", "record")

FURTHEST = 1e300
"""Largest magnitude of the ends of a range, so that a float can hold their distance."""

MOST_RUNS = 100_000
"""Largest number of runs of a sweep; it is checked before any run is built."""

Point = Table
"""One value for every axis that applies."""


@spec
class Range:
    """An axis for random sampling: uniform, or log-uniform, between two numbers.

    Args:
        low: smallest value. If ``low`` and ``high`` are whole numbers, only whole numbers are drawn.
        high: largest value.
        log: whether the logarithm is uniform.

    Raises:
        ValueError: for a value that is not allowed; it names the field, the value and what is allowed.

    Example:
        >>> import stalegrad as sg
        >>> rates = sg.Range(0.001, 0.1, log=True)  # for sweep(..., mode="random", samples=20)
        >>> round(rates.at(0.5), 4)  # the median
        0.01
    """

    low: int | float
    high: int | float
    log: bool = False

    def check_fields(self) -> None:
        """Raise ValueError unless low < high, both finite, and above 0 with ``log``."""
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"high of range = {self.high} is not allowed: finite and above low = {self.low}")
        if max(-self.low, self.high) > FURTHEST:
            raise ValueError(f"high of range = {self.high!r:.40} is not allowed: ends lie within +-{FURTHEST:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low of range = {self.low} is not allowed: above 0, as log = true")

    def at(self, u: float) -> int | float:
        """Return the quantile ``u`` of the distribution, 0 <= u < 1."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        ends = (self.low, self.high + 1) if whole else (self.low, self.high)
        a, b = (math.log(end) for end in ends) if self.log else ends
        value = a + u * (b - a)
        value = math.exp(value) if self.log else value
        return min(max(math.floor(value) if whole else value, self.low), self.high)


Axis = Iterable[object] | Range


@spec
class Sampling:
    """How the values of several axes are combined.

    Args:
        mode: way of combining. ``grid``: all combinations; ``zip``: the first values of all axes, then the second
            ones, ...; ``random``: a random value of every axis, independently and uniformly.
        samples: number of points of ``random``.
        sampling_seed: seed of the draws of ``random``. More samples or another axis do not change earlier draws.

    Raises:
        ValueError: for a value that is not allowed; it names the field, the value and what is allowed.
    """

    mode: Mode = "grid"
    samples: PositiveInt | None = None
    sampling_seed: NonNegativeInt = 0

    def check_fields(self) -> None:
        """Raise ValueError unless ``samples`` is given with mode ``random`` and only then."""
        if (self.samples is not None) != (self.mode == "random"):
            allowed = "needs a number of samples" if self.mode == "random" else "takes no samples"
            raise ValueError(f"samples = {self.samples} is not allowed: mode {self.mode!r} {allowed}")

    def points(self, axes: Mapping[str, Axis]) -> list[Point]:
        """Return the combinations of the axes' values.

        Raises:
            ValueError: for an empty axis, axes of unequal length with ``zip``, or a range in another mode than
                ``random``.
        """
        if self.samples is not None and self.samples > MOST_RUNS:
            raise ValueError(f"samples = {self.samples} is not allowed: a sweep has at most {MOST_RUNS} runs")
        if not axes:
            return [{}]
        values: dict[str, list[object]] = {}
        for name, axis in axes.items():
            if isinstance(axis, Range):
                if self.mode != "random":
                    raise ValueError(
                        f"axis {name!r} is a range: give a list, or draw from it with mode = 'random'"
                    )
                values[name] = self.draw(name, axis.at)
                continue
            listed = _listed(name, axis)
            pick = functools.partial(_pick, listed)
            values[name] = self.draw(name, pick) if self.mode == "random" else listed
        lengths = {name: len(axis) for name, axis in values.items()}
        if self.mode == "zip" and len(set(lengths.values())) > 1:
            raise ValueError(f"axes of mode 'zip' must be equally long: their lengths are {lengths}")
        if self.mode == "grid" and (runs := math.prod(lengths.values())) > MOST_RUNS:
            raise ValueError(f"axes of {lengths} values give {runs} runs: a sweep has at most {MOST_RUNS}")
        combined = (
            itertools.product(*values.values()) if self.mode == "grid" else zip(*values.values(), strict=True)
        )
        return [dict(zip(values, chosen, strict=True)) for chosen in combined]

    def draw(self, name: str, value_at: Callable[[float], object]) -> list[object]:
        """Return ``samples`` random values of an axis; every axis has its own random stream."""
        uniform = np.random.default_rng([self.sampling_seed, *name.encode()]).random(self.samples)
        return [value_at(u) for u in uniform.tolist()]


class Run(NamedTuple):
    """One run of a sweep: the values of the axes that apply, and the experiment that they define."""

    point: Point
    experiment: Experiment


def plan(base: Experiment, axes: Mapping[str, Axis], sampling: Sampling | None = None) -> list[Run]:
    """Return the runs of a sweep; equal experiments are listed once.

    Args:
        base: experiment whose fields the axes change.
        axes: values of each axis, or a :class:`Range`. An axis is a field of :class:`Experiment` (``method``,
            ``seed``, ...), or a key of one of its tables (``cluster.workers``, ``method.k``,
            ``method.learning_rate``), or a key of a spec in a table (``problem.partition.alpha``). A method is an
            object, a name or a table. A name or table takes parameters that it does not give (learning rate, k,
            optimizer, ...) from the method of the base, as far as it has them. An axis of a parameter does not
            apply to methods without this parameter.
        sampling: how the values are combined; by default all combinations.

    Raises:
        ValueError: for an unknown or empty axis, or a value that is not allowed; it names the axis or value.
    """
    for name in axes:
        check_axis(name)
    points = (sampling or Sampling()).points(axes)
    ours = [name.removeprefix("method.") for name in axes if name.startswith("method.")]
    if ours:
        known = {key for point in points for key in parameters(_name(point.get("method", base.method)))}
        for key in ours:
            if key not in known:
                raise ValueError(unknown_name("parameter of the methods:", key, known))
    found: dict[object, Run] = {}
    for point in points:
        run = apply(base, point)
        found.setdefault(_same(run.experiment), run)
    return list(found.values())


def _same(experiment: Experiment) -> object:
    """Return a key that is equal for equal experiments of a sweep; functions in specs are not imported."""
    try:
        return canonical(experiment)
    except ValueError:
        return digest(experiment) or object()


class SweepSpec(NamedTuple):
    """The sweep of a file; without axes it is a single experiment."""

    base: Experiment
    axes: list[str]
    runs: list[Run]


def load_sweep(path: str | os.PathLike[str]) -> SweepSpec:
    """Return the sweep of a TOML file: an experiment, and a table ``[sweep]`` with a list or range for every axis.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for wrong content; it names the file and what is allowed.
    """
    try:
        table = read_toml(Path(path))
        axes = validate("sweep", Table, table.pop("sweep", {}))
        sampling = Sampling(**{f.name: axes.pop(f.name) for f in fields(Sampling) if f.name in axes})
        axes = {name: read_axis(name, values) for name, values in axes.items()}
        base = read_experiment(table)
        runs = plan(base, axes, sampling)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return SweepSpec(base, list(axes), runs)


def read_axis(name: str, values: object) -> Axis:
    """Return the axis of a file: a list, or a range from a table with ``low``, ``high`` and optionally ``log``."""
    if not isinstance(values, Mapping):
        return _listed(name, values)
    check_keys(f"axis {name!r}", values, [f.name for f in fields(Range)])
    if missing := {"low", "high"} - values.keys():
        raise ValueError(f"axis {name!r} lacks {', '.join(sorted(missing))}: a range needs low and high")
    return Range(**values)


def check_axis(name: str) -> None:
    """Raise ValueError unless an axis may have this name."""
    table, _, key = name.partition(".")
    if key and table in TABLES:
        return
    if name not in FIELDS:
        raise ValueError(unknown_name("axis", name, [*FIELDS, *(f"{t}.<key>" for t in TABLES)]))


def apply(base: Experiment, point: Point) -> Run:
    """Return the values of a point that apply, and the experiment that they define.

    Raises:
        ValueError: for an unknown key of a part, or a value that is not allowed.
    """
    changes: Table = {name: value for name, value in point.items() if "." not in name}
    keys: dict[str, Table] = {}
    for name, value in point.items():
        if "." in name:
            part, _, key = name.partition(".")
            keys.setdefault(part, {})[key] = value
    method, ours = changes.get("method", base.method), keys.pop("method", {})
    if ours or not isinstance(method, Method):
        settings = _settings(method)
        known = parameters(settings["name"])
        ours = {key: value for key, value in ours.items() if key in known}
        inherited = {key: value for key, value in method_settings(base.method).items() if key in known}
        inherited.pop("synchrony", None)
        method = read_method(inherited | settings | ours)
    changes["method"] = method
    for part, values in keys.items():
        changes[part] = _changed(part, changes.get(part, getattr(base, part)), values)
    try:
        experiment = base.but(**changes)
    except TypeError as error:
        raise ValueError(f"{point} is not allowed: {error}") from None
    return Run({k: v for k, v in point.items() if not k.startswith("method.") or k[7:] in ours}, experiment)


def _changed(part: str, value: Any, changes: Table) -> object:
    """Return the problem, cluster or record of an experiment with some of its fields changed."""
    changes = _with_inner(part, value, changes)
    if isinstance(value, Problem):
        return value.but(**changes)
    check_keys(part, changes, [f.name for f in fields(value)])
    return replace(value, **changes)


def _with_inner(part: str, value: object, changes: Table) -> Table:
    """Replace changes of a field of an inner spec, such as ``partition.alpha``, by changes of the inner spec."""
    found: Table = {}
    for name, change in changes.items():
        outer, _, inner = name.partition(".")
        held = found.get(outer, getattr(value, outer, None))
        if inner and is_dataclass(held) and not isinstance(held, type):
            check_keys(f"{outer} of {part}", {inner: change}, [f.name for f in fields(held)])
            name, change = outer, replace(held, **{inner: change})
        found[name] = change
    return found


def parameters(method: str) -> set[str]:
    """Return the names of the parameters of a method, given by its name."""
    return {"learning_rate", "synchrony", *methods.REGISTRY[method].parameters}


def _name(value: object) -> str:
    return value.name if isinstance(value, Method) else str(_settings(value)["name"])


def _settings(value: object) -> Table:
    """Return the settings of a method given as an object, a name or a table."""
    if isinstance(value, Method):
        return method_settings(value)
    if not isinstance(value, str | Mapping):
        raise ValueError(f"method = {value!r} is not allowed: give a method, its name or a table with its name")
    table = {"name": value} if isinstance(value, str) else dict(value)
    return table | {"name": methods.REGISTRY.find(table.get("name")).name}


def _listed(name: str, axis: object) -> list[object]:
    """Return the values of an axis as a list, with numbers of NumPy and pandas as Python numbers."""
    if isinstance(axis, str | Mapping) or not isinstance(axis, Iterable):
        raise ValueError(f"axis {name!r} = {axis!r} is not allowed: give a list of values")
    if isinstance(axis, Sized) and len(axis) > MOST_RUNS:
        raise ValueError(f"axis {name!r} has {len(axis)} values: a sweep has at most {MOST_RUNS} runs")
    listed = [builtin(value) for value in itertools.islice(axis, MOST_RUNS + 1)]
    if len(listed) > MOST_RUNS:
        raise ValueError(f"axis {name!r} has more than {MOST_RUNS} values: a sweep has at most {MOST_RUNS} runs")
    if not listed:
        raise ValueError(f"axis {name!r} is empty: give at least one value")
    return listed


def _pick(values: list[object], u: float) -> object:
    """Return the value at a fraction (at least 0, below 1) of a list."""
    return values[math.floor(u * len(values))]
