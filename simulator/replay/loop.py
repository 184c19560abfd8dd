"""Execution as a Python loop over compiled messages and updates.

Versions live in a Python list, so that keeping one is keeping a reference: nothing is ever copied. The way to go
where one gradient is dear and compiles badly inside a loop (native convolutions on CPU).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stalegrad.simulator.replay.executor import Executor, Program
from stalegrad.simulator.replay.step import Inputs, Params


class Loop(Executor):
    """The state of one replay, advanced message by message."""

    name = "loop"

    def start(self, params: Params) -> None:
        """Put version 0 into its slot."""
        self._params = params
        init, self.message, self.apply = compiled(self.program)
        self.correction, self.optimizer, sent = init(params, self.numbers)
        self.slots: list[Params] = [None] * (self.schedule.slots + self.schedule.scratch)
        self.slots[self.schedule.initial_slot] = sent

    @property
    def params(self) -> Params:
        """The server's parameters now."""
        return self._params

    def advance(self, first: int, last: int) -> Any:
        """Make the updates ``first`` to ``last - 1``; return the gaps of their messages, if recorded."""
        s, gaps = self.schedule, []
        for u in range(first, last):
            a, b = int(s.first[u]), int(s.first[u + 1])
            indices = self.draw(a, b) if self.train is not None else np.zeros((b - a, s.steps, 0), np.int32)
            rate, total = self.learning_rates[u], None
            for m in range(a, b):
                event = indices[m - a], np.uint32(s.batch[m]), s.worker[m], s.staleness[m]
                read = self.slots[s.read_slot[m]]
                total, self.correction, gap = self.message(
                    self.numbers, self._params, read, self.correction, total, event, rate, self.train, self.key
                )
                gaps.append(gap)
            count = None if self.layout.messages == 1 else np.asarray(b - a, rate.dtype)
            self._params, self.optimizer, sent = self.apply(
                self.numbers, self._params, self.optimizer, total, count, rate
            )
            self.slots[s.write_slot[u]] = sent
        return np.array([float(gap) for gap in gaps]) if self.layout.gap and gaps else None


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> Any:
    """Return the compiled init, message and apply."""

    def message(
        numbers: Any, params: Params, read: Params, correction: Any, total: Any, event: Any, rate: Any, train: Any,
        key: jax.Array,
    ) -> Any:  # fmt: skip
        indices, batch, worker, staleness = event
        keys = jax.vmap(lambda h: jax.random.fold_in(key, batch + h))(
            jnp.arange(program.layout.steps, dtype=jnp.uint32)
        )
        inputs = Inputs(indices, keys, worker, staleness)
        sent, correction, gap = program.step(numbers).message(params, read, correction, inputs, rate, train)
        if total is not None:
            sent = jax.tree.map(jnp.add, total, sent)
        return sent, correction, gap

    return (
        jax.jit(lambda params, numbers: program.step(numbers).init(params)),
        jax.jit(message, donate_argnums=(3, 4)),
        jax.jit(lambda numbers, *arguments: program.step(numbers).apply(*arguments), donate_argnums=(2, 3)),
    )
