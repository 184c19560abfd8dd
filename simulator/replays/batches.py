"""The examples of each mini-batch: drawn on the host, keyed by the mini-batch's number.

The draws do not depend on the execution, so neither chunking nor the evaluation cadence changes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import numpy.typing as npt

from stalegrad.models import Problem
from stalegrad.models.partitions import Shuffled, split_of
from stalegrad.models.partitions.base import SHARD
from stalegrad.simulator.replays.lowering import LoweredTrace

Ints = npt.NDArray[np.int32]

_EPOCH, _IID = 100, 101
"""Purposes of random streams, besides those of ``timing.streams.Purpose`` and ``models.partitions.base.SHARD``."""
_IID_BLOCK = 1_024

Longs = npt.NDArray[np.int64]

Shards = Sequence[npt.NDArray[np.integer]]
"""Indices of the examples of each worker."""

Draw = Callable[[int, int], Ints]
"""Function from gradient ids (first, last) to example indices of shape (messages, steps, batch size)."""


def draw_of(problem: Problem, seed: int, lowered: LoweredTrace, workers: int) -> Draw:
    """Return the draw of the mini-batches of a problem's run; arguments are those of :func:`sampler`.

    Raises:
        ValueError: if the data must be divided among the workers and cannot be.
    """
    examples = max(problem.objective().examples, 1)
    shards = () if problem.partition is None else problem.split(workers, seed)
    by_message = problem.batches == "by-message"
    return sampler(
        problem.sampling,
        examples,
        problem.batch_size,
        seed,
        lowered,
        workers,
        shards=shards,
        by_message=by_message,
    )


def sampler(
    kind: str,
    examples: int,
    batch_size: int,
    seed: int,
    lowered: LoweredTrace,
    workers: int,
    *,
    shards: Shards = (),
    by_message: bool = False,
) -> Draw:
    """Return the draw of the mini-batches of a run.

    Args:
        kind: ``epochs``, ``iid`` or ``sharded`` (see ``stalegrad.models.sampling.Sampling``).
        examples: size of the training set.
        batch_size: examples in a mini-batch.
        seed: seed of the run.
        lowered: lowered trace, with the worker of each message.
        workers: number of workers; with ``sharded``, each must hold at least one mini-batch.
        shards: examples of each worker, with ``sharded``; by default a random division.
        by_message: whether all messages take the mini-batches in turn, not only the used ones.
    """
    if kind == "sharded" and not shards:
        shards = split_of(Shuffled(), np.zeros(examples, np.int64), workers, 0, seed)
    return (_by_message if by_message else _by_gradient)(kind, examples, batch_size, seed, lowered, shards)


def _by_gradient(
    kind: str, examples: int, batch_size: int, seed: int, lowered: LoweredTrace, shards: Shards
) -> Draw:
    """Return the draw in which the used messages, in the order of gradient ids, take the mini-batches in turn."""
    steps = lowered.steps
    if lowered.steps_of is not None:
        worker = np.repeat(lowered.worker, lowered.steps_of)  # worker of each mini-batch
        single = lowered._replace(worker=worker, steps=1, steps_of=None)
        draw = _by_gradient(kind, examples, batch_size, seed, single, shards)
        return functools.partial(_varied, draw=draw, batch=lowered.batch, steps_of=lowered.steps_of, most=steps)
    if kind == "iid":
        return functools.partial(_iid, examples=examples, size=steps * batch_size, seed=seed, steps=steps)
    if kind == "epochs":
        return functools.partial(_epochs, examples=examples, size=steps * batch_size, seed=seed, steps=steps)
    rank = _rank(lowered.worker)
    return functools.partial(_sharded, shards=shards, lowered=lowered, rank=rank, batch_size=batch_size, seed=seed)


def _by_message(
    kind: str, examples: int, batch_size: int, seed: int, lowered: LoweredTrace, shards: Shards
) -> Draw:
    """Return the draw in which all messages of the trace, in the order of reading, take the mini-batches in turn.

    Each message takes as many mini-batches as the largest message has local steps, even if it uses fewer: its own
    number of steps is not known when its work starts.
    """
    jobs = lowered.jobs
    size = jobs.steps * batch_size
    if kind == "sharded":
        every = lowered._replace(steps=jobs.steps)
        rank = _rank(jobs.worker)[jobs.used]
        draw = functools.partial(
            _sharded, shards=shards, lowered=every, rank=rank, batch_size=batch_size, seed=seed
        )
    else:
        entries = _epochs_at if kind == "epochs" else _iid_at
        draw = functools.partial(entries, rank=jobs.used, examples=examples, size=size, seed=seed)
    return functools.partial(_own, draw=draw, lowered=lowered, shape=(jobs.steps, batch_size))


def _own(first: int, last: int, *, draw: Draw, lowered: LoweredTrace, shape: tuple[int, int]) -> Ints:
    """Return the mini-batches that messages use; indices beyond a message's own steps are 0."""
    drawn = draw(first, last).reshape(-1, *shape)[:, : lowered.steps]
    if lowered.steps_of is not None:
        beyond = np.arange(lowered.steps) >= lowered.steps_of[first:last, None]
        drawn[: len(beyond)][beyond] = 0
    return drawn


