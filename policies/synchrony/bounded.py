"""Bounded asynchrony: stale synchronous parallel."""

from __future__ import annotations

from collections import Counter

from stalegrad._core.specs import NonNegativeInt, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import WAIT, Decision, Joined, Left, Received, ServerProgram


@spec
class SSP(Synchrony):
    """Stale synchronous parallel: asynchronous, but nobody runs more than ``bound`` steps ahead of the slowest.

    A worker that has sent its c-th message may start the next one only while c - min_q c_q <= bound; until
    then it waits, and reads the version of the moment it is let go. bound = 0 lets nobody start a round
    before all have finished the last one (but applies each gradient as it comes). Workers that have left hold up
    nobody; one that returns has sent as many as the slowest that is there.

    Args:
        bound: messages that the fastest worker may be ahead of the slowest.

    Reference: Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, 2013.
    """

    bound: NonNegativeInt

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message; let those go who are not too far ahead of the slowest that is there."""
        clocks, at, slowest = [0] * workers, Counter({0: workers}), 0
        there, waiting = set(range(workers)), set[int]()
        event = yield WAIT
        while True:
            worker, candidates = event.worker, waiting
            if isinstance(event, Received):
                waiting.add(worker)
                if worker in there:
                    at[clocks[worker]] -= 1
                    clocks[worker] += 1
                    at[clocks[worker]] += 1
                candidates = {worker}
            elif isinstance(event, Left) and worker in there:
                there.discard(worker)
                waiting.discard(worker)
                at[clocks[worker]] -= 1
            elif isinstance(event, Joined) and worker not in there:
                there.add(worker)
                clocks[worker] = slowest
                at[slowest] += 1
            if there and not at[slowest]:
                while not at[slowest]:
                    del at[slowest]
                    slowest += 1
                candidates = waiting
            free = sorted(w for w in candidates if clocks[w] - slowest <= self.bound)
            waiting.difference_update(free)
            event = yield Decision(apply=isinstance(event, Received), send=free)
