"""Departures and returns of workers during a simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from stalegrad.policies.synchrony import Left
from stalegrad.simulator.timing.calendar import DEPARTURE_RANK, RETURN_RANK, Calendar
from stalegrad.simulator.timing.clock import check_advance
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.server import Server
from stalegrad.simulator.timing.worker import Worker


class Engine(Calendar, Protocol):
    """The part of the engine that is used here."""

    cluster: Cluster
    workers: dict[int, Worker]
    server: Server
    seed: int


class Attendance:
    """The attendance of a cluster with availability: departures and returns of workers, and a list of absences.

    Attributes:
        absences: worker, departure and return (NaN: not yet), in the order of departures.
        open: position in that list of the current absence of each absent worker.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.drains = engine.cluster.availability.departure == "delivered"
        self.absences: list[tuple[int, float, float]] = []
        self.open: dict[int, int] = {}
        self.changes: dict[int, Iterator[float]] = {}

    def start(self) -> None:
        """Let the workers that are present at the start join."""
        engine, there = self.engine, []
        for index, worker in engine.workers.items():
            at_start, self.changes[index] = engine.cluster.presence(engine.seed, index)
            if at_start:
                there.append(worker)
            else:
                self.absent(index)
                if engine.server.membership:
                    engine.server.tell(Left(index))
            self.await_change(index, at_start)
        for worker in there:
            worker.join()

    def await_change(self, index: int, there: bool) -> None:
        """Put a worker's next departure or return on the calendar."""
        time, now = next(self.changes[index], math.inf), self.engine.now
        if time == math.inf:
            return
        check_advance(now, time - now, f"availability of worker {index}")
        delay = time - now
        delay += time - (now + delay)  # now + delay is then the time, or in 1 % of cases a neighbour of it
        rank, what = (DEPARTURE_RANK, self.depart) if there else (RETURN_RANK, self.come_back)
        self.engine.at(delay, rank + index, what, index)

    def depart(self, index: int) -> None:
        """Let a worker leave, after its current job where departures are graceful."""
        worker = self.engine.workers[index]
        if self.drains and worker.job is not None:
            worker.draining = True
        else:
            self.departed(worker)
        self.await_change(index, there=False)

    def departed(self, worker: Worker) -> None:
        """Let a worker leave now."""
        self.absent(worker.index)
        worker.depart(deliver=self.drains)

    def come_back(self, index: int) -> None:
        """Let a worker return; a worker that is still at its last job stays."""
        worker = self.engine.workers[index]
        if worker.draining:
            worker.draining = False
        else:
            _, departure, _ = self.absences[at := self.open.pop(index)]
            self.absences[at] = index, departure, self.engine.now
            if not self.engine.server.spent:
                worker.join()
        self.await_change(index, there=True)

    def absent(self, index: int) -> None:
        """Record that a worker is absent from now on."""
        self.open[index] = len(self.absences)
        self.absences.append((index, self.engine.now, math.nan))

    def columns(self, end: float) -> dict[str, Any]:
        """Return the columns of the absences that have begun by the end."""
        worker, leave, back = np.array(self.absences, float).reshape(-1, 3).T
        kept = leave <= end
        back = np.where(back <= end, back, math.nan)
        return {"worker": worker[kept].astype(np.int32), "leave_time": leave[kept], "return_time": back[kept]}
