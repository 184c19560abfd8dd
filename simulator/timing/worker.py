"""A worker's life: it reads, computes, sends, and waits for an answer."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any, Protocol

import simpy

from stalegrad.policies.synchrony import Synchrony
from stalegrad.simulator.timing.clock import NEGLIGIBLE, READS, check_advance
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import Fate
from stalegrad.simulator.timing.trace import Message

Process = Generator[simpy.Event, Any, None]


class Server(Protocol):
    """What a worker uses of the engine."""

    env: simpy.Environment
    cluster: Cluster
    synchrony: Synchrony
    seed: int
    version: int
    asked: int

    def begin(self, worker: int, version: int, steps: int) -> Message:
        """Write down that a worker begins a message."""

    def close(self, message: Message, fate: Fate, update: int = -1) -> None:
        """Write down the fate of a message."""

    def after(self, delay: float, worker: int) -> simpy.Event:
        """Return an event of a worker, ``delay`` seconds from now."""

    def receive(self, message: Message, *more: Message) -> Process:
        """Carry messages to the server and handle them."""

    def receive_at_once(self, message: Message) -> None:
        """Handle a message where neither link nor server takes time."""

    def ask(self) -> None:
        """Ask the workers for what they have collected, if all have something."""


class Worker:
    """One worker: it reads, computes, sends, and waits for an answer."""

    def __init__(self, engine: Server, index: int) -> None:
        self.engine, self.index = engine, index
        self.times = self.draws()
        self.usual = 0.0
        self.read_time, self.reads = -1.0, 0
        self.version: int | None = None
        self.unanswered = 0
        self.computing = False
        self.answer: simpy.Event | None = None
        self.process = engine.env.process(self.live())

    def draws(self) -> Iterator[float]:
        """Yield compute times, and note the mean of those among which they were drawn."""
        for block in self.engine.cluster.compute_blocks(self.engine.seed, self.index):
            self.usual = float((block / len(block)).sum())
            yield from block.tolist()

    def read(self, version: int, steps: int) -> Message:
        """Begin a message.

        Raises:
            ValueError: if this worker has done so too often at this moment for time ever to advance.
        """
        now = self.engine.env.now
        self.reads = self.reads + 1 if now == self.read_time else 1
        self.read_time = now
        if self.reads > READS:
            raise ValueError(
                f"compute of worker {self.index}: it reads more than {READS} times at {now!r} s, because too many "
                "compute times are 0 there; time would never advance"
            )
        return self.engine.begin(self.index, version, steps)

    def compute(self, steps: int) -> simpy.Event:
        """Return the event that ends the computation of a message."""
        duration = next(self.times) if steps == 1 else sum(next(self.times) for _ in range(steps))
        now = self.engine.env.now
        if not now < now + duration < math.inf:
            check_advance(now, duration, f"compute of worker {self.index}", NEGLIGIBLE * self.usual)
        return self.engine.after(duration, self.index)

    def join(self) -> Process:
        """Wait until it is time to join."""
        join_time = self.engine.cluster.join_time(self.engine.seed, self.index)
        if join_time:
            yield self.engine.after(join_time, self.index)

    def live(self) -> Process:
        """Join; then read, compute, send, wait, for ever."""
        engine, env = self.engine, self.engine.env
        synchrony, steps = engine.synchrony, engine.synchrony.local_steps
        # A worker that holds back goes on with the model it has, even if its own release completes the next one.
        instant = engine.cluster.uplink == engine.cluster.server == 0 and not synchrony.holds

        yield from self.join()
        self.version = engine.version
        while True:
            message = self.read(self.version, steps)
            job = self.compute(steps)
            self.computing = True
            try:
                yield job
            except simpy.Interrupt:
                message.finish_time = env.now
                engine.close(message, Fate.CANCELLED)
                continue
            self.computing = False
            message.finish_time = env.now
            if synchrony.holds:
                yield from self.wait_while_more_than(0)
            self.unanswered += 1
            if instant:
                engine.receive_at_once(message)
            else:
                env.process(engine.receive(message))
            yield from self.wait_while_more_than(synchrony.ahead)

    def wait_while_more_than(self, unanswered: float) -> Process:
        """Wait until no more than that many messages are unanswered."""
        while self.unanswered > unanswered:
            self.answer = simpy.Event(self.engine.env)
            yield self.answer

    def take(self, version: int) -> None:
        """Receive a model: a computing worker drops its job, a waiting one continues."""
        self.version = version
        if self.unanswered:
            self.unanswered -= 1
        if self.computing:
            if self.engine.synchrony.cancels:
                self.computing = False
                self.process.interrupt()
        elif self.answer is not None:
            self.answer.succeed()
            self.answer = None


class Collector(Worker):
    """A worker that keeps its messages, as part of its own model, until the server asks for them."""

    def __init__(self, engine: Server, index: int) -> None:
        self.collected: list[Message] = []
        self.beyond = self.releases = 0
        self.tau = getattr(engine.synchrony, "tau", 1)
        super().__init__(engine, index)

    def live(self) -> Process:
        """Join; then compute and collect for ever, but no more than tau messages beyond the model held."""
        engine, env = self.engine, self.engine.env
        yield from self.join()
        self.version = engine.version
        while True:
            message = self.read(self.version, 1)
            yield self.compute(1)
            message.finish_time = env.now
            self.collected.append(message)
            self.beyond += 1
            engine.ask()
            self.release()
            while self.beyond >= self.tau:
                self.answer = simpy.Event(env)
                yield self.answer

    def release(self) -> None:
        """Send what has been collected, if asked and not yet done, and if the newest model has come."""
        engine = self.engine
        if not self.releases == self.version == engine.version == engine.asked:
            return
        released, self.collected = self.collected, []
        self.releases += 1
        engine.env.process(engine.receive(*released))

    def take(self, version: int) -> None:
        """Receive a model that contains all messages that were released."""
        self.version, self.beyond = version, len(self.collected)
        if self.answer is not None:
            self.release()
            self.answer.succeed()
            self.answer = None
