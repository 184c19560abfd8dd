"""Statistics of the staleness of used messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.statistics.inputs import as_traces, check_mapping


def staleness_table(traces: Mapping[str, TraceLike | Sequence[TraceLike]]) -> pd.DataFrame:
    """Return statistics of the staleness of each method's used messages, in updates.

    Args:
        traces: trace of each label, or several traces, whose messages are pooled.

    Returns:
        One row per label: ``messages`` (number of used ones), ``mean``, ``sd`` (population), ``median`` and
        ``p99`` (observed values: the smallest staleness that at least this share of the messages does not exceed),
        ``max``, ``fresh`` (share with staleness 0). NaN if no message was used.

    Raises:
        ValueError: if the mapping is empty or a value is not a trace.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import staleness_table
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=4)
        >>> staleness_table({"async": trace})[["mean", "max", "fresh"]].loc["async"].tolist()
        [0.75, 2.0, 0.5]
    """
    rows = {}
    for label, values in pooled_staleness(traces).items():
        row = dict.fromkeys(("mean", "sd", "median", "p99", "max", "fresh"), np.nan)
        if len(values):
            quantiles = np.quantile(values, [0.5, 0.99], method="inverted_cdf")
            row = {
                "mean": float(values.mean()),
                "sd": float(values.std()),
                "median": float(quantiles[0]),
                "p99": float(quantiles[1]),
                "max": float(values.max()),
                "fresh": float((values == 0).mean()),
            }
        rows[label] = {"messages": len(values), **row}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def pooled_staleness(traces: Mapping[str, TraceLike | Sequence[TraceLike]]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the staleness of all used messages of each label, in updates.

    Raises:
        ValueError: if the mapping is empty or a value is not a trace.
    """
    check_mapping(traces, "traces", "trace")
    return {
        label: np.concatenate([trace.staleness for trace in as_traces(value, label)])
        for label, value in traces.items()
    }
