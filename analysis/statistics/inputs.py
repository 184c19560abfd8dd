"""Checks of inputs, with errors that name what is wrong and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd

from stalegrad._core.protocols import TraceLike


def check_mapping(value: object, name: str, what: str) -> None:
    """Raise ValueError unless ``value`` is a mapping with at least one entry."""
    if not isinstance(value, Mapping) or not value:
        got = "an empty mapping" if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"{name} is {got}: give at least one label and its {what}, as in {{'sync': ...}}")


def check_histories(histories: object, columns: Sequence[str], label: str | None = None) -> None:
    """Raise ValueError unless ``histories`` is a sequence of DataFrames with these columns, ordered by the first.

    Args:
        histories: one DataFrame per seed.
        columns: names of required columns; the first must not decrease.
        label: label of the histories, for the message.
    """
    of = "" if label is None else f" of {label!r}"
    if isinstance(histories, pd.DataFrame) or not isinstance(histories, Sequence) or not len(histories):
        got = "empty" if isinstance(histories, Sequence) else f"a {type(histories).__name__}"
        raise ValueError(f"histories{of} is {got}: give a list of DataFrames, one per seed")
    for index, history in enumerate(histories):
        if not isinstance(history, pd.DataFrame):
            raise ValueError(f"history {index}{of} is a {type(history).__name__}: give a DataFrame")
        if missing := [column for column in columns if column not in history]:
            raise ValueError(f"history {index}{of} has no column {missing[0]!r}: it has {_names(history)}")
        x = history[columns[0]].to_numpy(float)
        if not len(x):
            raise ValueError(f"history {index}{of} has no rows: a history has at least the row of the start")
        if not np.isfinite(x).all() or (np.diff(x) < 0).any():
            raise ValueError(f"{columns[0]!r} of history {index}{of} must be finite and must not decrease")


def check_all_histories(histories: Mapping[str, Sequence[pd.DataFrame]], columns: Sequence[str]) -> None:
    """Raise ValueError unless every label has histories with these columns, and the last column has a value."""
    check_mapping(histories, "histories", "histories")
    for label, runs in histories.items():
        check_histories(runs, columns, label)
    check_values(histories, columns[-1])


def check_values(histories: Mapping[str, Sequence[pd.DataFrame]], y: str) -> None:
    """Raise ValueError if no history has a finite value of ``y``, for example test errors without a test set."""
    frames = [history for runs in histories.values() for history in runs]
    if not any(np.isfinite(history[y].to_numpy(float)).any() for history in frames):
        known = _names(frames[0].dropna(axis="columns", how="all"))
        raise ValueError(f"column {y!r} holds no finite value in any history: choose one of {known}")


def check_target(target: object, y: str) -> None:
    """Raise ValueError unless the target is a finite number."""
    if isinstance(target, bool) or not isinstance(target, Real) or not math.isfinite(target):
        raise ValueError(f"target is {target!r}: give a finite number, in the unit of {y!r}")


def as_traces(traces: TraceLike | Sequence[TraceLike], label: str) -> list[TraceLike]:
    """Return one trace or several traces as a list.

    Raises:
        ValueError: for another type, or an empty list.
    """
    found = list(traces) if isinstance(traces, Sequence) else [traces]
    if not found or not all(hasattr(trace, "staleness") and hasattr(trace, "busy") for trace in found):
        raise ValueError(f"traces of {label!r} must be a Trace or a list of at least one, not {traces!r:.60}")
    return found


def _names(history: pd.DataFrame) -> str:
    return ", ".join(map(str, history.columns))


def check_bootstrap(level: object, resamples: object) -> None:
    """Raise ValueError unless the level and the number of resamples of a bootstrap are in range."""
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"level is {level!r}: give a number between 0 and 1, such as 0.95")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"resamples is {resamples!r}: give a whole number of at least 1, such as 2000")
