"""A replay in progress: it follows a trace that may still grow, and writes the history down."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from stalegrad._core.specs import Seed, validate
from stalegrad.models import Objective, Problem
from stalegrad.models.streams import Stream
from stalegrad.policies import Method, Rule
from stalegrad.policies.controllers import Adjustment
from stalegrad.simulator.replays.batches import key_of, sampler
from stalegrad.simulator.replays.checkpoint import Checkpoint, Saved
from stalegrad.simulator.replays.execution import (
    EXECUTIONS,
    WINDOW,
    Signature,
    asks_for_loss,
    choose_execution,
    has_windows,
)
from stalegrad.simulator.replays.executor import Executor, ReplayPlan, Snapshot, Structure
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.record import Record, points
from stalegrad.simulator.replays.step import Layout, Params
from stalegrad.simulator.timing.budget import Budget

Progress = Callable[[int], Any]
"""Told, now and then, how many updates have been made since it was last told."""


SAMPLE, BLOCK = 2_048, 256
"""Of a stream: how many training examples are evaluated, and how many at once."""


class Player:
    """Plays plans, each a continuation of the one before.

    Args:
        problem: what is trained.
        method: for its rule and learning rate.
        workers: their number.
        record: what the history holds.
        budget: when the run ends.
        seed: of initial parameters, mini-batches and the keys given to the loss.
        execution: ``scan``, ``windows`` or ``loop``, or None to choose.
        progress: told about updates as they are made.
        checkpoint: where the state is kept, now and then; the run goes on from what it holds.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        workers: int,
        record: Record,
        budget: Budget,
        seed: int,
        execution: str | None,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.problem, self.method, self.workers = problem, method, workers
        self.seed = validate("seed", Seed, seed)
        self.record, self.budget, self.progress = record, budget, progress
        self.checkpoint, self.decisions = checkpoint, list[Adjustment]()
        self.saved = checkpoint.load() if checkpoint is not None else None
        self.objective = problem.objective()
        self.rule = method.rule(workers)
        init_key, self.loss_key = jax.random.split(key_of(self.seed))
        # Copied, because the buffers will be donated.
        start = jax.tree.map(jnp.array, (self.objective.init(init_key), self.objective.stats))
        self.initial = self.snapshot = Snapshot(*start)
        self.execution = execution or ""
        self.loss_needed = asks_for_loss(Structure(method, workers), Signature(self.initial.params))
        self.executor: Executor | None = None
        self.rows: list[dict[str, float]] = []
        self.measured: list[Any] = []
        self.recent: list[Any] = []
        self.done = self.shown = 0
        self.diverged_at: float | None = None
        self.values = evaluate(self.objective, self.initial, record)

    def layout(self, lowered: LoweredTrace) -> Layout:
        """Return the layout to compile for, if this is the whole lowered trace."""
        return Layout(
            messages=lowered.messages_per_update,
            steps=lowered.steps,
            fresh=lowered.always_fresh and self.rule.look_ahead is None,
            measures=self.record.measures,
            slots=lowered.bucket,
            most=int(np.diff(lowered.first).max(initial=1)),
            loss=self.loss_needed,
            varied=lowered.steps_of is not None,
        )

    def plan_of(self, lowered: LoweredTrace) -> ReplayPlan:
        """Return the plan of a lowered trace: mini-batches, epochs, learning rates and weights."""
        check_rule(self.method.name, self.rule, lowered)
        examples, size = self.objective.examples, self.problem.batch_size
        draw = sampler(self.problem.sampling, max(examples, 1), size, self.seed, lowered, self.workers)
        epochs = lowered.gradients_before * (size / examples if examples else math.nan)
        rates = self.method.learning_rate.values(
            np.arange(lowered.updates, dtype=float), epochs[:-1], self.workers
        )
        update = np.repeat(np.arange(lowered.updates), np.diff(lowered.first))
        weigh = self.rule.weight
        weights = np.ones(len(update)) if weigh is None else weigh(lowered.staleness, update, self.workers)
        return ReplayPlan(lowered, draw, epochs, rates, weights)

    def read(self, lowered: LoweredTrace, end: float, *, final: bool = True) -> None:
        """Take up a lowered trace, a continuation of the one before; note what goes with it and when rows are due.

        Args:
            lowered: the lowered trace (so far).
            end: simulated seconds that it reaches to.
            final: whether it is the whole of the run.
        """
        self.last = self.plan_of(lowered)
        self.due = points(self.record, self.budget, lowered, end, final=final)

    def play(self, lowered: LoweredTrace, end: float, layout: Layout, *, final: bool = True) -> bool:
        """Play a lowered trace to its end; return whether the run has diverged.

        Args:
            lowered: a continuation of the one played before.
            end: simulated seconds that it reaches to.
            layout: the same in all calls.
            final: whether it is the whole of the run.
        """
        self.read(lowered, end, final=final)
        if self.executor is None:
            params, batch_size = self.initial.params, self.problem.batch_size
            if not self.execution:
                self.execution = choose_execution(self.objective, params, batch_size, self.rule, layout, lowered)
            if self.execution == "windows":
                if not has_windows(self.objective, self.rule, layout):
                    raise ValueError(
                        f'execution = "windows" is not allowed for {self.method.name}: it needs stale updates of '
                        "one message each, workers that keep nothing between messages, and no batch norm"
                    )
                layout = layout._replace(window=WINDOW)
            self.executor = EXECUTIONS[self.execution](
                self.objective.loss,
                self.method,
                layout,
                self.initial,
                self.objective.train,
                self.workers,
                self.loss_key,
                longest=int(np.diff(self.due.update).max(initial=1)),
                lowered=lowered,
            )
            if self.saved is not None:
                self.resume(self.saved)
        self.executor.follow(self.last)
        for update in [*self.due.update[len(self.rows) :], lowered.updates]:
            while self.done < update:
                stop = min(int(update), self.done + self.executor.stride)
                self.note(self.executor.advance(self.done, stop), stop)
                self.snapshot = self.executor.snapshot
                if self.checkpoint is not None and self.checkpoint.due:
                    self.save(self.checkpoint)
            self.write_rows()
            if self.diverged_at is not None:
                break
        return self.diverged_at is not None

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep the state: what :meth:`resume` takes."""
        assert self.executor is not None
        about = {name: getattr(self, name) for name in ("done", "shown", "rows", "decisions")}
        kept = [np.concatenate(parts) if parts else np.empty(0) for parts in (self.measured, self.recent)]
        checkpoint.save(about, [*kept, *jax.device_get(jax.tree.leaves(self.executor.state))])

    @property
    def decisions_before(self) -> list[Adjustment]:
        """The controller's decisions up to the state that the checkpoint held."""
        return [Adjustment(*made) for made in self.saved.about["decisions"]] if self.saved is not None else []

    def resume(self, saved: Saved) -> None:
        """Go on from a state that :meth:`save` has kept."""
        assert self.executor is not None
        measured, recent, *leaves = saved.arrays
        self.executor.restore(leaves)
        self.measured, self.recent = ([part] if len(part) else [] for part in (measured, recent))
        self.shown, self.rows = saved.about["shown"], saved.about["rows"]
        if self.progress is not None:
            self.progress(saved.about["done"])
        self.done, self.snapshot, self.values = saved.about["done"], self.executor.snapshot, {}

    def note(self, measured: Any, update: int) -> None:
        """Take notice that all updates before this one have been made, and of what was measured of them."""
        if measured is not None:
            self.recent.append(measured)
        if self.progress is not None:
            self.progress(update - self.done)
        self.done = update
        self.values = {}

    def write_rows(self) -> None:
        """Write the rows that are due now; a loss that is not finite is the last of them."""
        while self.diverged_at is None and len(self.rows) < len(self.due.update):
            wallclock, update = self.due.wallclock[len(self.rows)], self.due.update[len(self.rows)]
            if update > self.done:
                break
            self.rows.append(self.row(float(wallclock)))
            if not math.isfinite(self.rows[-1]["train_loss"]):
                self.diverged_at = float(wallclock)

    def row(self, wallclock: float) -> dict[str, float]:
        """Return the history's row of this moment."""
        plan = self.last
        self.values = self.values or evaluate(self.objective, self.snapshot, self.record)
        if self.record.per_gradient:
            self.measured += self.recent
        gaps = np.concatenate(self.recent)[:, 0] if self.record.measures and self.recent else np.array([math.nan])
        rates = plan.rates
        row = {
            "wallclock": wallclock,
            "update": self.done,
            "gradients": plan.lowered.gradients_before[self.done],
            "epoch": plan.epochs[self.done],
            **{name: self.values[name] for name in ("train_loss", "test_loss", "test_error")},
            **_staleness(plan.lowered, self.shown, self.done),
            "mean_gap": float(np.mean(gaps)),
            "learning_rate": rates[max(self.done - 1, 0)] if len(rates) else math.nan,
        }
        self.recent, self.shown = [], self.done
        return row | self.values

    def gradients(self) -> pd.DataFrame | None:
        """Return the record of every message, in the order of gradient ids; None unless it was asked for."""
        if not self.record.per_gradient:
            return None
        lowered = self.last.lowered
        count = int(lowered.first[self.done])
        measured = np.concatenate([*self.measured, *self.recent]) if self.done else np.empty((0, 3))
        gap, gradient_norm, message_norm = measured.T
        update = np.repeat(np.arange(lowered.updates), np.diff(lowered.first))[:count]
        rate = self.last.rates[update]
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = (1.0 if self.rule.displaces else rate) * message_norm / gradient_norm
        return pd.DataFrame(
            {
                "worker": lowered.worker[:count],
                "update": update,
                "wallclock": lowered.time[update],
                "staleness": lowered.staleness[:count],
                "gap": gap,
                "gradient_norm": gradient_norm,
                "learning_rate": rate,
                "effective_step": effective,
            }
        ).rename_axis("gradient")

    def train_loss(self) -> float:
        """Return the training loss of the current version."""
        self.values = self.values or evaluate(self.objective, self.snapshot, self.record)
        return self.values["train_loss"]


