"""Shared code of the reproductions: claims with a verdict, and runs over seeds on one embedded problem."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stalegrad.models import Problem
from stalegrad.policies import Method
from stalegrad.simulator import Cluster, Experiment, Result, run

PROBLEM = Problem("mlp", "fashion-mnist-small", batch_size=32)
SEEDS = (0, 1, 2)


class Claim(NamedTuple):
    """A claim of a paper and the result of its test.

    Attributes:
        name: short name of the claim, e.g. ``Q4``.
        text: the claim, in the form in which it was tested.
        holds: whether it holds, or None if it is reported without a verdict.
        numbers: the measured numbers.
    """

    name: str
    text: str
    holds: bool | None
    numbers: str


class Section(NamedTuple):
    """The section on one paper: its title, setup, claims and tables, in Markdown."""

    title: str
    setup: str
    claims: list[Claim]
    tables: list[str]


@functools.lru_cache(maxsize=4096)
def once(method: Method, cluster: Cluster, seed: int, budget: tuple[tuple[str, Any], ...], record: Any) -> Result:
    """Run an experiment on the problem, or return the cached result."""
    experiment = Experiment(PROBLEM, cluster, method, seed=seed, record=record, **dict(budget))
    return run(experiment, progress=False)


def runs(
    method: Method, cluster: Cluster, record: Any, seeds: Sequence[int] = SEEDS, **budget: Any
) -> list[Result]:
    """Run a method with each seed; the timing of a seed is the same for all methods with the same synchrony."""
    return [once(method, cluster, seed, tuple(budget.items()), record) for seed in seeds]


def final(results: Sequence[Result], column: str = "test_error") -> Any:
    """Return the last value of every run; a run that diverged has a test error of 0.9, as by guessing."""
    values = np.array([r.history[column].iloc[-1] for r in results], float)
    return (
        np.where([r.diverged_at is not None for r in results], 0.9, values) if column == "test_error" else values
    )


def spread(values: Any) -> str:
    """Return mean and standard error, in per cent."""
    values = np.asarray(values) * 100
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean():.1f} ± {error:.1f}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table with a caption."""
    lines = [f"*{title}*", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])
