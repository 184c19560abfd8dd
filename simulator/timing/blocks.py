"""Fast simulation in NumPy, many updates at once, of synchronies that follow a :class:`Pattern`.

Where neither links nor server take time, a run of K-sync is a sequence of order statistics, and a run of async is
a merge of renewal processes. The trace equals that of the event engine to the byte, because times are added in
the same order: a worker's next job ends at ``time + duration`` in float64, and ties go to the lower index. The
engine simulates every special case (a late joiner, a time of 0, a clock that would not advance, a user's delay).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad._core.delay import BLOCK
from stalegrad._core.specs import builtin
from stalegrad._core.types import Columns
from stalegrad.policies.synchrony import Free, Pattern, Rounds, Synchrony
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.clock import reach
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import DELAYS, Delay
from stalegrad.simulator.timing.log import CANCELLED, PENDING, columns_of

MOST_TIMES = 1 << 27
"""Largest number of compute times in memory at once: 1 GB."""
MOST_LOCAL_STEPS = 64
"""Largest number of local steps of a message: up to it, at least four jobs are drawn at once."""
LEAST = 4
"""One worker in ``LEAST`` must have a message, on average, for a pass over all workers to be worthwhile."""
ROWS = 1 << 18
"""Rows that are computed at once."""


class Blocks(NamedTuple):
    """A run, as the arguments of :meth:`Trace.of`."""

    columns: Columns
    update_times: list[float]
    end: float


class _OutOfTheOrdinaryError(Exception):
    """A special case that only the engine simulates."""


def run(cluster: Cluster, synchrony: Synchrony, budget: Budget, seed: int) -> Blocks | None:
    """Return a run of a synchrony in blocks, or None if only the engine can simulate it."""
    pattern = pattern_of(synchrony, cluster.size)
    small = synchrony.local_steps <= MOST_LOCAL_STEPS and cluster.size * BLOCK <= MOST_TIMES
    always_there = cluster.join is None and cluster.availability is None
    if pattern is None or not cluster.instant or not always_there or not small or not _known(cluster):
        return None
    jobs = _Jobs(cluster, synchrony.local_steps, seed)
    follow = _rounds if isinstance(pattern, Rounds) else _free
    try:
        with np.errstate(over="ignore"):  # an overflow is found as a value that is not finite
            return follow(jobs, pattern.k, budget)
    except (_OutOfTheOrdinaryError, ValueError):
        return None


def pattern_of(synchrony: Synchrony, workers: int) -> Pattern | None:
    """Return the pattern of a synchrony, or None if a subclass replaces the programs that the pattern describes.

    Raises:
        ValueError: if its ``pattern`` method returns anything but a pattern or None.
    """
    made: Any = type(synchrony)
    owner: Any = next(cls for cls in made.__mro__ if "pattern" in vars(cls))
    if made.serve is not owner.serve or made.work is not owner.work or made.membership is not owner.membership:
        return None
    pattern = synchrony.pattern(workers)
    if pattern is None:
        return None
    k = builtin(getattr(pattern, "k", None))
    most = workers if isinstance(pattern, Rounds) else math.inf
    whole = isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= most
    if not isinstance(pattern, Rounds | Free) or not whole:
        raise ValueError(
            f"pattern of synchrony {synchrony.name!r} = {pattern!r} is not allowed: give Rounds(k), k from 1 to "
            "the number of workers, Free(k), k at least 1, or None"
        )
    return type(pattern)(k)


def _known(cluster: Cluster) -> bool:
    """Whether times do not depend on the order in which workers draw."""
    computes = cluster.compute if isinstance(cluster.compute, tuple) else (cluster.compute,)
    delays = [delay for delay in (*computes, cluster.speeds) if isinstance(delay, Delay)]
    inner = [part for delay in delays if delay.remembers for part in delay.parts()]
    kinds = {type(delay) for delay in (*delays, *inner)}
    return all(delay.ahead for delay in delays) and all(map(DELAYS.built_in, kinds))


class _Jobs:
    """The durations of all jobs, ``count`` jobs of a worker at once."""

    def __init__(self, cluster: Cluster, steps: int, seed: int) -> None:
        self.workers, self.steps, self.count = cluster.size, steps, BLOCK // steps
        self.blocks = [cluster.compute_blocks(seed, worker) for worker in range(cluster.size)]
        self.left = [np.empty(0)] * cluster.size if BLOCK % steps else None

    def of(self, worker: int) -> npt.NDArray[np.float64]:
        """Return the next durations of a worker."""
        if self.steps == 1:
            return next(self.blocks[worker])
        draws = self.draws(worker).reshape(self.count, self.steps)
        total = draws[:, 0].copy()
        for step in range(1, self.steps):
            total += draws[:, step]
        return total

    def draws(self, worker: int) -> npt.NDArray[np.float64]:
        """Return the next times of single gradients: those of ``count`` jobs."""
        if self.left is None:
            return next(self.blocks[worker])
        draws, wanted = self.left[worker], self.count * self.steps
        if len(draws) < wanted:
            draws = np.concatenate([draws, next(self.blocks[worker])])
        self.left[worker] = draws[wanted:]
        return draws[:wanted]


def _updates(budget: Budget, gradients: int) -> float:
    """Return the number of updates in a budget, if each update uses ``gradients`` gradients."""
    if budget.gradients is not None:
        return -(-budget.gradients // gradients)
    return math.inf if budget.updates is None else budget.updates


# Rounds: every update takes the first k messages of distinct workers


def _rounds(jobs: _Jobs, k: int, budget: Budget) -> Blocks:
    updates = _updates(budget, k * jobs.steps)
    last = reach(budget.wallclock) if budget.wallclock is not None else math.inf
    parts, times = [], [0.0]
    for durations in _in_step(jobs):
        first = len(times) - 1
        for row in durations:
            if len(times) > updates or times[-1] > last:
                break
            finish = times[-1] + row
            times.append(float(finish.min() if k == 1 else np.partition(finish, k - 1)[k - 1]))
        parts.append(_round_rows(durations[: len(times) - 1 - first], np.array(times[first:]), k, last, first))
        if len(times) > updates or times[-1] > last:
            break
    made = times[1:] if times[-1] <= last else times[1:-1]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["steps"] = np.full(len(columns["worker"]), jobs.steps, np.int32)
    end = made[-1] if budget.wallclock is None else max([budget.wallclock, *made[-1:]])
    return Blocks(columns_of(columns, end), made, end)


def _in_step(jobs: _Jobs) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the durations of all workers' next jobs, (jobs, workers), a few at a time."""
    rows = max(1, ROWS // jobs.workers)
    while True:
        block = np.empty((jobs.count, jobs.workers))
        for worker in range(jobs.workers):
            block[:, worker] = jobs.of(worker)
        for first in range(0, jobs.count, rows):
            yield block[first : first + rows]


def _round_rows(durations: np.ndarray, times: np.ndarray, k: int, last: float, first: int) -> Columns:
    """Return the messages of these rounds: in each, one of every worker.

    Args:
        durations: seconds of every job, (rounds, workers).
        times: start of each round, and end of the last one, in seconds, (rounds + 1,).
        k: messages of an update.
        last: end of the run, in seconds; a round that ends later makes no update.
        first: number of earlier rounds.
    """
    begin, end = times[:-1, None], times[1:, None]
    finish = begin + durations
    if not ((finish > begin).all() and np.isfinite(finish).all()):
        raise _OutOfTheOrdinaryError
    before, at_end = finish < end, finish == end
    used = before | (at_end & (np.cumsum(at_end, axis=1) <= k - before.sum(axis=1, keepdims=True)))
    whole = np.broadcast_to(end <= last, used.shape)
    received = np.where(whole, used, finish <= last)
    version = np.broadcast_to(np.arange(first, first + len(begin))[:, None], used.shape)
    rows = {
        "worker": np.broadcast_to(np.arange(used.shape[1], dtype=np.int32), used.shape),
        "read_version": version,
        "read_time": np.broadcast_to(begin, used.shape),
        "finish_time": np.where(received, finish, np.where(whole, end, np.nan)),
        "receive_time": np.where(received, finish, np.nan),
        "update": np.where(used & whole, version, -1),
        "fate": np.where(whole & ~used, CANCELLED, PENDING).astype(np.int8),
    }
    return {name: values.reshape(-1) for name, values in rows.items()}


# Free: no worker waits; every k-th message received makes an update


def _free(jobs: _Jobs, k: int, budget: Budget) -> Blocks:
    updates = _updates(budget, k * jobs.steps)
    last = reach(budget.wallclock) if budget.wallclock is not None else math.inf
    wanted = updates * k
    merged = _Merge(jobs)
    while merged.count < wanted and merged.until < last:
        merged.go_on(wanted, last)
    worker, read_time, finish, before = (np.concatenate(part) for part in zip(*merged.parts, strict=True))
    received = int(min(wanted, len(worker)))
    made = int(min(updates, received // k))
    # At the end every worker is computing one more message.
    latest = np.full(jobs.workers, -1)
    np.maximum.at(latest, worker[:received], np.arange(received))
    since = np.append(finish, 0.0)[latest]  # -1: since 0 s
    columns = {
        "worker": np.concatenate([worker[:received], np.arange(jobs.workers)]).astype(np.int32),
        "read_version": (np.concatenate([before[:received], latest]) + 1) // k,
        "read_time": np.concatenate([read_time[:received], since]),
        "finish_time": np.concatenate([finish[:received], np.full(jobs.workers, np.nan)]),
    }
    rank = np.arange(len(columns["worker"]))
    columns |= {
        "receive_time": columns["finish_time"],
        "update": np.where(rank < made * k, rank // k, -1),
        "steps": np.full(len(rank), jobs.steps, np.int32),
        "fate": np.full(len(rank), PENDING, np.int8),
    }
    times = finish[k - 1 : made * k : k].tolist()
    end = times[-1] if budget.wallclock is None else max([budget.wallclock, *times[-1:]])
    return Blocks(columns_of(columns, end), times, end)


class _Merge:
    """The messages of all workers in the order in which they are received: by time, then worker.

    Attributes:
        parts: arrays of the messages so far: worker, read time, receive time, and number of messages received
            before the worker read, less one.
        count: number of messages so far.
        until: time in seconds up to which all messages are in ``parts``.
    """

    def __init__(self, jobs: _Jobs) -> None:
        self.jobs, workers = jobs, jobs.workers
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.count, self.until, self.looks = 0, 0.0, 0
        self.finish = np.empty((workers, jobs.count))  # finish times of every worker's next jobs
        self.began = np.zeros(workers)  # start of the first of these
        self.taken = np.zeros(workers, int)  # number of these that are in parts
        self.latest = np.full(workers, -1)  # the number of a worker's last message in parts
        self.draw(np.arange(workers))

    def draw(self, workers: np.ndarray) -> None:
        """Draw the next jobs of some workers."""
        for chunk in np.array_split(workers, -(-len(workers) * self.jobs.count // ROWS)):
            times = np.array([self.jobs.of(worker) for worker in chunk.tolist()])
            times[:, 0] += self.began[chunk]
            times = np.cumsum(times, axis=1)
            rising = (times[:, 0] > self.began[chunk]).all() and (times[:, 1:] > times[:, :-1]).all()
            if not (rising and np.isfinite(times[:, -1]).all()):
                raise _OutOfTheOrdinaryError
            self.finish[chunk] = times

    def go_on(self, wanted: float, last: float) -> None:
        """Take all messages up to the time to which every worker's are known, or up to the number wanted."""
        until = min(float(self.finish[:, -1].min()), last)
        left = wanted - self.count
        width = 2 * left // len(self.finish) + 8  # columns that hold about the number wanted
        known = self.finish[:, : int(width)] if self.count == 0 and width < self.jobs.count else self.finish
        if known.size > left:
            known = known[known > self.until]
            if len(known) > left:
                until = min(until, float(np.partition(known, int(left) - 1)[int(left) - 1]))
        upto = (self.finish <= until).sum(axis=1)
        new = upto - self.taken
        worker = np.repeat(np.arange(len(new)), new)
        first = np.cumsum(new) - new
        job = np.arange(len(worker)) - np.repeat(first - self.taken, new)
        time = self.finish[worker, job]
        order = np.argsort(time, kind="stable")  # ties: the lower worker first, as in the rows here
        number = np.empty(len(worker), int)
        number[order] = np.arange(self.count, self.count + len(worker))
        before = np.concatenate([[-1], number[:-1]])[: len(number)]
        some = np.flatnonzero(new)
        before[first[some]] = self.latest[some]
        self.latest[some] = number[first[some] + new[some] - 1]
        read = np.where(job > 0, self.finish[worker, job - 1], self.began[worker])
        self.parts.append((worker[order], read[order], time[order], before[order]))
        self.count, self.until, self.taken = self.count + len(worker), until, upto
        if self.count >= wanted or until >= last:
            return
        self.looks += 1
        if self.count * LEAST < self.looks * len(new):  # some workers are much faster than the others
            raise _OutOfTheOrdinaryError
        spent = np.flatnonzero(upto == self.jobs.count)
        if len(spent):
            self.began[spent], self.taken[spent] = self.finish[spent, -1], 0
            self.draw(spent)
