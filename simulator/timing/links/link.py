"""The links of one direction of a simulation: transfers, then latency."""

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
    """Return a function ``(worker, thing)`` that sends a thing on the link of a worker.

    Args:
        calendar: calendar of the engine.
        seed: seed of the run.
        name: ``uplink`` or ``downlink``.
        latency: latency of the links, in seconds.
        network: sizes and bandwidths; None if transfers take no time.
        ranks: ranks of the workers' events among the events of one instant.
        deliver: function that receives what arrives.
        dropped: function that returns whether a thing that has waited for its turn is no longer needed; it is then
            not transferred.
    """
    travels = Latency(calendar, seed, name, latency, ranks, deliver)
    if network is None or not network.limits(name):
        return travels.send
    return Transfers(calendar, seed, network, name, ranks, travels.send, dropped).send
