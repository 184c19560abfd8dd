"""The discrete-event engine: SimPy decides when every gradient is read, finished, received and applied.

No algorithm is named here. A worker executes its program (``worker.py``). The server executes the
:class:`~stalegrad.policies.synchrony.Decision` of the server program about each event (``server.py``).

Ties: workers' events of one instant (equal float64 times) happen in the order of the workers' indices; then follow
departures, timeouts, returns and the end of the budget.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import simpy

from stalegrad._core.specs import Seed, changed_fields, validate
from stalegrad.policies.synchrony import Synchrony
from stalegrad.simulator.timing import blocks
from stalegrad.simulator.timing.attendance import Attendance
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.calendar import DOWNLOAD_RANKS, LAST_RANK, UPLOAD_RANKS, WORKER_RANK, Call
from stalegrad.simulator.timing.clock import no_full_collections, reach
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.links import link
from stalegrad.simulator.timing.log import Log, Message
from stalegrad.simulator.timing.server import Server
from stalegrad.simulator.timing.shortage import check_records
from stalegrad.simulator.timing.trace import Trace
from stalegrad.simulator.timing.worker import Worker


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
        updates: number of server updates after which the run ends.
        wallclock: simulated seconds after which the run ends; updates up to this time are kept, up to rounding
            (see :class:`~stalegrad.simulator.timing.budget.Budget`).
        gradients: number of used mini-batch gradients in all; the first update that reaches it ends the run.
        seed: 0 to 2^64 - 1; every random stream is spawned from it.

    Returns:
        The trace: one row per message, one per update. It passes :meth:`Trace.verify`.

    Raises:
        ValueError: unless exactly one budget is given and is positive; if the synchrony cannot work with
            this cluster; if a delay draws a negative or non-finite time; if a record ends (before the simulation,
            if the budget shows it); if the clock would not advance, or would overflow (see
            :class:`~stalegrad.simulator.timing.cluster.Cluster`).

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 1.5, 4.0]), sg.KAsync(2), updates=3)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([1.5, 3.0, 4.0], [0, 0, 0, 0, 0, 2])
    """
    budget = Budget(updates=updates, wallclock=wallclock, gradients=gradients)
    synchrony.check(cluster.size)
    seed = validate("seed", Seed, seed)
    in_blocks = blocks.run(cluster, synchrony, budget, seed)
    if in_blocks is None:
        return Engine(cluster, synchrony, budget, seed).run()
    spec = describe(cluster, synchrony, budget, seed)
    return Trace.of(in_blocks.columns, in_blocks.update_times, workers=cluster.size, end=in_blocks.end, spec=spec)


