"""What a worker does between two messages, where it keeps its own state.

Without any of this a worker computes at what it has read (one gradient, or the sum of those along ``local_steps``
steps of SGD). A :class:`Work` starts from the worker's own state instead, and says what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from stalegrad._core.trees import tree_map
from stalegrad._core.types import Job, Own, Params, Scalar

if TYPE_CHECKING:
    from stalegrad.policies.optimizers import Built


class When(Protocol):
    """What a worker knows of the message that it begins."""

    @property
    def update(self) -> Scalar:
        """Index of the update that the message goes into."""
        ...

    @property
    def staleness(self) -> Scalar:
        """Staleness that the message will have."""
        ...


def _same(point: Params, job: Job) -> tuple[Params, Job]:
    return point, job


class Work(NamedTuple):
    """The parts of a worker's job, all pure functions.

    Attributes:
        workers: how many there are.
        init: ``params -> own``.
        begin: on receipt of a model: ``(read, own, when) -> (start, job)``: where the job starts, and what it
            carries along (any pytree); ``when`` knows the ``update`` that its message goes into, and its
            ``staleness``.
        move: ``(point, job, gradient, learning rate) -> (point, job)``, one local step.
        finish: ``(start, point, job, params) -> (message, own)``; params are the server's when it receives it.
        before: ``(point, job) -> (point, job)`` before each gradient (for example, Nesterov's look-ahead).
    """

    workers: int
    init: Callable[[Params], Own]
    begin: Callable[[Params, Own, When], tuple[Params, Job]]
    move: Callable[[Params, Job, Params, Scalar], tuple[Params, Job]]
    finish: Callable[[Params, Params, Job, Params], tuple[Params, Own]]
    before: Callable[[Params, Job], tuple[Params, Job]] = _same

    def init_all(self, params: Params) -> Own:
        """Return the own states of all workers, stacked along a first axis."""
        return tree_map(lambda leaf: jnp.broadcast_to(leaf, (self.workers, *leaf.shape)), self.init(params))


def _descend(point: Params, gradient: Params, learning_rate: Scalar) -> Params:
    return tree_map(lambda p, g: p - jnp.asarray(learning_rate, p.dtype) * g, point, gradient)


def delayed_averaging(workers: int) -> Work:
    """A cycle starts at y_j + d, the newest merged model plus the worker's own last cycle, which it lacks.

    The message is minus the displacement of the cycle; own: d.

    Reference: Talyansky et al., Asynchronous SGD without gradient delay, 2018, Algorithm 2.
    """

    def begin(read: Params, d: Own, when: When) -> tuple[Params, Job]:
        return tree_map(jnp.add, read, d), ()

    def move(point: Params, job: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        return _descend(point, gradient, learning_rate), job

    def finish(start: Params, point: Params, job: Job, params: Params) -> tuple[Params, Own]:
        d = tree_map(jnp.subtract, point, start)
        return tree_map(jnp.negative, d), d

    return Work(workers, lambda params: tree_map(jnp.zeros_like, params), begin, move, finish)


def proximal(workers: int, strength: Scalar) -> Work:
    """Local SGD on f(y) + (strength / 2) ||y - x||^2 from the version x that was read; the message is x_now - y.

    x_now are the server's parameters when it receives the message, so that a step along it mixes y into them.

    Reference: Xie, Koyejo, Gupta, Asynchronous Federated Optimization (FedAsync), 2019.
    """

    def begin(read: Params, own: Own, when: When) -> tuple[Params, Job]:
        return read, read

    def move(point: Params, read: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        pulled = tree_map(lambda g, y, x: g + strength * (y - x), gradient, point, read)
        return _descend(point, pulled, learning_rate), read

    def finish(start: Params, point: Params, read: Job, params: Params) -> tuple[Params, Own]:
        return tree_map(jnp.subtract, params, point), ()

    return Work(workers, lambda params: (), begin, move, finish)


def accumulated(workers: int) -> Work:
    """Several mini-batches at one point: the message is the sum of their gradients."""

    def begin(read: Params, own: Own, when: When) -> tuple[Params, Job]:
        return read, tree_map(jnp.zeros_like, read)

    def move(point: Params, total: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        return point, tree_map(jnp.add, total, gradient)

    def finish(start: Params, point: Params, total: Job, params: Params) -> tuple[Params, Own]:
        return total, ()

    return Work(workers, lambda params: (), begin, move, finish)


def inner_optimizer(workers: int, optimizer: Built) -> Work:
    """Local steps of any optimizer, whose state a worker keeps from one message to the next.

    The message is minus the displacement, x^v - y after the local steps.

    Args:
        workers: their number.
        optimizer: optimizer of the local steps; the learning rate is theirs.

    Reference: Douillard et al., DiLoCo: Distributed Low-Communication Training of Language Models, 2023,
    https://arxiv.org/abs/2311.08105.
    """

    def begin(read: Params, state: Own, when: When) -> tuple[Params, Job]:
        return read, state

    def move(point: Params, state: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        step, state = optimizer.at(learning_rate).update(gradient, state, point)
        scale = 1 if optimizer.inside else learning_rate
        return tree_map(lambda p, s: p + jnp.asarray(scale, p.dtype) * s, point, step), state

    def finish(start: Params, point: Params, state: Job, params: Params) -> tuple[Params, Own]:
        return tree_map(jnp.subtract, start, point), state

    return Work(workers, lambda params: optimizer.at(jnp.ones(())).init(params), begin, move, finish)


class ReleasedState(NamedTuple):
    """How far a worker went in the release before and in this one so far, and the update this one goes into."""

    before: Params
    now: Params
    update: Scalar


def delayed_averaging_general(workers: int) -> Work:
    """Every gradient is taken at y + d, the newest model received plus all of the worker's own that it lacks.

    It lacks what is not yet released, and (if the message has staleness 1) also the release under way.

    Reference: Talyansky et al. 2018, Algorithm 1.
    """

    def init(params: Params) -> ReleasedState:
        zeros = tree_map(jnp.zeros_like, params)
        return ReleasedState(zeros, zeros, jnp.zeros((), jnp.int32))

    def begin(read: Params, own: Own, when: When) -> tuple[Params, Own]:
        first = when.update != own.update
        before = tree_map(lambda b, n: jnp.where(first, n, b), own.before, own.now)
        now = tree_map(lambda n: jnp.where(first, jnp.zeros_like(n), n), own.now)
        lacks = tree_map(lambda b, n: jnp.where(when.staleness > 0, b + n, n), before, now)
        return tree_map(jnp.add, read, lacks), ReleasedState(before, now, when.update)

    def move(point: Params, own: Own, gradient: Params, learning_rate: Scalar) -> tuple[Params, Own]:
        return _descend(point, gradient, learning_rate), own

    def finish(start: Params, point: Params, own: Job, params: Params) -> tuple[Params, Own]:
        d = tree_map(jnp.subtract, point, start)
        return tree_map(jnp.negative, d), own._replace(now=tree_map(jnp.add, own.now, d))

    return Work(workers, init, begin, move, finish)


class ElasticState(NamedTuple):
    """What a worker keeps between two exchanges.

    Attributes:
        model: its own model x at the last exchange, before the pull.
        pull: e of that exchange, which its next step takes off.
        velocity: its momentum v; None if it has none.
        started: whether it has begun; at first its model is the center it reads.
    """

    model: Params
    pull: Params
    velocity: Params | None
    started: jax.Array


def elastic(workers: int, alpha: Scalar, momentum: Scalar | None) -> Work:
    """Local SGD from the worker's own model x, which exchanges with the server's center now and then.

    A message is an exchange: when the server receives it, e = alpha (x - center), center += e. The worker takes
    the gradient of its next step at the same x, before the pull: x <- x - eta g(x) - e. The other steps of a
    message have no e. With momentum (EAMSGD): v <- delta v - eta g(x + delta v); x <- x + v - e.

    Reference: Zhang, Choromanska, LeCun, Deep learning with Elastic Averaging SGD, 2015, Algorithms 1 and 2. Their
    exchange at t = 0 leaves everything as it is, since every worker starts at the center.
    """

    def init(params: Params) -> ElasticState:
        zeros = tree_map(jnp.zeros_like, params)
        return ElasticState(params, zeros, None if momentum is None else zeros, jnp.zeros((), bool))

    def begin(read: Params, own: Own, when: When) -> tuple[Params, Own]:
        model = tree_map(lambda mine, center: jnp.where(own.started, mine, center), own.model, read)
        return model, own._replace(model=())

    def before(point: Params, own: Job) -> tuple[Params, Job]:
        if momentum is None:
            return point, own
        velocity = tree_map(lambda v: momentum * v, own.velocity)
        return tree_map(jnp.add, point, velocity), own._replace(velocity=velocity)

    def move(point: Params, own: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        if momentum is not None:
            own = own._replace(velocity=_descend(own.velocity, gradient, learning_rate))
        point = tree_map(jnp.subtract, _descend(point, gradient, learning_rate), own.pull)
        return point, own._replace(pull=tree_map(jnp.zeros_like, own.pull))

    def finish(start: Params, point: Params, own: Job, params: Params) -> tuple[Params, Own]:
        pull = tree_map(lambda x, center: alpha * (x - center), point, params)
        own = ElasticState(point, pull, own.velocity, jnp.ones((), bool))
        return tree_map(jnp.negative, pull), own

    return Work(workers, init, begin, move, finish, before)


class DownpourState(NamedTuple):
    """A worker's own model, and the pushes made."""

    model: Params
    pushes: jax.Array


def downpour(workers: int, fetch_every: int) -> Work:
    """Local SGD; the sum of a message's gradients is pushed; a model is fetched after ``fetch_every`` pushes only.

    Reference: Dean et al., Large Scale Distributed Deep Networks, 2012.
    """

    def init(params: Params) -> DownpourState:
        return DownpourState(params, jnp.zeros((), jnp.int32))

    def begin(read: Params, own: Own, when: When) -> tuple[Params, Job]:
        fetched = own.pushes % fetch_every == 0
        point = tree_map(lambda new, mine: jnp.where(fetched, new, mine), read, own.model)
        return point, (tree_map(jnp.zeros_like, read), own.pushes)

    def move(point: Params, job: Job, gradient: Params, learning_rate: Scalar) -> tuple[Params, Job]:
        gathered, pushes = job
        return _descend(point, gradient, learning_rate), (tree_map(jnp.add, gathered, gradient), pushes)

    def finish(start: Params, point: Params, job: Job, params: Params) -> tuple[Params, Own]:
        gathered, pushes = job
        return gathered, DownpourState(point, pushes + 1)

    return Work(workers, init, begin, move, finish)
