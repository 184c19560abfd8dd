"""Asynchronous reinforcement learning: rollout slots, a queue of samples, a trainer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import (
    ANNOUNCE,
    AWAIT,
    WAIT,
    Announced,
    Decision,
    Left,
    Received,
    ServerProgram,
    Timeout,
    Worker,
    WorkerProgram,
)


@spec
class Rollouts(Synchrony):
    """Asynchronous reinforcement learning: slots generate samples, a trainer takes the oldest ones in batches.

    A worker of the cluster is a slot that generates one sample at a time, at the newest version; its compute time
    is that of a sample. ``group`` samples that are begun one after another are a group, complete when its slowest
    is. Whenever the trainer is free and the queue holds ``batch`` samples of complete groups, it trains on the
    oldest for ``train`` seconds; then the next version appears.

    Args:
        batch: samples of an update, a multiple of ``group``.
        train: seconds of a training step.
        group: samples of a prompt.
        queue: batches that the queue holds, beside the one in training; beyond them the oldest groups are dropped.
            None: no limit.
        max_staleness: a group with a sample that is more versions old than this is dropped when the trainer comes
            to it. None: no limit.
        admission: a slot begins a sample only while the samples accepted so far and those in progress are fewer
            than (``admission`` + version + 1) batches; 0 is synchronous. It bounds the mean staleness, not that of
            a single sample, which others may overtake. None: always.
        pacing: a slot begins a sample only while those begun since the last version appeared, and those in
            progress or in the queue then, are fewer than (1 + ``pacing``) batches. None: always.

    Reference: ``admission`` is the bound of AReaL, https://arxiv.org/abs/2505.24298, ``pacing`` the staleness
    threshold of verl, https://verl.readthedocs.io/en/latest/advance/fully_async.html.

    Example:
        >>> from stalegrad.policies import Rollouts
        >>> from stalegrad.simulator import Cluster, LogNormal, simulate
        >>> slots = Cluster(120, compute=LogNormal(60.0, 0.5))
        >>> trace = simulate(slots, Rollouts(batch=240, train=85.0, queue=2), updates=200)
        >>> bool(1.0 < trace.staleness.mean() < 1.3)
        True
    """

    batch: PositiveInt
    train: PositiveFloat
    group: PositiveInt = 1
    queue: PositiveFloat | None = None
    max_staleness: NonNegativeInt | None = None
    admission: NonNegativeInt | None = None
    pacing: NonNegativeFloat | None = None

    membership = True

    def check_fields(self) -> None:
        """Raise ValueError unless a batch consists of whole groups, and the queue holds one."""
        if self.batch % self.group:
            raise ValueError(
                f"batch of rollouts = {self.batch} is not allowed: a multiple of group, which is {self.group}"
            )
        if self.queue is not None and self.queue < 1:
            raise ValueError(f"queue of rollouts = {self.queue} is not allowed: at least 1 batch, or None")

    def serve(self, workers: int) -> ServerProgram:
        """Let slots begin samples, train on the oldest groups, drop groups that do not fit or are too old."""
        pool = _Pool(self)
        event = yield WAIT
        while True:
            trained: list[Received] = []
            keep = True
            if isinstance(event, Received):
                keep = pool.accept(event)
            elif isinstance(event, Announced):
                pool.join(event.worker)
            elif isinstance(event, Left):
                pool.leave(event.worker)
            elif isinstance(event, Timeout):
                trained = pool.trained()
            starts = pool.take()
            pool.overflow()
            begin = list(pool.begin())
            ask = [worker for worker in begin if pool.newcomers.pop(worker, None) == pool.version]
            dropped, pool.dropped = pool.dropped, []
            wake_after = self.train if starts else None
            event = yield Decision(trained or False, begin, keep, ask=ask, wake_after=wake_after, drop=dropped)

    def work(self, worker: Worker) -> WorkerProgram:
        """Wait until the first sample may begin, then generate, send and wait for an answer; it never ends."""
        held = worker.version
        yield ANNOUNCE
        while not worker.asked and worker.version == held:
            yield AWAIT
        yield from super().work(worker)


class _Pool:
    """Samples in progress, in the queue and in training, and slots that wait for permission.

    Attributes:
        version: updates made.
        there: slots that take part.
        idle: slots that wait, in their order.
        newcomers: those that have never begun, and the version that they hold.
        running: the group of the sample that each slot generates.
        missing: groups that lack a sample: the next ones to begin.
        partial: samples of groups that are not complete.
        complete: the queue, oldest group first.
        training: what the trainer is at; None: it is free.
        dropped: samples to be dropped.
        accepted: samples finished and not dropped, in all.
        paced: samples that count against the pace.
    """

    def __init__(self, rules: Rollouts) -> None:
        self.rules = rules
        self.version = self.accepted = self.paced = self.groups = 0
        self.there = set[int]()
        self.idle: dict[int, None] = {}
        self.newcomers: dict[int, int] = {}
        self.running: dict[int, int] = {}
        self.missing = deque[int]()
        self.partial: dict[int, list[Received]] = {}
        self.complete = deque[list[Received]]()
        self.training: list[Received] | None = None
        self.dropped: list[Received] = []

    def join(self, worker: int) -> None:
        """Let a slot wait for permission to begin its first sample."""
        self.there.add(worker)
        self.newcomers[worker] = self.version
        self.idle[worker] = None

    def accept(self, sample: Received) -> bool:
        """Put a sample to its group, and the group, if it is complete, into the queue.

        Returns:
            Whether the sample has a group: one that was on its way when its slot left has been begun again.
        """
        if sample.worker in self.there:
            self.idle[sample.worker] = None
        if sample.worker not in self.running:
            return False
        group = self.running.pop(sample.worker)
        samples = self.partial.setdefault(group, [])
        samples.append(sample)
        if len(samples) == self.rules.group:
            self.complete.append(self.partial.pop(group))
        self.accepted += 1
        return True

    def leave(self, worker: int) -> None:
        """Let another slot begin the sample of this one again."""
        self.there.discard(worker)
        self.newcomers.pop(worker, None)
        self.idle.pop(worker, None)
        if worker in self.running:
            self.missing.append(self.running.pop(worker))
            self.paced -= 1

    def take(self) -> bool:
        """Begin to train on the oldest batch, if there is one and the trainer is free; return whether so."""
        if self.training is not None:
            return False
        most = math.inf if self.rules.max_staleness is None else self.rules.max_staleness
        fresh = deque[list[Received]]()
        while self.complete and len(fresh) * self.rules.group < self.rules.batch:
            group = self.complete.popleft()
            if self.version - min(sample.read_version for sample in group) > most:
                self.drop(group)
            else:
                fresh.append(group)
        if len(fresh) * self.rules.group < self.rules.batch:
            self.complete = fresh
            return False
        self.training = [sample for group in fresh for sample in group]
        return True

    def trained(self) -> list[Received]:
        """Return what the update is made of, now that the trainer is done."""
        assert self.training is not None
        done, self.training = self.training, None
        self.version += 1
        waiting = sum(map(len, self.partial.values())) + len(self.complete) * self.rules.group
        self.paced = len(self.running) + waiting
        return done

    def overflow(self) -> None:
        """Drop the oldest groups that the queue does not hold."""
        if self.rules.queue is not None:
            while len(self.complete) * self.rules.group > self.rules.queue * self.rules.batch:
                self.drop(self.complete.popleft())

    def drop(self, group: list[Received]) -> None:
        """Drop a group."""
        self.dropped += group
        self.accepted -= len(group)

    def begin(self) -> Iterator[int]:
        """Yield the slots that begin a sample now."""
        while self.idle and self.allowed:
            worker = next(iter(self.idle))
            del self.idle[worker]
            if not self.missing:
                self.missing.extend([self.groups] * self.rules.group)
                self.groups += 1
            self.running[worker] = self.missing.popleft()
            self.paced += 1
            yield worker

    @property
    def allowed(self) -> bool:
        """Whether one more sample may begin."""
        rules, batch = self.rules, self.rules.batch
        admitted = rules.admission is None or (
            self.accepted + len(self.running) < (rules.admission + self.version + 1) * batch
        )
        return admitted and (rules.pacing is None or self.paced < (1 + rules.pacing) * batch)
