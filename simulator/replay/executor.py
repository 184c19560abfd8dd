"""What the two ways of executing a replay have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad.policies import Method
from stalegrad.simulator.replay.batches import Draw
from stalegrad.simulator.replay.schedule import Schedule
from stalegrad.simulator.replay.step import Layout, Params, Step, make_step

PEAK = "peak_learning_rate"

fold_in: Any = jnp.vectorize(jax.random.fold_in, signature="(),()->()")

Loss = Callable[..., tuple[jax.Array, Any]]


class Program(NamedTuple):
    """What code is compiled for: the key of the compilation caches."""

    loss: Loss
    structure: Structure
    layout: Layout

    def step(self, numbers: Any) -> Step:
        """Return the step with these numeric hyper-parameters (tracers, when compiling)."""
        hyper = dict(numbers)
        peak = hyper.pop(PEAK)
        structure = self.structure
        return make_step(self.loss, structure.method.rule(structure.workers, hyper), self.layout, peak)


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
        params: version 0.
        stats: running statistics at the start.
        train: training data, or None.
        workers: their number.
        key: from which the key of every mini-batch is folded.
        longest: updates in the longest stretch that will be asked for at once (more takes several calls).
        schedule: the lowered trace, or its first part.
    """

    name: ClassVar[str]

    def __init__(
        self,
        loss: Loss,
        method: Method,
        layout: Layout,
        params: Params,
        stats: Any,
        train: Any,
        workers: int,
        key: jax.Array,
        longest: int,
        schedule: Schedule,
    ) -> None:
        self.program = Program(loss, Structure(method, workers), layout)
        self.method, self.layout, self.train, self.key, self.longest = method, layout, train, key, longest
        self.dtype = jnp.result_type(*jax.tree.leaves(params))
        self.numbers = {name: jnp.asarray(value, self.dtype) for name, value in method.numbers.items()}
        self.numbers[PEAK] = jnp.zeros((), self.dtype)
        self.start(params, stats, schedule.initial_slot)

    def follow(self, schedule: Schedule, draw: Draw, learning_rates: Any, weights: Any) -> None:
        """Go on with this schedule, which continues the one before.

        Args:
            schedule: the lowered trace (so far).
            draw: draws mini-batches.
            learning_rates: of every update.
            weights: the factor that each message's staleness has earned it.
        """
        self.schedule, self.draw = schedule, draw
        self.learning_rates = np.asarray(learning_rates, self.dtype)
        self.weights = np.asarray(weights, self.dtype)
        peak = self.method.learning_rate.peak_of(self.learning_rates)
        self.numbers[PEAK] = jnp.asarray(peak, self.dtype)

    @abstractmethod
    def start(self, params: Params, stats: Any, slot: int) -> None:
        """Set the state up for version 0, kept in that slot."""

    @property
    @abstractmethod
    def params(self) -> Params:
        """The server's parameters now."""

    @property
    @abstractmethod
    def stats(self) -> Any:
        """The running statistics now."""

    @abstractmethod
    def advance(self, first: int, last: int) -> Any:
        """Make the updates ``first`` to ``last - 1``; return what is measured of their messages (or None)."""
