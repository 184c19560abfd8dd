"""The history of a run: its rows, and what is known of every message."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from stalegrad._core.types import Array, Data, Ints, Params, PyTree, Scalar, Table
from stalegrad.models import Objective
from stalegrad.models.objective import Evaluate
from stalegrad.models.shards import part_of
from stalegrad.models.streams import Stream
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.replays.training import Snapshot, Training

SAMPLE, BLOCK = 2_048, 256
"""Of a stream: how many training examples are evaluated, and how many at once."""


Evaluation = Callable[[], dict[str, float]]
"""Returns the values of the current version: losses, error, and the record's own columns."""

Look = Callable[[], dict[str, Params]]
"""Returns the server's parameters (``params``) and the point sent to workers (``sent``), on the host."""


class Measures(NamedTuple):
    """What has been measured of messages: the first ``rows`` rows of ``values``, one for each.

    It may be on a device, and not be computed yet: nobody waits for it before a row of the history is due, so that
    the host prepares what comes next meanwhile.
    """

    values: Array
    rows: int

    def on_host(self) -> np.ndarray:
        """Return the rows as a NumPy array."""
        return np.asarray(self.values)[: self.rows]


class History:
    """Rows, written as updates are made.

    Attributes:
        rows: those written so far.
        done: updates made.
        current: values of the version at which the run stands; empty until they are worked out.
        diverged_at: wallclock of the first row whose loss is not finite, or None.
        kept: what the record keeps of versions: updates made, and what a ``Look`` returns.
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
        self.current = evaluate_training(training, training.initial)

    def note(self, measured: Measures | None, update: int) -> None:
        """Take notice that all updates before this one have been made, and of what was measured of them."""
        if measured is not None:
            self.recent.append(measured)
        self.done, self.current = update, {}

    def evaluated(self, evaluation: Evaluation) -> dict[str, float]:
        """Return the values of the current version; they are worked out once."""
        self.current = self.current or evaluation()
        return self.current

    def write(self, plan: Plan, evaluation: Evaluation, look: Look) -> bool:
        """Write the rows that are due now; a loss that is not finite is the last of them.

        Args:
            plan: what is done.
            evaluation: returns the values of the current version.
            look: returns that version.

        Returns:
            Whether the run goes on.
        """
        while self.diverged_at is None and len(self.rows) < len(plan.due.update):
            wallclock, update = plan.due.wallclock[len(self.rows)], plan.due.update[len(self.rows)]
            if update > self.done:
                break
            self.rows.append(self.row(plan, float(wallclock), self.evaluated(evaluation)))
            if self.record.params and (not self.kept or self.kept[-1][0] < self.done):
                self.kept.append((self.done, look()))
            if not math.isfinite(self.rows[-1]["train_loss"]):
                self.diverged_at = float(wallclock)
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
        """Return the record of every message, in the order of gradient ids; None unless it was asked for."""
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
        """What is kept of versions, stacked; None unless the record asks for it."""
        if not self.record.params:
            return None
        updates, versions = zip(*self.kept, strict=True)
        return {"update": np.array(updates), **jax.tree.map(lambda *leaves: np.stack(leaves), *versions)}

    def state(self) -> tuple[Table, list[np.ndarray]]:
        """Return what a checkpoint keeps: texts and numbers, and arrays."""
        about = {"done": self.done, "shown": self.shown, "rows": self.rows, "kept": [u for u, _ in self.kept]}
        recent = [measures.on_host() for measures in self.recent]
        measured = [np.concatenate(parts) if parts else np.empty(0) for parts in (self.measured, recent)]
        return about, [*measured, *(leaf for _, version in self.kept for leaf in jax.tree.leaves(version))]

    def restore(self, about: Table, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Go on from what :meth:`state` has returned; return those arrays that are somebody else's."""
        self.done, self.shown, self.rows, self.current = about["done"], about["shown"], about["rows"], {}
        measured, recent, *arrays = arrays
        self.measured = [measured] if len(measured) else []
        self.recent = [Measures(recent, len(recent))] if len(recent) else []
        leaves, structure = jax.tree.flatten({"params": self.initial, "sent": self.initial})
        for i, update in enumerate(about["kept"]):
            stored = arrays[i * len(leaves) : (i + 1) * len(leaves)]
            self.kept.append((update, jax.tree.unflatten(structure, as_types(stored, leaves))))
        return arrays[len(about["kept"]) * len(leaves) :]


def as_types(stored: Sequence[np.ndarray], like: Sequence[Array]) -> list[np.ndarray]:
    """Return stored arrays in the types of others: NumPy lacks some of JAX's, and stores them as bytes."""
    pairs = zip(stored, like, strict=True)
    return [leaf.view(to.dtype) if leaf.dtype.kind == "V" else leaf for leaf, to in pairs]


