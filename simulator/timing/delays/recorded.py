"""Measured times in their order: a user's times, and those of four production jobs in the package."""

from __future__ import annotations

import copy
import functools
import importlib.resources
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from stalegrad._core.delay import BLOCK, Delay, Floats, RecordEndsError
from stalegrad._core.specs import NonNegativeInt, PositiveFloat, spec, unknown_name
from stalegrad.simulator.timing.delays.measured import INLINE_SAMPLES
from stalegrad.simulator.timing.delays.memory import Memory
from stalegrad.simulator.timing.delays.reading import checksum, numbers, path_of, read
from stalegrad.simulator.timing.delays.step_times import ALLOWED, StepTimes, from_csv, from_frame

JOBS = tuple(f"alibaba-job-{number}" for number in range(1, 5))
"""Measured jobs that are part of the package."""


@spec
class Recorded(Memory):
    """Measured times in the order in which they were measured.

    Worker i replays record i from its first time on, so that the times of step n of all workers belong together. A
    record begins again at its end.

    Args:
        times: seconds: a list for all workers, a list of one list per worker, or a DataFrame with columns
            ``worker``, ``step`` and ``seconds``, rows in any order (without ``worker``: one record for all;
            without ``step``: rows in order). Columns may be called ``rank``, ``iteration``, ``duration`` etc.
        file: path of a CSV file with such columns, in place of ``times`` (UTF-8, at most 64 MiB).
        sha256: checksum of the file, if it is to be verified; filled in when the file is read.
        job: name of a measured job, in place of ``times``; see :meth:`measured`.
        scale: factor on every time: seconds per unit of the record.
        worker: index of the one record that every worker with this delay replays.
        start: place where a worker begins: ``first``, or ``random`` for a random place of its record.
        wrap: whether a record begins again at its end. If not, a worker that needs more times raises an error,
            before the simulation if the budget shows it.

    Raises:
        ValueError: for a value that is not allowed; it names the worker and number, or the row or line.
        FileNotFoundError: if there is no such file.

    Example:
        >>> from stalegrad.simulator import Cluster, Recorded, simulate
        >>> from stalegrad.policies import Sync
        >>> cluster = Cluster(workers=2, compute=Recorded([[1.0, 3.0], [2.0, 2.0]]))
        >>> simulate(cluster, Sync(), updates=4).update_times.tolist()
        [2.0, 5.0, 7.0, 10.0]
    """

    times: Any = ()
    file: Any = None
    sha256: str | None = None
    job: str | None = None
    scale: PositiveFloat = 1.0
    worker: NonNegativeInt | None = None
    start: Literal["first", "random"] = "first"
    wrap: bool = True

    @classmethod
    def measured(cls, name: str, scale: float = 1.0, **settings: Any) -> Self:
        """Return the mini-batch times of ten workers of a production training job.

        Args:
            name: ``alibaba-job-1`` (one worker becomes a straggler; 300 steps), ``-2`` (lasting differences; 238
                steps), ``-3`` (several stragglers; 248 steps) or ``-4`` (fluctuation; 2,182 steps). Every tenth
                iteration was logged.
            scale: median time, in seconds: the record holds ratios to the job's median.
            settings: ``worker``, ``start`` and ``wrap``, as for the class.

        Raises:
            ValueError: for an unknown name, with a suggestion.

        Reference:
            Alibaba cluster trace, CC BY 4.0, https://github.com/alibaba/clusterdata; Weng et al., MLaaS in the
            Wild, NSDI 2022, https://www.usenix.org/conference/nsdi22/presentation/weng.

        Example:
            >>> from stalegrad.simulator import Recorded
            >>> round(Recorded.measured("alibaba-job-4", scale=0.2).expectation(), 3)
            0.248
        """
        return cls(job=name, scale=scale, **settings)

    def check_fields(self) -> None:
        """Read the times; raise ValueError if a record has no time above 0."""
        given = [name for name in ("times", "file", "job") if not _missing(getattr(self, name))]
        if len(given) != 1:
            raise ValueError(f"recorded takes one of times, file and job, but got {' and '.join(given) or 'none'}")
        if self.file is not None:
            object.__setattr__(self, "file", path_of("recorded", self.file))
            object.__setattr__(self, "sha256", checksum("recorded", self.file, self.sha256))
        elif self.sha256 is not None:
            raise ValueError(f"sha256 of recorded = {self.sha256!r} is not allowed without a file")
        if self.job is not None and self.job not in JOBS:
            raise ValueError(unknown_name("measured job", self.job, JOBS))
        if given == ["times"]:
            object.__setattr__(self, "times", _inline(self.times))
        if self.start == "random" and not self.wrap:
            raise ValueError("start of recorded = 'random' is not allowed with wrap = false: records would be cut")
        for worker, own in enumerate(self.records.times):
            if len(own) == 0 or own.max() == 0:
                whose = f", worker {worker}," if self.records.own else ""
                raise ValueError(
                    f"times of recorded{whose} are {len(own)} times, none above 0: give at least one that is"
                )
        if self.worker is not None and not self.records.own:
            raise ValueError(f"worker of recorded = {self.worker} is not allowed: there is one record for all")
        if self.worker is not None:
            self._check_worker(self.worker)

    @property
    def ahead(self) -> bool:
        """Whether times may be drawn before they are needed: not if the record may end."""
        return self.wrap

    @functools.cached_property
    def records(self) -> StepTimes:
        """The records of all workers, in the unit of the record."""
        if self.file is not None:
            return _load_file(self.file, str(self.sha256))
        if self.job is not None:
            return _load_job(self.job)
        own = isinstance(self.times[0], tuple)
        return StepTimes(tuple(map(np.array, self.times)) if own else (np.array(self.times),), own)

    def of_worker(self, worker: int) -> Delay:
        """Return the delay that replays one worker's record.

        Raises:
            ValueError: if there is no record of this worker.
        """
        if self.worker is not None or not self.records.own:
            return self
        self._check_worker(worker)
        own = copy.copy(self)  # its fields have been checked
        object.__setattr__(own, "worker", worker)
        return own

    def own_times(self) -> Floats:
        """Return the times of the one record that is replayed, in seconds.

        Raises:
            ValueError: if there are several records.
        """
        if self.worker is None and self.records.own:
            raise ValueError("recorded has one record per worker: say which, of_worker(0) for example")
        return self.records.times[self.worker or 0] * self.scale

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the times in order."""
        times = self.own_times()
        if not self.wrap:
            yield from (times[first : first + BLOCK] for first in range(0, len(times), BLOCK))
            raise RecordEndsError(f"its record has {len(times)} times, and does not wrap round")
        place = int(rng.integers(len(times))) if self.start == "random" else 0
        while True:
            yield times.take(np.arange(place, place + BLOCK), mode="wrap")
            place = (place + BLOCK) % len(times)

    def expectation(self) -> float:
        """Return the mean of the times, over all workers if there are several records."""
        return float(self._pooled().mean())

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the fraction of times above ``t``, over all workers if there are several records."""
        times = np.sort(self._pooled())
        return np.asarray((len(times) - np.searchsorted(times, np.asarray(t), side="right")) / len(times))

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain tables.

        Raises:
            ValueError: if there are more than 1,000 times.
        """
        count = sum(map(len, self.records.times))
        if self.times and count > INLINE_SAMPLES:
            raise ValueError(
                f"recorded with {count} times cannot stand in a spec (at most {INLINE_SAMPLES}): write them to a "
                "CSV file with columns worker, step, seconds, and use Recorded(file=...)"
            )
        return super().settings()

    def _pooled(self) -> Floats:
        return np.concatenate(self.records.times) * self.scale if self._several() else self.own_times()

    def _several(self) -> bool:
        return self.worker is None and self.records.own

    def _check_worker(self, worker: int) -> None:
        if worker >= (count := len(self.records.times)):
            raise ValueError(
                f"worker {worker} is missing from the record, which has workers 0 to {count - 1}: give fewer "
                "workers, or a list of delays, each Recorded(..., worker=...)"
            )


def measured_cv(quantile: npt.ArrayLike) -> Any:
    """Return a quantile of the coefficient of variation of times over 100 production jobs.

    The coefficient of variation of a job is that of mini-batch times over the ten workers of an iteration,
    averaged over its iterations. A sweep over quantiles compares methods on clusters from uniform to irregular.

    Args:
        quantile: one or several shares of the jobs, 0 to 1; values between multiples of 0.05 are interpolated.

    Returns:
        A number, or a list of numbers for several quantiles.

    Raises:
        ValueError: for a share outside 0 to 1.

    Reference:
        Alibaba cluster trace, CC BY 4.0, https://github.com/alibaba/clusterdata.

    Example:
        >>> from stalegrad.simulator import Gamma, measured_cv
        >>> measured_cv([0.25, 0.5, 0.75, 0.9])
        [0.0587, 0.1029, 0.6086, 1.1058]
        >>> axis = [Gamma(mean=1.0, cv=cv) for cv in measured_cv([0.25, 0.5, 0.75])]
    """
    wanted = np.asarray(quantile)
    if wanted.dtype.kind not in "iuf" or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"quantile = {quantile!r:.200} is not allowed: give shares from 0 to 1")
    shares, values = _table("cv-quantiles").T
    return np.interp(wanted, shares, values).tolist()


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | list) and not value)


def _inline(times: Any) -> tuple[Any, ...]:
    """Convert times given as a list, lists or a DataFrame to one tuple, or one tuple per worker."""
    if hasattr(times, "columns"):
        found = from_frame(times)
        tuples = tuple(tuple(own.tolist()) for own in found.times)
        return tuples if found.own else tuples[0]
    if getattr(times, "ndim", 1) == 2:
        raise ValueError(
            "times of recorded has two dimensions: give a list of one list per worker, array.tolist() if rows are "
            "workers, array.T.tolist() if columns are"
        )
    nested = isinstance(times, tuple | list) and any(
        getattr(own, "ndim", None) == 1 or _is_list(own) for own in times
    )
    if nested:
        return tuple(
            tuple(numbers(f"times of recorded, worker {worker}", own).tolist()) for worker, own in enumerate(times)
        )
    return tuple(numbers("times of recorded", times).tolist())


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple | list)


@functools.lru_cache(maxsize=64)
def _load_file(file: str, sha256: str) -> StepTimes:
    return from_csv(read("recorded", file, sha256, ALLOWED), file)


@functools.lru_cache(maxsize=len(JOBS))
def _load_job(name: str) -> StepTimes:
    table = _table(name.removeprefix("alibaba-"))
    return StepTimes(tuple(np.ascontiguousarray(table.T / np.median(table))), own=True)


def _table(name: str) -> Floats:
    file = importlib.resources.files(__package__) / "data" / "alibaba" / f"{name}.txt"
    return np.loadtxt(file.read_text(encoding="utf-8").splitlines())