def check_rule(name: str, rule: Rule, lowered: LoweredTrace) -> None:
    """Raise ValueError if a trace asks of a rule what it cannot do."""
    if rule.single and lowered.updates and lowered.messages_per_update != 1:
        raise ValueError(f"method {name!r} needs updates of one message each; those of this trace have others")
    if rule.own_reads and lowered.updates:
        later = lowered.read_version > 0
        maker = lowered.worker[lowered.read_version[later] - 1]
        if (maker != lowered.worker[later]).any():
            raise ValueError(
                f"method {name!r} sends each worker a point of its own, but in this trace a worker reads a "
                "version that another one's message made (a late joiner, say)"
            )


def evaluate(objective: Objective, snapshot: Snapshot, record: Record) -> dict[str, float]:
    """Return training loss, test loss and test error (NaN where there is none), and the record's own columns."""
    streamed = isinstance(objective.train, Stream)
    train = _measured(
        objective, snapshot, objective.train, record.train_examples or (SAMPLE if streamed else None)
    )
    test = _measured(objective, snapshot, objective.test) if objective.test is not None else {}
    return values_of(train, test, snapshot.params, record)


def _measured(
    objective: Objective, snapshot: Snapshot, data: Any, at_most: int | None = None
) -> Mapping[str, Any]:
    """Evaluate on data, or on ``at_most`` of its examples; on a stream block by block."""
    metrics = _evaluator(objective.evaluate)
    if not isinstance(data, Stream):
        return metrics(*snapshot, sample(data, at_most))  # type: ignore[no-any-return]
    chosen = spaced(len(data), at_most)
    count = len(chosen)
    blocks = [chosen[i : i + BLOCK] for i in range(0, count, BLOCK)]
    parts = [metrics(*snapshot, data.fetch(block)) for block in blocks]
    weights = [len(block) / count for block in blocks]
    return {name: sum(w * float(part[name]) for w, part in zip(weights, parts, strict=True)) for name in parts[0]}


