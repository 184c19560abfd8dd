"""Tables with a row per worker, of which an update takes the mean: for workers whose data differ.

A table takes n times the memory of the parameters, n the number of workers; the server of a real cluster needs
that as well. Messages go into the table one by one, and an update's direction comes out of it, so a worker's
earlier messages count until they are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from stalegrad._core.trees import after, at_worker, put_worker, stacked, tree_map
from stalegrad._core.types import Params, Scalar

Rows: TypeAlias = Any
"""The state of a table, a pytree."""


class Table(NamedTuple):
    """A table of the server, all pure functions.

    Attributes:
        init: ``params -> rows``.
        receive: ``(rows, message, worker, update) -> rows``, for each message of an update in turn.
        direction: ``(rows, count) -> (mean, rows)``, once for an update of so many messages; the mean takes the
            place of that of the update's messages.
    """

    init: Callable[[Params], Rows]
    receive: Callable[[Rows, Params, Scalar, Scalar], Rows]
    direction: Callable[[Rows, Scalar], tuple[Params, Rows]]


class LatestRows(NamedTuple):
    """The last message of every worker, and their mean if it is kept."""

    rows: Params
    mean: Params | None


def _mean(rows: Params, workers: int) -> Params:
    """Return the mean of all rows, added one by one: XLA's own mean over a first axis is slow on CPU."""

    def add(worker: Scalar, total: Params) -> Params:
        return tree_map(jnp.add, total, at_worker(rows, worker))

    total = lax.fori_loop(0, workers, add, tree_map(lambda stack: jnp.zeros_like(stack[0]), rows))
    return tree_map(lambda leaf: leaf / workers, total)


def latest(workers: int, *, incremental: bool) -> Table:
    """The mean of the last message of every worker; a worker that has sent nothing counts as zero.

    Args:
        workers: their number n.
        incremental: keep the mean, and add (new row - old row) / n to it; otherwise take the mean of all rows at
            every update, which costs n times as much.
    """

    def init(params: Params) -> LatestRows:
        return LatestRows(stacked(params, workers), tree_map(jnp.zeros_like, params) if incremental else None)

    def receive(table: LatestRows, message: Params, worker: Scalar, update: Scalar) -> LatestRows:
        mean = table.mean
        if incremental:
            old = at_worker(table.rows, worker)
            mean = tree_map(lambda m, new, o: m + (new - o) / workers, mean, message, old)
            message = after(message, mean)
        return LatestRows(put_worker(table.rows, worker, message), mean)

    def direction(table: LatestRows, count: Scalar) -> tuple[Params, LatestRows]:
        if incremental:
            return table.mean, table
        return _mean(table.rows, workers), table

    return Table(init, receive, direction)


class MeanRows(NamedTuple):
    """Sums and numbers of every worker's messages, the rounds they are of, the mean so far, and its round."""

    sums: Params
    counts: jax.Array
    rounds: jax.Array
    mean: Params
    round: jax.Array


def mean_of_workers(workers: int, *, updates: int) -> Table:
    """The mean over workers of the mean message of each, in rounds of so many updates.

    Args:
        workers: their number n.
        updates: updates in a round; the table is emptied when a round begins.
    """

    def init(params: Params) -> MeanRows:
        never = jnp.full((), -1, jnp.int32)
        counts = jnp.zeros(workers, jnp.int32)
        return MeanRows(stacked(params, workers), counts, counts - 1, tree_map(jnp.zeros_like, params), never)

    def receive(table: MeanRows, message: Params, worker: Scalar, update: Scalar) -> MeanRows:
        now = update // updates
        count = jnp.where(table.rounds[worker] == now, table.counts[worker], 0)
        old = tree_map(lambda s: jnp.where(count > 0, s, jnp.zeros_like(s)), at_worker(table.sums, worker))
        new = tree_map(jnp.add, old, message)

        def moved(mean: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
            begun = jnp.where(table.round == now, mean, jnp.zeros_like(mean))
            return begun + (new / (count + 1) - old / jnp.maximum(count, 1)) / workers

        mean = tree_map(moved, table.mean, new, old)
        sums = put_worker(table.sums, worker, after(new, mean))
        counts, rounds = table.counts.at[worker].set(count + 1), table.rounds.at[worker].set(now)
        return MeanRows(sums, counts, rounds, mean, jnp.asarray(now, jnp.int32))

    return Table(init, receive, lambda table, count: (table.mean, table))


class CalibratedRows(NamedTuple):
    """The last message h of every worker, their mean at the last update, and what has come since, less h."""

    rows: Params
    mean: Params
    gathered: Params


def calibrated(workers: int) -> Table:
    """The mean of the last messages at the last update, plus what the messages since have changed on average.

    buf += d - h_i, h_i <- d for each message d of worker i; at an update of K messages v = mean_i h_i (that of the
    last update) + buf / K, buf <- 0. h_i is zero at first.

    Args:
        workers: their number.

    Reference: Wang et al., Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
    Calibration (CA2FL), ICLR 2024, https://openreview.net/forum?id=4aywmeb97I.
    """

    def init(params: Params) -> CalibratedRows:
        zeros = tree_map(jnp.zeros_like, params)
        return CalibratedRows(stacked(params, workers), zeros, zeros)

    def receive(table: CalibratedRows, message: Params, worker: Scalar, update: Scalar) -> CalibratedRows:
        old = at_worker(table.rows, worker)
        gathered = tree_map(lambda b, d, h: b + (d - h), table.gathered, message, old)
        return table._replace(rows=put_worker(table.rows, worker, after(message, gathered)), gathered=gathered)

    def direction(table: CalibratedRows, count: Scalar) -> tuple[Params, CalibratedRows]:
        v = tree_map(lambda h, b: h + b / count, table.mean, table.gathered)
        mean = _mean(table.rows, workers)
        return v, table._replace(mean=mean, gathered=tree_map(jnp.zeros_like, table.gathered))

    return Table(init, receive, direction)
