"""The history of a run: its rows, and the measures of every message."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from stalegrad._core.types import Array, Params, PyTree, Table
from stalegrad.simulator.replays.evaluation import Evaluation, Values, at_once
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.training import Training

Begin = Callable[[], Evaluation]
"""Begins to evaluate the current version."""

Look = Callable[[], dict[str, Params]]
"""Returns the server's parameters (``params``) and the point sent to workers (``sent``), on the host."""


class Measures(NamedTuple):
    """Measures of messages: the first ``rows`` rows of ``values``, one row per message.

    They may be on a device and not computed yet. They are fetched when a row of the history is due, so that the
    host prepares the next chunk meanwhile.
    """

    values: Array
    rows: int

    def on_host(self) -> np.ndarray:
        """Return the rows as a NumPy array."""
        return np.asarray(self.values)[: self.rows]


class History:
    """Rows, written as updates are made.

    Attributes:
        rows: rows written so far.
        done: updates made.
        current: the evaluation of the version at which the run stands; None until it is begun.
        diverged_at: wallclock of the first row whose loss is not finite, or None.
        kept: versions that the record keeps: updates made, and what a ``Look`` returned.
    """

    def __init__(self, training: Training) -> None:
        self.record, self.rule = training.record, training.rule
        self.rows: list[dict[str, float]] = []
        self.done = self.shown = 0
        self.diverged_at: float | None = None
        self.measured: list[np.ndarray] = []
        self.recent: list[Measures] = []
        self.kept: list[tuple[int, dict[str, Params]]] = []
        self.initial = training.initial.params
        self.current: Evaluation | None = at_once(training, training.initial)

    def note(self, measured: Measures | None, update: int) -> None:
        """Note that all updates before this one have been made, and the measures of their messages."""
        if measured is not None:
            self.recent.append(measured)
        self.done, self.current = update, None

    def evaluated(self, begin: Begin) -> Values:
        """Return the values of the current version, which is evaluated once."""
        self.current = self.current or begin()
        return self.current()

    def reach(self, plan: Plan, begin: Begin, look: Look) -> None:
        """Begin to evaluate the current version if rows of it are due, and keep it if the record asks for that.

        Args:
            plan: the plan of the run.
            begin: begins to evaluate the current version.
            look: returns that version.
        """
        if self.diverged_at is None and self.is_due(plan):
            self.current = self.current or begin()
            if self.record.params and (not self.kept or self.kept[-1][0] < self.done):
                self.kept.append((self.done, look()))

    def is_due(self, plan: Plan) -> bool:
        """Return whether a row of the current version is due."""
        return len(self.rows) < len(plan.due.update) and plan.due.update[len(self.rows)] <= self.done

    def write(self, plan: Plan) -> bool:
        """Write the rows of the current version that are due; a loss that is not finite is the last of them.

        Returns:
            Whether the run goes on.
        """
        while self.diverged_at is None and self.is_due(plan):
            assert self.current is not None
            wallclock = float(plan.due.wallclock[len(self.rows)])
            self.rows.append(self.row(plan, wallclock, self.current()))
            if not math.isfinite(self.rows[-1]["train_loss"]):
                self.diverged_at = wallclock
        return self.diverged_at is None

    def row(self, plan: Plan, wallclock: float, values: Mapping[str, float]) -> dict[str, float]:
        """Return the row of this moment."""
        recent = [measures.on_host() for measures in self.recent]
        if self.record.per_gradient:
            self.measured += recent
        gaps = np.concatenate(recent)[:, 0] if recent else np.array([math.nan])
        learning_rate = plan.learning_rate
        row = {
            "wallclock": wallclock,
            "update": self.done,
            "gradients": plan.lowered.gradients_before[self.done],
            "epoch": plan.epochs[self.done],
            **{name: values[name] for name in ("train_loss", "test_loss", "test_error")},
            **_staleness(plan.lowered, self.shown, self.done),
            "mean_gap": float(np.mean(gaps)),
            "learning_rate": learning_rate[max(self.done - 1, 0)] if len(learning_rate) else math.nan,
        }
        self.recent, self.shown = [], self.done
        return {**row, **values}

    def gradients(self, plan: Plan) -> pd.DataFrame | None:
        """Return the table of messages, in the order of gradient ids; None unless the record asks for it."""
        if not self.record.per_gradient:
            return None
        lowered = plan.lowered
        count = int(lowered.first[self.done])
        recent = [measures.on_host() for measures in self.recent]
        measured = np.concatenate([*self.measured, *recent]) if self.done else np.empty((0, 3))
        gap, gradient_norm, message_norm = measured.T
        update = np.repeat(np.arange(lowered.updates), np.diff(lowered.first))[:count]
        learning_rate = plan.learning_rate[update]
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = (1.0 if self.rule.displaces else learning_rate) * message_norm / gradient_norm
        return pd.DataFrame(
            {
                "worker": lowered.worker[:count],
                "update": update,
                "wallclock": lowered.time[update],
                "staleness": lowered.staleness[:count],
                "gap": gap,
                "gradient_norm": gradient_norm,
                "learning_rate": learning_rate,
                "effective_step": effective,
            }
        ).rename_axis("gradient")

    @property
    def snapshots(self) -> dict[str, PyTree] | None:
        """The kept versions, stacked; None unless the record asks for them."""
        if not self.record.params:
            return None
        updates, versions = zip(*self.kept, strict=True)
        return {"update": np.array(updates), **jax.tree.map(lambda *leaves: np.stack(leaves), *versions)}

    def state(self) -> tuple[Table, list[np.ndarray]]:
        """Return the state that a checkpoint keeps: texts and numbers, and arrays."""
        about = {"done": self.done, "shown": self.shown, "rows": self.rows, "kept": [u for u, _ in self.kept]}
        recent = [measures.on_host() for measures in self.recent]
        measured = [np.concatenate(parts) if parts else np.empty(0) for parts in (self.measured, recent)]
        return about, [*measured, *(leaf for _, version in self.kept for leaf in jax.tree.leaves(version))]

    def restore(self, about: Table, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Continue from what :meth:`state` has returned; return the other arrays."""
        self.done, self.shown, self.rows, self.current = about["done"], about["shown"], about["rows"], None
        measured, recent, *arrays = arrays
        self.measured = [measured] if len(measured) else []
        self.recent = [Measures(recent, len(recent))] if len(recent) else []
        leaves, structure = jax.tree.flatten({"params": self.initial, "sent": self.initial})
        for i, update in enumerate(about["kept"]):
            stored = arrays[i * len(leaves) : (i + 1) * len(leaves)]
            self.kept.append((update, jax.tree.unflatten(structure, as_types(stored, leaves))))
        return arrays[len(about["kept"]) * len(leaves) :]


def as_types(stored: Sequence[np.ndarray], like: Sequence[Array]) -> list[np.ndarray]:
    """Return stored arrays in the types of others: NumPy lacks some types of JAX and stores them as bytes."""
    pairs = zip(stored, like, strict=True)
    return [leaf.view(to.dtype) if leaf.dtype.kind == "V" else leaf for leaf, to in pairs]


def _staleness(lowered: LoweredTrace, first: int, last: int) -> dict[str, float]:
    staleness = lowered.staleness[lowered.first[first] : lowered.first[last]]
    if not len(staleness):
        return {"mean_staleness": math.nan, "max_staleness": math.nan}
    return {"mean_staleness": float(staleness.mean()), "max_staleness": float(staleness.max())}
