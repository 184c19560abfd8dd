"""Evaluation of a version: its losses and errors, computed while the next updates are made."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.types import Data, Ints, Params, Scalar, Table
from stalegrad.models import Objective
from stalegrad.models.objective import Evaluate
from stalegrad.models.shards import part_of
from stalegrad.models.streams import Stream
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.replays.training import Snapshot, Training

SAMPLE, BLOCK = 2_048, 256
"""Numbers of training examples of a stream: those evaluated, and those evaluated at once."""

Values = dict[str, float]
"""Losses and error of a version, and the user's columns."""

Evaluation = Callable[[], Values]
"""Function that waits for the values of a version and returns them."""


@contextmanager
def background(training: Training) -> Iterator[Callable[[Snapshot], Evaluation]]:
    """Yield a function that starts to evaluate a version while the caller continues with the run.

    The evaluation is in another thread, because on CPU JAX executes the computations of one thread one after
    another. If a thread might compute other values, the function evaluates at once: settings of JAX can hold for
    one thread (``with jax.enable_x64(True)``), and a user's function may depend on its thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="stalegrad-evaluation") as pool:
        if training.record.fn is None and pool.submit(_settings).result() == _settings():
            yield lambda snapshot: pool.submit(evaluate_training, training, snapshot).result
        else:
            yield functools.partial(at_once, training)


def at_once(training: Training, snapshot: Snapshot) -> Evaluation:
    """Evaluate a version now."""
    return functools.partial(dict, evaluate_training(training, snapshot))


def _settings() -> Table:
    """Return the settings of JAX that hold in this thread."""
    return {name: getattr(jax.config, name, None) for name in jax.config.values}


def evaluate(objective: Objective, snapshot: Snapshot, record: Record) -> Values:
    """Return training loss, test loss and test error (NaN if undefined), and the user's columns."""
    train = _measured(objective.evaluate, snapshot, objective.train, _at_most(objective, record))
    return values_of(train, _test(objective, snapshot), snapshot.params, record)


def evaluate_training(training: Training, snapshot: Snapshot) -> Values:
    """Return the values of :func:`evaluate`, and the loss of each worker if the record requests it.

    Raises:
        ValueError: if the record requests it and the workers have no shards.
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
    """Return the largest number of examples over which the training loss is computed; None: all."""
    return record.train_examples or (SAMPLE if isinstance(objective.train, Stream) else None)


def _test(objective: Objective, snapshot: Snapshot) -> Mapping[str, Scalar]:
    return {} if objective.test is None else _measured(objective.evaluate, snapshot, objective.test)


def _loss_of(objective: Objective, snapshot: Snapshot, shard: Ints) -> float:
    """Return the loss of some training examples, NaN if there are none."""
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


def values_of(train: Mapping[str, Scalar], test: Mapping[str, Scalar], params: Params, record: Record) -> Values:
    """Return metrics of the training and test data as columns of the history, and the user's columns."""
    return {
        "train_loss": float(train["loss"]),
        "test_loss": float(test.get("loss", math.nan)),
        "test_error": float(test.get("error", math.nan)),
        **{name: float(value) for name, value in record.columns(params).items()},
    }


@functools.lru_cache(maxsize=64)
def _evaluator(function: Evaluate) -> jax.stages.Wrapped:
    return jax.jit(function)
