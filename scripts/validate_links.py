"""Compare links and servers with queueing theory: a section of validate_theory.py, printed as Markdown.

python scripts/validate_links.py
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from stalegrad.policies import Async
from stalegrad.simulator import Cluster, Delay, Deterministic, Exponential, HyperExponential, Network, simulate

SEED = 2019
UPDATES = 200_000
CROWDS = (1, 4, 16, 64)
DEMAND = 0.1
"""Seconds that a single message needs of the shared server: bytes / capacity."""
UP, DOWN = 0.2, 0.3
"""Latencies of links, in seconds."""
HYPER = HyperExponential((0.7, 0.3), (0.4, 2.4))
"""A delay of mean 1 and coefficient of variation 1.64."""
WITHIN = 0.01

FIXED, RANDOM = Deterministic(DEMAND), Exponential(DEMAND)
CASES: dict[str, tuple[Delay, Delay, str]] = {
    "fair; exponential compute, fixed bytes": (Exponential(1.0), FIXED, "fair"),
    "fair; hyper-exponential compute, fixed bytes": (HYPER, FIXED, "fair"),
    "fair; deterministic compute, exponential bytes": (Deterministic(1.0), RANDOM, "fair"),
    "fifo; exponential compute, exponential bytes": (Exponential(1.0), RANDOM, "fifo"),
    "fifo; deterministic compute, exponential bytes": (Deterministic(1.0), RANDOM, "fifo"),
}
SERVERS = {"server": "fifo; exponential time per message", "server_update": "fifo; exponential time per update"}


class Check(NamedTuple):
    """A throughput in gradients per second, by theory and simulated, and the mean staleness minus N - 1."""

    what: str
    workers: int
    theory: float
    found: float
    staleness: float

    @property
    def holds(self) -> bool:
        return abs(self.found / self.theory - 1) <= WITHIN and abs(self.staleness) <= WITHIN


def mean_value(workers: int, delay: float, demand: float) -> float:
    """Return the throughput of a closed network of a delay and one queue, by exact mean value analysis.

    Reference: Reiser and Lavenberg, Mean-Value Analysis of Closed Multichain Queuing Networks, Journal of the ACM
    1980, https://doi.org/10.1145/322186.322195.
    """
    queue = rate = 0.0
    for n in range(1, workers + 1):
        response = demand * (1 + queue)
        rate = n / (delay + response)
        queue = rate * response
    return rate


def check(what: str, cluster: Cluster, theory: float, updates: int = UPDATES) -> Check:
    trace = simulate(cluster, Async(), updates=updates, seed=SEED)
    settled = trace.staleness[10 * cluster.size :]  # without the first versions, which follow fewer messages
    return Check(what, cluster.size, theory, updates / trace.end, float(settled.mean()) - (cluster.size - 1))


def checks() -> Iterator[Check]:
    for what, (compute, size, sharing) in CASES.items():
        for workers in CROWDS:
            network = Network(size, ingress=1.0, sharing=sharing)  # type: ignore[arg-type]
            cluster = Cluster(workers, compute, uplink=UP, downlink=DOWN, network=network)
            yield check(what, cluster, mean_value(workers, 1.0 + UP + DOWN, DEMAND))
    for name, what in SERVERS.items():
        for workers in CROWDS:
            cluster = Cluster(workers, Exponential(1.0), uplink=UP, downlink=DOWN, **{name: RANDOM})
            yield check(what, cluster, mean_value(workers, 1.0 + UP + DOWN, DEMAND))
    for workers in CROWDS:
        cluster = Cluster(workers, 1.0, uplink=UP, downlink=DOWN, network=Network(DEMAND, ingress=1.0))
        together = workers / (1.0 + UP + DOWN + workers * DEMAND)
        yield check("fair; all deterministic: N / (Z + N D)", cluster, together, 20_000)


def links_section() -> tuple[list[str], bool]:
    """Return the table, and whether throughputs are within 1 % of theory and staleness within 0.01."""
    found = list(checks())
    lines = [
        "### Links and servers that take time",
        "",
        f"Async, {UPDATES:,} updates: N workers, Z = 1 s computing + {UP} s up + {DOWN} s down, D = {DEMAND} s",
        "per message at the shared server. Gradients per second are compared with exact mean value analysis of",
        "the closed network; a difference of 1 % is allowed. The last column is the mean staleness minus N - 1;",
        "0.01 is allowed.",
        "",
        "| shared resource; times | N | theory | found | difference | staleness |",
        "|---|---|---|---|---|---|",
        *(
            f"| {c.what} | {c.workers} | {c.theory:.4f} | {c.found:.4f} | {100 * (c.found / c.theory - 1):+.2f} % "
            f"| {c.staleness:+.4f} |"
            for c in found
        ),
    ]
    return [*lines, ""], all(c.holds for c in found)


def main() -> int:
    lines, holds = links_section()
    print("\n".join(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
