"""Objectives: the functions on pytrees and the data in memory that a replay needs of a problem."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stalegrad._core.types import Batch, Data, Params, Stats
from stalegrad.models.augmentation import crop_and_flip, crop_to, middle
from stalegrad.models.datasets import data_fingerprint, load_dataset, load_folder, load_text
from stalegrad.models.datasets.sources import MEAN, STD
from stalegrad.models.networks import NETWORKS, Network
from stalegrad.models.streams import on_device

Loss: TypeAlias = Callable[[Params, Stats, Batch, jax.Array], tuple[jax.Array, Stats]]
"""``loss(params, stats, batch, key) -> (scalar, stats)``"""

Evaluate: TypeAlias = Callable[[Params, Stats, Batch], Mapping[str, jax.Array]]
"""``evaluate(params, stats, data) -> {"loss": scalar, ...}``"""


class Objective(NamedTuple):
    """A problem with its data in memory: all that the replay needs.

    Attributes:
        init: ``init(key) -> params``, any pytree of arrays.
        loss: ``loss(params, stats, batch, key) -> (scalar, stats)``, the mean loss of a mini-batch (``None``
            without data). Mini-batch gradients are computed in the order of gradient ids; each starts from the
            statistics that the previous one returned.
        evaluate: ``evaluate(params, stats, data) -> {"loss": scalar, ...}`` over a whole data set; a metric
            called ``error`` is the fraction of misclassified examples (for a text: of mispredicted tokens).
        train: training data: a pytree of arrays with a common first axis, a
            :class:`~stalegrad.models.streams.Stream`, or None.
        test: test data, as ``train``.
        stats: initial running statistics of batch norm; a pytree without leaves if there are none.
        examine: as ``evaluate``, with a further entry ``losses``: the loss of every example (n,), whose mean is
            ``loss``. None if only the mean is known.

    Example:
        >>> import jax
        >>> from stalegrad.models import Problem
        >>> objective = Problem("softmax-regression", "fashion-mnist-small").objective()
        >>> params = objective.init(jax.random.key(0))
        >>> objective.examples, sorted(objective.evaluate(params, objective.stats, objective.test))
        (10000, ['error', 'loss'])
    """

    init: Callable[[jax.Array], Params]
    loss: Loss
    evaluate: Evaluate
    train: Data = None
    test: Data = None
    stats: Stats = ()
    examine: Evaluate | None = None

    @property
    def examples(self) -> int:
        """The number of training examples, 0 if there are no data."""
        leaves = jax.tree.leaves(self.train)
        return len(leaves[0]) if leaves else 0


def named_objective(
    model: str,
    dataset: str,
    directory: str | None,
    augment: bool,
    context: int | None,
    image_size: int | None,
    options: tuple[tuple[str, object], ...],
) -> Objective:
    """Return the objective of a network and a data set by name; arguments as for ``Problem``.

    The same arguments return the same object as long as local data do not change.
    """
    local = data_fingerprint(dataset, directory)
    return _named_objective(model, dataset, directory, local, augment, context, image_size, options)


@functools.lru_cache(maxsize=8)
def _named_objective(
    model: str,
    dataset: str,
    directory: str | None,
    fingerprint: str | None,
    augment: bool,
    context: int | None,
    image_size: int | None,
    options: tuple[tuple[str, object], ...],
) -> Objective:
    make = functools.partial(NETWORKS[model].make, **dict(options))
    if NETWORKS[model].takes == "text":
        assert context is not None
        text = load_text(dataset, directory)
        network = make((context,), len(text.vocabulary))
        return prediction(network, text.sequences("train", context), text.sequences("test", context))
    if image_size is not None:
        return _streamed(make, Path(str(directory)), image_size, augment)
    data = load_dataset(dataset, directory)
    network = make(data.train_inputs.shape[1:], data.classes)
    if not augment:
        train, test = data.normalised("train"), data.normalised("test")
        return prediction(network, (train, data.train_targets), (test, data.test_targets))
    mean, std = (np.asarray(x, np.float32) for x in (data.mean, data.std))
    return prediction(  # normalised after the augmentation, thus at every use
        network,
        (data.train_inputs, data.train_targets),
        (data.test_inputs, data.test_targets),
        lambda inputs: (inputs.astype(np.float32) / 255 - mean) / std,
        crop_and_flip,
    )


def _streamed(make: Callable[..., Network], directory: Path, side: int, augment: bool) -> Objective:
    """Return the objective of images in folders; with ``augment``, on random crops of 7/8 of the shorter side."""
    train, test = load_folder(directory, side, side * 8 // 7 if augment else side)
    mean, std = (np.asarray(x, np.float32) for x in (MEAN, STD))
    return prediction(
        make((side, side, 3), len(train.classes)),
        train,
        test,
        lambda inputs: (middle(side, inputs).astype(np.float32) / 255 - mean) / std,
        functools.partial(crop_to, side) if augment else lambda inputs, key: inputs,
    )


def prediction(
    network: Network,
    train: Data,
    test: Data,
    normalise: Callable[[jax.Array], jax.Array] = lambda inputs: inputs,
    augment: Callable[[jax.Array, jax.Array], jax.Array] = lambda inputs, key: inputs,
) -> Objective:
    """Return the objective of predicting targets from inputs: mean cross-entropy, in nats.

    Args:
        network: network from inputs to logits, with one row of logits per target.
        train: inputs (n, ...) and targets, int (n,), or int (n, context) for a text; or a stream of such pairs.
        test: test data, as ``train``.
        normalise: function applied to inputs before the network.
        augment: ``augment(inputs, key)``, applied to a mini-batch before ``normalise``.
    """

    def loss(params: Params, stats: Stats, batch: Batch, key: jax.Array) -> tuple[jax.Array, Stats]:
        inputs, targets = batch
        logits, stats = network.train(params, normalise(augment(inputs, key)), stats)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return cross_entropy + network.penalty(params), stats

    def examine(params: Params, stats: Stats, data: Batch) -> Mapping[str, jax.Array]:
        def of_one(example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inputs, targets = example
            logits = network.apply(params, normalise(inputs[None]), stats)[0]
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return cross_entropy.mean(), (jnp.argmax(logits, axis=-1) != targets).mean()

        cross_entropy, wrong = jax.lax.map(of_one, data, batch_size=_block(data[0].shape[1:], network.width))
        penalty = network.penalty(params)
        return {
            "loss": cross_entropy.mean() + penalty,
            "error": wrong.mean(),
            "losses": cross_entropy + penalty,
        }

    def evaluate(params: Params, stats: Stats, data: Batch) -> Mapping[str, jax.Array]:
        found = examine(params, stats, data)
        return {"loss": found["loss"], "error": found["error"]}

    return Objective(network.init, loss, evaluate, on_device(train), on_device(test), network.stats, examine)


def _block(shape: tuple[int, ...], width: int | None) -> int:
    """Return the number of examples that are evaluated at once.

    The bound is a number of pixels for images, a smaller number of tokens for texts, whose tokens have one logit
    per word, and memory for dense networks, which are several times faster with large blocks.
    """
    if width is not None:
        return max(1, min(2**24 // width, 2**26 // math.prod(shape)))
    return max(1, (2**11 if len(shape) == 1 else 2**17) // math.prod(shape[:2]))
