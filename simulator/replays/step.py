"""The arithmetic of one message and one update: pure functions on pytrees, specialised when built.

Two executions of them give the same numbers up to rounding: :mod:`scan` (one compiled loop for many updates)
and :mod:`loop` (a compiled call per message).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from stalegrad._core.trees import global_norm_squared, like, scalar_type, wide
from stalegrad._core.types import Data, Job, OptimizerState, Own, Params, Scalar, Stats
from stalegrad.models.objective import Loss
from stalegrad.policies.optimizers import build_optimizer
from stalegrad.policies.rules import Rule
from stalegrad.policies.rules.parts.tables import Rows


class Layout(NamedTuple):
    """Constants of the compiled code, for which the computation is specialised.

    Attributes:
        messages: messages that every update consumes, or None if their number varies.
        steps: local mini-batch gradients in a message, at most.
        fresh: every gradient is computed at the server's current parameters, so no slots are needed.
        measures: names of the measures of every message, see :func:`measure`.
        slots: versions that can be kept.
        most: the largest number of messages in an update.
        window: messages, of one update each, that are computed at once.
        loss: whether messages carry the mean loss of their mini-batches, because the optimizer asks for it.
        varied: whether messages differ in their number of local steps.
        returns: whether workers that keep their own state have left and returned.
    """

    messages: int | None
    steps: int
    fresh: bool
    measures: tuple[str, ...]
    slots: int
    most: int
    window: int = 1
    loss: bool = False
    varied: bool = False
    returns: bool = False


class Inputs(NamedTuple):
    """Inputs of one message: example indices (steps, batch), keys (steps,), worker and staleness.

    ``update`` is the index of the update that consumes the message, ``weight`` the message's staleness weight,
    ``steps`` the number of its local steps if that varies, ``returned`` whether it is the worker's first message
    after a return, if any worker has returned. Without data there are no indices, and an update needs no keys.
    """

    indices: jax.Array | None
    keys: jax.Array | None
    worker: jax.Array
    update: jax.Array
    staleness: jax.Array
    weight: jax.Array
    steps: jax.Array | None = None
    returned: jax.Array | None = None


class Sent(NamedTuple):
    """A message or a sum of messages, and the loss of its mini-batches if the optimizer asks for it."""

    message: Params
    loss: jax.Array | None


class Kept(NamedTuple):
    """State that one message passes to the next: of the correction, of batch norm, and the rule's table."""

    correction: OptimizerState
    stats: Stats
    table: Rows = ()


_Carried: TypeAlias = tuple[Params, Job, jax.Array | None, Stats]
"""State that one local step passes to the next: the point, the job, the sum of the losses, the statistics."""


