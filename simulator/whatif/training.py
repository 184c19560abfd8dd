"""Training on the events of a what-if: errors at equal wallclock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stalegrad._core.specs import changed_fields, unknown_name
from stalegrad.models import Problem
from stalegrad.policies import Method, methods
from stalegrad.policies.synchrony import Synchrony
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.whatif.rows import SEED, Sample

Histories = dict[str, list[pd.DataFrame]]
"""One history per seed, by label."""


def synchrony_of(contestant: Synchrony | Method) -> Synchrony:
    """Return the synchrony of a method, or a synchrony unchanged."""
    return contestant.synchrony if isinstance(contestant, Method) else contestant


def methods_of(contestants: Mapping[str, Synchrony | Method], learning_rate: object) -> dict[str, Method]:
    """Return the methods to train: those given, and for a synchrony the method of the same name.

    Raises:
        ValueError: if there is no method of that name, or its controller changes the timing.
    """
    found = {}
    for label, contestant in contestants.items():
        if isinstance(contestant, Synchrony):
            if contestant.name not in methods.REGISTRY:
                known = unknown_name("method", contestant.name, methods.REGISTRY)
                raise ValueError(f"{label} cannot be trained: {known} Give a method with this synchrony instead")
            settings = changed_fields(contestant) | {"learning_rate": learning_rate}
            contestant = methods.method(contestant.name, settings)
        if contestant.adaptive:
            raise ValueError(f"{label} is not allowed: its controller changes the timing during the training")
        found[label] = contestant
    return found


def histories_of(sample: Sample, trained: Mapping[str, Method], problem: Problem, seeds: int) -> Histories:
    """Return the histories of training on the simulated steps, for the wallclock of the synchronous job."""
    from stalegrad.simulator.replays.run import replay

    histories: Histories = {}
    for label, method in trained.items():
        trace = simulate(sample.cluster, method.synchrony, wallclock=sample.wallclock, seed=SEED)
        runs = [replay(trace, problem, method, seed=seed) for seed in range(seeds)]
        histories[label] = [run.history for run in runs]
    return histories


def final_values(histories: Histories) -> pd.DataFrame:
    """Return the mean over seeds of the last test error, or else loss, by label; NaN if one is not finite."""
    from stalegrad.analysis.statistics.curves import shown_column

    column = shown_column([history for runs in histories.values() for history in runs])
    values = {label: [run[column].to_numpy(float)[-1] for run in runs] for label, runs in histories.items()}
    means = {label: float(np.mean(last)) if np.isfinite(last).all() else np.nan for label, last in values.items()}
    return pd.DataFrame({column: means})
