"""A worker of the simulation: it executes its program."""

from __future__ import annotations

import math
from array import array
from collections.abc import Generator, Iterator
from typing import Any, NoReturn, Protocol

import simpy

from stalegrad._core.specs import builtin
from stalegrad.policies.synchrony import Announced, Compute, Event, Joined, Left, Send, Synchrony
from stalegrad.policies.synchrony.programs import MOST_STEPS, Announce, Await, Drop
from stalegrad.simulator.timing.calendar import WORKER_RANK
from stalegrad.simulator.timing.clock import NEGLIGIBLE, READS, are_seconds, check_advance
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.log import CANCELLED, LOST, Log, Message


class Server(Protocol):
    """The part of the server that a worker uses."""

    membership: bool
    version: int
    spent: bool
    busy: bool

    def tell(self, event: Event) -> None:
        """Let the server handle an event."""

    def check_idle(self) -> None:
        """Raise ValueError if there have been too many messages without an update."""


class Engine(Protocol):
    """The part of the engine that a worker uses."""

    env: simpy.Environment
    cluster: Cluster
    synchrony: Synchrony
    seed: int
    now: float
    instant: bool

    def upload(self, message: Message) -> None:
        """Transfer messages to the server."""

    def departed(self, worker: Worker) -> None:
        """Let a worker leave that has finished its last job first."""


