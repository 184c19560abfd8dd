"""The discrete-event engine: SimPy decides when every gradient is read, finished, received and applied.

Nothing here knows an algorithm by name. A worker's life is the generator ``Worker.live`` of ``worker.py``; what
the server does about a message is the synchrony's :class:`~stalegrad.policies.synchrony.Decision`.

Ties: what happens to workers at one and the same instant (float64) happens in the order of their indices.
"""

from __future__ import annotations

import math
from typing import Any

import simpy

from stalegrad._core.specs import Seed, changed_fields, validate
from stalegrad.policies.synchrony import Decision, Synchrony
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.clock import check_advance, no_full_collections, reach
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import Fate
from stalegrad.simulator.timing.trace import Message, Trace
from stalegrad.simulator.timing.worker import Collector, Process, Worker

_WORKER_RANK = 2
"""Worker i's events have SimPy priority 2 + i: after everything else of that instant, lowest index first."""
_LAST = math.inf


def simulate(
    cluster: Cluster,
    synchrony: Synchrony,
    *,
    updates: int | None = None,
    wallclock: float | None = None,
    gradients: int | None = None,
    seed: int = 0,
) -> Trace:
    """Simulate the timing of a run: no model, no gradients, no JAX.

    Args:
        cluster: the workers and their server.
        synchrony: who waits for whom, e.g. ``KAsync(4)``.
        updates: stop after this number of server updates.
        wallclock: keep the updates up to this time in simulated seconds, up to rounding (see
            :class:`~stalegrad.simulator.timing.budget.Budget`).
        gradients: stop after the first update with at least this number of used mini-batch gradients in all.
        seed: 0 to 2^64 - 1; every random stream is spawned from it.

    Returns:
        The trace: one row per message, one per update. It passes :meth:`Trace.verify`.

    Raises:
        ValueError: unless exactly one budget is given and is positive; if the synchrony cannot work with
            this cluster; if a delay draws a negative or non-finite time; as soon as the clock would no longer
            advance or overflow (see :class:`~stalegrad.simulator.timing.cluster.Cluster`).
    """
    budget = Budget(updates=updates, wallclock=wallclock, gradients=gradients)
    synchrony.check(cluster.size)
    seed = validate("seed", Seed, seed)
    return Engine(cluster, synchrony, seed).run(budget)


