"""The base of the executions: what scan, windows and loop have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from stalegrad._core.trees import scalar_type
from stalegrad.models.streams import Stream
from stalegrad.policies import Method
from stalegrad.simulator.replays.batches import Draw
from stalegrad.simulator.replays.feed import Feed
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.step import Layout, Params, Step, make_step

FETCHED_AHEAD = 16
"""Messages of a stream that are fetched before they are needed."""

PEAK, FIRST = "peak_learning_rate", "first_learning_rate"

fold_in: Any = jnp.vectorize(jax.random.fold_in, signature="(),()->()")

Loss = Callable[..., tuple[jax.Array, Any]]


class Snapshot(NamedTuple):
    """Where a run stands: the server's parameters, and running statistics."""

    params: Params
    stats: Any


class State(NamedTuple):
    """All that an update needs of the past; ``own`` is what the workers keep, stacked along a first axis."""

    params: Params
    slots: Params
    own: Any
    kept: Any
    optimizer: Any


class ReplayPlan(NamedTuple):
    """A lowered and what goes with each of its messages and updates.

    Attributes:
        lowered: when what is read and used.
        draw: draws mini-batches.
        epochs: passed before each update, and in all; NaN without data.
        rates: learning rate of each update.
        weights: the factor that each message's staleness has earned it.
    """

    lowered: LoweredTrace
    draw: Draw
    epochs: npt.NDArray[np.floating[Any]]
    rates: npt.NDArray[np.floating[Any]]
    weights: npt.NDArray[np.floating[Any]]

    def cast(self, dtype: Any) -> ReplayPlan:
        """Return the plan with learning rates and weights of this type."""
        return self._replace(rates=np.asarray(self.rates, dtype), weights=np.asarray(self.weights, dtype))


def numbers_of(method: Method, workers: int, rates: Any, dtype: Any) -> dict[str, jax.Array]:
    """Return a method's numeric hyper-parameters, and the peak and the start of its learning rate."""
    peak = method.learning_rate.peak_of(rates) if len(rates) else 0.0
    first = method.learning_rate.values(np.zeros(1), np.zeros(1), workers)[0]
    numbers = method.numbers | {PEAK: peak, FIRST: first}
    return {name: jnp.asarray(value, dtype) for name, value in numbers.items()}


class Program(NamedTuple):
    """What code is compiled for: the key of the compilation caches."""

    loss: Loss
    structure: Structure
    layout: Layout

    def step(self, numbers: Any) -> Step:
        """Return the step with these numeric hyper-parameters (tracers, when compiling)."""
        hyper = dict(numbers)
        peak, first = hyper.pop(PEAK), hyper.pop(FIRST)
        rule = self.structure.method.rule(self.structure.workers, hyper)
        return make_step(self.loss, rule, self.layout, peak, first)


class Structure:
    """A method whose numbers do not matter: equal for methods that compile to the same code."""

    def __init__(self, method: Method, workers: int) -> None:
        self.method, self.workers = method, workers
        self.key = (method.structure, workers if method.knows_workers else None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Executor(ABC):
    """The state of one replay, advanced by stretches of updates.

    Args:
        loss: ``loss(params, stats, batch, key) -> (scalar, stats)``.
        method: for its rule.
        layout: what to specialise for.
        initial: version 0, and running statistics at the start.
        train: training data, a stream of such, or None.
        workers: their number.
        key: from which the key of every mini-batch is folded.
        longest: updates in the longest stretch that is asked for without a stop.
        lowered: the lowered trace, or its first part.
    """

    state: State
    stride: int
    """Updates that can be made at once."""

    def __init__(
        self,
        loss: Loss,
        method: Method,
        layout: Layout,
        initial: Snapshot,
        train: Any,
        workers: int,
        key: jax.Array,
        longest: int,
        lowered: LoweredTrace,
    ) -> None:
        self.program = Program(loss, Structure(method, workers), layout)
        self.method, self.layout, self.train, self.key, self.longest = method, layout, train, key, longest
        self.feed = Feed(train, FETCHED_AHEAD) if isinstance(train, Stream) else None
        self.dtype, self.workers = scalar_type(initial.params), workers
        self.numbers = numbers_of(method, workers, np.zeros(0), self.dtype)
        self.start(initial, lowered.initial_slot)

    def follow(self, plan: ReplayPlan) -> None:
        """Go on with this plan, which continues the one before."""
        self.plan = plan.cast(self.dtype)
        self.numbers = numbers_of(self.method, self.workers, self.plan.rates, self.dtype)

    def mini_batches(self, first: int, last: int) -> tuple[Any, Any]:
        """Return data, and which of them messages are computed from: indices (messages, steps, batch)."""
        if self.train is None:
            return None, None
        if self.feed is None:
            return self.train, self.plan.draw(first, last)
        data = self.feed.take(self.plan.draw, first, last, len(self.plan.lowered.worker))
        examples = np.arange(len(jax.tree.leaves(data)[0]), dtype=np.int32)
        return data, examples.reshape(last - first, self.layout.steps, -1)

    @abstractmethod
    def start(self, initial: Snapshot, slot: int) -> None:
        """Set the state up for version 0, kept in that slot."""

    @property
    def snapshot(self) -> Snapshot:
        """Where the run stands now; good until it is advanced."""
        return Snapshot(self.state.params, self.state.kept.stats)

    def restore(self, leaves: Sequence[Any]) -> None:
        """Go on from another state, of which these are the leaves (as bytes, where NumPy has no such type)."""
        own, structure = jax.tree.flatten(self.state)
        typed = [
            leaf.view(to.dtype) if leaf.dtype.kind == "V" else leaf for leaf, to in zip(leaves, own, strict=True)
        ]
        self.state = jax.tree.unflatten(structure, map(jnp.array, typed))

    @abstractmethod
    def advance(self, first: int, last: int) -> Any:
        """Make the updates ``first`` to ``last - 1``, at most ``stride``.

        Returns:
            What is measured of their messages: (messages, measures), or None.
        """
