"""Tables that compare methods: time to a target, staleness, idle time, final error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.statistics.curves import diverged
from stalegrad.analysis.statistics.inputs import (
    as_traces,
    check_histories,
    check_mapping,
    check_target,
    check_values,
)
from stalegrad.analysis.statistics.targets import arrival, median, median_arrival

TRACE_COLUMNS = ("updates", "mean_staleness", "idle", "wasted")
"""Columns of the table from a trace's summary."""


def comparison(
    results: Mapping[str, Sequence[tuple[TraceLike, pd.DataFrame]]], target: float, y: str = "test_error"
) -> pd.DataFrame:
    """Return one row per method: time to a target, staleness, idle and wasted time, and final value.

    Every number is the median over seeds. That of ``wallclock`` is Kaplan and Meier's, as in
    :func:`~stalegrad.analysis.to_target`; it is NaN if at least half of the seeds did not reach the target, see
    ``reached``. A final value that is not finite counts as +inf, and an infinite median is NaN.

    Args:
        results: pairs (trace, history) of each label, one per seed.
        target: value of y to reach or fall below.
        y: column of the histories; smaller values are better.

    Returns:
        Columns ``seeds``, ``reached`` (seeds that reached the target), ``diverged`` (seeds whose last
        training loss is not finite), ``wallclock`` (simulated seconds to the target), ``updates`` (made in
        the trace), ``mean_staleness`` (updates, over used messages), ``idle`` and ``wasted`` (shares of
        the workers' time; wasted: on messages that were cancelled or discarded), and ``y`` itself, at the end of
        the history.

    Raises:
        ValueError: if the mapping is empty, a value is not a list of pairs, y is unknown or has no finite value,
            or the target is not a finite number.

    Example:
        >>> import pandas as pd
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import comparison
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=4)
        >>> history = pd.DataFrame({"wallclock": [0.0, 1.0, 3.0], "test_error": [0.9, 0.5, 0.1]})
        >>> table = comparison({"async": [(trace, history)]}, target=0.5)
        >>> table[["wallclock", "mean_staleness", "test_error"]].loc["async"].tolist()
        [1.0, 0.75, 0.1]
    """
    check_mapping(results, "results", "pairs of trace and history")
    check_target(target, y)
    for label, pairs in results.items():
        if not isinstance(pairs, Sequence) or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
            raise ValueError(f"results of {label!r} must be a list of pairs (trace, history), one per seed")
        check_histories([history for _, history in pairs], ("wallclock", y), label)
        as_traces([trace for trace, _ in pairs], label)
    check_values({label: [history for _, history in pairs] for label, pairs in results.items()}, y)
    return outcomes(results, target, y)


def outcomes(
    results: Mapping[str, Sequence[tuple[TraceLike, pd.DataFrame]]], target: float, y: str
) -> pd.DataFrame:
    """Return the table of :func:`comparison` for checked results, whose values need not be finite."""
    rows = {label: _row(pairs, target, y) for label, pairs in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _row(pairs: Sequence[tuple[TraceLike, pd.DataFrame]], target: float, y: str) -> dict[str, float]:
    arrivals = [arrival(history, target, y, "wallclock") for _, history in pairs]
    wallclock = median_arrival(arrivals)
    summaries = [trace.summary() for trace, _ in pairs]
    return {
        "seeds": len(pairs),
        "reached": sum(a.reached for a in arrivals),
        "diverged": sum(diverged(history) for _, history in pairs),
        "wallclock": wallclock if np.isfinite(wallclock) else np.nan,
        **{name: median([summary[name] for summary in summaries]) for name in TRACE_COLUMNS},
        y: _worst_last([history[y].to_numpy(float)[-1] for _, history in pairs]),
    }


def _worst_last(values: Sequence[float]) -> float:
    """Return the median of values, where those that are not finite count as +inf; NaN if it is infinite."""
    middle = median(np.where(np.isfinite(values), values, np.inf))
    return middle if np.isfinite(middle) else np.nan
