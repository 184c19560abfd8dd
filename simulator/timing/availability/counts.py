"""Availability by counts: how many workers are present, and from when."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from stalegrad._core.files import read_regular
from stalegrad._core.specs import NonNegativeFloat, NonNegativeInt, PositiveFloat, spec, validate
from stalegrad.simulator.timing.availability.base import Availability, Presence

MOST_COUNTS = 100_000
"""Largest number of counts: they are part of the spec."""


@spec
class Counts(Availability):
    """The number k of workers that are present, from given times on: they are workers 0 to k - 1.

    Args:
        time: seconds from which each count holds, ascending; the first is 0.
        count: number of workers that are present.

    Raises:
        ValueError: for a row that is not allowed; it names the row, counted from 0.

    Example:
        >>> from stalegrad.simulator import Cluster, Counts
        >>> Cluster(4, compute=1.0, availability=Counts(time=[0.0, 60.0], count=[4, 2])).availability.count
        (4, 2)
    """

    time: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1, max_length=MOST_COUNTS)]
    count: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=MOST_COUNTS)]

    def check_fields(self) -> None:
        """Raise ValueError unless times ascend from 0 and some count is above 0."""
        if len(self.time) != len(self.count):
            lengths = f"{len(self.time)} times and {len(self.count)} counts"
            raise ValueError(f"counts has {lengths}: give one per time")
        if self.time[0] != 0:
            raise ValueError(f"row 0 of counts has time {self.time[0]!r}: the first count is that at 0 s")
        for row in range(1, len(self.time)):
            if not self.time[row - 1] < self.time[row]:
                times = f"{self.time[row]!r}, not after {self.time[row - 1]!r}"
                raise ValueError(f"row {row} of counts has time {times} of the row before")
        if not any(self.count):
            raise ValueError(
                "availability of cluster: all workers are always absent; at least one must be present"
            )

    def check(self, workers: int) -> None:
        """Raise ValueError if a count exceeds the number of workers."""
        for row, count in enumerate(self.count):
            if count > workers:
                raise ValueError(
                    f"row {row} of counts = {count} is not allowed: the cluster has {workers} workers"
                )

    @property
    def workers(self) -> int:
        """The largest count."""
        return max(self.count)

    def presence(self, worker: int, workers: int, rng: np.random.Generator) -> Presence:
        """Return the times at which the count rises above this worker's index or falls to it."""
        there = np.asarray(self.count) > worker
        changes = np.flatnonzero(there[1:] != there[:-1]) + 1
        return Presence(bool(there[0]), iter(np.asarray(self.time)[changes].tolist()))

    @classmethod
    def read(cls, file: str | os.PathLike[str], *, departure: Literal["lost", "delivered"] = "lost") -> Self:
        """Read a JSON file of counts at equal intervals.

        ``{"metadata": {"gap_seconds": 600}, "data": [3, 4, 0, ...]}``: number of machines present, every 600 s.

        Args:
            file: path of the file, at most 16 MiB.
            departure: see :class:`Availability`.

        Raises:
            ValueError: if the file has another form, or an entry that is no count; it names the entry.
        """
        text = read_regular(Path(file), 1 << 24, "a file of counts")
        try:
            table = json.loads(text)
            gap, data = table["metadata"]["gap_seconds"], list(table["data"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            form = '{"metadata": {"gap_seconds": seconds}, "data": [counts]}'
            raise ValueError(f"{file} cannot be read as {form}: {type(error).__name__}: {error}") from None
        gap = validate(f"gap_seconds of {file}", PositiveFloat, gap)
        counts = [validate(f"data[{i}] of {file}", NonNegativeInt, value) for i, value in enumerate(data)]
        kept = [i for i, count in enumerate(counts) if i == 0 or counts[i - 1] != count]
        times, counts = tuple(i * gap for i in kept), [counts[i] for i in kept]
        return cls(time=times, count=tuple(counts), departure=departure)