def _epochs_at(first: int, last: int, *, rank: Longs, examples: int, size: int, seed: int) -> Ints:
    return _stream(rank[first:last, None] * size + np.arange(size), examples, seed, _EPOCH)


def _iid_at(first: int, last: int, *, rank: Longs, examples: int, size: int, seed: int) -> Ints:
    block, row = np.divmod(rank[first:last], _IID_BLOCK)
    drawn = np.empty((len(block), size), np.int32)
    for b in np.unique(block):
        here = block == b
        drawn[here] = _iid_block(int(b), examples, size, seed)[row[here]]
    return drawn


def _varied(first: int, last: int, *, draw: Draw, batch: Longs, steps_of: Ints, most: int) -> Ints:
    """Return the mini-batches of messages with different numbers of them; indices beyond a message's own are 0."""
    steps = steps_of[first:last]
    if not len(steps):  # of a lane that has ended
        return np.zeros((last - first, most, draw(0, 1).shape[-1]), np.int32)
    found = draw(int(batch[first]), int(batch[last - 1] + steps[-1]))[:, 0]
    drawn = np.zeros((last - first, most, found.shape[1]), np.int32)
    drawn[np.arange(most) < steps[:, None]] = found
    return drawn


def key_of(seed: int) -> jax.Array:
    """Return the key of a run, for its initial parameters and the draws of its loss.

    JAX uses only the low 32 bits of a seed (without ``jax_enable_x64``); the high bits are folded in.
    """
    high, low = divmod(seed, 1 << 32)
    key = jax.random.key(low)
    return jax.random.fold_in(key, np.uint32(high)) if high else key


def _rng(seed: int, purpose: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *key)))


@functools.lru_cache(maxsize=256)
def _permutation(seed: int, purpose: int, key: tuple[int, ...], examples: int) -> Ints:
    return _rng(seed, purpose, *key).permutation(examples).astype(np.int32)


def _stream(positions: Longs, examples: int, seed: int, purpose: int, *key: int) -> Ints:
    """Return the entries at these positions of an endless sequence of shuffled epochs."""
    epoch, within = np.divmod(positions, examples)
    drawn = np.empty(positions.shape, np.int32)
    for e in np.unique(epoch):
        here = epoch == e
        drawn[here] = _permutation(seed, purpose, (*key, int(e)), examples)[within[here]]
    return drawn


def _epochs(first: int, last: int, *, examples: int, size: int, seed: int, steps: int) -> Ints:
    start, stop = first * size, last * size
    drawn = [
        _permutation(seed, _EPOCH, (e,), examples)[max(start - e * examples, 0) : stop - e * examples]
        for e in range(start // examples, (stop - 1) // examples + 1)
    ]
    return np.concatenate(drawn).reshape(last - first, steps, -1)


def _iid_block(block: int, examples: int, size: int, seed: int) -> Ints:
    return _rng(seed, _IID, block).integers(0, examples, (_IID_BLOCK, size), np.int32)


def _iid(first: int, last: int, *, examples: int, size: int, seed: int, steps: int) -> Ints:
    blocks = [
        _iid_block(block, examples, size, seed)
        for block in range(first // _IID_BLOCK, (last - 1) // _IID_BLOCK + 1)
    ]
    start = first - first // _IID_BLOCK * _IID_BLOCK
    return np.concatenate(blocks)[start : start + last - first].reshape(last - first, steps, -1)


def _sharded(
    first: int,
    last: int,
    *,
    shards: Shards,
    lowered: LoweredTrace,
    rank: Longs,
    batch_size: int,
    seed: int,
) -> Ints:
    drawn = np.empty((last - first, lowered.steps, batch_size), np.int32)
    size = lowered.steps * batch_size
    workers = lowered.worker[first:last]
    for worker in np.unique(workers):
        here = workers == worker
        positions = rank[first:last][here][:, None] * size + np.arange(size)
        shard = shards[worker]
        entries = shard[_stream(positions, len(shard), seed, SHARD, int(worker))]
        drawn[here] = entries.reshape(-1, lowered.steps, batch_size)
    return drawn


def _rank(workers: Ints | Longs) -> Longs:
    """Return the number of earlier messages of the same worker for each message."""
    order = np.argsort(workers, kind="stable")
    counts = np.bincount(workers)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(workers), np.int64)
    rank[order] = np.arange(len(workers)) - starts
    return rank
