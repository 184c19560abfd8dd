"""Bounded asynchrony: a bound on how far ahead a worker may be, or on staleness itself."""

from __future__ import annotations

from collections import Counter

from stalegrad._core.specs import NonNegativeInt, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import DISCARD, WAIT, Decision, Joined, Left, Received, ServerProgram


@spec
class SSP(Synchrony):
    """Stale synchronous parallel: asynchronous, but no worker runs more than ``bound`` steps ahead of the slowest.

    A worker that has sent its c-th message may start the next one only while c - min_q c_q <= bound; until
    then it waits, and reads the version of the moment it is let go. bound = 0 lets no worker start a round
    before all have finished the last one (but applies each gradient as it comes). Workers that have left hold up
    no worker; one that returns has sent as many as the slowest one present.

    Args:
        bound: messages that the fastest worker may be ahead of the slowest.

    Reference: Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, 2013.

    Example:
        >>> from stalegrad.policies import SSP
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 3.0]), SSP(1), updates=7)
        >>> trace.update_times.tolist()
        [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 9.0]
    """

    bound: NonNegativeInt

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message; let workers continue that are not too far ahead of the slowest one present."""
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


@spec
class BoundedStaleness(Synchrony):
    """Asynchronous, with a staleness of at most ``bound``: nothing is discarded, updates wait for slow workers.

    A message is held while an update would leave a worker that is computing more than ``bound`` versions behind;
    all that are held then make one update, and their workers read the new version. bound = 0 is fully
    synchronous; with ``bound`` no less than any staleness of ``async`` it is ``async``. Workers that have left
    hold up no worker; what they had sent by then is discarded if it comes too late.

    Args:
        bound: largest staleness, in updates.

    Reference: the bounded delay of Li et al., Scaling Distributed Machine Learning with the Parameter Server,
    OSDI 2014, as a bound on staleness instead of on unfinished tasks,
    https://www.usenix.org/conference/osdi14/technical-sessions/presentation/li_mu.

    Example:
        >>> from stalegrad.policies import BoundedStaleness
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 3.0]), BoundedStaleness(1), updates=4)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([1.0, 3.0, 4.0, 6.0], [0, 0, 1, 0, 0, 1])
    """

    bound: NonNegativeInt

    membership = True

    def serve(self, workers: int) -> ServerProgram:
        """Update with all that is held as soon as no worker is left too far behind."""
        read: dict[int, int] = dict.fromkeys(range(workers), 0)  # of who is computing: its version
        readers, oldest, version = Counter({0: workers}), 0, 0
        waiting = dict[int, None]()
        event = yield WAIT
        while True:
            worker = event.worker
            if isinstance(event, Received) and event.staleness > self.bound:
                event = yield DISCARD
                continue
            if worker in read and not (isinstance(event, Received) and event.read_version != read[worker]):
                readers[read.pop(worker)] -= 1
            if isinstance(event, Received):
                waiting[worker] = None
            elif isinstance(event, Joined):
                read[worker] = version
                readers[version] += 1
            while oldest < version and not readers[oldest]:
                del readers[oldest]
                oldest += 1
            if waiting and (not read or version + 1 - oldest <= self.bound):
                version += 1
                read |= dict.fromkeys(waiting, version)
                readers[version] += len(waiting)
                send, waiting = waiting, {}
                event = yield Decision(apply=True, send=send)
            else:
                event = yield WAIT
