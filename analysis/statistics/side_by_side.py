"""Comparison of two sets of runs, metric by metric, paired by common seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stalegrad._core.protocols import ResultLike
from stalegrad.analysis.statistics.curves import Floats, shown_column
from stalegrad.analysis.statistics.inputs import check_bootstrap, check_histories, check_mapping, check_target
from stalegrad.analysis.statistics.paired import bootstrap
from stalegrad.analysis.statistics.targets import arrival

OF_TRACES = ("gradients_per_second", "mean_staleness", "idle", "wasted")
"""Metrics from a trace's summary."""


def side_by_side(
    a: Mapping[int, ResultLike],
    b: Mapping[int, ResultLike],
    target: float | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two sets of runs that differ in the seed only.

    If they have common seeds, only these are compared, pair by pair, so that effects common to the runs of a seed
    cancel; the interval is the bootstrap's percentile interval of the mean difference. Otherwise the bootstrap
    draws seeds from each set independently. With few seeds intervals are too narrow; with one seed there is none.

    Args:
        a: results of the first set, by seed.
        b: results of the second set, by seed.
        target: value of the error (of the loss, if there is no error) whose wallclock is compared; by default the
            lowest value that at least half of the runs of both sets reach.
        level: confidence level of the interval, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Returns:
        Index ``metric``: the wallclock (s) to the target, the last error or loss, used gradients per second, mean
        staleness (updates), shares ``idle`` and ``wasted``. Columns ``a``, ``b`` (means), ``difference`` (b - a),
        ``low``, ``high``, ``pairs`` (0: not paired). NaN if a run did not reach the target or is not finite.

    Raises:
        ValueError: if a set is empty, a history has no such column, or an argument is out of range.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> from stalegrad.analysis import side_by_side
        >>> experiment = sg.Experiment(bowl, sg.Cluster(2), sg.methods.async_(learning_rate=0.5), updates=4)
        >>> a, b = (sg.run(experiment.but(cluster=sg.Cluster(n)), progress=False) for n in (1, 2))
        >>> side_by_side({0: a}, {0: b})["difference"][["gradients_per_second", "mean_staleness"]].tolist()
        [1.0, 0.75]
    """
    check_bootstrap(level, resamples)
    for name, runs in (("a", a), ("b", b)):
        check_mapping(runs, name, "result")
        check_histories([run.history for run in runs.values()], ("wallclock", "train_loss"), name)
    y = shown_column([run.history for runs in (a, b) for run in runs.values()])
    target = _common_target(a, b, y) if target is None else target
    check_target(target, y)
    common = [number for number in a if number in b]
    sides = [[runs[number] for number in common or runs] for runs in (a, b)]
    rows = {}
    measures = [[_measures(run, y, target) for run in runs] for runs in sides]
    for metric in measures[0][0]:
        ours, theirs = (np.array([found[metric] for found in side]) for side in measures)
        ends = _interval(ours, theirs, bool(common), level, resamples, seed)
        means = float(ours.mean()), float(theirs.mean())
        difference = float((theirs - ours).mean()) if common else means[1] - means[0]
        rows[metric] = (*means, difference, *ends, len(common))
    columns = ["a", "b", "difference", "low", "high", "pairs"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("metric")


def same_events(a: ResultLike, b: ResultLike) -> bool:
    """Return whether two runs made the same updates at the same times, from messages of the same workers."""
    first, second = a.trace, b.trace
    return np.array_equal(first.update_times, second.update_times) and all(
        np.array_equal(first.column(name)[first.used], second.column(name)[second.used])
        for name in ("worker", "read_version", "read_time", "receive_time")
    )


def _measures(run: ResultLike, y: str, target: float) -> dict[str, float]:
    reached = arrival(run.history, target, y, "wallclock")
    last, summary = float(run.history[y].to_numpy(float)[-1]), run.trace.summary()
    found = {f"wallclock to {y} {target:.4g}": reached.time if reached.reached else np.nan}
    found[f"last {y}"] = last if np.isfinite(last) else np.nan
    return found | {name: float(summary[name]) for name in OF_TRACES}


def _common_target(a: Mapping[int, ResultLike], b: Mapping[int, ResultLike], y: str) -> float:
    """Return the lowest value that at least half of the runs of both sets reach, over finite values."""
    middles = []
    for runs in (a, b):
        values = [run.history[y].to_numpy(float) for run in runs.values()]
        best = sorted(float(v[np.isfinite(v)].min()) if np.isfinite(v).any() else np.inf for v in values)
        middles.append(best[(len(best) - 1) // 2])
    finite = [middle for middle in middles if np.isfinite(middle)]
    return max(finite, default=0.0)


def _interval(
    ours: Floats, theirs: Floats, paired: bool, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return np.nan, np.nan
    if paired:
        return bootstrap(theirs - ours, np.mean, level, resamples, seed)
    if min(len(ours), len(theirs)) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    first, second = (v[rng.integers(len(v), size=(resamples, len(v)))].mean(axis=1) for v in (ours, theirs))
    low, high = np.quantile(second - first, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