class Step:
    """The arithmetic of a rule: its initial state, a message in two halves, and an update.

    Args:
        loss: ``loss(params, stats, batch, key) -> (scalar, stats)``.
        rule: the rule; its hyper-parameters may be tracers.
        layout: constants of the compiled code.
        peak: the learning-rate schedule's peak.
        first_rate: the learning rate of the first update.
    """

    def __init__(self, loss: Loss, rule: Rule, layout: Layout, peak: Scalar, first_rate: Scalar) -> None:
        self.loss, self.rule, self.layout, self.peak, self.first_rate = loss, rule, layout, peak, first_rate
        self.optimizer = build_optimizer(rule.optimizer)

    def init(self, params: Params, stats: Stats) -> tuple[Own, Kept, OptimizerState, Params]:
        """Return the own states of all workers, what is kept, the optimizer's state, and the point to send."""
        rule = self.rule
        correction = rule.correction.init(params) if rule.correction is not None else ()
        own = rule.work.init_all(params) if rule.work is not None else ()
        state = self.optimizer.at(self.first_rate).init(params)
        sent = self.point_to_send(params, state, jnp.zeros(()), jnp.zeros((), jnp.int32))
        table = rule.table.init(params) if rule.table is not None else ()
        return own, Kept(correction, stats, table), state, sent

    def message(
        self,
        params: Params,
        read: Params,
        own: Own,
        kept: Kept,
        optimizer_state: OptimizerState,
        inputs: Inputs,
        learning_rate: jax.Array,
        train: Data,
    ) -> tuple[Sent, Own, Kept, jax.Array | None]:
        """Compute a message and receive it.

        Args:
            params: the server's parameters.
            read: the point that the worker was sent.
            own: the worker's own state.
            kept: the state that the previous message has passed on.
            optimizer_state: state of the server's optimizer.
            inputs: the message's inputs.
            learning_rate: learning rate of the update that consumes the message.
            train: the data.

        Returns:
            The message, ``own`` and ``kept`` after it, and one number per measure of the layout, or None.
        """
        start, stats = read, kept.stats
        if self.rule.work is None:
            sent, stats = self.work(read, stats, inputs, learning_rate, train)
        else:
            sent, own, stats, start = self._own_work(params, read, own, stats, inputs, learning_rate, train)
        kept = kept._replace(stats=stats)
        sent, kept, measured = self.receive(params, start, sent, kept, optimizer_state, inputs, learning_rate)
        return sent, own, kept, measured

    def work(
        self, read: Params, stats: Stats, inputs: Inputs, learning_rate: jax.Array, train: Data
    ) -> tuple[Sent, Stats]:
        """Return one mini-batch gradient, or the sum of those along local SGD steps, and the statistics."""
        if self.layout.steps == 1:
            return self._gradient(read, stats, inputs, 0, train)

        def local_step(h: Scalar, carry: tuple[Params, Sent, Stats]) -> tuple[Params, Sent, Stats]:
            point, total, stats = carry
            sent, stats = self._gradient(point, stats, inputs, h, train)
            return _descend(point, sent.message, learning_rate), jax.tree.map(jnp.add, total, sent), stats

        begun = (read, self.nothing(read), stats)
        _, total, stats = jax.lax.fori_loop(0, self._steps(inputs), local_step, begun)
        return total, stats

    def _own_work(
        self,
        params: Params,
        read: Params,
        own: Own,
        stats: Stats,
        inputs: Inputs,
        learning_rate: jax.Array,
        train: Data,
    ) -> tuple[Sent, Own, Stats, Params]:
        """Return the message of a worker with its own state, that state, the statistics, and the start."""
        work, kept = self.rule.work, own
        assert work is not None
        if self.layout.returns:  # a machine that is back has lost what it kept
            returned = inputs.returned
            assert returned is not None
            own = jax.tree.map(lambda new, old: jnp.where(returned, new, old), like(work.init(read), own), own)
        start, job = work.begin(read, own, inputs)
        start = like(start, read)

        def local_step(h: Scalar, carry: _Carried) -> _Carried:
            point, job, total, stats = carry
            at, moved = work.before(point, job)
            g, stats = self._gradient(like(at, point), stats, inputs, h, train)
            at, moved = work.move(at, moved, g.message, learning_rate)
            return like(at, point), like(moved, job), jax.tree.map(jnp.add, total, g.loss), stats

        begun = (start, job, self.nothing(read).loss, stats)
        point, job, total, stats = jax.lax.fori_loop(0, self._steps(inputs), local_step, begun)
        message, own = work.finish(start, point, job, params)
        return Sent(like(message, read), total), like(own, kept), stats, start

    def _gradient(self, point: Params, stats: Stats, inputs: Inputs, h: Scalar, train: Data) -> tuple[Sent, Stats]:
        """Return the gradient of local step h, its loss if asked for, and the statistics that it leaves."""
        indices, keys = inputs.indices, inputs.keys
        assert keys is not None
        batch = None if indices is None else jax.tree.map(lambda array: array[indices[h]], train)
        if not self.layout.loss:
            slope, stats = jax.grad(self.loss, has_aux=True)(point, stats, batch, keys[h])
            return Sent(slope, None), stats
        (value, stats), slope = jax.value_and_grad(self.loss, has_aux=True)(point, stats, batch, keys[h])
        return Sent(slope, value.astype(scalar_type(point)) / self._steps(inputs)), stats

    def _steps(self, inputs: Inputs) -> Scalar:
        if not self.layout.varied:
            return self.layout.steps
        assert inputs.steps is not None
        return inputs.steps

    def nothing(self, params: Params) -> Sent:
        """Return the sum of no messages."""
        loss = jnp.zeros((), scalar_type(params)) if self.layout.loss else None
        return Sent(jax.tree.map(jnp.zeros_like, params), loss)

    def receive(
        self,
        params: Params,
        start: Params,
        raw: Sent,
        kept: Kept,
        optimizer_state: OptimizerState,
        inputs: Inputs,
        learning_rate: jax.Array,
    ) -> tuple[Sent, Kept, jax.Array | None]:
        """Correct and weigh a message that was computed from ``start``; return it, ``kept`` and the measures."""
        rule, measures = self.rule, self.layout.measures
        sent, correction = raw.message, kept.correction
        if rule.correction is not None:
            sent, correction = rule.correction.update(
                sent,
                correction,
                params,
                read=start,
                staleness=inputs.staleness,
                worker=inputs.worker,
                learning_rate=learning_rate,
                peak_learning_rate=self.peak,
                optimizer_state=optimizer_state,
            )
            sent, correction = like(sent, raw.message), like(correction, kept.correction)
        if rule.weight is not None:
            sent = jax.tree.map(lambda leaf: leaf * inputs.weight.astype(leaf.dtype), sent)
        measured = None
        if measures:
            measured = measure(measures, params, start, raw.message, sent)
            # Never true, but XLA cannot know: whatever comes of the message is now computed after the gap. Else
            # it might overwrite parameters and slots first, and would save all of them at every step.
            sent = jax.tree.map(lambda leaf: jnp.where(measured[0] < 0, jnp.zeros_like(leaf), leaf), sent)
        table = kept.table
        if rule.table is not None:
            table = like(rule.table.receive(table, sent, inputs.worker, inputs.update), table)
        return Sent(sent, raw.loss), kept._replace(correction=correction, table=table), measured

    def apply(
        self,
        params: Params,
        state: OptimizerState,
        kept: Kept,
        total: Sent,
        count: Scalar | None,
        inputs: Inputs,
        learning_rate: jax.Array,
    ) -> tuple[Params, OptimizerState, Kept, Params]:
        """Make an update; return parameters, optimizer state, what is kept, and the point to send.

        Args:
            params: the server's parameters.
            state: state of the server's optimizer.
            kept: the state that the update's last message has passed on.
            total: the sum of the messages.
            count: the number of messages; None: one, that of ``inputs``.
            inputs: inputs of the update's first message, with the largest staleness of all its messages.
            learning_rate: learning rate of the update.
        """
        mean = total if count is None else jax.tree.map(lambda leaf: leaf / count, total)
        if self.rule.table is not None:
            message, table = self.rule.table.direction(kept.table, 1 if count is None else count)
            mean, kept = mean._replace(message=message), kept._replace(table=like(table, kept.table))
        told = {"value": mean.loss, "grad": mean.message} if self.layout.loss else {}
        direction, after = self.optimizer.at(learning_rate).update(
            like(mean.message, params),
            state,
            params,
            worker=inputs.worker,
            staleness=inputs.staleness,
            learning_rate=learning_rate,
            **told,
        )
        direction, state = like(direction, params), like(after, state)
        if self.rule.displaces or self.optimizer.inside:
            params = jax.tree.map(jnp.add, params, direction)
        else:
            params = jax.tree.map(lambda p, d: p + learning_rate.astype(p.dtype) * d, params, direction)
        return params, state, kept, self.point_to_send(params, state, learning_rate, inputs.worker)

    def point_to_send(
        self, params: Params, state: OptimizerState, learning_rate: jax.Array, worker: Scalar
    ) -> Params:
        """Return the point that a worker is sent, given the server's parameters and the state of its optimizer."""
        if self.rule.look_ahead is None:
            return params
        return like(self.rule.look_ahead(params, state, learning_rate, worker), params)


def _descend(point: Params, gradient: Params, learning_rate: jax.Array) -> Params:
    return jax.tree.map(lambda p, g: p - learning_rate.astype(p.dtype) * g, point, gradient)


def measure(measures: tuple[str, ...], params: Params, start: Params, raw: Params, sent: Params) -> jax.Array:
    """Return these measures of a message, as a vector.

    ``gap``: RMS distance between the point at which the message was computed and the server's parameters;
    ``gradient_norm``: L2 norm of what the worker computed; ``message_norm``: L2 norm after correction and weight.
    """
    functions = {
        "gap": lambda: distance_rms(params, start),
        "gradient_norm": lambda: jnp.sqrt(global_norm_squared(raw)),
        "message_norm": lambda: jnp.sqrt(global_norm_squared(sent)),
    }
    return jnp.stack([functions[name]() for name in measures]).astype(scalar_type(params))


def distance_rms(a: Params, b: Params) -> jax.Array:
    """Return the root mean square of a - b over all parameters: the gap."""
    squares = jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum((wide(x) - wide(y)) ** 2), a, b))
    size = sum(leaf.size for leaf in jax.tree.leaves(a))
    return jnp.sqrt(sum(squares) / size)
