"""Execution as one compiled loop over many updates; versions live in slots stacked along a first axis.

Updates of one message each can be made in *windows*: consecutive messages that read versions known already do not
depend on one another, so their gradients are computed in one batched call, and then applied one by one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stalegrad._core.trees import at_worker, put_worker, scalar_type
from stalegrad._core.types import Array, Data, Ints, Own, Params, Scalar, Stats
from stalegrad.simulator.replays.executor import FETCHED_AHEAD, Executor, Numbers, Program, State, fold_in
from stalegrad.simulator.replays.history import Measures
from stalegrad.simulator.replays.lowering import windows
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.step import Inputs, Layout, Sent, Step
from stalegrad.simulator.replays.training import Snapshot

CHUNK = 4_096
"""Messages in one compiled call at most; its length never changes a result."""

Ahead: TypeAlias = tuple[Params, Own]
"""The version that the next message's worker has read, and the worker's own state, fetched in advance."""

Measured: TypeAlias = jax.Array | None
"""A row of measures per message of a chunk; None if nothing is measured."""

Carry: TypeAlias = tuple[State, Ahead, Measured]


LARGE = 1 << 14
"""Size from which a matrix is read where it is used, and not fetched in advance."""


class Chunk(NamedTuple):
    """A part of the lowered trace, padded to a compiled length. ``windows`` says where each window starts and
    the last one ends, if there are any; ``first`` has one entry per update and one more, ``write_slot``,
    ``learning_rate`` and ``oldest`` one per update, the others one per message."""

    worker: Array
    staleness: Array
    update: Array
    read_slot: Array
    indices: Array | None
    batch: Array
    first: Array
    write_slot: Array
    learning_rate: Array
    oldest: Array
    weight: Array
    windows: Array | None = None
    steps: Array | None = None
    returned: Array | None = None


class Scan(Executor):
    """The state of one replay, advanced by whole chunks."""

    def start(self, initial: Snapshot, slot: int) -> None:
        """Put version 0 into its slot."""
        self.state = start_of(self.program)(*initial, self.numbers, slot)
        chunk = CHUNK if self.feed is None else FETCHED_AHEAD
        self.stride = max(1, min(chunk // self.layout.most, compiled_length(self.longest)))

    def advance(self, first: int, last: int) -> Measures | None:
        """Make the updates ``first`` to ``last - 1``; return what is measured of their messages (or None)."""
        a, b = (int(self.plan.lowered.first[u]) for u in (first, last))
        train, indices = self.mini_batches(a, b)
        if self.feed is not None:
            assert indices is not None
            length = self.stride * self.layout.most * indices[0].size
            train = jax.tree.map(lambda leaf: _padded(leaf, length), train)
        chunk = cut(self.plan, first, last, self.stride, self.layout.most, indices)
        count = last - first
        if self.layout.window > 1:
            starts = windows(self.plan.lowered.read_version[first:last] - first, self.layout.window)
            chunk, count = chunk._replace(windows=_padded(starts, self.stride + 1)), len(starts) - 1
        self.state, measured = compiled(self.program)(
            self.state, self.numbers, train, self.key, chunk, np.int32(0), np.int32(count)
        )
        return None if measured is None else Measures(measured, b - a)

    def kept_in(self, slot: int) -> Params:
        """Return the content of a slot."""
        return gather(self.state.slots, slot)


def cut(plan: Plan, start: int, stop: int, updates: int, most: int, indices: Ints | None) -> Chunk:
    """Return the updates ``start`` to ``stop - 1``, padded to ``updates`` updates of ``most`` messages."""
    s, messages = plan.lowered, updates * most
    a, b = int(s.first[start]), int(s.first[stop])
    return Chunk(
        worker=_padded(s.worker[a:b], messages),
        staleness=_padded(s.staleness[a:b], messages),
        update=_padded((s.read_version[a:b] + s.staleness[a:b]).astype(np.int32), messages),
        read_slot=_padded(s.read_slot[a:b], messages),
        indices=None if indices is None else _padded(indices, messages),
        batch=_padded(s.batch[a:b].astype(np.uint32), messages),
        first=_padded((s.first[start : stop + 1] - a).astype(np.int32), updates + 1),
        write_slot=_padded(s.write_slot[start:stop], updates),
        learning_rate=_padded(plan.learning_rate[start:stop], updates),
        oldest=_padded(np.maximum.reduceat(s.staleness[a:b], s.first[start:stop] - a), updates),
        weight=_padded(plan.weight[a:b], messages),
        steps=None if s.steps_of is None else _padded(s.steps_of[a:b], messages),
        returned=None if s.returned is None else _padded(s.returned[a:b], messages),
    )


@functools.lru_cache(maxsize=64)
def start_of(program: Program) -> jax.stages.Wrapped:
    """Return the compiled ``(params, stats, numbers, slot of version 0) -> State``."""
    return jax.jit(state_of(program))


def state_of(program: Program) -> Callable[..., State]:
    """Return ``(params, stats, numbers, slot of version 0) -> State``."""

    def start(params: Params, stats: Stats, numbers: Numbers, slot: Scalar) -> State:
        own, kept, optimizer, sent = program.step(numbers).init(params, stats)
        stacked = None
        if not program.layout.fresh:
            empty = jax.tree.map(lambda leaf: jnp.zeros((program.layout.slots, *leaf.shape), leaf.dtype), sent)
            stacked = write(empty, slot, sent)
        return State(params, stacked, own, kept, optimizer)

    return start


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> jax.stages.Wrapped:
    """Return the compiled :func:`run_chunk` of a program."""
    return jax.jit(run_chunk(program), donate_argnums=0)


def run_chunk(program: Program) -> Callable[..., tuple[State, Measured]]:
    """Return ``(state, numbers, train, key, chunk, first, last) -> (state, measured)``.

    It makes the updates (in windows: the windows) ``first`` to ``last - 1`` of the chunk; ``measured`` has a row
    for each of its messages.
    """
    layout = program.layout

    def run(
        state: State,
        numbers: Numbers,
        train: Data,
        key: jax.Array,
        chunk: Chunk,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple[State, Measured]:
        numbers_of = chunk.batch[:, None] + jnp.arange(layout.steps, dtype=jnp.uint32)
        body = _Body(program.step(numbers), layout, train, fold_in(key, numbers_of), chunk)
        shape = len(chunk.worker), len(layout.measures)
        measured = jnp.zeros(shape, scalar_type(state.params)) if layout.measures else None
        if layout.window > 1:
            done: tuple[State, Measured] = lax.fori_loop(first, last, body.window, (state, measured))
            return done
        update = body.single if layout.messages == 1 else body.several
        begin = chunk.first[first] if layout.messages is None else first * layout.messages
        state, _, measured = lax.fori_loop(first, last, update, (state, body.fetch(begin, state), measured))
        return state, measured

    return run


class _Body(NamedTuple):
    """The bodies of the loop over a chunk's updates.

    Attributes:
        step: the arithmetic.
        layout: what the code is specialised for.
        train: the data.
        keys: keys of the mini-batches of every message of the chunk, (messages, steps).
        chunk: the updates.
    """

    step: Step
    layout: Layout
    train: Data
    keys: jax.Array
    chunk: Chunk

    def inputs_of(self, m: jax.Array) -> Inputs:
        """Return the inputs of message m (or of several messages)."""
        c = self.chunk
        indices, steps, returned = (None if each is None else each[m] for each in (c.indices, c.steps, c.returned))
        who = c.worker[m], c.update[m], c.staleness[m]
        return Inputs(indices, self.keys[m], *who, c.weight[m], steps, returned)

    def fetch(self, m: Scalar, state: State) -> Ahead:
        """Return the start of message m: the version that it has read, and its worker's own state.

        It is fetched in advance, after everything before it is written: to read and to write a stack in one step
        could otherwise need a copy of all of it. Arrays that are not (None) are read by :meth:`read`.
        """
        m = jnp.minimum(m, len(self.chunk.worker) - 1)
        read = state.params if self.layout.fresh else gather(state.slots, self.chunk.read_slot[m], self.ahead)
        return read, at_worker(state.own, self.chunk.worker[m])

    def ahead(self, stack: jax.Array) -> bool:
        """Return whether an array of a version is fetched in advance.

        Large matrices are not: to carry them from step to step takes longer than to read them where they are used,
        and XLA then copies nothing (tests/simulator/replays/test_memory_traffic.py).
        """
        size = math.prod(stack.shape[1:])
        return self.step.rule.work is not None or stack.ndim < 3 or size < LARGE

    def read(self, m: jax.Array, ahead: Params, state: State) -> Params:
        """Return the version that message m has read; a part of it may have been fetched in advance."""
        if self.layout.fresh:
            return ahead
        late = gather(state.slots, self.chunk.read_slot[m], lambda stack: not self.ahead(stack))
        return jax.tree.map(lambda a, b: b if a is None else a, ahead, late, is_leaf=lambda leaf: leaf is None)

    def message(
        self, m: jax.Array, ahead: Ahead, state: State, rate: jax.Array, measured: Measured
    ) -> tuple[Sent, State, Measured]:
        """Compute message m; return it, and the state after it."""
        read, own = self.read(m, ahead[0], state), ahead[1]
        sent, own, kept, measures = self.step.message(
            state.params, read, own, state.kept, state.optimizer, self.inputs_of(m), rate, self.train
        )
        own = put_worker(state.own, self.chunk.worker[m], own)
        return sent, state._replace(own=own, kept=kept), _noted(measured, measures, m)

    def finish(self, u: jax.Array, m: jax.Array, state: State, total: Sent, count: Scalar | None) -> State:
        """Make update u from the sum of its messages, of which m is the first."""
        inputs = self.inputs_of(m)
        if self.layout.messages != 1:
            inputs = inputs._replace(staleness=self.chunk.oldest[u])
        params, optimizer, kept, sent = self.step.apply(
            state.params, state.optimizer, state.kept, total, count, inputs, self.chunk.learning_rate[u]
        )
        slots = state.slots if self.layout.fresh else write(state.slots, self.chunk.write_slot[u], sent)
        return state._replace(params=params, slots=slots, kept=kept, optimizer=optimizer)

    def single(self, u: jax.Array, carry: Carry) -> Carry:
        """Make an update of one message."""
        state, ahead, measured = carry
        total, state, measured = self.message(u, ahead, state, self.chunk.learning_rate[u], measured)
        state = self.finish(u, u, state, total, None)
        return state, self.fetch(u + 1, state), measured

    def several(self, u: jax.Array, carry: Carry) -> Carry:
        """Make an update of several messages, added up in the order of their ids."""
        chunk, messages = self.chunk, self.layout.messages
        start = chunk.first[u] if messages is None else u * messages
        count = chunk.first[u + 1] - start if messages is None else messages

        def add(i: jax.Array, inner: tuple[Sent, State, Ahead, Measured]) -> tuple[Sent, State, Ahead, Measured]:
            total, state, ahead, measured = inner
            sent, state, measured = self.message(start + i, ahead, state, chunk.learning_rate[u], measured)
            return jax.tree.map(jnp.add, total, sent), state, self.fetch(start + i + 1, state), measured

        nothing = self.step.nothing(carry[0].params)
        total, state, _, measured = lax.fori_loop(0, count, add, (nothing, *carry))
        state = self.finish(u, start, state, total, count)
        return state, self.fetch(start + count, state), measured

    def window(self, w: jax.Array, carry: tuple[State, Measured]) -> tuple[State, Measured]:
        """Make updates of one message each, whose read versions are all known when the first is made."""
        chunk = self.chunk
        assert chunk.windows is not None
        start, end = chunk.windows[w], chunk.windows[w + 1]
        messages = jnp.minimum(start + jnp.arange(self.layout.window), len(chunk.worker) - 1)
        read = jax.tree.map(lambda stack: stack[chunk.read_slot[messages]], carry[0].slots)
        work = jax.vmap(self.step.work, (0, None, 0, 0, None))
        learning_rate = chunk.learning_rate[messages]
        sent, _ = work(read, carry[0].kept.stats, self.inputs_of(messages), learning_rate, self.train)

        def receive(u: jax.Array, inner: tuple[State, Measured]) -> tuple[State, Measured]:
            state, measured = inner
            at, of = (jax.tree.map(lambda leaf: leaf[u - start], tree) for tree in (read, sent))
            total, kept, measures = self.step.receive(
                state.params, at, of, state.kept, state.optimizer, self.inputs_of(u), chunk.learning_rate[u]
            )
            measured = _noted(measured, measures, u)
            return self.finish(u, u, state._replace(kept=kept), total, None), measured

        done: tuple[State, Measured] = lax.fori_loop(start, end, receive, carry)
        return done


def _noted(measured: Measured, measures: jax.Array | None, m: jax.Array) -> Measured:
    """Return the table of measures with the row of message m; None if nothing is measured."""
    return None if measures is None else lax.dynamic_update_index_in_dim(measured, measures, m, 0)


def gather(slots: Params, slot: Scalar, wanted: Callable[[jax.Array], bool] = lambda stack: True) -> Params:
    """Return the content of a slot, with None for arrays that are not wanted."""
    return jax.tree.map(
        lambda stack: lax.dynamic_index_in_dim(stack, slot, keepdims=False) if wanted(stack) else None, slots
    )


def write(slots: Params, slot: Scalar, value: Params) -> Params:
    """Return the slots with one replaced (in place, if the buffer was donated)."""
    return jax.tree.map(lambda stack, v: lax.dynamic_update_index_in_dim(stack, v, slot, 0), slots, value)


def compiled_length(updates: int) -> int:
    """Round up to a power of 4, so that runs share code: a chunk may be shorter than the compiled length."""
    return 1 << 2 * ((updates - 1).bit_length() + 1 >> 1)


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    padding = np.zeros((length - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, padding]) if len(padding) else array
