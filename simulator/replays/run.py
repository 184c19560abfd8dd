"""Replay a trace: compute its gradients on a problem and apply them with a method's rule."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.specs import Seed, validate
from stalegrad._core.types import Params, PyTree, Stats
from stalegrad.models import Problem
from stalegrad.policies import Method
from stalegrad.simulator.replays.batches import draw_of
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.evaluation import background
from stalegrad.simulator.replays.execution import begin, check_execution
from stalegrad.simulator.replays.executor import Executor
from stalegrad.simulator.replays.given import Start
from stalegrad.simulator.replays.history import History
from stalegrad.simulator.replays.lanes import Part, grouped, replay_groups
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.replays.training import Snapshot, Training
from stalegrad.simulator.replays.watch import Progress, Watch
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.trace import Trace


class Replay(NamedTuple):
    """The result of a replay.

    Attributes:
        history: one row per recorded point, see :func:`replay`.
        params: the server's parameters at the end.
        diverged_at: wallclock of the first recorded point whose loss is not finite, or None.
        execution: execution strategy: ``scan``, ``windows``, ``loop`` or ``N lanes``.
        gradients: if the record asks for it, one row per used message, in the order of gradient ids: ``worker``,
            ``update``, ``wallclock`` (of the update), ``staleness``, ``gap``, ``gradient_norm`` (L2; of
            the displacement, where workers send one), ``learning_rate`` and ``effective_step``: the learning rate
            times the factor by which correction and weight have changed the norm.
        stats: the running statistics of batch norm at the end; no leaves where there is none.
        snapshots: if the record asks for them, ``update`` (how many were made), ``params`` (the server's
            parameters then) and ``sent`` (the point that workers are sent); the first axis of every array has one
            entry for each version that has a row. Else None.
    """

    history: pd.DataFrame
    params: Params
    diverged_at: float | None
    execution: str
    gradients: pd.DataFrame | None = None
    stats: Stats = ()
    snapshots: dict[str, PyTree] | None = None


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
    params: Params | None = None,
    stats: Stats = None,
    batches: npt.ArrayLike | None = None,
) -> Replay:
    """Replay a trace, simulated or measured, on a problem with a method's rule.

    Args:
        trace: times at which each gradient was read and used.
        problem: what is trained.
        method: gives the rule and the learning rate. Its synchrony (and its controller, if it has one) is not
            applied: the trace must come from a simulation with it.
        record: what the history holds.
        seed: seed of the initial parameters, the mini-batches and the keys given to the loss.
        execution: ``scan``, ``windows`` or ``loop``; by default chosen by backend and problem.
        progress: receives the number of updates made since its last call.
        checkpoint: where the state is saved at intervals; the replay continues from the state that it holds.
        params: parameters to start at, instead of those that the problem and the seed give: a pytree of the same
            structure, shapes and types, or the ``params`` of a stored result.
        stats: running statistics to start at, of networks with batch norm.
        batches: the examples of every mini-batch, instead of those that the problem's sampling and the seed give:
            indices (used messages, local steps, batch size) as :func:`mini_batches` returns them.

    Returns:
        The history, with columns ``wallclock, update, gradients, epoch, train_loss, test_loss,
        test_error, mean_staleness, max_staleness, mean_gap, learning_rate`` (staleness and gap over the
        messages since the row before; further columns from ``record.fn``), the final parameters, and
        whether it diverged. A run that diverges ends there.

    Raises:
        ValueError: if the mini-batch is larger than the data set, the execution is impossible for the method, the
            trace cannot have happened (see :meth:`Trace.verify`), or ``params``, ``stats`` or ``batches`` do not
            go together with the problem.

    Example:
        >>> from stalegrad.models import Problem
        >>> from stalegrad.policies import methods
        >>> from stalegrad.simulator import Cluster, Record, mini_batches, replay, simulate
        >>> problem, method = Problem("softmax-regression", "fashion-mnist-small"), methods.async_()
        >>> trace = simulate(Cluster(4), method.synchrony, updates=10)
        >>> first = replay(trace, problem, method, record=Record(updates=1, params=True))
        >>> first.snapshots["update"]
        array([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10])
        >>> batches = mini_batches(trace, problem)[::-1]
        >>> again = replay(trace, problem, method, params=first.params, batches=batches)
    """
    check_execution(execution)
    start = Start(params, stats, batches)
    training = Training(problem, method, trace.workers, record, _budget(trace), seed, start)
    return replay_on(trace, training, execution=execution, progress=progress, checkpoint=checkpoint)


def replay_on(
    trace: Trace,
    training: Training,
    *,
    history: History | None = None,
    execution: str | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Replay:
    """Replay a trace on a training, which holds problem, method, record and seed; otherwise as :func:`replay`.

    A given history has evaluated the start already.
    """
    lowered = lower(trace.verify())
    plan = training.plan(lowered, trace.end)
    executor = begin(training, training.layout(lowered), plan, execution)
    history = history or History(training)
    watch = Watch(progress, checkpoint)
    watch.resume(executor, history)
    snapshot = follow(plan, executor, history, watch)
    return result_of(plan, history, snapshot, executor.execution)


def mini_batches(trace: Trace, problem: Problem, *, seed: int = 0) -> npt.NDArray[np.int32]:
    """Return which examples the messages of a replay are computed from.

    Args:
        trace: the trace of the replay.
        problem: what is trained; it must have data.
        seed: seed of the replay, as given to :func:`replay` or in the experiment.

    Returns:
        Indices of training examples, (used messages, local steps, batch size), messages in the order of gradient
        ids (``trace.messages.loc[trace.used]``); -1 beyond a message's own local steps, where these differ.

    Raises:
        ValueError: if the problem has no data, or the trace cannot have happened (see :meth:`Trace.verify`).

    Example:
        >>> from stalegrad.models import Problem
        >>> from stalegrad.policies import Async
        >>> from stalegrad.simulator import Cluster, mini_batches, simulate
        >>> trace = simulate(Cluster(4), Async(), updates=10)
        >>> mini_batches(trace, Problem("mlp", "fashion-mnist-small", batch_size=8)).shape
        (10, 1, 8)
    """
    lowered = lower(trace.verify())
    if not problem.objective().examples:
        raise ValueError("the problem has no data, so its messages are computed from no examples")
    draw = draw_of(problem, validate("seed", Seed, seed), lowered, trace.workers)
    messages = len(lowered.worker)
    drawn = draw(0, messages) if messages else np.empty((0, lowered.steps, problem.batch_size), np.int32)
    if lowered.steps_of is not None:
        drawn[np.arange(lowered.steps) >= lowered.steps_of[:, None]] = -1
    return drawn


def follow(plan: Plan, executor: Executor, history: History, watch: Watch) -> Snapshot:
    """Execute a plan and write its rows, each while the updates after it are made.

    Returns:
        Where the run stands: at the plan's end, or at the row where it has diverged.
    """
    executor.follow(plan)
    reached = executor.snapshot
    with background(executor.training) as begin:
        for update in [*plan.due.update[len(history.rows) :], plan.lowered.updates]:
            while history.done < update:
                first, last = history.done, min(int(update), history.done + executor.stride)
                measured = executor.advance(first, last)
                if not history.write(plan):
                    return reached
                history.note(measured, last)
                watch.made(last - first, executor, history)
            reached = jax.tree.map(jnp.copy, executor.snapshot)  # its buffers are donated to the next update
            history.reach(plan, functools.partial(begin, reached), lambda: executor.look(history.done))
        history.write(plan)
    return reached


class Request(NamedTuple):
    """Arguments of :func:`replay`."""

    trace: Trace
    problem: Problem
    method: Method
    record: Record
    seed: int


def replay_together(requests: Sequence[Request], lanes: int) -> list[Replay]:
    """Replay several traces, those that share their compiled code ``lanes`` at a time by ``vmap``.

    The devices of this process share the work.
    Numbers are those of :func:`replay` up to rounding; they depend on ``lanes``, but not on the other runs.
    A run whose updates differ in their number of messages is replayed alone, and so is one that records the losses
    of the workers.

    Raises:
        ValueError: as :func:`replay`, before anything is replayed.
    """
    for request in requests:
        request.trace.verify()
    parts = []
    for trace, problem, method, record, seed in requests:
        training = Training(problem, method, trace.workers, record, _budget(trace), seed)
        parts.append(Part(training, training.plan(lower(trace), trace.end), History(training)))
    alone = [part.shape is None or part.training.record.worker_losses for part in parts]
    together = grouped(list(itertools.compress(parts, map(operator.not_, alone))), lanes)
    done = {
        id(part.history): result_of(part.plan, part.history, snapshot, f"{taken} lanes")
        for part, snapshot, taken in replay_groups(jax.local_devices(), together, lanes)
    }
    for training, plan, history in itertools.compress(parts, alone):
        executor = begin(training, training.layout(plan.lowered), plan, None)
        snapshot = follow(plan, executor, history, Watch())
        done[id(history)] = result_of(plan, history, snapshot, executor.execution)
    return [done[id(part.history)] for part in parts]


def result_of(plan: Plan, history: History, snapshot: Snapshot, execution: str) -> Replay:
    """Return the result of a replay that has ended."""
    params, stats = snapshot
    rows, gradients = pd.DataFrame(history.rows), history.gradients(plan)
    return Replay(rows, params, history.diverged_at, execution, gradients, stats, history.snapshots)


def _budget(trace: Trace) -> Budget:
    given = {k: trace.spec[k] for k in ("updates", "wallclock", "gradients") if k in trace.spec}
    return Budget(**given) if given else Budget(updates=max(1, len(trace.update_times)))