class Worker:
    """One worker.

    Attributes:
        index: index of the worker.
        version: version that it holds; undefined unless ``present``.
        present: whether it has joined and its program has not ended.
        unanswered: number of uploads not yet answered; ``asked`` and ``models``: questions and models received.
        local_steps: number of mini-batch gradients of a message.
        job: message that it is computing.
        task: last action ``Compute`` of its program: ``steps`` gradients in ``at_most`` seconds, and whether it
            ``sends`` them; ``simple``: one gradient, without a limit of time.
        finished: last message computed and not yet sent.
        waiting: whether its program waits for a model or a question.
        suspended: message that the server must handle before its program continues.
        stay: number of times that it has left; models sent during an earlier stay do not reach it.
        draining: whether it leaves as soon as its job is finished and sent.
        resume: function that sends its program a value and returns the next action.
        timer: function that draws times that depend on the clock, ``timed`` so far, of mean ``usual``, or None.
    """

    __slots__ = (
        "asked", "at_most", "blocks", "draining", "engine", "finished", "index", "job", "local_steps", "log",
        "models", "on_finish", "present", "read_time", "reads", "reads_time", "resume", "sends", "server",
        "simple", "stay", "steps", "suspended", "task", "timed", "timer", "times", "unanswered", "usual",
        "version", "waiting",
    )  # fmt: skip

    def __init__(self, engine: Engine, server: Server, log: Log, index: int) -> None:
        self.engine, self.server, self.log, self.index = engine, server, log, index
        self.version = self.unanswered = self.asked = self.models = self.stay = 0
        self.local_steps = engine.synchrony.steps_of(index)
        self.present = self.waiting = self.simple = self.draining = False
        self.suspended: Message | None = None
        self.job: Message | None = None
        self.finished: Message | None = None
        self.task: Compute | None = None
        self.steps, self.at_most, self.sends = 1, math.inf, False
        self.resume: Any = None
        self.on_finish = (self.finish,)
        self.blocks = engine.cluster.compute_blocks(engine.seed, index)
        self.times: Iterator[float] = iter(())
        cluster = engine.cluster
        self.timer = cluster.compute_timer(engine.seed, index) if cluster.delay_of(index).clocked else None
        self.timed, self.usual, self.reads = 0, 0.0, 0
        self.read_time = self.reads_time = -1.0

    # Its program

    def join(self, _: Any = None) -> None:
        """Read the current version and begin the program."""
        server = self.server
        self.version, self.present = server.version, True
        program = self.engine.synchrony.work(self)
        if not isinstance(program, Generator):
            of = f"work() of synchrony {self.engine.synchrony.name!r}"
            raise ValueError(f"{of} returned {program!r}: it must be a generator")
        self.resume = program.send
        if server.membership:
            server.tell(Joined(self.index))
        self.go_on(None)

    def leave(self) -> None:
        """Stop taking part, because the program has ended."""
        self.drop()
        self.present = False
        if self.server.membership:
            self.server.tell(Left(self.index))

    def depart(self, *, deliver: bool) -> None:
        """Leave: the job in progress is lost, and messages not yet sent are lost or delivered."""
        job, log, unsent = self.job, self.log, self.finished
        if deliver and unsent is not None:
            self.finished = None
            unsent.gather()
            self.engine.upload(unsent)
        if job is not None:
            job.callbacks = ()
            log.finish_time[job.number], log.fate[job.number] = self.engine.now, LOST
        log.note(log.fate, self.finished, LOST)
        self.job = self.finished = self.suspended = None
        self.present = self.waiting = self.draining = False
        self.unanswered = self.asked = 0
        self.stay += 1
        if self.server.membership:
            self.server.tell(Left(self.index))

    def go_on(self, value: int | None, behind: tuple[Message, ...] = ()) -> None:
        """Let the program continue until it computes or waits.

        Args:
            value: result of its last ``yield``.
            behind: messages that are sent after that.
        """
        server = self.server
        if server.spent:
            return
        waited, told = value is None, 0
        while True:
            try:
                action = self.resume(value)
            except StopIteration:
                self.leave()
                break
            kind, value = type(action), None
            if kind is Compute:
                if self.draining:
                    break
                if action is not self.task:
                    self.take_on(action)
                self.compute()
                break
            if kind is Send:
                upload = self.finished
                if upload is None:
                    self.refuse(action, "it has computed no message since it sent the last one")
                self.finished = None
                upload.gather()
                self.unanswered += 1
                if self.engine.instant and not action.go_on:
                    if server.busy:
                        self.suspended = upload
                        server.tell(upload)
                        break
                    server.tell(upload)
                    if server.spent:
                        return
                elif waited and not action.go_on:
                    self.engine.upload(upload)
                else:
                    behind = (*behind, upload)
            elif kind is Await:
                self.waiting = True
                break
            elif kind is Announce or kind is Drop:
                if kind is Announce:
                    server.tell(Announced(self.index))
                else:
                    self.drop()
                told += 1
                if told > READS:
                    self.refuse(action, f"it does that {told} times without computing or waiting")
            else:
                self.refuse(action, "yield Compute(...), SEND, AWAIT, ANNOUNCE or DROP")
        for upload in behind:
            self.engine.upload(upload)
        if self.draining:
            self.engine.departed(self)

    def drop(self) -> None:
        """Cancel the messages computed and not yet sent."""
        self.log.note(self.log.fate, self.finished, CANCELLED)
        self.finished = None

    def take_on(self, task: Compute) -> None:
        """Check a task and use it for the jobs from now on."""
        steps, at_most = builtin(task.steps), builtin(task.at_most)
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            self.refuse(task, f"steps must be a whole number from 1 to {MOST_STEPS}")
        if at_most is not None and not are_seconds(at_most):
            self.refuse(task, "at_most must be finite seconds of at least 0, or None for no limit")
        self.task, self.steps, self.sends = task, steps, task.send
        self.at_most = math.inf if at_most is None else at_most
        self.simple = steps == 1 and at_most is None

    def refuse(self, action: Any, why: str) -> NoReturn:
        """Raise ValueError about an action of the program."""
        raise ValueError(
            f"synchrony {self.engine.synchrony.name!r} lets worker {self.index} do {action!r} at "
            f"{self.engine.now!r} s: {why}"
        )

    # Its jobs

    def compute(self) -> None:
        """Begin a message at the version held."""
        engine, log = self.engine, self.log
        now = engine.now
        if now == self.read_time:
            self.check_reads(now)
        self.read_time = now
        number = log.count
        if number == log.room:
            self.server.check_idle()
            log.grow()
        log.count = number + 1
        log.worker[number] = index = self.index
        log.read_version[number] = version = self.version
        log.read_time[number] = now
        if self.simple:
            steps = 1
            duration = next(self.times, None)
            if duration is None:
                duration = self.draw(now)
        else:
            log.steps[number] = self.steps
            duration, steps = self.duration()
        if not now < now + duration < math.inf:
            check_advance(now, duration, f"compute of worker {index}", NEGLIGIBLE * self.usual)
        self.job = message = Message(self.on_finish, number, index, version, steps)
        engine.env.schedule(message, WORKER_RANK + index, duration)  # type: ignore[arg-type]

    def draw(self, begin: float) -> float:
        """Return the next compute time, for a gradient that begins at ``begin``, in seconds."""
        if self.timer is not None:
            duration = self.timer(begin)
            self.timed += 1
            self.usual += (duration - self.usual) / self.timed
            return duration
        for time in self.times:
            return time
        block = next(self.blocks)
        self.usual = float((block / len(block)).sum())
        self.times = iter(array("d", block.tobytes()))
        return next(self.times)

    def duration(self) -> tuple[float, int]:
        """Draw the duration of the job in seconds, and the number of gradients completed in it."""
        now = self.engine.now
        total, done = self.draw(now), 0
        while total <= self.at_most:
            done += 1
            if done == self.steps:
                return total, done
            total += self.draw(now + total)
        return self.at_most, done

    def check_reads(self, now: float) -> None:
        """Raise ValueError if this worker has read too often at this moment: time would never advance."""
        self.reads = self.reads + 1 if now == self.reads_time else 2
        self.reads_time = now
        if self.reads > READS:
            raise ValueError(
                f"compute of worker {self.index}: it reads more than {READS} times at {now!r} s, because too many "
                "compute times are 0 there; time would never advance"
            )

    def finish(self, message: Message) -> None:
        """End a job and let the program continue."""
        engine, log = self.engine, self.log
        self.job = None
        log.finish_time[message.number] = engine.now = engine.env.now
        if not self.simple:
            if not message.steps:
                log.fate[message.number] = CANCELLED
                self.go_on(0)
                return
            log.steps[message.number] = message.steps
        message.earlier = self.finished
        steps = message.steps
        if not self.sends:
            self.finished = message
            self.go_on(steps)
            return
        if message.earlier is not None:
            self.finished = None
            message.gather()
        self.unanswered += 1
        if engine.instant:
            self.server.tell(message)
            self.go_on(steps)
        else:
            self.go_on(steps, (message,))

    # What comes from the server

    def take(self, version: int, cancel: bool) -> None:
        """Receive a model; cancel the job if asked to, or continue a program that waits."""
        self.version = version
        self.models += 1
        if self.unanswered:
            self.unanswered -= 1
        job = self.job
        if job is None:
            if self.waiting:
                self.waiting = False
                self.go_on(None)
        elif cancel:
            job.callbacks = ()
            self.log.finish_time[job.number] = self.engine.now
            self.log.fate[job.number] = CANCELLED
            self.job = None
            if self.draining:
                self.engine.departed(self)
            elif not self.server.spent:
                self.compute()

    def ask(self) -> None:
        """Receive a question from the server."""
        self.asked += 1
        if self.waiting:
            self.waiting = False
            self.go_on(None)

    def seen(self) -> None:
        """Continue, after the server has handled the message sent."""
        self.suspended = None
        self.go_on(None)
