"""What the methods of a sweep are called."""

from __future__ import annotations

from collections.abc import Sequence

from stalegrad.simulator.sweeps.axes import Point
from stalegrad.simulator.sweeps.experiment import Experiment
from stalegrad.simulator.sweeps.sweep import method_label


def labels(todo: Sequence[tuple[Point, Experiment]]) -> list[tuple[str, Experiment]]:
    """Return a sweep's experiments with labels that all seeds of one share, and nothing else does.

    It is the method with its parameters, and the value of every axis that it does not show.

    Raises:
        ValueError: if two experiments of the same seed cannot be told apart.
    """
    found = [(_label(point, experiment), experiment) for point, experiment in todo]
    seen: set[tuple[str, int]] = set()
    for label, experiment in found:
        if (label, experiment.seed) in seen:
            raise ValueError(
                f"two runs are called {label!r}, seed {experiment.seed}: methods that differ in learning rate or "
                'optimizer only are told apart by axes such as "method.learning_rate"'
            )
        seen.add((label, experiment.seed))
    return found


def _label(point: Point, experiment: Experiment) -> str:
    shown = {"method", "seed"} | {f"method.{name}" for name in _shown(experiment)}
    rest = [f"{name}={value}" for name, value in point.items() if name not in shown]
    return ", ".join([method_label(experiment), *rest])


def _shown(experiment: Experiment) -> list[str]:
    inside = method_label(experiment).partition("(")[2].rstrip(")")
    return [part.partition("=")[0] for part in inside.split(", ")]
