"""The links of one direction of a simulation, put together."""

from __future__ import annotations

from collections.abc import Callable

from stalegrad.simulator.timing.calendar import Calendar, Ranks
from stalegrad.simulator.timing.links.latency import Latency, Seconds, Thing
from stalegrad.simulator.timing.links.network import Network
from stalegrad.simulator.timing.links.transfers import Transfers


def link(
    calendar: Calendar,
    seed: int,
    name: str,
    latency: Seconds,
    network: Network | None,
    ranks: Ranks,
    deliver: Callable[[Thing], None],
    dropped: Callable[[Thing], bool],
) -> Callable[[int, Thing], None]:
    """Return what sends a thing on the link of a worker.

    Args:
        calendar: of the engine.
        seed: of the run.
        name: ``uplink`` or ``downlink``.
        latency: of the links, in seconds.
        network: sizes and bandwidths, if any.
        ranks: of the workers' events among those of one instant.
        deliver: takes what arrives.
        dropped: whether a thing that has waited for its turn is no longer to be transferred, and is forgotten.
    """
    travels = Latency(calendar, seed, name, latency, ranks, deliver)
    if network is None or not network.limits(name):
        return travels.send
    return Transfers(calendar, seed, network, name, ranks, travels.send, dropped).send
