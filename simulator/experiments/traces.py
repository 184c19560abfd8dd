"""Traces that several runs share: those that differ in the rule only are timed once."""

from __future__ import annotations

import functools
import json

from stalegrad._core.specs import changed_fields
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.identity import registered_in
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

NOT_TIMED = {"method.rule", "method.weight", "method.learning_rate", "problem.model"}
"""Things of users that a trace does not depend on."""

KEPT = 8
"""Traces that are remembered; a sweep runs what shares one in a row."""


def trace_text(experiment: Experiment) -> str | None:
    """Return the canonical text of exactly what the trace depends on: cluster, synchrony, budget and seed.

    None if there is none: a part exists in this process only, or the training has a say (a controller).
    """
    synchrony = experiment.method.synchrony
    if experiment.method.adaptive or registered_in(experiment).keys() - NOT_TIMED:
        return None
    try:
        cluster = experiment.cluster.table()
    except ValueError:
        return None
    run = {"seed": experiment.seed, **changed_fields(experiment.budget)}
    return json.dumps(
        {"cluster": cluster, "synchrony": SYNCHRONIES.to_table(synchrony), "run": run}, sort_keys=True
    )


def trace_of(experiment: Experiment) -> Trace:
    """Return the trace of an experiment, the very same for all that share it. Treat it as read-only."""
    text = trace_text(experiment)
    if text is not None:
        return _simulated(text)
    budget = changed_fields(experiment.budget)
    return simulate(experiment.cluster, experiment.method.synchrony, seed=experiment.seed, **budget)


@functools.lru_cache(maxsize=KEPT)
def _simulated(text: str) -> Trace:
    table = json.loads(text)
    return simulate(
        Cluster.from_table(table["cluster"]), SYNCHRONIES.from_table(table["synchrony"]), **table["run"]
    )
