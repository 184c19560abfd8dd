"""Fits of delays: the delay that measured times follow, and differences between workers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
import pandas as pd

from stalegrad._core.protocols import TraceLike
from stalegrad._core.specs import unknown_name
from stalegrad.analysis.fits.delay_choice import ALL, Choice, SynchronousStep, choose
from stalegrad.analysis.fits.delay_families import (
    Floats,
    delay_ageing,
    fit_families,
    ks_distance,
    ks_p_value,
    log_density,
    observed_ageing,
    parameters,
    tail_index,
)
from stalegrad.analysis.fits.imbalance import Imbalance, imbalance
from stalegrad.simulator.timing.delays import DELAYS, Delay, Deterministic

Row = dict[str, object]
"""A row of a table of fits."""

MESSAGES = ("worker", "read_time", "finish_time", "update", "steps", "fate")
"""Columns of a trace's messages that a fit uses."""

FEWEST = 4
"""Least number of times per worker: one more than the largest delay has parameters."""


@dataclass(frozen=True)
class DelayFit:
    """Delays fitted to measured times.

    Attributes:
        table: one row per worker (``all``: all times together) and delay, the best first: ``worker``, ``name``
            (that of the delay in a spec), ``delay`` (the delay itself), ``log_likelihood``, ``aic``, ``ks``
            (Kolmogorov-Smirnov distance), ``p_value`` (of ``ks``, for a delay with known parameters; it is too
            large for fitted ones), ``ageing`` (of the delay: ``new-longer-than-used``, NLTU,
            ``new-shorter-than-used``, ``memoryless`` or ``neither``).
        workers: one row per worker and ``all``: ``times`` (their number), ``mean`` (s), ``cv``, ``tail_index``
            (Hill), ``ageing`` (of the times themselves), ``ratio`` (typical time over the median worker's, with
            the 95 % confidence limits ``least`` and ``most``), ``above`` (share of steps above the step's median)
            and ``differs`` (``slower`` or ``faster`` than the others beyond chance, or ``no``).
        imbalance: imbalance between the workers; its ``verdict``, ``slow`` and ``words`` are also attributes here.
        choice: delays that represent the log in a simulation; its ``compute``, ``fits``, ``step``, ``agrees`` and
            ``words`` are also attributes here.
    """

    table: pd.DataFrame
    workers: pd.DataFrame
    imbalance: Imbalance
    choice: Choice

    @property
    def verdict(self) -> str:
        """The kind of imbalance: ``random``, ``persistent`` or ``nearly constant``."""
        return self.imbalance.verdict

    @property
    def slow(self) -> tuple[Hashable, ...]:
        """The persistently slow workers."""
        return self.imbalance.slow

    @property
    def compute(self) -> Delay | tuple[Delay, ...]:
        """The argument of ``Cluster(compute=...)``: one delay, or one per worker in the order of ``workers``.

        If a delay fits, it is the best one for all times together, or, if the imbalance is persistent, one delay
        per worker, of the family with the least total AIC. If none fits, it is an ``Empirical`` per worker, which
        draws from the worker's own times. Draws are independent: effects common to all workers of a step are not
        reproduced.
        """
        return self.choice.compute

    @property
    def fits(self) -> bool:
        """Whether ``compute`` is a delay that fits the times; otherwise it draws from the times themselves."""
        return self.choice.fits

    @property
    def step(self) -> SynchronousStep:
        """Mean seconds of a synchronous step, ``measured`` in the log and ``fitted`` with ``compute``."""
        return self.choice.step

    @property
    def agrees(self) -> bool:
        """Whether the synchronous step of ``compute`` is surely within 10 % of the measured one."""
        return self.choice.agrees

    @property
    def words(self) -> str:
        """The verdict with its reasons, and a description of ``compute``, in sentences."""
        return f"{self.imbalance.words} {self.choice.words}"

    def __str__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.words)}</p>{self.workers.to_html()}{self.table.to_html(index=False)}"


