"""Experiments executed together, in lanes of one compiled program."""

from __future__ import annotations

from collections.abc import Sequence

from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.experiments.run import known_parts, run
from stalegrad.simulator.experiments.traces import trace_of

ACCELERATOR_LANES = 16


def default_lanes() -> int:
    """Return in how many lanes runs are executed: one on CPU, where more gain little, several elsewhere."""
    import jax

    return 1 if jax.default_backend() == "cpu" else ACCELERATOR_LANES


def planned_lanes(experiment: Experiment, lanes: int) -> int | None:
    """Return in how many lanes an experiment is to be executed; None: alone.

    Alone are those whose controller decides from the loss, and those that record the losses of the workers.
    """
    alone = lanes == 1 or experiment.method.adaptive or experiment.record.worker_losses
    return None if alone else lanes


def run_together(experiments: Sequence[Experiment], lanes: int) -> list[Result]:
    """Run experiments, those that share their compiled code in ``lanes`` lanes.

    The bytes of a run depend on ``lanes``, but not on who runs beside it; in one lane they are those of
    :func:`~stalegrad.simulator.experiments.run.run`, and so they are if a controller decides from the loss.

    Raises:
        ValueError: if one of them is impossible, before anything runs.
    """
    from stalegrad.simulator.replays.run import Request, replay_together
    from stalegrad.simulator.replays.training import check

    for e in experiments:
        check(e.problem, e.method, e.cluster.size)
    if lanes == 1:
        return [run(e, progress=False) for e in experiments]
    traces = {i: trace_of(e) for i, e in enumerate(experiments) if not e.method.adaptive}
    requests = [
        Request(trace, e.problem, e.method, e.record, e.seed)
        for e, trace in ((experiments[i], trace) for i, trace in traces.items())
    ]
    replays = dict(zip(traces, replay_together(requests, lanes), strict=True))
    return [
        Result.of(e, traces[i], replays[i], known_parts(e)) if i in replays else run(e, progress=False)
        for i, e in enumerate(experiments)
    ]
