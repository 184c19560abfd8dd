"""The spec of a history: its columns, and the times of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad._core.functions import by_name, check_function_name, function_of
from stalegrad._core.specs import PositiveFloat, PositiveInt, spec
from stalegrad._core.types import Floats, Params
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.clock import TOLERANCE

POINTS = 50
"""Number of rows of a history with the default cadence."""

ROWS = 1_000_000
"""Largest number of rows of a history, if they are due by wallclock."""

WIDEST = 10_000
"""Largest number of numbers in a user's column."""

MOST_BYTES = 4 << 30
"""Largest number of bytes of the parameters in a history."""

COLUMNS = (
    "wallclock", "update", "gradients", "epoch", "train_loss", "test_loss", "test_error", "mean_staleness",
    "max_staleness", "mean_gap", "learning_rate",
)  # fmt: skip
"""Columns that every history has."""


@spec
class Record:
    """The spec of a history.

    At most one cadence may be given (default: 50 rows, evenly spaced in the budget's unit). The cadence changes
    neither the trace nor the parameters.

    Args:
        updates: cadence: updates between two rows.
        gradients: cadence: used mini-batch gradients between two rows.
        wallclock: cadence: simulated seconds between two rows, at most a million rows. The value at time t is that
            of the last update with time <= t, up to rounding (see :class:`~stalegrad.simulator.Budget`).
        gap: whether to record the gap of every message: the RMSE over parameters between the server's parameters
            when it applies the message and those at which the message was computed.
        per_gradient: whether to record the gap, the L2 norm of the gradient and the effective step of every
            message, in a separate table.
        params: whether to keep the server's parameters, and the point that it sends to workers, at every row, up
            to 4 GiB in all (see :class:`~stalegrad.simulator.replays.run.Replay`); with ``updates = 1``, after
            every update.
        train_examples: number of examples, evenly spaced, over which the training loss is computed; default: all.
            An evaluation of a large network on all training examples takes as long as a third of an epoch.
        worker_losses: whether to record the training loss of every worker's shard, f_i, in columns
            ``worker_loss[0]``, ``worker_loss[1]``, ...: the mean over the shard's examples among those of the
            training loss, NaN if there are none. The problem must have a partition, or ``sampling="sharded"``.
        fn: function ``fn(params) -> {"name": value}`` for the user's columns, with names that the history does not
            have yet. A value is a scalar, or an array of up to 10,000 numbers, which becomes the columns
            ``name[0]``, ``name[1]``, ... (``name[0,0]``, ... for a matrix). Or the name of such a function,
            ``"module:function"``, which is imported when the first row is written. Its result is checked at the
            first row, of version 0, before any update is made.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> record = sg.Record(updates=2, fn=lambda w: {"first": w[0]})
        >>> method = sg.methods.async_(learning_rate=0.5)
        >>> experiment = sg.Experiment(bowl, sg.Cluster(1), method, updates=4, record=record)
        >>> sg.run(experiment, progress=False).history[["update", "first"]].values.tolist()
        [[0.0, 1.0], [2.0, 0.25], [4.0, 0.0625]]
    """

    updates: PositiveInt | None = None
    gradients: PositiveInt | None = None
    wallclock: PositiveFloat | None = None
    gap: bool = True
    per_gradient: bool = False
    params: bool = False
    train_examples: PositiveInt | None = None
    worker_losses: bool = False
    fn: Callable[[Any], Mapping[str, Any]] | str | None = None

    def check_fields(self) -> None:
        """Raise ValueError if more than one cadence is given."""
        given = {k: v for k in ("updates", "gradients", "wallclock") if (v := getattr(self, k)) is not None}
        if len(given) > 1:
            raise ValueError(f"a record takes one cadence of updates, gradients and wallclock; got {given}")
        if isinstance(self.fn, str):
            check_function_name("fn of record", self.fn)
        elif self.fn is not None:
            object.__setattr__(self, "fn", by_name(self.fn))

    def columns(self, params: Params) -> dict[str, float]:
        """Return a user's columns for these parameters.

        Raises:
            ValueError: if the function returns anything but a mapping of new names to real scalars or arrays; it
                names the column.
        """
        if self.fn is None:
            return {}
        returned = function_of(self.fn)(params)
        if not isinstance(returned, Mapping):
            raise ValueError(
                f"fn of record returned {returned!r:.60}: it must return a mapping of column to scalar or array"
            )
        if self.worker_losses and "worker_loss" in returned:
            raise ValueError("fn of record returned the column 'worker_loss', which worker_losses of record makes")
        return {name: each for column, value in returned.items() for name, each in _columns(column, value).items()}

    def check_kept(self, rows: int, size: int) -> None:
        """Raise ValueError if parameters of ``size`` bytes in ``rows`` rows exceed :data:`MOST_BYTES`."""
        if self.params and 2 * size * rows > MOST_BYTES:
            raise ValueError(
                f"params of record keeps twice {size} bytes in {rows} rows, more than {MOST_BYTES >> 30} GiB: "
                f"allowed are {MOST_BYTES // (2 * size)} rows for this problem"
            )

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures of every message (see :func:`~stalegrad.simulator.replays.step.measure`)."""
        if self.per_gradient:
            return ("gap", "gradient_norm", "message_norm")
        return ("gap",) if self.gap else ()


class Points(NamedTuple):
    """The rows of a history: at ``wallclock[i]`` seconds, ``update[i]`` updates have been made."""

    wallclock: Floats
    update: npt.NDArray[np.int64]


def cadence_of(record: Record, budget: Budget) -> Record:
    """Return a record with a cadence: the given one, or one with 50 rows."""
    if record.updates or record.gradients or record.wallclock:
        return record
    if budget.wallclock:
        return Record(wallclock=budget.wallclock / POINTS or budget.wallclock)
    if budget.gradients:
        return Record(gradients=math.ceil(budget.gradients / POINTS))
    assert budget.updates
    return Record(updates=math.ceil(budget.updates / POINTS))


def points(record: Record, budget: Budget, lowered: LoweredTrace, end: float, *, final: bool = True) -> Points:
    """Return the rows that are due: at the start, at the cadence, and with ``final`` at the end.

    Raises:
        ValueError: if the wallclock cadence gives more than :data:`ROWS` rows.
    """
    cadence = cadence_of(record, budget)
    times = np.concatenate([[0.0], lowered.time])
    if cadence.wallclock:
        rows = end / cadence.wallclock * (1 + TOLERANCE)
        if not rows < ROWS:
            raise ValueError(
                f"wallclock of record = {cadence.wallclock!r} is not allowed for a run of {end!r} s: a history "
                f"has at most {ROWS} rows; give at least {end / ROWS:.3g}"
            )
        wallclock = np.arange(math.floor(rows) + 1) * cadence.wallclock
        update = np.searchsorted(lowered.time, wallclock * (1 + TOLERANCE), side="right")
        if final and wallclock[-1] < end * (1 - TOLERANCE):
            wallclock, update = np.append(wallclock, end), np.append(update, lowered.updates)
        return Points(wallclock, update)
    if cadence.updates:
        update = np.arange(0, lowered.updates + 1, min(cadence.updates, lowered.updates + 1))
    else:
        assert cadence.gradients
        due = np.arange(0, lowered.gradients_before[-1] + 1, cadence.gradients)
        update = np.searchsorted(lowered.gradients_before, due)
    update = update[update <= lowered.updates]
    if final:
        update = np.append(update, lowered.updates)
    update = np.unique(update)
    return Points(times[update], update)


def _columns(name: object, value: object) -> dict[str, float]:
    """Return a user's column as columns of numbers."""
    if not isinstance(name, str):
        raise ValueError(f"fn of record returned the column {name!r:.60}: names of columns are strings")
    if name in COLUMNS:
        raise ValueError(
            f"fn of record returned the column {name!r}, which every history has: choose a name other than "
            f"{', '.join(COLUMNS)}"
        )
    array = np.asarray(value)
    if array.size > WIDEST:
        raise ValueError(
            f"fn of record returned an array of shape {array.shape} for the column {name!r}: at most {WIDEST} "
            "numbers"
        )
    import jax.numpy as jnp

    # JAX's own floating dtypes, such as bfloat16, are of kind V.
    if array.dtype.kind not in "biuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"fn of record returned {value!r:.60} for the column {name!r}: give a real number")
    if not array.ndim:
        return {name: float(array)}
    return {f"{name}[{','.join(map(str, at))}]": float(array[at]) for at in np.ndindex(array.shape)}
