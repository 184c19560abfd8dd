"""A check before the simulation: whether recorded times suffice for the budget."""

from __future__ import annotations

import math

from stalegrad.policies.synchrony import Free, Rounds, Synchrony
from stalegrad.simulator.timing.blocks import pattern_of
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Recorded


def check_records(cluster: Cluster, synchrony: Synchrony, budget: Budget) -> None:
    """Check that records that do not wrap round have the number of times that a run is known to need.

    Under any synchrony, all workers together compute the used gradients. In rounds every worker computes one
    message per update, if all are present. Where no worker waits and nothing else takes time, every worker
    computes for the whole wallclock. A record that is too short for another reason raises an error when it ends.

    Raises:
        ValueError: if a record is too short; it names the worker, the number of times, and the number needed.
    """
    records = {}
    delays = cluster.compute if isinstance(cluster.compute, tuple) else (cluster.compute,)
    if not any(isinstance(delay, Recorded) and not delay.wrap for delay in delays):
        return
    for worker in range(cluster.size):
        delay = cluster.delay_of(worker)
        if isinstance(delay, Recorded) and not delay.wrap:
            records[worker] = delay.own_times()
    whole = cluster.join is None and cluster.availability is None
    instant = whole and cluster.instant
    pattern, steps = pattern_of(synchrony, cluster.size), synchrony.local_steps
    of_update = getattr(pattern, "k", 1) * (steps if pattern else 1)
    updates = budget.updates or math.ceil((budget.gradients or 0) / of_update)
    used = max(updates * of_update, budget.gradients or 0)
    for worker, times in records.items():
        if isinstance(pattern, Rounds) and whole and len(times) < updates * steps:
            raise _short(worker, len(times), f"{updates} updates of {synchrony.name} need {updates * steps} of it")
        if isinstance(pattern, Free) and instant and budget.wallclock is not None:
            speed = _speed(cluster, worker)
            if speed is not None and (reached := float(times.sum()) / speed) < budget.wallclock:
                needed = f"they last {reached:g} s, but the wallclock is {budget.wallclock:g} s"
                raise _short(worker, len(times), needed)
    together = sum(map(len, records.values()))
    if len(records) == cluster.size and together < used:
        raise ValueError(
            f"compute of cluster: the records of all {cluster.size} workers have {together} times and do not wrap "
            f"round, but the budget needs {used} gradients: time {together} is missing. Give longer records, a "
            "smaller budget, or wrap = true"
        )


def _speed(cluster: Cluster, worker: int) -> float | None:
    """Return the speed of a worker, or None if it is drawn."""
    if cluster.speeds is None:
        return 1.0
    return float(cluster.speeds[worker]) if isinstance(cluster.speeds, tuple) else None


def _short(worker: int, count: int, why: str) -> ValueError:
    return ValueError(
        f"compute of worker {worker}: its record has {count} times and does not wrap round, but {why}: time "
        f"{count} is missing. Give a longer record, a smaller budget, or wrap = true"
    )
