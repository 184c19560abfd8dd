"""Runs whose controller decides from the loss: the simulation is advanced, replayed, adjusted, and so on."""

from __future__ import annotations

import functools

from stalegrad.policies.controllers import Adjustment, Controller, Observation, with_k
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.execution import begin
from stalegrad.simulator.replays.executor import Executor
from stalegrad.simulator.replays.history import History
from stalegrad.simulator.replays.lowering import bucket, lower
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.run import Replay, evaluate_now, follow, result_of
from stalegrad.simulator.replays.step import Layout
from stalegrad.simulator.replays.training import Training
from stalegrad.simulator.replays.watch import Progress, Watch
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import Engine
from stalegrad.simulator.timing.trace import Trace

DECISIONS = 100_000
"""Decisions of a controller in a run at most: with each the trace so far is lowered again."""


def simulate_and_replay(
    cluster: Cluster,
    training: Training,
    *,
    execution: str | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Trace, Replay]:
    """Run a method whose controller decides from the loss: advance, replay, decide, and so on.

    The loss is that of the version current at the tick; the new k holds from the next update on. What was
    decided is in ``trace.spec["decisions"]``: (time, loss, k). Arguments as of :func:`replay`; ``progress`` is
    told about updates. A run that goes on from a checkpoint takes the decisions made before from it.
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
    first_loss = history.current["train_loss"]
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
            engine.server.change(with_k(method.synchrony, decisions[-1].k))
            tick += controller.interval
            continue
        trace = engine.trace()
        lowered = lower(trace, () if over else engine.live_versions())
        if lowered.updates and (lowered.steps != layout.steps or lowered.steps_of is not None):
            raise ValueError(
                f"method {method.name!r} has a controller, which needs messages of {layout.steps} local steps each"
            )
        if training.rule.work is not None and lowered.returned is not None:
            raise ValueError(
                f"method {method.name!r} has a controller and workers that keep something: they must not return "
                "after leaving"
            )
        plan = training.plan(lowered, trace.end if over else tick, final=over)
        if executor is None:
            executor = begin(training, layout, plan, execution)
            watch.resume(executor, history)
        if not follow(plan, executor, history, watch):
            break
        if not over:
            decisions.append(_decide(controller, plan, executor, history, first_loss, tick))
            engine.server.change(with_k(method.synchrony, decisions[-1].k))
            tick += controller.interval
    trace.spec["decisions"] = [list(decision) for decision in decisions]
    assert executor is not None
    assert plan is not None
    return trace, result_of(plan, history, executor.snapshot, executor.execution)


def _layout(training: Training) -> Layout:
    """Return the layout of a run whose trace is not known yet.

    k stays within the number of workers, and so do the versions alive: those held, the current, one spare.
    """
    synchrony, workers = training.method.synchrony, training.workers
    return Layout(
        messages=None,
        steps=synchrony.local_steps,
        fresh=False,
        measures=training.record.measures,
        slots=bucket(workers + 2),
        most=max(workers, vars(synchrony)["k"]),
        loss=training.loss_needed,
    )


def _decide(
    controller: Controller, plan: Plan, executor: Executor, history: History, first_loss: float, time: float
) -> Adjustment:
    """Return the controller's decision at that time (simulated seconds)."""
    training, rates = executor.training, plan.learning_rate
    first_rate, rate = (float(rates[0]), float(rates[-1])) if len(rates) else (1.0, 1.0)
    loss = history.evaluated(functools.partial(evaluate_now, executor))["train_loss"]
    seen = Observation(first_loss, loss, first_rate, rate)
    return Adjustment(time, loss, controller.decide(training.method.synchrony, training.workers, seen))
