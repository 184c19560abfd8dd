"""What several tests of the timing room need."""

from collections.abc import Callable

import pytest

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
