"""Traces that several runs share: runs that differ only in the rule are simulated once."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from concurrent.futures import Future

from stalegrad._core.specs import changed_fields
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.identity import registered_in
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

NOT_TIMED = {"method.rule", "method.weight", "method.learning_rate", "problem.model", "problem.partition"}
"""Registered parts of an experiment on which its trace does not depend."""

KEPT = 8
"""Number of traces in memory; a sweep executes runs that share a trace one after another."""


def trace_text(experiment: Experiment) -> str | None:
    """Return the canonical text of the settings that determine a trace: cluster, synchrony, budget and seed.

    The text is None if a part exists in this process only, or if the trace depends on the training (a controller).
    """
    synchrony = experiment.method.synchrony
    if experiment.method.adaptive or registered_in(experiment).keys() - NOT_TIMED:
        return None
    try:
        cluster = experiment.timed_cluster.table()
    except ValueError:
        return None
    run = {"seed": experiment.seed, **changed_fields(experiment.budget)}
    return json.dumps(
        {"cluster": cluster, "synchrony": SYNCHRONIES.to_table(synchrony), "run": run}, sort_keys=True
    )


def trace_of(experiment: Experiment) -> Trace:
    """Return the trace of an experiment. Experiments share the object, so treat it as read-only."""
    text = trace_text(experiment)
    if text is not None:
        return _TRACES.of(text)
    budget = changed_fields(experiment.budget)
    return simulate(experiment.timed_cluster, experiment.method.synchrony, seed=experiment.seed, **budget)


def simulate_ahead(experiment: Experiment) -> None:
    """Start to simulate the trace of an experiment in a thread; :func:`trace_of` then waits for it."""
    text = trace_text(experiment)
    if text is not None:
        _TRACES.begin(text)


def forget() -> None:
    """Delete the traces in memory, for example after a change of the code of a simulation."""
    _TRACES.futures.clear()


class _Traces:
    """The last traces requested, by their texts; a thread may still be simulating one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.futures: OrderedDict[str, Future[Trace]] = OrderedDict()

    def begin(self, text: str) -> None:
        """Simulate a trace in a thread, unless it is in memory or being simulated."""
        future, ours = self.future(text)
        if ours:
            threading.Thread(target=self.simulate, args=(text, future), name="simulate ahead", daemon=True).start()

    def of(self, text: str) -> Trace:
        """Return a trace from memory, from a thread that simulates it, or from a simulation now."""
        future, ours = self.future(text)
        if ours:
            self.simulate(text, future)
        return future.result()

    def future(self, text: str) -> tuple[Future[Trace], bool]:
        """Return the future of a trace, and whether the caller must set its result."""
        with self.lock:
            known = text in self.futures
            future = self.futures.setdefault(text, Future())
            self.futures.move_to_end(text)
            while len(self.futures) > KEPT:
                self.futures.popitem(last=False)
        return future, not known

    def simulate(self, text: str, future: Future[Trace]) -> None:
        """Simulate a trace; an exception is raised where the trace is requested, and is not kept."""
        try:
            future.set_result(_simulated(text))
        except BaseException as error:
            with self.lock:
                self.futures.pop(text, None)
            future.set_exception(error)


_TRACES = _Traces()


def _simulated(text: str) -> Trace:
    table = json.loads(text)
    return simulate(
        Cluster.from_table(table["cluster"]), SYNCHRONIES.from_table(table["synchrony"]), **table["run"]
    )
