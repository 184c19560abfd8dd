"""The base of the executions scan, windows and loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.trees import scalar_type
from stalegrad._core.types import Array, Data, Floats, Ints, OptimizerState, Own, Params, Scalar
from stalegrad.models.objective import Loss
from stalegrad.models.streams import Stream
from stalegrad.policies import Method
from stalegrad.simulator.replays.feed import Feed
from stalegrad.simulator.replays.history import Measures, as_types
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.step import Kept, Layout, Step
from stalegrad.simulator.replays.training import Snapshot, Structure, Training

FETCHED_AHEAD = 16
"""Number of messages of a stream that are fetched before they are needed."""

PEAK, FIRST = "peak_learning_rate", "first_learning_rate"

fold_in: Callable[[jax.Array, Array], jax.Array] = jnp.vectorize(jax.random.fold_in, signature="(),()->()")

Numbers: TypeAlias = Mapping[str, Scalar]
"""Numeric hyper-parameters of a method, peak and start of its learning rate, by name; tracers when compiling."""


class State(NamedTuple):
    """The state of a replay between updates; ``own`` is the state of the workers, stacked along the first axis."""

    params: Params
    slots: Params
    own: Own
    kept: Kept
    optimizer: OptimizerState


def numbers_of(method: Method, workers: int, learning_rate: Floats, dtype: np.dtype) -> dict[str, jax.Array]:
    """Return a method's numeric hyper-parameters, and the peak and the start of its learning rate."""
    peak = method.learning_rate.peak_of(learning_rate) if len(learning_rate) else 0.0
    first = method.learning_rate.values(np.zeros(1), np.zeros(1), workers)[0]
    numbers = method.numbers | {PEAK: peak, FIRST: first}
    return {name: jnp.asarray(value, dtype) for name, value in numbers.items()}


def slot_after(plan: Plan, update: int) -> int:
    """Return the slot of the point that is sent to workers after ``update`` updates."""
    return int(plan.lowered.write_slot[update - 1]) if update else plan.lowered.initial_slot


class Program(NamedTuple):
    """A program to compile; it is the key of the compilation caches."""

    loss: Loss
    structure: Structure
    layout: Layout

    def step(self, numbers: Numbers) -> Step:
        """Return the step with these numeric hyper-parameters, which are tracers when compiling."""
        hyper = dict(numbers)
        peak, first = hyper.pop(PEAK), hyper.pop(FIRST)
        rule = self.structure.method.rule(self.structure.workers, hyper)
        return Step(self.loss, rule, self.layout, peak, first)


class Executor(ABC):
    """The state of one replay, advanced by several updates at a time.

    Args:
        training: training to execute.
        layout: facts for which the code is specialised.
        plan: plan of the trace, or of its first part.
        execution: name of this execution: ``scan``, ``windows`` or ``loop``.
    """

    state: State
    stride: int
    """Largest number of updates that can be made at once."""

    def __init__(self, training: Training, layout: Layout, plan: Plan, execution: str) -> None:
        self.training, self.layout, self.execution = training, layout, execution
        self.train, self.key = training.objective.train, training.loss_key
        self.program = Program(training.objective.loss, Structure(training.method, training.workers), layout)
        self.feed = Feed(self.train, FETCHED_AHEAD) if isinstance(self.train, Stream) else None
        self.dtype = scalar_type(training.initial.params)
        self.longest = int(np.diff(plan.due.update).max(initial=1))
        self.numbers = numbers_of(training.method, training.workers, np.zeros(0), self.dtype)
        self.start(training.initial, plan.lowered.initial_slot)

    def follow(self, plan: Plan) -> None:
        """Continue with a plan that continues the one before."""
        self.plan = plan.cast(self.dtype)
        method, workers = self.training.method, self.training.workers
        self.numbers = numbers_of(method, workers, self.plan.learning_rate, self.dtype)

    def mini_batches(self, first: int, last: int) -> tuple[Data, Ints | None]:
        """Return data, and the indices of the examples of each message in them, (messages, steps, batch)."""
        if self.train is None:
            return None, None
        if self.feed is None:
            return self.train, self.plan.draw(first, last)
        data = self.feed.take(self.plan.draw, first, last, len(self.plan.lowered.worker))
        examples = np.arange(len(jax.tree.leaves(data)[0]), dtype=np.int32)
        return data, examples.reshape(last - first, self.layout.steps, -1)

    @abstractmethod
    def start(self, initial: Snapshot, slot: int) -> None:
        """Set up the state of version 0, kept in slot ``slot``."""

    @property
    def snapshot(self) -> Snapshot:
        """The current parameters and statistics, valid until the run is advanced."""
        return Snapshot(self.state.params, self.state.kept.stats)

    def restore(self, leaves: Sequence[np.ndarray]) -> None:
        """Continue from a state, given by its leaves (as bytes for types that NumPy lacks)."""
        own, structure = jax.tree.flatten(self.state)
        self.state = jax.tree.unflatten(structure, map(jnp.array, as_types(leaves, own)))

    def look(self, update: int) -> dict[str, Params]:
        """Return the server's parameters and the point sent to workers after ``update`` updates."""
        slot = slot_after(self.plan, update)
        sent = self.state.params if self.program.layout.fresh else self.kept_in(slot)
        return cast("dict[str, Params]", jax.device_get({"params": self.state.params, "sent": sent}))

    @abstractmethod
    def kept_in(self, slot: int) -> Params:
        """Return the content of a slot."""

    @abstractmethod
    def advance(self, first: int, last: int) -> Measures | None:
        """Make the updates ``first`` to ``last - 1``, at most ``stride``.

        Returns:
            The measures of their messages, or None.
        """
