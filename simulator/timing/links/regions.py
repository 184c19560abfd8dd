"""Measured links between regions of a cloud."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from stalegrad._core.specs import unknown_name
from stalegrad._core.types import Table

if TYPE_CHECKING:
    from stalegrad.simulator.timing.links.network import Rate


class Pair(NamedTuple):
    """A link between two regions.

    Attributes:
        latency: latency in one direction, in seconds.
        bandwidth: bandwidth, in bytes per second.
    """

    latency: float
    bandwidth: float


@functools.cache
def pairs() -> Mapping[tuple[str, str], Pair]:
    """Return the links between all regions, in both directions and within a region."""
    file = importlib.resources.files(__package__) / "data" / "aws-regions.csv"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found: dict[tuple[str, str], Pair] = {}
    for row in csv.DictReader(lines):
        link = _pair(float(row["latency_ms"]), float(row["gbit_per_s"]))
        found |= {(row["a"], row["b"]): link, (row["b"], row["a"]): link}
    return MappingProxyType(found | {(name, name): _pair(10.0, 2.0) for name, _ in found})


def _pair(round_trip: float, bandwidth: float) -> Pair:
    """Return a link from its round trip in ms and its bandwidth in Gbit/s."""
    return Pair(round_trip / 2e3, bandwidth * 1e9 / 8)


def regions() -> tuple[str, ...]:
    """Return the names of all regions."""
    return tuple(dict.fromkeys(name for name, _ in pairs()))


def between_regions(workers: Sequence[str], server: str, **network: Rate) -> Table:
    """Return the arguments of :class:`Cluster` for workers and a server in regions of AWS.

    Latencies are half of the measured round trips; the bandwidth is that of a worker's link, in each direction.
    Within a region a round trip takes 10 ms and the bandwidth is 2 Gbit/s, as the authors assume.

    Args:
        workers: region of each worker: ``Oregon``, ``Virginia``, ``Ohio``, ``Tokyo``, ``Seoul``,
            ``Singapore``, ``Sydney``, ``London``, ``Frankfurt`` or ``Ireland``.
        server: region of the server.
        **network: other arguments of :class:`Network`: ``message_bytes``, ``ingress`` and so on.

    Raises:
        ValueError: for an unknown region, with a suggestion, or for a wrong argument of :class:`Network`.

    Reference: Yuan et al., Decentralized Training of Foundation Models in Heterogeneous Environments, NeurIPS
    2022, https://arxiv.org/abs/2206.01288; the table is under the MIT licence.

    Example:
        >>> from stalegrad.simulator import Cluster, Exponential, between_regions
        >>> links = between_regions(["Oregon", "Ohio", "Virginia"], server="Virginia", message_bytes=4e6)
        >>> cluster = Cluster(compute=Exponential(1.0), **links)
        >>> cluster.uplink, [rate / 1e6 for rate in cluster.network.upload]  # s, MB/s
        ((0.0335, 0.0055, 0.005), [98.75, 140.0, 250.0])
    """
    from stalegrad.simulator.timing.links.network import Network

    if isinstance(workers, str):
        raise ValueError(f"workers = {workers!r:.60} is not allowed: give a list of one region per worker")
    for where, name in [*((f"worker {i}", name) for i, name in enumerate(workers)), ("the server", server)]:
        if name not in regions():
            raise ValueError(f"region of {where}: {unknown_name('region', name, regions())}")
    links = [pairs()[name, server] for name in workers]
    latencies, bandwidths = [link.latency for link in links], [link.bandwidth for link in links]
    network.setdefault("message_bytes", None)
    return {
        "uplink": latencies,
        "downlink": latencies,
        "network": Network(upload=bandwidths, download=bandwidths, **network),
    }
