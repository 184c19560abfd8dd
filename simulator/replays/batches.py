"""Which examples each mini-batch holds: drawn on the host, keyed by the mini-batch's number.

Nothing here depends on how the run is executed, so neither chunking nor the evaluation cadence changes a draw.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt

from stalegrad.simulator.replays.lowering import LoweredTrace

Ints = npt.NDArray[np.int32]

_EPOCH, _IID, _SHARD = 100, 101, 102
"""Purposes of random streams; they continue those of ``timing.streams.Purpose``."""
_IID_BLOCK = 1_024

Longs = npt.NDArray[np.int64]

Draw = Callable[[int, int], Ints]
"""(first, last) gradient id -> example indices of shape (messages, steps, batch size)."""


def sampler(kind: str, examples: int, batch_size: int, seed: int, lowered: LoweredTrace, workers: int) -> Draw:
    """Return how the mini-batches of a run are drawn.

    Args:
        kind: ``epochs``, ``iid`` or ``sharded`` (see ``stalegrad.models.problem.Sampling``).
        examples: size of the training set.
        batch_size: examples in a mini-batch.
        seed: seed of the run.
        lowered: for the worker of each message.
        workers: number of shards, if sharded; each must hold a mini-batch at least.
    """
    steps = lowered.steps
    if lowered.steps_of is not None:
        worker = np.repeat(lowered.worker, lowered.steps_of)  # of each mini-batch
        single = lowered._replace(worker=worker, steps=1, steps_of=None)
        draw = sampler(kind, examples, batch_size, seed, single, workers)
        return functools.partial(_varied, draw=draw, batch=lowered.batch, steps_of=lowered.steps_of, most=steps)
    if kind == "iid":
        return functools.partial(_iid, examples=examples, size=steps * batch_size, seed=seed, steps=steps)
    if kind == "epochs":
        return functools.partial(_epochs, examples=examples, size=steps * batch_size, seed=seed, steps=steps)
    shards = np.array_split(_rng(seed, _SHARD).permutation(examples), workers)
    return functools.partial(
        _sharded,
        shards=shards,
        lowered=lowered,
        rank=_rank(lowered.worker),
        batch_size=batch_size,
        seed=seed,
    )


def _varied(first: int, last: int, *, draw: Draw, batch: Longs, steps_of: Ints, most: int) -> Ints:
    """Return the mini-batches of messages that differ in their number; what is beyond a message's own is 0."""
    steps = steps_of[first:last]
    if not len(steps):  # of a lane that is over
        return np.zeros((last - first, most, draw(0, 1).shape[-1]), np.int32)
    found = draw(int(batch[first]), int(batch[last - 1] + steps[-1]))[:, 0]
    drawn = np.zeros((last - first, most, found.shape[1]), np.int32)
    drawn[np.arange(most) < steps[:, None]] = found
    return drawn


def key_of(seed: int) -> jax.Array:
    """Return the key of a run: of its initial parameters, and of what its loss draws.

    JAX takes the low 32 bits of a seed only (without ``jax_enable_x64``); the high ones are folded in.
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


def _iid(first: int, last: int, *, examples: int, size: int, seed: int, steps: int) -> Ints:
    blocks = [
        _rng(seed, _IID, block).integers(0, examples, (_IID_BLOCK, size), np.int32)
        for block in range(first // _IID_BLOCK, (last - 1) // _IID_BLOCK + 1)
    ]
    start = first - first // _IID_BLOCK * _IID_BLOCK
    return np.concatenate(blocks)[start : start + last - first].reshape(last - first, steps, -1)


def _sharded(
    first: int,
    last: int,
    *,
    shards: list[Longs],
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
        entries = shard[_stream(positions, len(shard), seed, _SHARD, int(worker))]
        drawn[here] = entries.reshape(-1, lowered.steps, batch_size)
    return drawn


def _rank(workers: Ints) -> Longs:
    """Return how many messages of the same worker come before each message."""
    order = np.argsort(workers, kind="stable")
    counts = np.bincount(workers)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(workers), np.int64)
    rank[order] = np.arange(len(workers)) - starts
    return rank
