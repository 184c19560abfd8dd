"""Problems: model, data and loss, and the division of data among workers. They are independent of time."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from stalegrad._core.specs import unknown_name
from stalegrad._core.types import Batch, Data, Params, Table
from stalegrad.models.datasets.sources import FOLDER, SOURCES
from stalegrad.models.networks import NETWORKS
from stalegrad.models.partitions import PARTITIONS, Partition
from stalegrad.models.sampling import Batches, Sampled, Sampling

if TYPE_CHECKING:
    import jax

    from stalegrad.models.objective import Objective


class Problem(Sampled):
    """A model, the data it is trained on, and how mini-batches are drawn.

    Args:
        model: name of a network, one of `list_models`: ``mlp``, ``resnet-20``, ``transformer``, ...
        dataset: name of a data set, one of `list_datasets`; ``fashion-mnist-small`` and ``shakespeare`` (a text)
            come with the package.
        batch_size: number of examples in a mini-batch (of one worker).
        sampling: how mini-batches are drawn, see ``stalegrad.models.sampling.Sampling``; ``epochs`` by default.
        partition: which worker holds which training example: for example a :class:`~stalegrad.models.Dirichlet`,
            or a table as in TOML. Every worker then draws mini-batches from its own shard, as with
            ``sampling="sharded"``, which stands for ``Shuffled()``.
        batches: which messages take which mini-batches, see ``stalegrad.models.sampling.Batches``.
        directory: directory of the data set's official files, if they are not in the usual places.
        augment: for images: whether to shift each image of a mini-batch by up to 4 pixels and mirror half of them.
        context: for a text: number of tokens in an example, 128 by default.
        image_size: for ``image-folder``: height and width to which images are scaled, 224 by default. With
            ``augment`` they are cropped at random from images that are larger by 8/7. The training loss of
            ``image-folder`` is by default that of 2,048 evenly spaced images.
        **options: options of the network, e.g. ``hidden=(128, 64)``, ``l2=0.01``.

    Raises:
        ValueError: for an unknown name (with a suggestion), an option the network does not have, a value that
            is not allowed, or a network and a data set that do not fit together.

    Example:
        >>> from stalegrad.models import Problem
        >>> Problem("mlp", "fashion-mnist-small", hidden=(64, 32), batch_size=16).parameter_bytes()
        210600
    """

    def __init__(
        self,
        /,
        model: str,
        dataset: str,
        *,
        batch_size: int = 32,
        sampling: Sampling | None = None,
        partition: Partition | Mapping[str, object] | None = None,
        batches: Batches = "by-gradient",
        directory: str | os.PathLike[str] | None = None,
        augment: bool = False,
        context: int | None = None,
        image_size: int | None = None,
        **options: Any,
    ) -> None:
        NETWORKS.find(model)
        SOURCES.find(dataset)
        if directory is not None and not isinstance(directory, str | os.PathLike):
            raise ValueError(f"directory = {directory!r} is not a path")
        self.model, self.dataset = model, dataset
        self.directory = None if directory is None else os.fspath(directory)
        self._draw_from(batch_size, sampling, partition, batches)
        self.augment, self.context = _checked_for(SOURCES[dataset].kind, model, dataset, augment, context)
        if SOURCES[dataset].kind == "text":
            self._check_labels(None)
        self.image_size = _checked_size(dataset, self.directory, image_size)
        self.options = _network_options(model, options)
        self._functions: Table = {}
        self._objective: Callable[[], Objective] = functools.partial(
            _named_objective,
            model,
            dataset,
            self.directory,
            self.augment,
            self.context,
            self.image_size,
            tuple(self.options.items()),
        )

    @classmethod
    def from_functions(
        cls,
        init: Callable[[jax.Array], Params],
        loss: Callable[[Params, Batch, jax.Array], jax.Array],
        *,
        train: Data = None,
        test: Data = None,
        labels: npt.ArrayLike | None = None,
        batch_size: int | None = None,
        sampling: Sampling | None = None,
        partition: Partition | Mapping[str, object] | None = None,
        batches: Batches = "by-gradient",
        evaluate: Callable[[Params, Batch], Mapping[str, jax.Array]] | None = None,
        gradient: Callable[[Params, Batch, jax.Array], Params] | None = None,
    ) -> Problem:
        """Return a problem made of your own functions; parameters may be any pytree.

        Args:
            init: ``init(key) -> params``: arrays of type float16, bfloat16, float32 or (under
                ``jax_enable_x64``) float64, also mixed. Stored copies keep these types; arithmetic with
                hyper-parameters uses float32 at least.
            loss: ``loss(params, batch, key) -> scalar``, differentiable in ``params``; ``key`` is fresh for
                every mini-batch gradient, for noise, dropout and the like.
            train: pytree of arrays with a common first axis, a :class:`~stalegrad.models.streams.Stream`, or
                None: then ``batch`` is None.
            test: test data for evaluation, as ``train``.
            labels: the class of every training example, whole numbers (examples,), for partitions that use
                classes; by default y, if ``train`` is ``(x, y)`` with such a y.
            batch_size: number of examples in a mini-batch; required with data, and not allowed without.
            sampling: how mini-batches are drawn.
            partition: which worker holds which training example, as for :class:`Problem`.
            batches: which messages take which mini-batches, as for :class:`Problem`.
            evaluate: ``evaluate(params, data) -> {"loss": scalar, "error": scalar, ...}``; by default the
                loss of the whole data set.
            gradient: ``gradient(params, batch, key) -> params``, which replaces the derivative of the loss, for
                example by clipped, compressed or noisy gradients. ``loss`` need not be differentiable then.

        When a run begins, the returned values of the functions are checked by their shapes.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> from stalegrad.models import Problem
            >>> bowl = Problem.from_functions(lambda key: jnp.ones(10), lambda w, batch, key: 0.5 * jnp.sum(w**2))
            >>> def noisy(w, batch, key):
            ...     return w + 0.1 * jax.random.normal(key, w.shape)
            >>> bowl.but(gradient=noisy).batch_size
            1

        Raises:
            ValueError: if the data and ``batch_size``, ``labels`` or ``partition`` do not fit together.
        """
        if (train is None) != (batch_size is None):
            raise ValueError(
                f"batch_size = {batch_size} is not allowed: give it with training data, and only then"
            )
        import jax

        from stalegrad.models.functions import check_data, check_functions, with_gradient
        from stalegrad.models.objective import Objective

        train, test = check_data("train", train), check_data("test", test)

        def whole_loss(params: Params, data: Batch) -> Mapping[str, jax.Array]:
            return {"loss": loss(params, data, jax.random.key(0))}

        problem = cls.__new__(cls)
        problem.model, problem.dataset, problem.directory = "functions", "", None
        problem.augment, problem.context, problem.image_size = False, None, None
        problem._draw_from(1 if batch_size is None else batch_size, sampling, partition, batches)
        problem.options = {}
        own = {"init": init, "loss": loss, "evaluate": evaluate, "gradient": gradient}
        problem._functions = {**own, "train": train, "test": test}
        problem._functions |= {} if labels is None else {"labels": labels}
        measure = evaluate or whole_loss
        differentiated = loss if gradient is None else with_gradient(loss, gradient)
        objective = Objective(
            init,
            lambda params, stats, batch, key: (differentiated(params, batch, key), stats),
            lambda params, stats, data: measure(params, data),
            train,
            test,
        )
        problem._check_size(objective)
        problem._check_division(objective)

        @functools.cache
        def checked() -> Objective:
            check_functions(init, loss, measure, train, test, problem.batch_size, gradient)
            return objective

        problem._objective = checked
        return problem

    def objective(self) -> Objective:
        """Load the data and return the objective; the same problem loads its data once.

        Raises:
            ValueError: if a mini-batch is larger than the data set, or a user's function returns a wrong value.
            FileNotFoundError: if the data set cannot be found or downloaded.
        """
        objective = self._objective()
        self._check_size(objective)
        return objective

    def parameter_bytes(self) -> int:
        """Return the size of all parameters in bytes; this loads the data, as :meth:`objective` does."""
        import jax

        params = jax.eval_shape(self.objective().init, jax.random.key(0))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))

    def _check_size(self, objective: Objective) -> None:
        if objective.examples and self.batch_size > objective.examples:
            raise ValueError(
                f"batch_size = {self.batch_size} is not allowed: the data set has {objective.examples} examples"
            )

    @property
    def named(self) -> bool:
        """Whether it consists of names only, so that a spec can hold it."""
        return self.model in NETWORKS

    def but(self, **changes: Any) -> Problem:
        """Return the same problem with some arguments changed, e.g. ``problem.but(batch_size=64)``.

        Raises:
            ValueError: for an argument that it does not have, or a value that is not allowed.
        """
        if self.named:
            return Problem(**{**self.settings, **changes})
        known = list(inspect.signature(Problem.from_functions).parameters)
        for name in changes:
            if name not in known:
                raise ValueError(unknown_name("argument of a problem of functions:", name, known))
        return Problem.from_functions(**{**self.settings, **changes})

    @property
    def settings(self) -> Table:
        """The arguments that make an equal problem, as objects."""
        sampling: Table = {} if "partition" in self._division else {"sampling": self.sampling}
        if not self.named:
            batch_size = None if self._functions["train"] is None else self.batch_size
            return {**self._functions, "batch_size": batch_size, **sampling, **self._division}
        settings: Table = {"model": self.model, "dataset": self.dataset, "batch_size": self.batch_size}
        if self.sampling != "epochs":
            settings |= sampling
        settings |= self._division
        if self.directory is not None:
            settings["directory"] = self.directory
        if self.augment:
            settings["augment"] = True
        if self.context is not None:
            settings["context"] = self.context
        if self.image_size is not None:
            settings["image_size"] = self.image_size
        return settings | {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}

    def data_fingerprint(self) -> str | None:
        """Return a digest of local data without an official checksum; None if there are none."""
        from stalegrad.models.datasets import data_fingerprint

        return data_fingerprint(self.dataset, self.directory) if self.named else None

    def table(self) -> Table:
        """Return the problem as a table; ``Problem(**table)`` gives it back.

        Raises:
            ValueError: if it is made of functions, or its partition exists in this process only.
        """
        if not self.named:
            raise ValueError(
                "a problem made of functions runs in this process only and cannot be written to a spec"
            )
        table = self.settings
        return table | ({"partition": PARTITIONS.to_table(self.partition)} if "partition" in table else {})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return self is other or (self.named and other.named and self.settings == other.settings)

    def __hash__(self) -> int:
        return hash(repr(self)) if self.named else id(self)

    def __repr__(self) -> str:
        if not self.named:
            given = {"batch_size": self.batch_size, "sampling": self.sampling, **self._division}
            return f"Problem.from_functions({', '.join(f'{k}={v!r}' for k, v in given.items())})"
        arguments = [f"{k}={v!r}" for k, v in self.settings.items()]
        return f"Problem({', '.join(arguments)})"


def _named_objective(*arguments: Any) -> Objective:
    from stalegrad.models.objective import named_objective

    return named_objective(*arguments)


def _checked_for(kind: str, model: str, dataset: str, augment: object, context: object) -> tuple[bool, int | None]:
    if NETWORKS[model].takes != kind:
        raise ValueError(
            f"model {model!r} takes {NETWORKS[model].takes}, but the data set {dataset!r} holds {kind}"
        )
    if not isinstance(augment, bool):
        raise ValueError(f"augment = {augment!r} is not allowed: True or False")
    if kind == "images":
        if context is not None:
            raise ValueError(f"context = {context!r} is not allowed: the data set {dataset!r} holds images")
        return augment, None
    if augment:
        raise ValueError(f"augment = True is not allowed: the data set {dataset!r} holds text")
    context = 128 if context is None else context
    if isinstance(context, bool) or not isinstance(context, int | np.integer) or context < 1:
        raise ValueError(f"context = {context!r} is not allowed: a whole number of at least 1")
    return False, int(context)


def _checked_size(dataset: str, directory: str | None, image_size: object) -> int | None:
    if dataset != FOLDER:
        if image_size is not None:
            raise ValueError(f"image_size = {image_size!r} is not allowed: only the data set {FOLDER!r} has one")
        return None
    if directory is None:
        raise ValueError(f"the data set {FOLDER!r} needs directory=, where train/ and test/ (or val/) are")
    image_size = 224 if image_size is None else image_size
    if isinstance(image_size, bool) or not isinstance(image_size, int | np.integer) or image_size < 8:
        raise ValueError(f"image_size = {image_size!r} is not allowed: a whole number of at least 8")
    return int(image_size)


def _network_options(model: str, options: Mapping[str, object]) -> Table:
    known = list(inspect.signature(NETWORKS[model].make).parameters)[2:]
    hints = get_type_hints(NETWORKS[model].make, include_extras=True)
    checked = {}
    for key, value in options.items():
        if key not in known:
            own = [name for name, p in inspect.signature(Problem).parameters.items() if p.kind is p.KEYWORD_ONLY]
            raise ValueError(unknown_name(f"option of model {model!r}:", key, [*known, *own]))
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{key} of model {model!r} = {value!r} is not allowed: {reason}") from None
    return dict(sorted(checked.items()))
