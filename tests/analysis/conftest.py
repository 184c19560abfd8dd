"""Two hand-made runs, small enough to check every number with a pencil, and a guard for every plot."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from stalegrad.simulator.timing.trace import Trace

COLUMNS = [
    "worker",
    "read_version",
    "read_time",
    "finish_time",
    "receive_time",
    "update",
    "staleness",
    "steps",
    "fate",
]
ROWS = [
    (0, 0, 0.0, 1.0, 1.0, 0, 0, 1, "used"),
    (1, 0, 0.0, 3.0, 3.0, 3, 3, 1, "used"),
    (0, 1, 1.0, 2.0, 2.0, 1, 0, 1, "used"),
    (0, 2, 2.0, 3.0, 3.0, 2, 0, 1, "used"),
    (0, 3, 3.0, np.nan, np.nan, -1, -1, 1, "pending"),
    (1, 4, 3.0, 4.0, np.nan, -1, -1, 1, "cancelled"),
]


@pytest.fixture
def trace() -> Trace:
    """Worker 0 needs 1 s, worker 1 needs 3 s and is cancelled once; it ends at 5 s."""
    updates = {"time": [1.0, 2.0, 3.0, 3.0], "messages": [1] * 4, "gradients": [1] * 4}
    return Trace(pd.DataFrame(ROWS, columns=COLUMNS), updates, workers=2, end=5.0).verify()


@pytest.fixture
def fresh() -> Trace:
    """Two synchronous updates of two workers, at 2 and 4 s; worker 0 idles half of the time."""
    rows = [(w, j, 2.0 * j, 2.0 * j + 1 + w, 2.0 * j + 1 + w, j, 0, 1, "used") for j in range(2) for w in range(2)]
    updates = {"time": [2.0, 4.0], "messages": [2, 2], "gradients": [2, 2]}
    return Trace(pd.DataFrame(rows, columns=COLUMNS), updates, workers=2, end=4.0).verify()


@pytest.fixture
def empty() -> Trace:
    """One worker that has sent nothing in 1 s."""
    updates = {"time": [], "messages": [], "gradients": []}
    return Trace({name: [] for name in COLUMNS}, updates, workers=1, end=1.0)


@pytest.fixture(autouse=True)
def _no_global_traces() -> Iterator[None]:
    """Fail any test that leaves a figure in pyplot or changes a setting of matplotlib."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []
