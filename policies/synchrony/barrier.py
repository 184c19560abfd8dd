"""A barrier that every worker that is present must reach."""

from __future__ import annotations

from stalegrad.policies.synchrony.programs import Announced, Joined, Left, Received


class Barrier:
    """The workers that have arrived at a barrier, and how many of those present have not.

    Every worker counts as present until it leaves: one that has not joined yet is waited for. One that
    has arrived and left counts; one that returns is waited for, unless it has arrived already.

    Attributes:
        arrived: the workers that have arrived.
        missing: how many are there and have not.
    """

    def __init__(self, workers: int) -> None:
        self.there, self.arrived, self.missing = set(range(workers)), set[int](), workers

    @property
    def passed(self) -> bool:
        """Whether every worker that is present has arrived, and at least one has."""
        return not self.missing and bool(self.arrived)

    def note(self, event: Received | Announced | Joined | Left) -> bool:
        """Record an event, and return whether the barrier is passed: any but these two is an arrival."""
        worker = event.worker
        if isinstance(event, Joined):
            if worker not in self.there:
                self.there.add(worker)
                self.missing += worker not in self.arrived
        elif isinstance(event, Left):
            if worker in self.there:
                self.there.discard(worker)
                self.missing -= worker not in self.arrived
        elif worker not in self.arrived:
            self.arrived.add(worker)
            self.missing -= worker in self.there
        return self.passed

    def renew(self) -> None:
        """Let every worker start again."""
        self.arrived.clear()
        self.missing = len(self.there)
