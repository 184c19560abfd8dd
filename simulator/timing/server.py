"""The server of the simulation: it asks the server program about every event, and does what that decides."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, NoReturn, Protocol

import simpy

from stalegrad.policies.synchrony import Decision, Event, Synchrony, Timeout
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.clock import READS, TIMEOUT_RANK, Call, check_advance
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.log import DISCARDED, Log, Message
from stalegrad.simulator.timing.worker import Worker


class Engine(Protocol):
    """What the server uses of the engine."""

    cluster: Cluster
    workers: dict[int, Worker]
    log: Log
    now: float

    def at(self, delay: float, rank: float, what: Callable[[Any], None], whom: Any) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds."""

    def end(self) -> None:
        """Let the run end now."""

    def download(self, worker: Worker, version: int, cancel: bool) -> None:
        """Carry a model to a worker."""


class Server:
    """The server. It deals with one event at a time; others wait for their turn, first in, first out.

    Attributes:
        version: updates made so far.
        update_times: when they were made, in seconds.
        spent: whether the budget is, in updates or in gradients: then nothing begins any more.
        kept: what the next update is made of.
        inbox: events that wait for their turn.
        busy: whether the server is at an event, or at a message that takes time (``serving``).
    """

    def __init__(self, engine: Engine, synchrony: Synchrony, budget: Budget) -> None:
        self.engine, self.workers, self.log = engine, engine.workers, engine.log
        self.seconds, self.downlink = engine.cluster.server, engine.cluster.downlink
        self.version = self.gradients = 0
        self.update_times: list[float] = []
        self.updates_left: float = budget.updates or math.inf
        self.gradients_left: float = budget.gradients or math.inf
        self.spent = self.busy = self.serving = False
        self.inbox = deque[Event]()
        self.kept: list[Message] = []
        self.timers: dict[Hashable, Call] = {}
        self.timeouts = (-1.0, 0)
        self.next_synchrony: Synchrony | None = None
        self.take_up(synchrony)

    # Its program

    def change(self, synchrony: Synchrony) -> None:
        """Let another synchrony's server program decide, from the next update on; workers keep their programs."""
        self.next_synchrony = synchrony
        if not self.kept and not self.serving:
            self.take_up(synchrony)

    def take_up(self, synchrony: Synchrony) -> None:
        """Let the server program of a synchrony decide from now on; it begins without timers."""
        self.synchrony, self.next_synchrony = synchrony, None
        self.program, self.membership = synchrony.serve(self.engine.cluster.size), synchrony.membership
        next(self.program)
        for timer in self.timers.values():
            timer.callbacks = ()
        self.timers.clear()

    def refuse(self, event: Event, decision: Any, why: str) -> NoReturn:
        """Raise ValueError about a decision."""
        raise ValueError(
            f"synchrony {self.synchrony.name!r} answered {event!r} at {self.engine.now!r} s with {decision!r}: "
            f"{why}"
        )

    # Events

    def tell(self, event: Event) -> None:
        """Deal with an event: now, or after those that have come before."""
        if type(event) is Message:
            self.log.receive_time[event.number] = self.engine.now
            if event.earlier is not None:
                self.log.receive(event.earlier, self.engine.now)
        if self.busy:
            self.inbox.append(event)
            return
        self.busy = True
        self.serve(event)
        if self.inbox or self.serving:
            self.serve_all()
        else:
            self.busy = False

    def serve_all(self) -> None:
        """Deal with what has come meanwhile, until there is nothing left or a message takes time."""
        for _ in range(READS * (len(self.workers) + 1)):
            if self.serving or self.spent:
                return
            if not self.inbox:
                self.busy = False
                return
            self.serve(self.inbox.popleft())
        raise ValueError(
            f"synchrony {self.synchrony.name!r}: server and workers tell one another more and more at "
            f"{self.engine.now!r} s; time would never advance"
        )

    def serve(self, event: Event, decision: Decision | None = None) -> None:
        """Ask the program about an event, unless it has decided already, and do what it says."""
        message = event if type(event) is Message else None
        if decision is None:
            if message is not None:
                message.staleness = self.version - message.read_version
            try:
                decision = self.program.send(event)
            except StopIteration:
                self.refuse(event, None, "its server program has ended; it must answer every event")
            if type(decision) is not Decision:
                self.refuse(event, decision, "give a Decision")
            if self.seconds and message is not None and decision.keep:  # what is not kept takes no work
                check_advance(self.engine.now, self.seconds, "server of cluster")
                self.serving = True
                self.engine.at(self.seconds, simpy.events.NORMAL, self.served, (message, decision))
                return
        apply, send, keep, cancel, ask, wake_after, _ = decision
        if message is not None:
            if keep:
                self.kept.append(message)
            else:
                self.log.close(message, DISCARDED)
        if apply:
            if not self.kept:
                self.refuse(event, decision, "an update needs at least one message that is kept")
            self.update()
        if cancel and cancel != send and not set(cancel) <= set(send):
            self.refuse(event, decision, "cancel names a worker that is not in send")
        for index in send:
            try:
                worker = self.workers[index]
            except (KeyError, TypeError):
                self.refuse_worker(event, decision, index)
            if not worker.present:
                continue  # it gets the model when it joins
            if self.downlink:
                self.engine.download(worker, self.version, index in cancel)
            else:
                worker.take(self.version, index in cancel)
        for index in ask:
            try:
                worker = self.workers[index]
            except (KeyError, TypeError):
                self.refuse_worker(event, decision, index)
            if worker.present:
                worker.ask()
        if wake_after is not None:
            self.wake(event, decision)
        if message is not None and (sender := self.workers[message.worker]).suspended:
            sender.seen()

    def refuse_worker(self, event: Event, decision: Decision, index: Any) -> NoReturn:
        """Raise ValueError about a worker that does not exist."""
        self.refuse(event, decision, f"{index!r} is no worker: they are 0 to {len(self.workers) - 1}")

    def served(self, job: tuple[Message, Decision]) -> None:
        """The time is over that the server spends on a message."""
        self.serving = False
        self.serve(*job)
        self.serve_all()

    def update(self) -> None:
        """Make one update out of the messages kept."""
        version, log = self.version, self.log
        for upload in self.kept:
            message: Message | None = upload
            while message is not None:
                log.update[message.number] = version
                self.gradients += message.steps
                message = message.earlier
        self.kept.clear()
        if self.next_synchrony is not None:
            self.take_up(self.next_synchrony)
        self.version = version + 1
        self.update_times.append(self.engine.now)
        if self.version >= self.updates_left or self.gradients >= self.gradients_left:
            self.engine.end()  # after the cancellations of this update
            self.updates_left = self.gradients_left = math.inf
            self.spent = True

    # Timers

    def wake(self, event: Event, decision: Decision) -> None:
        """Set a timer, in place of one with the same tag."""
        seconds, tag = decision.wake_after, decision.tag
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            self.refuse(event, decision, "wake_after must be finite seconds of at least 0")
        check_advance(self.engine.now, seconds, f"wake_after of synchrony {self.synchrony.name!r}")
        if tag in self.timers:
            self.timers[tag].callbacks = ()
        self.timers[tag] = self.engine.at(seconds, TIMEOUT_RANK, self.time_out, tag)

    def time_out(self, tag: Hashable) -> None:
        """A timer has run out."""
        del self.timers[tag]
        now, (before, count) = self.engine.now, self.timeouts
        self.timeouts = now, (count + 1 if now == before else 1)
        if self.timeouts[1] > READS:
            raise ValueError(
                f"wake_after of synchrony {self.synchrony.name!r}: more than {READS} timeouts at {now!r} s; "
                "time would never advance"
            )
        self.tell(Timeout(tag))
