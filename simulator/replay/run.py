"""Replay: put gradients to a trace. The schedule says when, the problem and the rule say what."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from stalegrad.models import Objective, Problem
from stalegrad.policies import Method, Rule
from stalegrad.policies.specs import unknown_name
from stalegrad.simulator.replay.batches import sampler
from stalegrad.simulator.replay.loop import Loop
from stalegrad.simulator.replay.record import Record, points
from stalegrad.simulator.replay.scan import Scan
from stalegrad.simulator.replay.schedule import Schedule, lower
from stalegrad.simulator.replay.step import Layout, Params
from stalegrad.simulator.timing.trace import Budget, Trace

PATHS: dict[str, type[Any]] = {"scan": Scan, "loop": Loop}

Progress = Callable[[int], Any]
"""Told, now and then, how many updates have been made since it was last told."""


class Replay(NamedTuple):
    """What a replay gives.

    Attributes:
        history: one row per recorded point, see :func:`replay`.
        params: the server's parameters at the end.
        diverged_at: wallclock of the first recorded point whose loss is not finite, or None.
        path: how it was executed, ``scan`` or ``loop``.
    """

    history: pd.DataFrame
    params: Params
    diverged_at: float | None
    path: str


def replay(
    trace: Trace,
    problem: Problem,
    method: Method,
    *,
    record: Record | None = None,
    seed: int = 0,
    path: str | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Replay a trace, simulated or measured, on a problem with a method's rule.

    Args:
        trace: when each gradient was read and used.
        problem: what is trained.
        method: for its rule and learning rate; its synchrony has already shaped the trace.
        record: what the history holds.
        seed: of initial parameters, mini-batches and the keys given to the loss.
        path: ``scan`` or ``loop``; by default chosen by backend and problem.
        progress: told about updates as they are made.

    Returns:
        The history, with columns ``wallclock, update, gradients, epoch, train_loss, test_loss,
        test_error, mean_staleness, max_staleness, mean_gap, learning_rate`` (staleness and gap over the
        messages since the row before; further columns from ``record.fn``), the final parameters, and
        whether it diverged. A run that diverges ends there.

    Raises:
        ValueError: if the mini-batch is larger than the data set, or a message's local steps vary.
    """
    check(problem, method, trace.workers, path)
    record = record or Record()
    objective, schedule = problem.objective(), lower(trace)
    examples, batch_size = objective.examples, problem.batch_size
    draw = sampler(problem.sampling, max(examples, 1), batch_size, seed, schedule, trace.workers)
    epochs = schedule.gradients_before * (batch_size / examples if examples else math.nan)
    rates = method.learning_rate.values(np.arange(schedule.updates, dtype=float), epochs[:-1])
    rule = method.rule(trace.workers)
    check_rule(method.name, rule, schedule)
    update = np.repeat(np.arange(schedule.updates), np.diff(schedule.first))
    weights = rule.weight(schedule.staleness, update, trace.workers) if rule.weight else np.ones(len(update))

    init_key, loss_key = jax.random.split(jax.random.key(seed))
    params = jax.tree.map(jnp.array, objective.init(init_key))  # copied: the buffers will be donated
    layout = Layout(
        messages=schedule.messages_per_update,
        steps=schedule.steps,
        fresh=schedule.always_fresh and rule.look_ahead is None,
        gap=record.gap,
    )
    due = points(record, _budget(trace), schedule, trace.end)
    path = path or choose_path(objective.loss, params, objective.train, batch_size)
    run = PATHS[path](
        objective.loss, method, layout, schedule, params, objective.train, draw, rates,
        weights, trace.workers, loss_key, longest=int(np.diff(due.update).max(initial=1)),
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    done, diverged_at = 0, None
    values = _evaluate(objective, run.params, record)
    for wallclock, update in zip(*due, strict=True):
        gaps = None
        if update > done:
            gaps = run.advance(done, update)
            values = _evaluate(objective, run.params, record)
            if progress is not None:
                progress(int(update) - done)
        row = {
            "wallclock": wallclock,
            "update": update,
            "gradients": schedule.gradients_before[update],
            "epoch": epochs[update],
            **{name: values[name] for name in ("train_loss", "test_loss", "test_error")},
            **_staleness(schedule, done, update),
            "mean_gap": math.nan if gaps is None else float(np.mean(gaps)),
            "learning_rate": rates[max(update - 1, 0)] if len(rates) else math.nan,
        }
        rows.append(row | values)
        done = int(update)
        if not math.isfinite(row["train_loss"]):
            diverged_at = float(wallclock)
            break
    return Replay(pd.DataFrame(rows), run.params, diverged_at, run.name)


def check(problem: Problem, method: Method, workers: int, path: str | None) -> None:
    """Load the problem's data; raise ValueError if it does not go together with the rest."""
    examples = problem.objective().examples
    if path is not None and path not in PATHS:
        raise ValueError(unknown_name("path", path, PATHS))
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


def check_rule(name: str, rule: Rule, schedule: Schedule) -> None:
    """Raise ValueError if a trace asks of a rule what it cannot do."""
    if rule.single and schedule.updates and schedule.messages_per_update != 1:
        raise ValueError(f"method {name!r} needs updates of one message each; those of this trace have others")
    if rule.own_reads and schedule.updates:
        later = schedule.read_version > 0
        maker = schedule.worker[schedule.read_version[later] - 1]
        if (maker != schedule.worker[later]).any():
            raise ValueError(
                f"method {name!r} sends each worker a point of its own, but in this trace a worker reads a "
                "version that another one's message made (a late joiner, say)"
            )


def _evaluate(objective: Objective, params: Params, record: Record) -> dict[str, float]:
    metrics = _evaluator(objective.evaluate)
    train = metrics(params, objective.train)
    test = metrics(params, objective.test) if objective.test is not None else {}
    further = record.fn(params) if record.fn is not None else {}
    return {
        "train_loss": float(train["loss"]),
        "test_loss": float(test.get("loss", math.nan)),
        "test_error": float(test.get("error", math.nan)),
        **{name: float(value) for name, value in further.items()},
    }


@functools.lru_cache(maxsize=64)
def _evaluator(function: Callable[..., Any]) -> Any:
    return jax.jit(function)


@functools.lru_cache(maxsize=64)
def _has_convolution(loss: Callable[..., jax.Array], signature: Any) -> bool:
    params, batch = signature.tree
    return "conv_general_dilated" in str(jax.make_jaxpr(loss)(params, batch, jax.random.key(0)))


class _Signature:
    """Shapes and dtypes of a loss's arguments, hashable."""

    def __init__(self, tree: Any) -> None:
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        self.key = (
            str(jax.tree.structure(tree)),
            tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(self.tree)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Signature) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def choose_path(loss: Callable[..., jax.Array], params: Params, train: Any, batch_size: int) -> str:
    """Return ``loop`` for native convolutions on CPU, whose backward pass is slow inside a loop, else ``scan``."""
    if jax.default_backend() != "cpu":
        return "scan"
    batch = jax.tree.map(lambda leaf: leaf[:batch_size], train)
    return "loop" if _has_convolution(loss, _Signature((params, batch))) else "scan"


def _staleness(schedule: Schedule, first: int, last: int) -> dict[str, float]:
    staleness = schedule.staleness[schedule.first[first] : schedule.first[last]]
    if not len(staleness):
        return {"mean_staleness": math.nan, "max_staleness": math.nan}
    return {"mean_staleness": float(staleness.mean()), "max_staleness": float(staleness.max())}


def _budget(trace: Trace) -> Budget:
    given = {k: trace.spec[k] for k in ("updates", "wallclock", "gradients") if k in trace.spec}
    return Budget(**given) if given else Budget(updates=max(1, len(trace.update_times)))
