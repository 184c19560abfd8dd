"""The links of one direction of a simulation, put together."""

from __future__ import annotations

from collections.abc import Callable

from stalegrad.simulator.timing.calendar import Calendar
from stalegrad.simulator.timing.links.latency import Latency, Seconds, Thing
from stalegrad.simulator.timing.links.network import Network
from stalegrad.simulator.timing.links.transfers import Transfers


def link(
    calendar: Calendar,
    seed: int,
    name: str,
    latency: Seconds,
    network: Network | None,
    rank: Callable[[int], float],
    deliver: Callable[[Thing], None],
    dropped: Callable[[Thing], bool],
) -> Callable[[int, Thing], None] | None:
    """Return what sends a thing on the link of a worker; None if it would arrive at once.

    Args:
        calendar: of the engine.
        seed: of the run.
        name: ``uplink`` or ``downlink``.
        latency: of the links, in seconds.
        network: sizes and bandwidths, if any.
        rank: of a worker's events among those of one instant.
        deliver: takes what arrives.
        dropped: whether a thing that has waited for its turn is no longer to be transferred, and is forgotten.
    """
    travels = Latency(calendar, seed, name, latency, rank, deliver)
    if network is None or not network.limits(name):
        return travels.send if latency else None
    return Transfers(calendar, seed, network, name, rank, travels.send, dropped).send
