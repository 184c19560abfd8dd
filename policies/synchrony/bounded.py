"""Bounded asynchrony: stale synchronous parallel."""

from __future__ import annotations

from stalegrad._core.specs import NonNegativeInt, spec
from stalegrad.policies.synchrony.base import WAIT, Decision, Server, Synchrony


@spec
class SSP(Synchrony):
    """Stale synchronous parallel: asynchronous, but nobody runs more than ``bound`` steps ahead of the slowest.

    A worker that has sent its c-th message may start the next one only while c - min_q c_q <= bound; until
    then it waits, and reads the version of the moment it is let go. bound = 0 lets nobody start a round
    before all have finished the last one (but applies each gradient as it comes).

    Reference: Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, 2013.
    """

    bound: NonNegativeInt

    def serve(self, workers: int) -> Server:
        """Apply every message; let those go who are not too far ahead."""
        clocks, parked = [0] * workers, set[int]()
        message = yield WAIT
        while True:
            clocks[message.worker] += 1
            parked.add(message.worker)
            slowest = min(clocks)
            free = sorted(w for w in parked if clocks[w] - slowest <= self.bound)
            parked.difference_update(free)
            message = yield Decision(apply=True, send=free)
