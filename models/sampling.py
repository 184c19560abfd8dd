"""Sampling: how mini-batches are drawn, and which worker holds which example."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from stalegrad._core.specs import PositiveInt, Seed, unknown_name, validate
from stalegrad._core.types import Ints, Table
from stalegrad.models.partitions import Partition, Shuffled, as_partition, split_of
from stalegrad.models.shards import checked_labels, labels_of, part_of, shard_table

if TYPE_CHECKING:
    import pandas as pd

    from stalegrad.models.objective import Objective

Sampling = Literal["epochs", "iid", "sharded"]
"""``epochs``: one shuffled stream shared by all workers, every example once per epoch; ``iid``: with
replacement; ``sharded``: every worker shuffles its own part."""

Batches = Literal["by-gradient", "by-message"]
"""``by-gradient``: used messages take the mini-batches in the order in which they are used, so that a message that
is not used loses no data. ``by-message``: all messages take the mini-batches in the order in which their workers
read, when the work starts, so that a dropped message loses its data."""


class Sampled:
    """The base of problems: how mini-batches are drawn from their data, and which worker holds which example.

    Attributes:
        batch_size: number of examples in a mini-batch.
        sampling: how mini-batches are drawn, see ``Sampling``.
        partition: which worker holds which example; None if all workers draw from the same examples.
        batches: which messages take which mini-batches, see ``Batches``.
    """

    batch_size: int
    sampling: Sampling
    partition: Partition | None
    batches: Batches
    _functions: Table

    def objective(self) -> Objective:
        """Return the problem with its data in memory."""
        raise NotImplementedError

    def data_fingerprint(self) -> str | None:
        """Return a digest of local data; None if there are none."""
        raise NotImplementedError

    def split(self, workers: int, seed: int = 0) -> tuple[Ints, ...]:
        """Return the indices of the training examples of each worker, read-only.

        Args:
            workers: number of workers.
            seed: seed of the run; :func:`~stalegrad.simulator.run` with this seed uses the same shards.

        Raises:
            ValueError: if all workers draw from the same examples, or the data cannot be divided in this way.
        """
        self.check_divided("shards of a problem")
        self.check_workers(validate("workers", PositiveInt, workers))
        return _split(self, self.data_fingerprint(), workers, validate("seed", Seed, seed))

    def shards(self, workers: int, seed: int = 0) -> pd.DataFrame:
        """Return the number of examples of each class at each worker: a row per class, a column per worker.

        Data without classes have one row, ``all``. Arguments and errors as for :meth:`split`.

        Example:
            >>> from stalegrad.models import ClassesPerWorker, Problem
            >>> problem = Problem("mlp", "fashion-mnist-small", partition=ClassesPerWorker(2))
            >>> problem.shards(workers=5).sum().tolist()
            [2000, 2000, 2000, 2000, 2000]
        """
        return shard_table(self.split(workers, seed), self._labels())

    def worker_objectives(self, workers: int, seed: int = 0) -> list[Objective]:
        """Return the objective f_i of each worker i: the problem's, with the worker's shard as training data.

        Example:
            >>> import jax
            >>> from stalegrad.models import Problem
            >>> problem = Problem("softmax-regression", "fashion-mnist-small", sampling="sharded")
            >>> own = problem.worker_objectives(workers=4)[0]
            >>> params = own.init(jax.random.key(0))
            >>> round(float(own.evaluate(params, own.stats, own.train)["error"]), 1)  # of an untrained network
            0.9

        Arguments and errors as for :meth:`split`.
        """
        objective = self.objective()
        shards = self.split(workers, seed)
        return [objective._replace(train=part_of(objective.train, shard)) for shard in shards]

    def check_divided(self, what: str) -> None:
        """Raise ValueError, naming what needs shards, unless every worker has its own shard."""
        if self.partition is None:
            raise ValueError(
                f"{what}: with sampling = {self.sampling!r} all workers draw from the same examples; give a "
                "partition, or sampling = 'sharded'"
            )

    def check_workers(self, workers: int) -> None:
        """Raise ValueError if the data must be divided among workers, and cannot be among this number of them."""
        if self.partition is None:
            return
        examples = self.objective().examples
        if examples // workers < self.batch_size:
            raise ValueError(
                f"batch_size = {self.batch_size} is not allowed: {examples} examples sharded over {workers} "
                f"workers leave {examples // workers} each"
            )
        self.partition.check(self._kinds(), workers, self.batch_size)

    def _labels(self) -> Ints | None:
        """Return the class of every training example, or None."""
        given = self._functions.get("labels")
        objective = self.objective()
        return labels_of(objective.train) if given is None else checked_labels(given, objective.examples)

    def _kinds(self) -> Ints:
        """Return the class of every training example as 0, 1, ...; all 0 if there are no classes."""
        labels = self._labels()
        if labels is None:
            return np.zeros(self.objective().examples, np.int64)
        return np.unique(labels, return_inverse=True)[1]

    @property
    def _division(self) -> Table:
        """The arguments ``partition`` and ``batches``, unless ``sampling`` and the defaults imply them."""
        given: Table = {} if self.partition in (None, Shuffled()) else {"partition": self.partition}
        return given if self.batches == "by-gradient" else given | {"batches": self.batches}

    def _draw_from(
        self,
        batch_size: object,
        sampling: Sampling | None,
        partition: Partition | Mapping[str, object] | None,
        batches: Batches,
    ) -> None:
        """Check and keep the settings of how mini-batches are drawn."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size = {batch_size!r} is not allowed: a whole number of at least 1")
        if sampling is not None and sampling not in get_args(Sampling):
            raise ValueError(unknown_name("sampling", sampling, get_args(Sampling)))
        if batches not in get_args(Batches):
            raise ValueError(unknown_name("batches", batches, get_args(Batches)))
        if partition is not None and sampling not in (None, "sharded"):
            raise ValueError(
                f"sampling = {sampling!r} is not allowed with a partition: every worker draws from its own shard "
                "(sampling = 'sharded')"
            )
        self.batch_size, self.batches = int(batch_size), batches
        self.sampling = sampling or ("epochs" if partition is None else "sharded")
        sharded = self.sampling == "sharded" and partition is None
        self.partition = Shuffled() if sharded else None if partition is None else as_partition(partition)

    def _check_labels(self, labels: Ints | None) -> None:
        if self.partition is not None and self.partition.needs_labels and labels is None:
            raise ValueError(
                f"partition = {self.partition} is not allowed: the training examples have no classes; a problem "
                "of functions may give labels="
            )

    def _check_division(self, objective: Objective) -> None:
        """Raise ValueError if a problem of functions has no data to divide, or no classes to divide them by."""
        given = self._division.keys() | self._functions.keys() & {"labels"}
        if objective.train is None and given:
            raise ValueError(f"{', '.join(sorted(given))} is not allowed: the problem has no training data")
        labels = self._functions.get("labels")
        self._check_labels(
            labels_of(objective.train) if labels is None else checked_labels(labels, objective.examples)
        )


@functools.lru_cache(maxsize=16)
def _split(problem: Sampled, fingerprint: str | None, workers: int, seed: int) -> tuple[Ints, ...]:
    """Return the split of a problem; the fingerprint is an argument so that changed local data are split again."""
    assert problem.partition is not None
    return split_of(problem.partition, problem._kinds(), workers, problem.batch_size, seed)