class Engine:
    """The server, its workers and the links between them in one SimPy environment.

    Attributes:
        now: simulated time in seconds.
        instant: whether messages take no time from the worker to the end of the server's work.
        messages_travel: whether the transfer of a message to the server takes time.
        send_up: function that transfers a message to the server.
        send_down: function that transfers a model to a worker.
    """

    def __init__(self, cluster: Cluster, synchrony: Synchrony, budget: Budget, seed: int) -> None:
        check_records(cluster, synchrony, budget)
        if cluster.network is not None:
            cluster.network.check_sizes()
        self.cluster, self.synchrony, self.budget, self.seed = cluster, synchrony, budget, seed
        self.env = simpy.Environment(0.0)
        self.done = simpy.Event(self.env)
        self.now = self.seen = 0.0
        self.log = Log()
        self.downloads = Counter[int]()
        self.on_call = (self.occur,)
        self.workers: dict[int, Worker] = {}
        self.server = Server(self, synchrony, budget)
        self.send_up = link(
            self, seed, "uplink", cluster.uplink, cluster.network,
            UPLOAD_RANKS, self.server.tell, lambda message: False,
        )  # fmt: skip
        self.send_down = link(
            self, seed, "downlink", cluster.downlink, cluster.network,
            DOWNLOAD_RANKS, self.arrive, self.superfluous,
        )  # fmt: skip
        self.messages_travel = cluster.travels("uplink")
        self.instant = not self.messages_travel and not cluster.server and not cluster.server_update
        self.attendance = None if cluster.availability is None else Attendance(self)
        self.started = self.waits = False

    def run(self) -> Trace:
        """Run until the budget is spent."""
        with no_full_collections():
            self.start()
            try:
                self.env.run(until=self.done)
            except RuntimeError as error:
                if "No scheduled events left" not in str(error):  # SimPy's words
                    raise
                self.check_going_on()
        return self.trace()

    def start(self) -> None:
        """Let every worker join at its time."""
        self.started = True
        if self.budget.wallclock is not None:
            self.end(LAST_RANK, reach(self.budget.wallclock))
        for index in range(self.cluster.size):
            self.workers[index] = Worker(self, self.server, self.log, index)
        if self.attendance is not None:
            self.attendance.start()
            return
        for worker in self.workers.values():
            join_time = self.cluster.join_time(self.seed, worker.index)
            if join_time:
                self.at(join_time, WORKER_RANK + worker.index, worker.join, None)
            else:
                worker.join()

    def advance(self, wallclock: float) -> bool:
        """Simulate up to a time, inclusive, or to the end of the budget; return whether the run has ended."""
        last = reach(wallclock)
        with no_full_collections():
            if not self.started:
                self.start()
            while not self.done.processed and self.env.peek() <= last:
                self.env.step()
        spent = bool(self.done.processed) or self.check_going_on()
        self.seen = self.env.now if spent else wallclock
        return spent

    def check_going_on(self) -> bool:
        """Return whether the run ends before its budget is spent, because it waits for workers that never return.

        Raises:
            ValueError: if no event is left and no worker is absent.
        """
        if self.done.processed or self.env.peek() < math.inf:
            return False
        if self.attendance is not None and self.attendance.open:
            self.waits = True
            return True
        name, now = self.server.synchrony.name, self.env.now
        raise ValueError(f"synchrony {name!r} stands still at {now!r} s: every worker waits or has left") from None

    def trace(self) -> Trace:
        """Return the trace of the events so far."""
        end, update_times = max(self.env.now, self.seen), self.server.update_times
        if self.budget.wallclock is not None:
            end = min(end, self.budget.wallclock)
        if update_times:
            end = max(end, update_times[-1])  # later than the budget by rounding
        spec = describe(self.cluster, self.synchrony, self.budget, self.seed)
        if self.waits:
            spec["ended"] = "waiting for absent workers"
        absences = None if self.attendance is None else self.attendance.columns(end)
        return Trace.of(
            self.log.columns(end), update_times, workers=self.cluster.size, end=end, spec=spec, absences=absences,
            update_starts=self.server.update_starts,
        )  # fmt: skip

    def live_versions(self) -> set[int]:
        """Return the versions that may still be read: the current one, and those held or in transit."""
        held = {worker.version for worker in self.workers.values() if worker.present}
        pending = {self.log.read_version[number] for number in self.log.pending()}
        return {self.server.version} | held | pending | set(self.downloads)

    # The calendar

    def at(self, delay: float, rank: float, what: Callable[[Any], None], whom: Any) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds; ``rank`` orders the events of that instant."""
        call = Call(self.on_call, what, whom)
        self.env.schedule(call, rank, delay)  # type: ignore[arg-type]
        return call

    def occur(self, call: Call) -> None:
        """Set the clock and make a call whose time has come."""
        self.now = self.env.now
        call.what(call.whom)

    def end(self, rank: float = simpy.events.NORMAL, delay: float = 0.0) -> None:
        """End the run after ``delay`` seconds."""
        self.done._ok, self.done._value = True, None
        self.env.schedule(self.done, rank, delay)  # type: ignore[arg-type]

    # Links

    def upload(self, message: Message) -> None:
        """Transfer messages that were sent as one upload to the server."""
        if self.messages_travel:
            self.send_up(message.worker, message)
        else:
            self.server.tell(message)

    def download(self, worker: Worker, version: int, cancel: bool) -> None:
        """Transfer a model to a worker."""
        self.downloads[version] += 1
        self.send_down(worker.index, (worker, worker.stay, version, cancel))

    def arrive(self, model: tuple[Worker, int, int, bool]) -> None:
        """Deliver a model to a worker, unless the worker has left meanwhile."""
        worker, stay, version, cancel = model
        self.downloads[version] -= 1
        if not self.downloads[version]:
            del self.downloads[version]
        if worker.present and worker.stay == stay:
            worker.take(version, cancel)

    def superfluous(self, model: tuple[Worker, int, int, bool]) -> bool:
        """Return whether a model that has waited for its link is no longer needed, because its worker has left."""
        worker, stay, *_ = model
        if worker.stay == stay:
            return False
        self.arrive(model)
        return True

    def departed(self, worker: Worker) -> None:
        """Let a worker leave that has finished its last job first."""
        assert self.attendance is not None
        self.attendance.departed(worker)


def describe(cluster: Cluster, synchrony: Synchrony, budget: Budget, seed: int) -> dict[str, Any]:
    """Return the spec of a trace; a cluster with delays of this process only is replaced by a short text."""
    try:
        table: Any = cluster.table()
    except ValueError:
        table = f"{cluster.size} workers with delays of another process"
    settings = {"name": synchrony.name, **changed_fields(synchrony)}
    return {"cluster": table, "synchrony": settings, "seed": seed, **changed_fields(budget)}
