"""Runs with a controller: the simulation is advanced, replayed and adjusted from the loss, again and again."""

from __future__ import annotations

import functools

import numpy as np

from stalegrad.policies.controllers import Adjustment, Observation, changed
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.evaluation import at_once
from stalegrad.simulator.replays.execution import begin
from stalegrad.simulator.replays.history import History
from stalegrad.simulator.replays.lowering import LoweredTrace, bucket, lower
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.run import Replay, follow, result_of
from stalegrad.simulator.replays.step import Layout
from stalegrad.simulator.replays.training import Training
from stalegrad.simulator.replays.watch import Progress, Watch
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import Engine
from stalegrad.simulator.timing.trace import Trace

DECISIONS = 100_000
"""Largest number of decisions of a controller in a run: each lowers the trace so far again."""


def simulate_and_replay(
    cluster: Cluster,
    training: Training,
    *,
    execution: str | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Trace, Replay]:
    """Run a method with a controller: advance the simulation, replay, decide, and repeat.

    The loss is that of the version current at the tick; the new k (or number of local steps) holds from the next
    update on. The decisions are in ``trace.spec["decisions"]``: (time, loss, value). Arguments are those of
    :func:`replay`; ``progress`` receives the number of updates made since its last call. A run that continues from
    a checkpoint takes the earlier decisions from it.
    """
    method = training.method
    controller = method.controller
    assert controller is not None
    engine = Engine(cluster, method.synchrony, training.budget, training.seed)
    history, executor, plan = History(training), None, None
    decisions: list[Adjustment] = []
    watch = Watch(progress, checkpoint, decisions)
    before = watch.decisions_before()
    layout = _layout(training)
    first_loss = history.evaluated(functools.partial(at_once, training, training.initial))["train_loss"]
    tick, over = controller.interval, False
    while not over:
        if len(decisions) >= DECISIONS or tick + controller.interval == tick:
            raise ValueError(
                f"interval of method {method.name!r} = {controller.interval} s is not allowed for this run: after "
                f"{len(decisions)} decisions it is {tick:g} s; at most {DECISIONS}, and time must advance"
            )
        over = engine.advance(tick)
        if len(decisions) < len(before):
            decisions.append(before[len(decisions)])
            engine.server.change(changed(method.synchrony, controller.changes, decisions[-1].value))
            tick += controller.interval
            continue
        trace = engine.trace()
        lowered = _fitted(lower(trace, () if over else engine.live_versions()), layout, method.name)
        if training.rule.work is not None and lowered.returned is not None:
            raise ValueError(
                f"method {method.name!r} has a controller and workers that keep state: workers must not return "
                "after leaving"
            )
        plan = training.plan(lowered, trace.end if over else tick, final=over)
        if executor is None:
            executor = begin(training, layout, plan, execution)
            watch.resume(executor, history)
        snapshot = follow(plan, executor, history, watch)
        if history.diverged_at is not None:
            break
        if not over:
            now = getattr(engine.server.next_synchrony or engine.server.synchrony, controller.changes)
            loss = history.evaluated(functools.partial(at_once, training, snapshot))["train_loss"]
            decisions.append(_decide(training, plan, (first_loss, loss), tick, now))
            engine.server.change(changed(method.synchrony, controller.changes, decisions[-1].value))
            tick += controller.interval
    trace.spec["decisions"] = [list(decision) for decision in decisions]
    assert executor is not None
    assert plan is not None
    return trace, result_of(plan, history, snapshot, executor.execution)


def _layout(training: Training) -> Layout:
    """Return the layout of a run whose trace is not known yet.

    k is at most the number of workers P. At most P + 2 versions are alive: those held, the current one, a spare.
    """
    synchrony, workers, controller = training.method.synchrony, training.workers, training.method.controller
    assert controller is not None
    return Layout(
        messages=None,
        steps=synchrony.local_steps,
        fresh=False,
        measures=training.record.measures,
        slots=bucket(workers + 2),
        most=max(workers, vars(synchrony).get("k", 1)),
        loss=training.loss_needed,
        varied=controller.changes == "local_steps",
    )


def _fitted(lowered: LoweredTrace, layout: Layout, method: str) -> LoweredTrace:
    """Return a lowered trace with the layout's number of local steps; where they vary, messages may take fewer.

    Raises:
        ValueError: if the number differs although the controller does not change it.
    """
    if layout.varied:
        of = (
            np.full(len(lowered.worker), lowered.steps, np.int32) if lowered.steps_of is None else lowered.steps_of
        )
        return lowered._replace(steps=layout.steps, steps_of=of)
    if lowered.updates and (lowered.steps != layout.steps or lowered.steps_of is not None):
        raise ValueError(
            f"method {method!r} has a controller, which needs messages of {layout.steps} local steps each"
        )
    return lowered


def _decide(training: Training, plan: Plan, losses: tuple[float, float], time: float, now: int) -> Adjustment:
    """Return the controller's decision at that time (simulated seconds), from the first and the current loss."""
    synchrony, controller, rates = training.method.synchrony, training.method.controller, plan.learning_rate
    assert controller is not None
    first_rate, rate = (float(rates[0]), float(rates[-1])) if len(rates) else (1.0, 1.0)
    value = controller.decide(synchrony, training.workers, Observation(*losses, first_rate, rate, now))
    if controller.changes == "local_steps" and value > synchrony.local_steps:
        raise ValueError(
            f"the controller of method {training.method.name!r} decided for {value} local steps: allowed are at "
            f"most the first {synchrony.local_steps}"
        )
    return Adjustment(time, losses[1], value)
