"""Transfers of messages and models over links and a server of limited bandwidth."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Generic

from stalegrad.simulator.timing.calendar import Calendar, Ranks
from stalegrad.simulator.timing.clock import check_advance
from stalegrad.simulator.timing.links.latency import Thing
from stalegrad.simulator.timing.links.network import Network
from stalegrad.simulator.timing.links.sharing import Limits, Separate, sharing_of
from stalegrad.simulator.timing.streams import Draws, Purpose


class Transfers(Generic[Thing]):
    """The transfers of one direction. Each link, or with ``fifo`` the server, transfers one thing at a time.

    Args:
        calendar: calendar of the engine.
        seed: seed of the run.
        network: network whose sizes are known.
        name: ``uplink`` or ``downlink``.
        ranks: ranks of the workers' events among the events of one instant.
        onward: function that receives a worker and the thing that has been transferred.
        dropped: function that returns whether a thing that has waited for its turn is no longer needed; it is then
            not transferred.

    Attributes:
        lines: queue for the link of each worker, first in, first out, beginning with the thing in transfer; with
            ``fifo``, one queue for all.
    """

    def __init__(
        self,
        calendar: Calendar,
        seed: int,
        network: Network,
        name: str,
        ranks: Ranks,
        onward: Callable[[int, Thing], None],
        dropped: Callable[[Thing], bool],
    ) -> None:
        self.calendar, self.seed, self.onward, self.dropped = calendar, seed, onward, dropped
        if name == "uplink":
            self.purpose, limits, capacity = Purpose.MESSAGE_BYTES, network.upload, network.ingress
            self.size = network.message_bytes
        else:
            self.purpose, limits, capacity = Purpose.MODEL_BYTES, network.download, network.egress
            self.size = network.message_bytes if network.model_bytes is None else network.model_bytes
        self.limits: Limits = math.inf if limits is None else limits
        self.capacity: float = math.inf if capacity is None else capacity
        self.one_line = network.sharing == "fifo" and capacity is not None
        kind = Separate if self.one_line else sharing_of(self.limits, self.capacity)
        self.sharing = kind(calendar, self.limits, self.capacity, ranks, self.end)
        self.draws: dict[int, Draws] = {}
        self.lines: dict[int, deque[tuple[int, Thing]]] = defaultdict(deque)

    def send(self, worker: int, thing: Thing) -> None:
        """Transfer a thing when its turn comes."""
        line = self.lines[0 if self.one_line else worker]
        line.append((worker, thing))
        if len(line) == 1:
            self.begin(worker)

    def begin(self, worker: int) -> None:
        """Begin the transfer of the first thing in a worker's queue."""
        draws = self.draws.get(worker) or self._draws_of(worker)
        now, size = self.calendar.now, draws.next()
        limit = self.limits[worker] if isinstance(self.limits, tuple) else self.limits
        fastest = min(limit, self.capacity)
        if not now < now + size / fastest < math.inf:
            check_advance(now, size / fastest, f"time of {draws.what}", draws.negligible / fastest)
        self.sharing.start(worker, size)

    def end(self, worker: int) -> None:
        """Begin the next transfer of a queue after one has ended, and pass the transferred thing on."""
        line = self.lines[0 if self.one_line else worker]
        _, thing = line.popleft()
        while line and self.dropped(line[0][1]):
            line.popleft()
        if line:
            self.begin(line[0][0])
        self.onward(worker, thing)

    def _draws_of(self, worker: int) -> Draws:
        what = f"{self.purpose.name.lower()} of worker {worker}"
        self.draws[worker] = Draws(self.size, self.seed, self.purpose, worker, what)
        return self.draws[worker]
