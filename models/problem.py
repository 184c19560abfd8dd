"""Problems: model + data + loss. They know neither time nor workers."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import TypeAdapter, ValidationError

from stalegrad.models.datasets import check_name, load_dataset
from stalegrad.models.naming import unknown_name
from stalegrad.models.networks import NETWORKS

Params = Any
Batch = Any

Sampling = Literal["epochs", "iid", "sharded"]
"""``epochs``: one shuffled stream shared by all workers, every example once per epoch; ``iid``: with
replacement; ``sharded``: every worker shuffles a part of its own."""

_BLOCK = 1_000
"""Evaluation goes through a data set in blocks of this many examples."""


class Objective(NamedTuple):
    """A problem with its data in memory: all that the replay needs.

    Attributes:
        init: ``init(key) -> params``, any pytree of arrays.
        loss: ``loss(params, batch, key) -> scalar``, the mean loss of a mini-batch (``None`` without data).
        evaluate: ``evaluate(params, data) -> {"loss": scalar, ...}`` over a whole data set; a metric called
            ``error`` is the fraction misclassified.
        train: pytree of arrays with a common first axis, or None.
        test: likewise.
    """

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch, jax.Array], jax.Array]
    evaluate: Callable[[Params, Batch], Mapping[str, jax.Array]]
    train: Any = None
    test: Any = None

    @property
    def examples(self) -> int:
        """The number of training examples, 0 if there are no data."""
        leaves = jax.tree.leaves(self.train)
        return len(leaves[0]) if leaves else 0


class Problem:
    """What is trained, and on what.

    Args:
        model: a network by name: ``softmax-regression`` or ``mlp``.
        dataset: a data set by name: ``fashion-mnist-small`` (embedded), ``fashion-mnist``, ``mnist``.
        batch_size: examples in a mini-batch (of one worker).
        sampling: how mini-batches are drawn, see ``Sampling``.
        directory: where the data set's official files are, if not in the usual places.
        **options: of the network, e.g. ``hidden=(128, 64)``, ``l2=0.01``.

    Raises:
        ValueError: for an unknown name (with a suggestion), an option the network does not have, or a
            value that is not allowed.
    """

    def __init__(
        self,
        /,
        model: str,
        dataset: str,
        *,
        batch_size: int = 32,
        sampling: Sampling = "epochs",
        directory: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if model not in list(NETWORKS):
            raise ValueError(unknown_name("model", model, NETWORKS))
        check_name(dataset)
        if directory is not None and not isinstance(directory, str | os.PathLike):
            raise ValueError(f"directory = {directory!r} is not a path")
        self.model, self.dataset = model, dataset
        self.directory = None if directory is None else os.fspath(directory)
        self.batch_size, self.sampling = _checked(batch_size, sampling)
        self.options = _network_options(model, options)
        self._objective: Callable[[], Objective] = functools.partial(
            _classification, model, dataset, self.directory, tuple(self.options.items())
        )

    @classmethod
    def from_functions(
        cls,
        init: Callable[[jax.Array], Params],
        loss: Callable[[Params, Batch, jax.Array], jax.Array],
        *,
        train: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        sampling: Sampling = "epochs",
        evaluate: Callable[[Params, Batch], Mapping[str, jax.Array]] | None = None,
    ) -> Problem:
        """Return a problem made of your own functions; parameters may be any pytree.

        Args:
            init: ``init(key) -> params``.
            loss: ``loss(params, batch, key) -> scalar``, differentiable in ``params``; ``key`` is fresh for
                every mini-batch gradient, for noise, dropout and the like.
            train: pytree of arrays with a common first axis, or None: then ``batch`` is None.
            test: likewise, for evaluation.
            batch_size: examples in a mini-batch; needed exactly if there are data.
            sampling: how mini-batches are drawn.
            evaluate: ``evaluate(params, data) -> {"loss": scalar, "error": scalar, ...}``; by default the
                loss of the whole data set.

        A noise-free quadratic::

            Problem.from_functions(lambda key: jnp.ones(10), lambda w, batch, key: 0.5 * jnp.sum(w**2))

        Raises:
            ValueError: if the data and ``batch_size`` do not fit together.
        """
        if (train is None) != (batch_size is None):
            raise ValueError(
                f"batch_size = {batch_size} is not allowed: give it with training data, and only then"
            )
        lengths = {len(leaf) for leaf in jax.tree.leaves(train)}
        if len(lengths) > 1:
            raise ValueError(f"train has arrays of different lengths: {sorted(lengths)}")

        def whole_loss(params: Params, data: Batch) -> Mapping[str, jax.Array]:
            return {"loss": loss(params, data, jax.random.key(0))}

        problem = cls.__new__(cls)
        problem.model, problem.dataset, problem.directory = "functions", "", None
        problem.batch_size, problem.sampling = _checked(1 if batch_size is None else batch_size, sampling)
        problem.options = {}
        objective = Objective(init, loss, evaluate or whole_loss, *jax.tree.map(jnp.asarray, (train, test)))
        problem._objective = lambda: objective
        return problem

    def objective(self) -> Objective:
        """Load the data, and return what the replay needs; the same problem loads once.

        Raises:
            ValueError: if a mini-batch is larger than the data set.
            FileNotFoundError: if the data set is not to be had.
        """
        objective = self._objective()
        if objective.examples and self.batch_size > objective.examples:
            raise ValueError(
                f"batch_size = {self.batch_size} is not allowed: the data set has {objective.examples} examples"
            )
        return objective

    @property
    def named(self) -> bool:
        """Whether it consists of names only, and so can stand in a spec."""
        return self.model in NETWORKS

    def table(self) -> dict[str, Any]:
        """Return the problem as a table; ``Problem(**table)`` gives it back.

        Raises:
            ValueError: if it is made of functions.
        """
        if not self.named:
            raise ValueError(
                "a problem made of functions runs in this process only and cannot be written to a spec"
            )
        table: dict[str, Any] = {"model": self.model, "dataset": self.dataset, "batch_size": self.batch_size}
        if self.sampling != "epochs":
            table["sampling"] = self.sampling
        if self.directory is not None:
            table["directory"] = self.directory
        return table | {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return self is other or (self.named and other.named and self.table() == other.table())

    def __hash__(self) -> int:
        return hash(repr(self)) if self.named else id(self)

    def __repr__(self) -> str:
        if not self.named:
            return f"Problem.from_functions(batch_size={self.batch_size}, sampling={self.sampling!r})"
        arguments = [f"{k}={v!r}" for k, v in self.table().items()]
        return f"Problem({', '.join(arguments)})"


def list_models() -> dict[str, str]:
    """Return every network's name and the first line of its description."""
    return {name: (inspect.getdoc(make) or "").splitlines()[0] for name, make in NETWORKS.items()}


