"""The links of one direction of a simulation, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stalegrad.simulator.timing.calendar import Call
from stalegrad.simulator.timing.links.latency import Latency
from stalegrad.simulator.timing.links.transfers import Transfers


class Engine(Protocol):
    """What is used of the engine."""

    cluster: Any
    now: float
    seed: int

    def at(self, delay: float, rank: float, what: Callable[[Any], None], whom: Any) -> Call:
        """Call ``what(whom)`` after ``delay`` seconds."""


def link(
    engine: Engine,
    name: str,
    rank: Callable[[int], float],
    deliver: Callable[[Any], None],
    dropped: Callable[[Any], bool],
) -> Callable[[int, Any], None] | None:
    """Return what sends a thing on the link of a worker; None if it would arrive at once.

    Args:
        engine: it has the cluster, the clock and the calendar.
        name: ``uplink`` or ``downlink``.
        rank: of a worker's events among those of one instant.
        deliver: takes what arrives.
        dropped: whether a thing that has waited for its turn is no longer to be transferred, and is forgotten.
    """
    network, latency = engine.cluster.network, getattr(engine.cluster, name)
    travels = Latency(engine, name, latency, rank, deliver)
    if network is None or not network.limits(name):
        return travels.send if latency else None
    return Transfers(engine, network, name, rank, travels.send, dropped).send
