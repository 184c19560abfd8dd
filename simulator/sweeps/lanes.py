"""Experiments executed together, in lanes of one compiled program."""

from __future__ import annotations

from collections.abc import Sequence

from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.experiments.run import known_parts, run
from stalegrad.simulator.experiments.traces import trace_of

ACCELERATOR_LANES = 16


def default_lanes() -> int:
    """Return the default number of lanes: one on CPU, where more lanes gain little, several elsewhere."""
    import jax

    return 1 if jax.default_backend() == "cpu" else ACCELERATOR_LANES


def planned_lanes(experiment: Experiment, lanes: int) -> int | None:
    """Return the number of lanes in which to execute an experiment; None: alone.

    Experiments with a controller and experiments that record the losses of the workers are executed alone.
    """
    alone = lanes == 1 or experiment.method.adaptive or experiment.record.worker_losses
    return None if alone else lanes


def run_together(experiments: Sequence[Experiment], lanes: int) -> list[Result]:
    """Run experiments; those that share compiled code are executed in ``lanes`` lanes.

    The bytes of a run depend on ``lanes``, but not on the runs in the other lanes. With one lane, and for methods
    with a controller, they are those of :func:`~stalegrad.simulator.experiments.run.run`.

    Raises:
        ValueError: before any run, if one of the experiments is impossible.
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
