"""What several tests of the timing room need."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from stalegrad.policies.synchrony import KSync
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Trace

Contributions = list[tuple[float, list[tuple[int, int]]]]


@pytest.fixture(scope="session")
def contributions() -> Callable[[Trace], Contributions]:
    """Return a function: trace -> for every update its time and its (worker, staleness) pairs, in order."""

    def of(trace: Trace) -> Contributions:
        found: Contributions = [(time, []) for time in trace.update_times.tolist()]
        columns = (trace.column(name)[trace.used].tolist() for name in ("update", "worker", "staleness"))
        for update, worker, staleness in zip(*columns, strict=True):
            found[update][1].append((worker, staleness))
        return found

    return of


@pytest.fixture
def trace() -> Trace:
    """Return a simulated trace with links, a busy server and late joiners."""
    cluster = Cluster(4, Exponential(1.0), uplink=0.1, downlink=0.2, server=0.05, join=[0.0, 0.0, 1.0, 2.0])
    return simulate(cluster, KSync(2), updates=50, seed=7)


@pytest.fixture(scope="session")
def same() -> Callable[[Trace, Trace], None]:
    """Return a function that asserts that two traces are equal."""

    def assert_same(one: Trace, other: Trace) -> None:
        pd.testing.assert_frame_equal(one.messages, other.messages)
        pd.testing.assert_frame_equal(one.updates, other.updates)
        assert one.used.tolist() == other.used.tolist()
        assert (one.workers, one.end, one.resolution) == (other.workers, other.end, other.resolution)
        assert one.spec == other.spec

    return assert_same


@pytest.fixture(scope="session")
def measured() -> Callable[..., Trace]:
    """Return a function: changed columns -> the trace of two workers, two updates, one message pending."""

    def of(workers: int | None = None, end: float | None = None, resolution: float = 0.0, **changed: Any) -> Trace:
        messages: dict[str, Any] = {
            "worker": [0, 1, 0],
            "read_version": [0, 0, 1],
            "read_time": [0.0, 0.0, 1.2],
            "finish_time": [0.9, 1.9, math.nan],
            "receive_time": [1.0, 2.0, math.nan],
            "update": [0, 1, -1],
            "staleness": [0, 1, -1],
            "steps": [1, 1, 1],
            "fate": ["used", "used", "pending"],
        }
        updates: dict[str, Any] = {"time": [1.1, 2.1], "messages": [1, 1], "gradients": [1, 1]}
        for name, values in changed.items():
            (messages if name in messages else updates)[name] = values
        return Trace(messages, updates, workers=workers, end=end, resolution=resolution)

    return of
