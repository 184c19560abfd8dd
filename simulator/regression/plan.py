"""The plan of a check: the runs of methods, each with the same seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from stalegrad._core.types import Table
from stalegrad.simulator.experiments.describe import described
from stalegrad.simulator.experiments.experiment import Experiment, read_experiment
from stalegrad.simulator.experiments.identity import method_label, name_table, text_of
from stalegrad.simulator.sweeps.axes import Point, Run, SweepSpec, apply

SEEDS = 5
"""Number of seeds of a spec without seeds."""


class Plan(NamedTuple):
    """The points of a sweep, each of which is run with every seed.

    Attributes:
        base: experiment whose fields the points change.
        points: values of the axes, without the seed.
        seeds: seeds, at least two.
    """

    base: Experiment
    points: list[Point]
    seeds: list[int]

    @classmethod
    def of(cls, base: Experiment, runs: Sequence[Run]) -> Plan:
        """Return the plan of a sweep; if no axis is ``seed``, five seeds from that of the base on.

        Raises:
            ValueError: if there is one seed, methods have different seeds, or two methods have the same label.
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
                    'rate or optimizer only need axes such as "method.learning_rate" to be distinguished'
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
        """Return the plan of a spec; errors are those of :meth:`of`."""
        return cls.of(spec.base, spec.runs)

    @classmethod
    def read(cls, table: Table) -> Plan:
        """Return the plan of a table from :meth:`table`. Functions that it names are not imported.

        Raises:
            ValueError: if the table cannot be read by this version, or a part of it exists in a test only.
        """
        try:
            base = read_experiment(table["experiment"])
            points, seeds = [dict(point) for point in table["points"]], [int(seed) for seed in table["seeds"]]
            return cls.of(base, [apply(base, point | {"seed": seed}) for point in points for seed in seeds])
        except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"the spec of the baseline cannot be read: {type(error).__name__} {error}") from None

    def table(self) -> Table:
        """Return the name of the plan as plain tables; a baseline is compared with it.

        :meth:`read` reads them back if :attr:`written` is true. Parts that a spec cannot hold are described by
        qualified names and settings.
        """
        points = [{name: _written(value) for name, value in point.items()} for point in self.points]
        table = {"experiment": name_table(self.base), "points": points, "seeds": self.seeds}
        return dict(json.loads(json.dumps(table, allow_nan=False)))

    @property
    def written(self) -> bool:
        """Whether the plan can be written to a spec, so that a baseline alone suffices to run it again."""
        try:
            for _, run in self.runs:
                run.experiment.to_toml()
            json.dumps(self.points, allow_nan=False)
        except (ValueError, TypeError):
            return False
        return True

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """The runs of the plan, each with the label that all seeds of its method share."""
        made = [apply(self.base, point | {"seed": seed}) for point in self.points for seed in self.seeds]
        points = [point for point in self.points for _ in self.seeds]
        return [(_label(point, run.experiment), run) for point, run in zip(points, made, strict=True)]


def _written(value: object) -> object:
    """Return a value of an axis, or its description if JSON cannot hold the value."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return described(value, content=False)
    return value


def _label(point: Point, experiment: Experiment) -> str:
    """Return the method with its parameters, and the values of axes that these do not show."""
    label = method_label(experiment.method)
    inside = label.partition("(")[2].rstrip(")").split(", ")
    shown = {"method", *(f"method.{part.partition('=')[0]}" for part in inside)}
    return ", ".join([label, *(f"{name}={text_of(value)}" for name, value in point.items() if name not in shown)])
