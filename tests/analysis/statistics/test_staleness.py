"""Staleness in numbers, worked out by hand."""

import math

import pytest

from stalegrad.analysis import staleness_table
from stalegrad.simulator.timing.trace import Trace


def test_table_of_staleness_0_0_0_3(trace: Trace) -> None:
    row = staleness_table({"async": trace}).loc["async"].to_dict()
    assert row == {
        "messages": 4, "mean": 0.75, "sd": pytest.approx(math.sqrt(27 / 16)), "median": 0.0, "p99": 3.0,
        "max": 3.0, "fresh": 0.75,
    }  # fmt: skip


def test_table_pools_several_traces(trace: Trace, fresh: Trace) -> None:
    table = staleness_table({"both": [trace, fresh], "sync": fresh})
    assert table.loc["both", ["messages", "mean", "fresh"]].tolist() == [8, 3 / 8, 7 / 8]
    assert table.loc["sync", ["mean", "sd", "max", "fresh"]].tolist() == [0, 0, 0, 1]


def test_table_of_a_trace_without_updates_is_nan(empty: Trace) -> None:
    row = staleness_table({"none": empty}).loc["none"]
    assert row["messages"] == 0
    assert row.drop("messages").isna().all()