def _checked(batch_size: Any, sampling: Any) -> tuple[int, Sampling]:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size = {batch_size!r} is not allowed: a whole number of at least 1")
    if sampling not in get_args(Sampling):
        raise ValueError(unknown_name("sampling", sampling, get_args(Sampling)))
    return int(batch_size), sampling


def _network_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(NETWORKS[model]).parameters)[2:]
    hints = get_type_hints(NETWORKS[model], include_extras=True)
    checked = {}
    for key, value in options.items():
        if key not in known:
            raise ValueError(unknown_name(f"option of model {model!r}:", key, known))
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{key} of model {model!r} = {value!r} is not allowed: {reason}") from None
    return dict(sorted(checked.items()))


@functools.lru_cache(maxsize=8)
def _classification(
    model: str, dataset: str, directory: str | None, options: tuple[tuple[str, Any], ...]
) -> Objective:
    data = load_dataset(dataset, directory)
    network = NETWORKS[model](data.train_inputs.shape[1:], data.classes, **dict(options))

    def loss(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        inputs, targets = batch
        logits = network.apply(params, inputs)
        cross_entropy: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return cross_entropy + network.penalty(params)

    def evaluate(params: Params, batch: Batch) -> Mapping[str, jax.Array]:
        inputs, targets = batch
        logits = jax.lax.map(lambda x: network.apply(params, x[None])[0], inputs, batch_size=_BLOCK)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        wrong = jnp.argmax(logits, axis=-1) != targets
        return {"loss": cross_entropy + network.penalty(params), "error": wrong.mean()}

    train = jnp.asarray(data.normalised("train")), jnp.asarray(data.train_targets)
    test = jnp.asarray(data.normalised("test")), jnp.asarray(data.test_targets)
    return Objective(network.init, loss, evaluate, train, test)
