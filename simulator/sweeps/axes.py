"""Axes: what a sweep varies, and the experiments that come of it."""

from __future__ import annotations

import itertools
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stalegrad.policies import Method, methods
from stalegrad.policies.specs import unknown_name, validate
from stalegrad.simulator.sweeps.experiment import Experiment, method_table, read_experiment, read_method

Mode = Literal["grid", "zip"]
FIELDS = tuple(f.name for f in fields(Experiment))
TABLES = ("problem", "cluster", "method", "record")

Point = dict[str, Any]
"""One value of every axis that applies."""


def points(axes: Mapping[str, Iterable[Any]], mode: Mode = "grid") -> list[Point]:
    """Return the combinations of the axes' values: all of them (``grid``), or the i-th of each (``zip``).

    Raises:
        ValueError: for an empty axis, or axes of unequal length to be zipped.
    """
    values = {name: list(axis) for name, axis in axes.items()}
    for name, axis in values.items():
        if not axis:
            raise ValueError(f"axis {name!r} is empty: give it one value at least")
    if mode == "grid":
        return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    if len({len(axis) for axis in values.values()}) > 1:
        lengths = {name: len(axis) for name, axis in values.items()}
        raise ValueError(f"axes to be zipped must be equally long: these are {lengths}")
    return [dict(zip(values, chosen, strict=True)) for chosen in zip(*values.values(), strict=True)]


def experiments(
    base: Experiment, axes: Mapping[str, Iterable[Any]], mode: Mode = "grid"
) -> list[tuple[Point, Experiment]]:
    """Return the experiments of a sweep with the values that made them; equal ones are listed once.

    Args:
        base: what is the same everywhere.
        axes: values of each axis. An axis is a field of :class:`Experiment` (``method``, ``seed``, ...) or a key
            of one of its tables (``cluster.workers``, ``method.k``, ``method.learning_rate``). A method is given
            as such, by name, or as a table. A parameter that a method does not have leaves it as it is.
        mode: ``grid`` or ``zip``.

    Raises:
        ValueError: for an unknown or empty axis, or a value that is not allowed, naming it.
    """
    for name in axes:
        check_axis(name)
    found: dict[Any, tuple[Point, Experiment]] = {}
    for point in points(axes, mode):
        applied, experiment = apply(base, point)
        found.setdefault(tuple((k, repr(v)) for k, v in applied.items()), (applied, experiment))
    return list(found.values())


class SweepSpec(NamedTuple):
    """A sweep as a file describes it; without axes it is a single experiment."""

    base: Experiment
    axes: dict[str, list[Any]]
    mode: Mode


def load_sweep(path: str | os.PathLike[str]) -> SweepSpec:
    """Return the sweep of a TOML file: an experiment, and a table ``[sweep]`` with a list for every axis.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if something in it is wrong, naming the file and what is allowed.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        axes = validate("sweep", dict[str, Any], table.pop("sweep", {}))
        mode = validate("mode of sweep", Mode, axes.pop("mode", "grid"))
        axes = {name: validate(f"axis {name!r}", list[Any], values) for name, values in axes.items()}
        base = read_experiment(table)
        experiments(base, axes, mode)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return SweepSpec(base, axes, mode)


def check_axis(name: str) -> None:
    """Raise ValueError unless this can be an axis."""
    table, _, key = name.partition(".")
    if key and table in TABLES:
        return
    if name not in FIELDS:
        raise ValueError(unknown_name("axis", name, [*FIELDS, *(f"{t}.<key>" for t in TABLES)]))


def apply(base: Experiment, point: Point) -> tuple[Point, Experiment]:
    """Return the values of a point that apply, and the experiment they give."""
    experiment = base.but(**{name: value for name, value in point.items() if "." not in name and name != "method"})
    method = point.get("method", base.method)
    ours = {name.partition(".")[2]: value for name, value in point.items() if name.startswith("method.")}
    if ours or not isinstance(method, Method):
        table = _method_table(method)
        known = {"learning_rate", "synchrony", *methods.REGISTRY[table["name"]].parameters}
        ours = {key: value for key, value in ours.items() if key in known}
        method = read_method(table | ours)
    experiment = experiment.but(method=method)
    others = [name for name in point if "." in name and not name.startswith("method.")]
    if others:
        tables = experiment.table()
        for name in others:
            part, _, key = name.partition(".")
            tables[part] = {**tables.get(part, {}), key: point[name]}
        experiment = read_experiment(tables)
    return {k: v for k, v in point.items() if not k.startswith("method.") or k[7:] in ours}, experiment


def _method_table(value: Any) -> dict[str, Any]:
    if isinstance(value, Method):
        return method_table(value)
    table = {"name": value} if isinstance(value, str) else dict(value)
    if table.get("name") not in list(methods.REGISTRY):
        raise ValueError(unknown_name("method", table.get("name"), methods.REGISTRY))
    return table
