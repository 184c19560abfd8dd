"""The execution ``loop``: a Python loop over compiled messages and updates.

Versions are kept in a Python list of references, so no version is copied. This execution suits expensive gradients
that are slow inside a compiled loop (native convolutions on CPU).
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.trees import at_worker, put_worker
from stalegrad._core.types import Data, OptimizerState, Own, Params, Scalar
from stalegrad.simulator.replays.executor import Executor, Numbers, Program, State, fold_in
from stalegrad.simulator.replays.history import Measures
from stalegrad.simulator.replays.step import Inputs, Kept, Sent
from stalegrad.simulator.replays.training import Snapshot

Event: TypeAlias = tuple[
    jax.Array | None,
    jax.Array,
    jax.Array,
    jax.Array,
    jax.Array,
    jax.Array,
    jax.Array | None,
    jax.Array | None,
]
"""The :class:`Inputs` of a message without its keys; the number of its first mini-batch follows the indices."""


class Loop(Executor):
    """The state of one replay, advanced message by message."""

    stride = 16

    def start(self, initial: Snapshot, slot: int) -> None:
        """Write version 0 to its slot."""
        init, self.message, self.apply = compiled(self.program)
        own, kept, optimizer, sent = init(*initial, self.numbers)
        self.state = State(initial.params, [sent] * self.layout.slots, own, kept, optimizer)

    def advance(self, first: int, last: int) -> Measures | None:
        """Make the updates ``first`` to ``last - 1``; return the measures of their messages, or None."""
        plan, measured = self.plan, []
        s, (params, slots, own, kept, optimizer) = plan.lowered, self.state
        for u in range(first, last):
            a, b = int(s.first[u]), int(s.first[u + 1])
            rate, total = plan.learning_rate[u], None
            for m in range(a, b):
                batch, who = np.uint32(s.batch[m]), (s.worker[m], np.int32(u), s.staleness[m])
                train, indices = self.mini_batches(m, m + 1)
                varying = (None if each is None else each[m] for each in (s.steps_of, s.returned))
                event = None if indices is None else indices[0], batch, *who, plan.weight[m], *varying
                state = (params, slots[s.read_slot[m]], own, kept, optimizer)
                total, own, kept, measures = self.message(
                    self.numbers, *state, total, event, rate, train, self.key
                )
                measured.append(measures)
            count = None if self.layout.messages == 1 else np.asarray(b - a, rate.dtype)
            assert total is not None
            told = (*event[:4], s.staleness[a:b].max(), *event[5:])
            params, optimizer, kept, sent = self.apply(
                self.numbers, params, optimizer, kept, *total, count, told, rate
            )
            slots[s.write_slot[u]] = sent
        self.state = State(params, slots, own, kept, optimizer)
        return Measures(np.array(measured), len(measured)) if self.layout.measures and measured else None

    def kept_in(self, slot: int) -> Params:
        """Return the content of a slot."""
        return self.state.slots[slot]


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped, jax.stages.Wrapped]:
    """Return the compiled init, message and apply."""

    def inputs_of(event: Event, keys: jax.Array | None = None) -> Inputs:
        indices, _, worker, update, staleness, weight, steps, returned = event
        return Inputs(indices, keys, worker, update, staleness, weight, steps, returned)

    def message(
        numbers: Numbers,
        params: Params,
        read: Params,
        all_own: Own,
        kept: Kept,
        optimizer: OptimizerState,
        total: Sent | None,
        event: Event,
        rate: jax.Array,
        train: Data,
        key: jax.Array,
    ) -> tuple[Sent, Own, Kept, jax.Array | None]:
        keys = fold_in(key, event[1] + jnp.arange(program.layout.steps, dtype=jnp.uint32))
        inputs = inputs_of(event, keys)
        own = at_worker(all_own, inputs.worker)
        sent, own, kept, measures = program.step(numbers).message(
            params, read, own, kept, optimizer, inputs, rate, train
        )
        all_own = put_worker(all_own, inputs.worker, own)
        if total is not None:
            sent = jax.tree.map(jnp.add, total, sent)
        return sent, all_own, kept, measures

    def apply(
        numbers: Numbers,
        params: Params,
        optimizer: OptimizerState,
        kept: Kept,
        total: Params,
        loss: jax.Array | None,
        count: Scalar | None,
        event: Event,
        rate: jax.Array,
    ) -> tuple[Params, OptimizerState, Kept, Params]:
        sent = Sent(total, loss)
        return program.step(numbers).apply(params, optimizer, kept, sent, count, inputs_of(event), rate)

    return (
        jax.jit(lambda params, stats, numbers: program.step(numbers).init(params, stats)),
        jax.jit(message, donate_argnums=(3, 4, 6)),
        jax.jit(apply, donate_argnums=(2, 3, 4)),
    )