def fit_delays(
    measured: pd.DataFrame | npt.ArrayLike | TraceLike,
    *,
    worker: str = "worker",
    seconds: str = "seconds",
    step: str | None = None,
) -> DelayFit:
    """Find the delays that describe measured times, and whether the imbalance of workers is random or persistent.

    The delays are fitted by maximum likelihood and compared with the times as measured. Slow workers are found by
    ranks and medians within steps (if ``step`` is given), which are robust to pauses, heavy tails and a drift of
    the whole cluster; the modules ``stalegrad.analysis.fits.persistence`` and ``imbalance`` define and explain the
    thresholds. The fit compares its own synchronous step with the measured one and reports the error.

    Args:
        measured: positive seconds, one row per worker and step, as returned by ``read_step_times``,
            ``read_intervals`` and ``read_trace_events``; or a trace or its messages, whose sent messages give
            seconds per local step; or an array of the times of one worker, or of several equal workers.
        worker: name of the column of workers.
        seconds: name of the column of times.
        step: name of the column of steps, if the workers' steps belong together, in order; a worker may lack
            steps. For a synchronous trace, ``update``.

    Raises:
        ValueError: for a missing column, times that are not finite and positive, fewer than 4 times of a worker,
            a repeated pair (worker, step), or fewer than 2 steps made by several workers.

    Example:
        >>> import numpy as np
        >>> import stalegrad as sg
        >>> times = sg.Exponential(2.0).ppf((np.arange(200) + 0.5) / 200)  # evenly spaced quantiles
        >>> fit = sg.fit_delays(times)
        >>> fit.fits, type(fit.compute).__name__, round(fit.compute.expectation(), 1)
        (True, 'Exponential', 2.0)
    """
    frame = _frame(measured, worker, seconds, step)
    grouped: dict[Hashable, Floats] = {
        name: group.to_numpy(float) for name, group in frame.groupby(worker, sort=True)[seconds]
    }
    _check_times(grouped)
    everything = {ALL: frame[seconds].to_numpy(float)}
    samples = everything | grouped if len(grouped) > 1 else everything
    rows = [row for name, times in samples.items() for row in _rows(name, times)]
    table = pd.DataFrame(rows).sort_values("aic", kind="stable")
    order = {name: place for place, name in enumerate(samples)}
    table = table.sort_values("worker", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    steps = None if step is None else _steps(frame, worker, seconds, step)
    found, compared = imbalance(grouped, steps)
    workers = pd.DataFrame.from_dict({name: _describe(times) for name, times in samples.items()}, orient="index")
    if len(grouped) > 1:
        columns = ["ratio", "least", "most", "above"]
        workers[columns] = compared[columns]
        workers["differs"] = compared["certain"].map({1: "slower", -1: "faster", 0: "no"})
    choice = choose(grouped, steps, table, apart=found.verdict == "persistent")
    return DelayFit(table, workers.rename_axis("worker"), found, choice)


def _rows(worker: Hashable, times: Floats) -> list[Row]:
    return [{"worker": worker, **_row(delay, times)} for delay in fit_families(times)]


def _row(delay: Delay, times: Floats) -> Row:
    n, log_likelihood = len(times), float(log_density(delay, times).sum())
    distance, p_value = 0.0, 1.0
    if not isinstance(delay, Deterministic):
        distance = ks_distance(delay, times)
        p_value = ks_p_value(distance, n)
    return {
        "name": DELAYS.name_of(type(delay)),
        "delay": delay,
        "log_likelihood": log_likelihood,
        "aic": 2 * parameters(delay) - 2 * log_likelihood,
        "ks": distance,
        "p_value": p_value,
        "ageing": delay_ageing(delay),
    }


def _describe(times: Floats) -> Row:
    mean = float(times.mean())
    return {
        "times": len(times),
        "mean": mean,
        "cv": float(times.std(ddof=1)) / mean,
        "tail_index": tail_index(times),
        "ageing": observed_ageing(times),
    }


def _frame(
    measured: pd.DataFrame | npt.ArrayLike | TraceLike, worker: str, seconds: str, step: str | None
) -> pd.DataFrame:
    if isinstance(measured, TraceLike):
        measured = pd.DataFrame({name: measured.column(name) for name in MESSAGES})
    if isinstance(measured, pd.DataFrame) and seconds not in measured and set(MESSAGES) <= set(measured.columns):
        measured = _sent(measured, seconds)
    if not isinstance(measured, pd.DataFrame):
        if step is not None:
            raise ValueError(f"step = {step!r} needs a DataFrame with that column, not {type(measured).__name__}")
        values = np.asarray(measured)
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise ValueError(
                f"measured is {measured!r:.60}: give a DataFrame, such as read_step_times(file) returns, or a "
                "one-dimensional array of seconds"
            )
        return pd.DataFrame({worker: 0, seconds: values})
    for column in filter(None, (worker, seconds, step)):
        if column not in measured:
            raise ValueError(
                f"{unknown_name('column', column, map(str, measured.columns))}; read_step_times(table) takes "
                "other names and units"
            )
    if measured[seconds].dtype.kind not in "iuf":
        raise ValueError(f"column {seconds!r} holds {measured[seconds].dtype}: give seconds as numbers")
    if measured[worker].isna().any():
        raise ValueError(f"column {worker!r} has missing values: every time needs a worker")
    if (measured[worker] == ALL).any():
        raise ValueError(
            f"column {worker!r} names a worker {ALL!r}: this name stands for all workers; choose another one"
        )
    return measured


def _sent(messages: pd.DataFrame, seconds: str) -> pd.DataFrame:
    """Return the messages whose computation was completed, with the seconds per local step."""
    sent = messages[messages["fate"].isin(["used", "discarded"])]
    return sent.assign(**{seconds: (sent["finish_time"] - sent["read_time"]) / sent["steps"]})


def _check_times(grouped: dict[Hashable, Floats]) -> None:
    if not grouped:
        raise ValueError("measured is empty: there is nothing to fit")
    for worker, times in grouped.items():
        bad = ~(np.isfinite(times) & (times > 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"time {at} of worker {worker} is {times[at]}; allowed are finite seconds above 0")
        if len(times) < FEWEST:
            raise ValueError(f"worker {worker} has {len(times)} times: at least {FEWEST} are needed to fit delays")


def _steps(frame: pd.DataFrame, worker: str, seconds: str, step: str) -> pd.DataFrame:
    """Return times as (steps, workers), for steps that at least two workers made; NaN where a worker did not."""
    if frame[step].isna().any():
        raise ValueError(f"column {step!r} has missing values: every time needs a step")
    twice = frame.duplicated([worker, step])
    if twice.any():
        who, when = (frame.loc[twice, column].iloc[0] for column in (worker, step))
        raise ValueError(f"worker {who} has several times in step {when}: give one")
    steps = frame.pivot_table(index=step, columns=worker, values=seconds, aggfunc="first").astype(float)
    if steps.shape[1] < 2:
        raise ValueError(f"step = {step!r} needs at least 2 workers: with one, leave it out")
    shared = steps[steps.notna().sum(axis=1) > 1]
    if len(shared) < 2:
        raise ValueError(
            f"{len(shared)} of {len(steps)} steps were made by several workers: at least 2 are needed"
        )
    alone = shared.columns[shared.notna().sum() == 0]
    if len(alone):
        raise ValueError(f"worker {alone[0]} has no step in common with another worker: leave step out")
    return shared
