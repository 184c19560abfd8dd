"""What a check runs: methods, each with the same seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stalegrad.simulator.sweeps.axes import Point, Run, SweepSpec, apply
from stalegrad.simulator.sweeps.experiment import Experiment, method_label, read_experiment

SEEDS = 5
"""Seeds of a spec that does not say which."""


class Plan(NamedTuple):
    """Points of a sweep, each of which is run with every seed.

    Attributes:
        base: what is the same everywhere.
        points: values of the axes, the seed aside.
        seeds: two at least.
    """

    base: Experiment
    points: list[Point]
    seeds: list[int]

    @classmethod
    def of(cls, base: Experiment, runs: Sequence[Run]) -> Plan:
        """Return the plan of a sweep; if no axis is ``seed``, five seeds from that of the base on.

        Raises:
            ValueError: if there is one seed, methods have different ones, or two would be called the same.
        """
        seeds = list(dict.fromkeys(run.experiment.seed for run in runs))
        if not any("seed" in run.point for run in runs):
            seeds = list(range(base.seed, base.seed + SEEDS))
            runs = [apply(base, run.point | {"seed": seed}) for run in runs for seed in seeds]
        found: dict[str, Point] = {}
        held: dict[str, list[int]] = {}
        for run in runs:
            point = {name: value for name, value in run.point.items() if name != "seed"}
            label = _label(point, run.experiment)
            if run.experiment.seed in held.setdefault(label, []):
                raise ValueError(
                    f"two runs are called {label!r}, seed {run.experiment.seed}: methods that differ in learning "
                    'rate or optimizer only are told apart by axes such as "method.learning_rate"'
                )
            found[label] = point
            held[label].append(run.experiment.seed)
        for label, own in held.items():
            if len(own) < 2:
                raise ValueError(
                    f"one seed of {label!r} is not enough: statistics need at least 2 (better {SEEDS})"
                )
            if set(own) != set(seeds):
                raise ValueError(f"{label!r} has seeds {own}: all methods of a check need the same ones, {seeds}")
        return cls(base, list(found.values()), seeds)

    @classmethod
    def of_sweep(cls, spec: SweepSpec) -> Plan:
        """Return the plan of a spec, errors as of :meth:`of`."""
        return cls.of(spec.base, spec.runs)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`table` has written.

        Raises:
            ValueError: if it cannot be read (any more).
        """
        base = read_experiment(table["experiment"])
        points, seeds = [dict(point) for point in table["points"]], [int(seed) for seed in table["seeds"]]
        return cls.of(base, [apply(base, point | {"seed": seed}) for point in points for seed in seeds])

    def table(self) -> dict[str, Any] | None:
        """Return it as plain tables; None if a part of it exists in this process only."""
        try:
            table = {"experiment": self.base.table(), "points": self.points, "seeds": self.seeds}
            return dict(json.loads(json.dumps(table, allow_nan=False)))
        except (ValueError, TypeError):
            return None

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """Its runs, each with the label that all seeds of its method share."""
        made = [apply(self.base, point | {"seed": seed}) for point in self.points for seed in self.seeds]
        points = [point for point in self.points for _ in self.seeds]
        return [(_label(point, run.experiment), run) for point, run in zip(points, made, strict=True)]


def _label(point: Point, experiment: Experiment) -> str:
    """Return the method with its parameters, and the value of every axis that it does not show."""
    label = method_label(experiment)
    inside = label.partition("(")[2].rstrip(")").split(", ")
    shown = {"method", *(f"method.{part.partition('=')[0]}" for part in inside)}
    return ", ".join([label, *(f"{name}={value}" for name, value in point.items() if name not in shown)])
