"""Replay a trace: compute its gradients on a problem and apply them with a method's rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import pandas as pd

from stalegrad._core.specs import unknown_name
from stalegrad.models import Problem
from stalegrad.policies import Method
from stalegrad.policies.controllers import Adjustment, Observation, with_k
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.execution import EXECUTIONS
from stalegrad.simulator.replays.lanes import Part, grouped, play_on
from stalegrad.simulator.replays.lowering import bucket, lower
from stalegrad.simulator.replays.player import Player, Progress
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.replays.step import Layout, Params
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import Engine
from stalegrad.simulator.timing.trace import Trace

DECISIONS = 100_000
"""Decisions of a controller in a run at most: with each the trace so far is lowered again."""


class Replay(NamedTuple):
    """What a replay gives.

    Attributes:
        history: one row per recorded point, see :func:`replay`.
        params: the server's parameters at the end.
        diverged_at: wallclock of the first recorded point whose loss is not finite, or None.
        execution: how it was executed: ``scan``, ``windows``, ``loop`` or ``N lanes``.
        gradients: if the record asks for it, one row per used message, in the order of gradient ids: ``worker``,
            ``update``, ``wallclock`` (of the update), ``staleness``, ``gap``, ``gradient_norm`` (L2; of
            the displacement, where workers send one), ``learning_rate`` and ``effective_step``: the learning rate
            times the factor by which correction and weight have changed the norm.
        stats: the running statistics of batch norm at the end; no leaves where there is none.
    """

    history: pd.DataFrame
    params: Params
    diverged_at: float | None
    execution: str
    gradients: pd.DataFrame | None = None
    stats: Any = ()


def replay(
    trace: Trace,
    problem: Problem,
    method: Method,
    *,
    record: Record | None = None,
    seed: int = 0,
    execution: str | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Replay:
    """Replay a trace, simulated or measured, on a problem with a method's rule.

    Args:
        trace: when each gradient was read and used.
        problem: what is trained.
        method: for its rule and learning rate; its synchrony has already shaped the trace (and so have
            the decisions of its controller, if it has one).
        record: what the history holds.
        seed: of initial parameters, mini-batches and the keys given to the loss.
        execution: ``scan``, ``windows`` or ``loop``; by default chosen by backend and problem.
        progress: told about updates as they are made.
        checkpoint: where the state is kept now and then; the replay goes on from what it holds.

    Returns:
        The history, with columns ``wallclock, update, gradients, epoch, train_loss, test_loss,
        test_error, mean_staleness, max_staleness, mean_gap, learning_rate`` (staleness and gap over the
        messages since the row before; further columns from ``record.fn``), the final parameters, and
        whether it diverged. A run that diverges ends there.

    Raises:
        ValueError: if the mini-batch is larger than the data set, the execution is impossible for the method, or
            the trace cannot have happened (see :meth:`Trace.verify`).
    """
    trace.verify()
    check(problem, method, trace.workers, execution)
    budget = _budget(trace)
    player = Player(
        problem, method, trace.workers, record or Record(), budget, seed, execution, progress, checkpoint
    )
    lowered = lower(trace)
    player.play(lowered, trace.end, player.layout(lowered))
    return _result(player)


class Request(NamedTuple):
    """What :func:`replay` takes."""

    trace: Trace
    problem: Problem
    method: Method
    record: Record
    seed: int


def replay_together(requests: Sequence[Request], lanes: int) -> list[Replay]:
    """Replay several traces, those that share their compiled code ``lanes`` at a time by ``vmap``.

    The devices of this process share the work.
    Numbers are those of :func:`replay` up to rounding; they depend on ``lanes``, but on nobody else's run.
    A run whose updates differ in their number of messages is played alone.

    Raises:
        ValueError: as :func:`replay`, before anything is played.
    """
    parts = []
    for request in requests:
        request.trace.verify()
    for trace, problem, method, record, seed in requests:
        check(problem, method, trace.workers, None)
        player = Player(problem, method, trace.workers, record, _budget(trace), seed, None)
        parts.append(Part(player, lower(trace), trace.end))
    groups = grouped(parts, lanes)
    play_on(jax.local_devices(), [group for group in groups if group[0].shape is not None], lanes)
    for player, lowered, end in (part for group in groups if group[0].shape is None for part in group):
        player.play(lowered, end, player.layout(lowered))
    return [_result(part.player) for part in parts]


def simulate_and_replay(
    cluster: Cluster,
    problem: Problem,
    method: Method,
    budget: Budget,
    *,
    record: Record | None = None,
    seed: int = 0,
    execution: str | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Trace, Replay]:
    """Run a method whose controller decides from the loss: advance, replay, decide, and so on.

    The loss is that of the version current at the tick; the new k holds from the next update on. What was
    decided is in ``trace.spec["decisions"]``: (time, loss, k). Arguments as of :func:`replay`; ``progress`` is
    told about updates. A run that goes on from a checkpoint takes the decisions made before from it.
    """
    check(problem, method, cluster.size, execution)
    player = Player(
        problem, method, cluster.size, record or Record(), budget, seed, execution, progress, checkpoint
    )
    controller = method.controller
    assert controller is not None
    engine = Engine(cluster, method.synchrony, budget, seed)
    # k stays within the number of workers, and so do the versions alive: those held, the current, one spare.
    steps, slots = method.synchrony.local_steps, bucket(cluster.size + 2)
    most = max(cluster.size, vars(method.synchrony)["k"])
    measures = player.record.measures
    needs = player.loss_needed
    layout = Layout(None, steps, fresh=False, measures=measures, slots=slots, most=most, loss=needs)
    first_loss, made = player.train_loss(), player.decisions_before
    tick, over = controller.interval, False
    while not over:
        if len(player.decisions) >= DECISIONS or tick + controller.interval == tick:
            raise ValueError(
                f"interval of method {method.name!r} = {controller.interval} s is not allowed for this run: after "
                f"{len(player.decisions)} decisions it is {tick:g} s; at most {DECISIONS}, and time must advance"
            )
        over = engine.advance(tick)
        if len(player.decisions) < len(made):
            player.decisions.append(made[len(player.decisions)])
            engine.server.change(with_k(method.synchrony, player.decisions[-1].k))
            tick += controller.interval
            continue
        trace = engine.trace()
        lowered = lower(trace, () if over else engine.live_versions())
        if lowered.updates and (lowered.steps != steps or lowered.steps_of is not None):
            raise ValueError(
                f"method {method.name!r} has a controller, which needs messages of {steps} local steps each"
            )
        end = trace.end if over else tick
        if player.play(lowered, end, layout, final=over):
            break
        if not over:
            rates = player.last.rates
            now = (float(rates[0]), float(rates[-1])) if len(rates) else (1.0, 1.0)
            loss = player.train_loss()
            k = controller.decide(method.synchrony, cluster.size, Observation(first_loss, loss, *now))
            engine.server.change(with_k(method.synchrony, k))
            player.decisions.append(Adjustment(tick, loss, k))
            tick += controller.interval
    trace.spec["decisions"] = [list(decision) for decision in player.decisions]
    return trace, _result(player)


def _result(player: Player) -> Replay:
    history, gradients = pd.DataFrame(player.rows), player.gradients()
    params, stats = player.snapshot
    return Replay(history, params, player.diverged_at, player.execution, gradients, stats)


def check(problem: Problem, method: Method, workers: int, execution: str | None) -> None:
    """Load the problem's data; raise ValueError if it does not go together with the rest."""
    examples = problem.objective().examples
    if execution is not None and execution not in EXECUTIONS:
        raise ValueError(unknown_name("execution", execution, EXECUTIONS))
    if not examples and method.learning_rate.needs_epochs:
        raise ValueError(
            f"learning_rate = {method.learning_rate} counts epochs, but the problem has no data: "
            'give unit = "updates"'
        )
    if problem.sampling == "sharded" and examples // workers < problem.batch_size:
        raise ValueError(
            f"batch_size = {problem.batch_size} is not allowed: {examples} examples sharded over {workers} "
            f"workers leave {examples // workers} each"
        )


def _budget(trace: Trace) -> Budget:
    given = {k: trace.spec[k] for k in ("updates", "wallclock", "gradients") if k in trace.spec}
    return Budget(**given) if given else Budget(updates=max(1, len(trace.update_times)))
