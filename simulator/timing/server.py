"""The server of the simulation: it passes every event to the server program and executes the decisions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable
from typing import Any, Literal, NoReturn, Protocol

import numpy as np
import simpy

from stalegrad.policies.synchrony import Decision, Event, Left, Synchrony, Timeout
from stalegrad.policies.synchrony.programs import NOBODY
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.calendar import Calendar, T
from stalegrad.simulator.timing.clock import READS, check_advance
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.log import DISCARDED, Log, Message
from stalegrad.simulator.timing.streams import Draws
from stalegrad.simulator.timing.timers import Timers
from stalegrad.simulator.timing.worker import Worker


class Engine(Calendar, Protocol):
    """The part of the engine that the server uses."""

    cluster: Cluster
    workers: dict[int, Worker]
    log: Log
    seed: int

    def end(self) -> None:
        """End the run now."""

    def download(self, worker: Worker, version: int, cancel: bool) -> None:
        """Transfer a model to a worker."""


IDLE_MESSAGES, IDLE_TIMEOUTS = 5_000_000, 1_000_000
"""Messages and timeouts without an update after which a run with a budget of updates or gradients is an error."""


class Server:
    """The server. It handles one event at a time; others wait for their turn, first in, first out.

    Attributes:
        version: number of updates made so far.
        update_times: times of the updates, in seconds.
        update_starts: times at which the updates began; None if updates take no time.
        spent: whether the budget of updates or gradients is spent; then nothing more happens.
        kept: messages kept and not yet used, by number.
        inbox: events that wait for their turn.
        busy: whether the server handles an event, or a message or update that takes time (``serving``).
        begun: number of messages begun before the last update.
        timeouts: number of timers that have run out since the last update.
        models_travel: whether transfers of models take time.
        draws: draws of the times that messages take, by worker.
        update_draws: draws of the times that updates take; None if they take none.
    """

    def __init__(self, engine: Engine, synchrony: Synchrony, budget: Budget) -> None:
        self.engine, self.workers, self.log = engine, engine.workers, engine.log
        cluster = engine.cluster
        self.takes_time, self.draws = bool(cluster.server), dict[int, Draws]()
        self.models_travel = cluster.travels("downlink")
        self.update_draws = cluster.draws("server_update", engine.seed, 0) if cluster.server_update else None
        self.version = self.gradients = 0
        self.update_times: list[float] = []
        self.update_starts: list[float] | None = None if self.update_draws is None else []
        self.updates_left: float = budget.updates or math.inf
        self.gradients_left: float = budget.gradients or math.inf
        self.ends_by_itself = budget.wallclock is not None
        self.spent = self.busy = self.serving = False
        self.inbox = deque[Event]()
        self.kept: dict[int, Message] = {}
        self.timers = Timers(engine, self)
        self.begun = self.timeouts = 0
        self.next_synchrony: Synchrony | None = None
        self.take_up(synchrony)

    # Its program

    def change(self, synchrony: Synchrony) -> None:
        """Replace the server program by that of another synchrony, from the next update on.

        Workers keep their programs and adopt the synchrony's number of local steps.

        Raises:
            ValueError: if the synchrony cannot work with this number of workers.
        """
        synchrony.check(self.engine.cluster.size)
        self.next_synchrony = synchrony if synchrony != self.synchrony else None
        if self.next_synchrony is not None and not self.kept and not self.serving:
            self.take_up(synchrony)
            if self.inbox and not self.busy:
                self.busy = True
                self.serve_all()

    def take_up(self, synchrony: Synchrony) -> None:
        """Start the server program of a synchrony, in place of the current one and of its timers."""
        program = synchrony.serve(self.engine.cluster.size)
        if not isinstance(program, Generator):
            raise ValueError(
                f"serve() of synchrony {synchrony.name!r} returned {program!r}: it must be a generator"
            )
        try:
            first = next(program)
        except StopIteration:
            raise ValueError(
                f"serve() of synchrony {synchrony.name!r} ends before it has answered anything"
            ) from None
        self.synchrony, self.next_synchrony = synchrony, None
        for worker in self.workers.values():
            worker.local_steps = synchrony.steps_of(worker.index)
        self.program, self.membership = program, synchrony.membership
        self.timers.stop()
        if self.membership:
            self.inbox.extend(Left(worker.index) for worker in self.workers.values() if not worker.present)
        if type(first) is Decision and first.wake_after is not None:
            self.timers.set(None, first)

    def refuse(self, event: Event | None, decision: Any, why: str) -> NoReturn:
        """Raise ValueError about a decision on an event; an event of None stands for the start of the program."""
        answered = "began" if event is None else f"answered {event!r}"
        raise ValueError(
            f"synchrony {self.synchrony.name!r} {answered} at {self.engine.now!r} s with {decision!r}: {why}"
        )

    def check_idle(self) -> None:
        """Raise ValueError if there have been too many messages or timeouts without an update."""
        idle = self.log.count - self.begun - len(self.kept)
        if not self.ends_by_itself and (idle > IDLE_MESSAGES or self.timeouts > IDLE_TIMEOUTS):
            raise ValueError(
                f"synchrony {self.synchrony.name!r} stands still: at {self.engine.now!r} s it has made no update "
                f"out of the last {idle} messages and {self.timeouts} timeouts"
            )

    # Events

    def tell(self, event: Event) -> None:
        """Handle an event: now, or after earlier ones."""
        if type(event) is Message:
            self.log.receive_time[event.number] = self.engine.now
            if event.earlier is not None:
                self.log.note(self.log.receive_time, event.earlier, self.engine.now)
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
        """Handle the events in the inbox, until it is empty or a message or update takes time."""
        for _ in range(len(self.inbox) + READS * (len(self.workers) + 1)):
            if self.serving or self.spent:
                return
            if not self.inbox:
                self.busy = False
                return
            self.serve(self.inbox.popleft())
        raise ValueError(
            f"synchrony {self.synchrony.name!r}: server and workers send each other events without end at "
            f"{self.engine.now!r} s; time would never advance"
        )

    def serve(
        self, event: Event, decision: Decision | None = None, chosen: Collection[Message] | None = None
    ) -> None:
        """Pass an event to the program and execute its decision, or continue after time spent on either.

        Args:
            event: the event.
            decision: decision on the event, if the program has made it already.
            chosen: messages of the update, if its time is over.
        """
        message, program = event if type(event) is Message else None, self.program
        if decision is None:
            if message is not None:
                message.version = self.version
            try:
                decision = program.send(event)
            except StopIteration:
                self.refuse(event, None, "its server program has ended; it must answer every event")
            if type(decision) is not Decision:
                self.refuse(event, decision, "give a Decision")
            if self.takes_time and message is not None and decision.keep:  # others take no time
                draws = self.draws.get(message.worker) or self.draws_of(message.worker)
                self.spend(draws, self.served, (message, decision))
                return
        apply, send, keep, cancel, ask, wake_after, _, drop = decision
        all_cancelled = cancel is send
        if cancel is not NOBODY and not all_cancelled:
            send, cancel = self.some_cancelled(event, decision)
        if chosen is None:
            if message is not None:
                if keep:
                    self.kept[message.number] = message
                else:
                    self.log.note(self.log.fate, message, DISCARDED)
            if drop is not NOBODY:
                for dropped in self.take_out(event, decision, "drop"):
                    self.log.note(self.log.fate, dropped, DISCARDED)
            if apply:
                if apply is True or isinstance(apply, np.bool_):
                    chosen, self.kept = self.kept.values(), {}
                else:
                    chosen = self.take_out(event, decision, "apply")
                if not chosen:
                    self.refuse(event, decision, "an update needs at least one message that is kept")
                if self.update_draws is not None:
                    self.spend(self.update_draws, self.updated, (event, decision, chosen, self.engine.now))
                    return
        if chosen is not None:
            self.update(chosen)
        workers = self.workers
        try:
            receivers = [workers[index] for index in send]
        except (KeyError, TypeError) as error:
            self.refuse_workers("send", error, event, decision)
        for worker in receivers:
            if not worker.present:
                continue  # it gets the model when it joins
            if self.models_travel:
                self.engine.download(worker, self.version, all_cancelled or worker.index in cancel)
            else:
                worker.take(self.version, all_cancelled or worker.index in cancel)
        if ask is not NOBODY:
            self.ask(event, decision)
        if wake_after is not None and self.program is program:
            self.timers.set(event, decision)
        if message is not None and (sender := workers[message.worker]).suspended is message:
            sender.seen()

    def take_out(self, event: Event, decision: Decision, field: Literal["apply", "drop"]) -> list[Message]:
        """Remove the messages that a field of a decision names from those kept, and return them."""
        try:
            return [self.kept.pop(message.number) for message in getattr(decision, field)]
        except (TypeError, AttributeError):
            self.refuse(event, decision, f"{field} must be True, False or messages that are kept")
        except KeyError:
            self.refuse(event, decision, f"{field} names a message that is not among those kept and not yet used")

    def ask(self, event: Event, decision: Decision) -> None:
        """Ask workers for the messages that they have announced."""
        try:
            asked = [self.workers[index] for index in decision.ask]
        except (KeyError, TypeError) as error:
            self.refuse_workers("ask", error, event, decision)
        for worker in asked:
            if worker.present:
                worker.ask()

    def refuse_workers(self, field: str, error: Exception, event: Event, decision: Decision) -> NoReturn:
        """Raise ValueError about a field of a decision that names no workers."""
        what = f"{error.args[0]!r} is no worker: they are" if isinstance(error, KeyError) else "give workers:"
        self.refuse(event, decision, f"{field}: {what} 0 to {len(self.workers) - 1}")

    def some_cancelled(self, event: Event, decision: Decision) -> tuple[Collection[Any], Collection[Any]]:
        """Return ``send`` and ``cancel`` of a decision in which the two differ."""
        try:
            send, cancel = tuple(decision.send), frozenset(decision.cancel)
        except TypeError:
            self.refuse(event, decision, f"send and cancel: give workers: 0 to {len(self.workers) - 1}")
        if not cancel <= frozenset(send):
            self.refuse(event, decision, "cancel names a worker that is not in send")
        return send, cancel

    def served(self, job: tuple[Message, Decision]) -> None:
        """Continue after the time that the server spends on a message."""
        self.serving = False
        self.serve(*job)
        self.serve_all()

    def draws_of(self, worker: int) -> Draws:
        """Return the draws of the times that messages of a worker take."""
        self.draws[worker] = draws = self.engine.cluster.draws("server", self.engine.seed, worker)
        return draws

    def spend(self, draws: Draws, what: Callable[[T], None], whom: T) -> None:
        """Let the server do nothing else for a drawn time, then call ``what(whom)``."""
        now, time = self.engine.now, draws.next()
        if not now < now + time < math.inf:
            check_advance(now, time, draws.what, draws.negligible)
        self.serving = True
        self.engine.at(time, simpy.events.NORMAL, what, whom)

    def updated(self, job: tuple[Event, Decision, Collection[Message], float]) -> None:
        """Continue after the time that the server spends on an update."""
        event, decision, chosen, start = job
        assert self.update_starts is not None
        self.update_starts.append(start)
        self.serving = False
        self.serve(event, decision, chosen)
        self.serve_all()

    def time_out(self, tag: Hashable) -> None:
        """Handle a timer that has run out."""
        self.timeouts += 1
        self.check_idle()
        self.tell(Timeout(tag))

    def update(self, messages: Collection[Message]) -> None:
        """Make one update of these messages."""
        version, log = self.version, self.log
        for message in messages:
            self.gradients += message.steps
            log.update[message.number] = version
            if message.earlier is not None:
                log.note(log.update, message.earlier, version)
        if self.next_synchrony is not None:
            self.take_up(self.next_synchrony)
        self.version = version + 1
        self.update_times.append(self.engine.now)
        self.begun, self.timeouts = log.count, 0
        if self.version >= self.updates_left or self.gradients >= self.gradients_left:
            self.engine.end()  # after the cancellations of this update
            self.updates_left = self.gradients_left = math.inf
            self.spent = True
