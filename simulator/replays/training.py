"""The training of a replay, independent of the trace; a training and a trace give a plan."""

from __future__ import annotations

import functools
import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.specs import Seed, validate
from stalegrad._core.types import Params, PyTree, Stats
from stalegrad.models import Objective, Problem
from stalegrad.policies import Method, Rule
from stalegrad.policies.optimizers import build_optimizer, needs_loss
from stalegrad.policies.rules.parts.staleness_weights import weights
from stalegrad.simulator.replays.batches import draw_of, key_of
from stalegrad.simulator.replays.given import FROM_SEED, Start, checked_batches, checked_start
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.plan import Plan, check_rule
from stalegrad.simulator.replays.record import Record, points
from stalegrad.simulator.replays.step import Layout
from stalegrad.simulator.timing.budget import Budget


class Snapshot(NamedTuple):
    """The current state of a run: the server's parameters, and running statistics."""

    params: Params
    stats: Stats


class Structure:
    """A method without its numbers: equal for methods that compile to the same code."""

    def __init__(self, method: Method, workers: int) -> None:
        self.method, self.workers = method, workers
        self.key = (method.structure, workers if method.knows_workers else None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Signature:
    """The shapes and types of a pytree; it is hashable."""

    def __init__(self, tree: PyTree) -> None:
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        self.key = (
            str(jax.tree.structure(tree)),
            tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(self.tree)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=256)
def asks_for_loss(structure: Structure, signature: Signature) -> bool:
    """Return whether the optimizer of a method uses the loss, for parameters of these shapes.

    Raises:
        ValueError: as for :func:`~stalegrad.policies.optimizers.needs_loss`.
    """
    rule = structure.method.rule(structure.workers)
    return needs_loss(build_optimizer(rule.optimizer), signature.tree)


class Training:
    """The training of a replay, independent of the trace. It is immutable.

    Args:
        problem: problem to train.
        method: method with its rule and learning rate.
        workers: number of workers.
        record: spec of the history.
        budget: budget of the run.
        seed: seed of initial parameters, mini-batches and the keys passed to the loss.
        given: initial parameters and mini-batches, if a user gives them.

    Attributes:
        objective: functions and data of the problem.
        rule: rule of the method.
        loss_key: key into which the number of a mini-batch is folded.

    Raises:
        ValueError: if problem, method and number of workers do not go together.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        workers: int,
        record: Record | None,
        budget: Budget,
        seed: int,
        given: Start = FROM_SEED,
    ) -> None:
        self.problem, self.method, self.workers = problem, method, workers
        self.record, self.budget, self.seed = record or Record(), budget, validate("seed", Seed, seed)
        check(problem, method, workers)
        self.objective: Objective = problem.objective()
        self.rule: Rule = method.rule(workers)
        self.init_key, self.loss_key = jax.random.split(key_of(self.seed))
        self.given = given
        if self.rule.table is not None and problem.partition is None and given.batches is None:
            warnings.warn(
                f"method {method.name!r} keeps a table with a row per worker, for workers whose data differ; here "
                "all workers draw from the same data: give the problem a partition",
                stacklevel=2,
            )

    @functools.cached_property
    def initial(self) -> Snapshot:
        """The parameters of version 0 and the initial statistics; copied, because their buffers are donated."""
        init, stats, given = self.objective.init, self.objective.stats, self.given
        if given.params is None:
            params = jax.tree.map(jnp.array, init(self.init_key))
        else:
            params = checked_start("params", given.params, jax.eval_shape(init, self.init_key))
        if given.stats is None:
            return Snapshot(params, jax.tree.map(jnp.array, stats))
        return Snapshot(params, checked_start("stats", given.stats, stats))

    @functools.cached_property
    def loss_needed(self) -> bool:
        """Whether the method's optimizer uses the loss."""
        return asks_for_loss(Structure(self.method, self.workers), Signature(self.initial.params))

    def layout(self, lowered: LoweredTrace) -> Layout:
        """Return the facts for which the code is specialised, if this is the whole trace."""
        return Layout(
            messages=lowered.messages_per_update,
            steps=lowered.steps,
            fresh=lowered.always_fresh and self.rule.look_ahead is None,
            measures=self.record.measures,
            slots=lowered.bucket,
            most=int(np.diff(lowered.first).max(initial=1)),
            loss=self.loss_needed,
            varied=lowered.steps_of is not None,
            returns=self.rule.work is not None and lowered.returned is not None,
        )

    def plan(self, lowered: LoweredTrace, end: float, *, final: bool = True) -> Plan:
        """Return the plan of a trace.

        Args:
            lowered: lowered trace (so far).
            end: end of the trace, in simulated seconds.
            final: whether it is the trace of the whole run.

        Raises:
            ValueError: if the rule cannot work with the trace, or too many rows would be due.
        """
        check_rule(self.method.name, self.rule, lowered)
        examples, size = self.objective.examples, self.problem.batch_size
        if self.given.batches is None:
            draw = draw_of(self.problem, self.seed, lowered, self.workers)
        else:
            batches = checked_batches(self.given.batches, lowered, size, examples)
            draw = lambda first, last: batches[first:last]  # noqa: E731
        epochs = lowered.gradients_before * (size / examples if examples else math.nan)
        learning_rate = self.method.learning_rate.values(
            np.arange(lowered.updates, dtype=float), epochs[:-1], self.workers
        )
        update = np.repeat(np.arange(lowered.updates), np.diff(lowered.first))
        steps = np.full(len(update), lowered.steps) if lowered.steps_of is None else lowered.steps_of
        more = {"worker": lowered.worker, "steps": steps}
        weight = weights(self.rule.weight, lowered.staleness, update, self.workers, **more)
        due = points(self.record, self.budget, lowered, end, final=final)
        self.record.check_kept(len(due.update), sum(leaf.nbytes for leaf in jax.tree.leaves(self.initial.params)))
        return Plan(lowered, draw, epochs, learning_rate, weight, due)


def check(problem: Problem, method: Method, workers: int) -> None:
    """Load the problem's data; raise ValueError if problem, method and workers do not go together."""
    examples = problem.objective().examples
    if not examples and method.learning_rate.needs_epochs:
        raise ValueError(
            f"learning_rate = {method.learning_rate} counts epochs, but the problem has no data: "
            'give unit = "updates"'
        )
    problem.check_workers(workers)