def evaluate(objective: Objective, snapshot: Snapshot, record: Record) -> dict[str, float]:
    """Return training loss, test loss and test error (NaN where there is none), and the record's own columns."""
    train = _measured(objective.evaluate, snapshot, objective.train, _at_most(objective, record))
    return values_of(train, _test(objective, snapshot), snapshot.params, record)


def evaluate_training(training: Training, snapshot: Snapshot) -> dict[str, float]:
    """Return what :func:`evaluate` returns, and the loss of each worker if the record asks for it.

    Raises:
        ValueError: if it does, and the workers have no shards of their own.
    """
    objective, record, problem = training.objective, training.record, training.problem
    if not record.worker_losses:
        return evaluate(objective, snapshot, record)
    problem.check_divided("worker_losses of record")
    owner = np.empty(objective.examples, np.int64)
    for worker, shard in enumerate(problem.split(training.workers, training.seed)):
        owner[shard] = worker
    at_most = _at_most(objective, record)
    chosen = spaced(objective.examples, at_most)
    train = _measured(objective.examine or objective.evaluate, snapshot, objective.train, at_most)
    if objective.examine is not None:
        count = np.bincount(owner[chosen], minlength=training.workers)
        total = np.bincount(owner[chosen], np.asarray(train["losses"], float), training.workers)
        losses = np.divide(total, count, out=np.full(len(count), math.nan), where=count > 0)
    else:
        shards = [chosen[owner[chosen] == worker] for worker in range(training.workers)]
        losses = np.array([_loss_of(objective, snapshot, shard) for shard in shards])
    values = values_of(train, _test(objective, snapshot), snapshot.params, record)
    return values | {f"worker_loss[{worker}]": float(loss) for worker, loss in enumerate(losses)}


def _at_most(objective: Objective, record: Record) -> int | None:
    """Return over how many examples the training loss is taken at most; None: all."""
    return record.train_examples or (SAMPLE if isinstance(objective.train, Stream) else None)


def _test(objective: Objective, snapshot: Snapshot) -> Mapping[str, Scalar]:
    return {} if objective.test is None else _measured(objective.evaluate, snapshot, objective.test)


def _loss_of(objective: Objective, snapshot: Snapshot, shard: Ints) -> float:
    """Return the loss of some training examples, NaN of none."""
    if not len(shard):
        return math.nan
    return float(_measured(objective.evaluate, snapshot, part_of(objective.train, shard))["loss"])


def _measured(
    evaluate: Evaluate, snapshot: Snapshot, data: Data, at_most: int | None = None
) -> Mapping[str, Scalar]:
    """Evaluate on data, or on ``at_most`` of its examples; on a stream block by block."""
    metrics = _evaluator(evaluate)
    if not isinstance(data, Stream):
        return metrics(*snapshot, sample(data, at_most))  # type: ignore[no-any-return]
    chosen = spaced(len(data), at_most)
    count = len(chosen)
    blocks = [chosen[i : i + BLOCK] for i in range(0, count, BLOCK)]
    parts = [metrics(*snapshot, data.fetch(block)) for block in blocks]
    weights = [len(block) / count for block in blocks]
    found: dict[str, Scalar] = {
        name: sum(w * float(part[name]) for w, part in zip(weights, parts, strict=True))
        for name in parts[0].keys() - {"losses"}
    }
    if "losses" in parts[0]:
        found["losses"] = jnp.concatenate([part["losses"] for part in parts])
    return found


def spaced(size: int, at_most: int | None) -> Ints:
    """Return the indices of at most ``at_most`` of ``size`` examples, evenly spaced."""
    count = min(size, at_most or size)
    return np.arange(count) * size // count


def sample(data: Data, at_most: int | None) -> Data:
    """Return at most ``at_most`` examples, evenly spaced; all if None."""
    leaves = jax.tree.leaves(data)
    if at_most is None or not leaves or len(leaves[0]) <= at_most:
        return data
    chosen = spaced(len(leaves[0]), at_most)
    return jax.tree.map(lambda leaf: leaf[chosen], data)


def values_of(
    train: Mapping[str, Scalar], test: Mapping[str, Scalar], params: Params, record: Record
) -> dict[str, float]:
    """Return metrics of the training and of the test data as columns of the history, and the record's own."""
    return {
        "train_loss": float(train["loss"]),
        "test_loss": float(test.get("loss", math.nan)),
        "test_error": float(test.get("error", math.nan)),
        **{name: float(value) for name, value in record.columns(params).items()},
    }


@functools.lru_cache(maxsize=64)
def _evaluator(function: Evaluate) -> jax.stages.Wrapped:
    return jax.jit(function)


def _staleness(lowered: LoweredTrace, first: int, last: int) -> dict[str, float]:
    staleness = lowered.staleness[lowered.first[first] : lowered.first[last]]
    if not len(staleness):
        return {"mean_staleness": math.nan, "max_staleness": math.nan}
    return {"mean_staleness": float(staleness.mean()), "max_staleness": float(staleness.max())}