class Engine:
    """The server and its workers in one SimPy environment."""

    def __init__(self, cluster: Cluster, synchrony: Synchrony, seed: int) -> None:
        self.cluster, self.synchrony, self.seed = cluster, synchrony, seed
        self.env = simpy.Environment()
        self.done = simpy.Event(self.env)
        self.turn = simpy.Resource(self.env)
        self.open: set[Message] = set()
        # In the order in which messages are begun; of one that is closed its row.
        self.rows: list[Message | tuple[Any, ...]] = []
        self.kept: list[Message] = []
        self.on_the_way: list[int] = []
        self.update_times: list[float] = []
        self.version = 0
        self.gradients = 0
        self.updates_left, self.gradients_left = math.inf, math.inf
        self.k = getattr(synchrony, "k", 0)
        changing = getattr(synchrony, "serve_changing", None)
        self.state_machine = changing(cluster.size, lambda: self.k) if changing else synchrony.serve(cluster.size)
        next(self.state_machine)
        members = synchrony.members(cluster.size)
        kind = Collector if synchrony.collects else Worker
        self.workers = [kind(self, index) for index in members]
        self.collectors = [worker for worker in self.workers if isinstance(worker, Collector)]
        self.asked = -1
        self.seen = 0.0

    def run(self, budget: Budget) -> Trace:
        """Run until the budget is spent."""
        self.start(budget)
        with no_full_collections():
            try:
                self.env.run(until=self.done)
            except RuntimeError:
                self.check_going_on()
                raise
        return self.trace()

    def start(self, budget: Budget) -> None:
        """Set the budget that ends the run."""
        self.budget = budget
        self.updates_left = budget.updates or math.inf
        self.gradients_left = budget.gradients or math.inf
        if budget.wallclock is not None:
            last = reach(budget.wallclock)
            self.env.schedule(_occurred(self.done), _LAST, last)  # type: ignore[arg-type]

    def advance(self, wallclock: float) -> bool:
        """Go on to that moment, its own events included (those of a budget's end); tell if the budget is spent."""
        last = reach(wallclock)
        with no_full_collections():
            while not self.done.processed and self.env.peek() <= last:
                self.env.step()
        self.check_going_on()
        spent = bool(self.done.processed)
        self.seen = self.env.now if spent else wallclock
        return spent

    def check_going_on(self) -> None:
        """Raise ValueError if the budget is not spent and nothing will ever happen again."""
        if not self.done.processed and self.env.peek() == math.inf:
            name, now = self.synchrony.name, self.env.now
            raise ValueError(f"synchrony {name!r} stands still at {now!r} s: every worker waits") from None

    def change_k(self, k: int) -> None:
        """Let the synchrony's k be another one from the next update on."""
        self.k = k

    def trace(self) -> Trace:
        """Return the trace of the events so far."""
        end = max(self.env.now, self.seen)
        if self.budget.wallclock is not None:
            end = min(end, self.budget.wallclock)
        if self.update_times:
            end = max(end, self.update_times[-1])  # later than the budget by rounding
        rows = [
            row.row(Fate.PENDING) if isinstance(row, Message) else row
            for row in self.rows
            if not isinstance(row, Message) or row.read_time < end
        ]
        return Trace.of(
            rows,
            self.update_times,
            workers=self.cluster.size,
            end=end,
            spec=self.describe(self.budget),
        )

    def live_versions(self) -> set[int]:
        """Return the versions that may still be read: the current one, and those held or on their way down."""
        held = {worker.version for worker in self.workers if worker.version is not None}
        return {self.version} | held | {m.read_version for m in self.open} | set(self.on_the_way)

    def describe(self, budget: Budget) -> dict[str, Any]:
        """Return the spec of the trace; of a cluster with delays of this process only, its number of workers."""
        try:
            cluster: Any = self.cluster.table()
        except ValueError:
            cluster = f"{self.cluster.size} workers with delays of another process"
        synchrony = {"name": self.synchrony.name, **changed_fields(self.synchrony)}
        return {"cluster": cluster, "synchrony": synchrony, "seed": self.seed, **changed_fields(budget)}

    def close(self, message: Message, fate: Fate, update: int = -1) -> None:
        """Write down what became of a message."""
        self.open.discard(message)
        self.rows[message.number] = message.row(fate, update)

    def begin(self, worker: int, version: int, steps: int) -> Message:
        """Write down that a worker begins a message."""
        message = Message(len(self.rows), worker, version, self.env.now, steps)
        self.open.add(message)
        self.rows.append(message)
        return message

    def after(self, delay: float, worker: int) -> simpy.Event:
        """Return an event of that worker, ``delay`` seconds from now, that obeys the rule for ties."""
        event = _occurred(simpy.Event(self.env))
        self.env.schedule(event, _WORKER_RANK + worker, delay)  # type: ignore[arg-type]
        return event

    def receive(self, message: Message, *more: Message) -> Process:
        """Carry a message (or several as one) up, wait for the server's turn, and handle it."""
        if self.cluster.uplink:
            check_advance(self.env.now, self.cluster.uplink, "uplink of cluster")
            yield self.after(self.cluster.uplink, message.worker)
        for each in (message, *more):
            each.receive_time = self.env.now
        with self.turn.request() as turn:
            yield turn
            decision = self.state_machine.send(message)
            if decision.keep:  # what is not kept is dropped by its version, without work
                check_advance(self.env.now, self.cluster.server, "server of cluster")
                yield self.env.timeout(self.cluster.server)
            self.kept.extend(more)
            self.carry_out(decision, message)

    def receive_at_once(self, message: Message) -> None:
        """Handle a message where neither link nor server takes time."""
        message.receive_time = self.env.now
        self.carry_out(self.state_machine.send(message), message)

    def ask(self) -> None:
        """Ask the workers for what they have collected, once a version, as soon as all have something."""
        if self.asked < self.version and all(worker.collected for worker in self.collectors):
            self.asked = self.version
            for worker in self.collectors:
                if worker.answer is not None:
                    worker.release()

    def carry_out(self, decision: Decision, message: Message) -> None:
        """Carry out a decision of the synchrony."""
        if decision.keep:
            self.kept.append(message)
        else:
            self.close(message, Fate.DISCARDED)
        if decision.apply:
            self.update()
        for worker in decision.send:
            self.send(self.workers[worker])
        if decision.apply and self.collectors:
            self.ask()

    def update(self) -> None:
        """Make one update out of the messages kept."""
        for message in self.kept:
            self.close(message, Fate.USED, self.version)
            self.gradients += message.steps
        self.kept.clear()
        self.version += 1
        self.update_times.append(self.env.now)
        if self.version >= self.updates_left or self.gradients >= self.gradients_left:
            self.env.schedule(_occurred(self.done))  # after the cancellations of this update, before new jobs
            self.updates_left = self.gradients_left = math.inf

    def send(self, worker: Worker) -> None:
        """Send the current version to a worker (one that has not joined gets it when it does)."""
        if worker.version is None:
            return
        if self.cluster.downlink:
            self.env.process(self.download(worker, self.version))
        else:
            worker.take(self.version)

    def download(self, worker: Worker, version: int) -> Process:
        """Carry a model down to a worker."""
        self.on_the_way.append(version)
        check_advance(self.env.now, self.cluster.downlink, "downlink of cluster")
        yield self.env.timeout(self.cluster.downlink)
        self.on_the_way.remove(version)
        worker.take(version)


def _occurred(event: simpy.Event) -> simpy.Event:
    """Mark an event as having its outcome, so that it can be put on the calendar with any priority."""
    event._ok, event._value = True, None
    return event