def spaced(size: int, at_most: int | None) -> Any:
    """Return the indices of at most ``at_most`` of ``size`` examples, evenly spaced."""
    count = min(size, at_most or size)
    return np.arange(count) * size // count


def sample(data: Any, at_most: int | None) -> Any:
    """Return at most ``at_most`` examples, evenly spaced; all if None."""
    leaves = jax.tree.leaves(data)
    if at_most is None or not leaves or len(leaves[0]) <= at_most:
        return data
    chosen = spaced(len(leaves[0]), at_most)
    return jax.tree.map(lambda leaf: leaf[chosen], data)


def values_of(
    train: Mapping[str, Any], test: Mapping[str, Any], params: Params, record: Record
) -> dict[str, float]:
    """Return metrics of the training and of the test data as columns of the history, and the record's own."""
    return {
        "train_loss": float(train["loss"]),
        "test_loss": float(test.get("loss", math.nan)),
        "test_error": float(test.get("error", math.nan)),
        **{name: float(value) for name, value in record.columns(params).items()},
    }


@functools.lru_cache(maxsize=64)
def _evaluator(function: Callable[..., Any]) -> Any:
    return jax.jit(function)


def _staleness(lowered: LoweredTrace, first: int, last: int) -> dict[str, float]:
    staleness = lowered.staleness[lowered.first[first] : lowered.first[last]]
    if not len(staleness):
        return {"mean_staleness": math.nan, "max_staleness": math.nan}
    return {"mean_staleness": float(staleness.mean()), "max_staleness": float(staleness.max())}
