"""The base of all kinds of availability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Literal, NamedTuple

from stalegrad._core.specs import spec

if TYPE_CHECKING:
    import numpy as np


class Presence(NamedTuple):
    """The times at which one worker is present.

    Attributes:
        at_start: whether it is present at 0 s.
        changes: times at which it leaves or returns, in turn, in seconds, ascending; the iterator may be endless.
    """

    at_start: bool
    changes: Iterator[float]


@spec
class Availability:
    """Base of all kinds of availability.

    Args:
        departure: fate of the job in progress when its worker leaves. ``lost``: the job ends, and messages whose
            transfer has not begun are lost; ``delivered``: the worker first finishes the job and sends the message
            (a graceful drain), and stays if its return is due by then.

    Example:
        >>> from dataclasses import dataclass
        >>> from stalegrad.policies import Async
        >>> from stalegrad.simulator import Availability, Cluster, simulate
        >>> from stalegrad.simulator.timing.availability.base import Presence
        >>> @dataclass(frozen=True)
        ... class OneHour(Availability):
        ...     def presence(self, worker, workers, rng):
        ...         return Presence(at_start=True, changes=iter([3600.0 * worker] if worker else []))
        >>> trace = simulate(Cluster(2, compute=600.0, availability=OneHour()), Async(), wallclock=7200.0)
        >>> trace.absences["leave_time"].tolist()
        [3600.0]
    """

    departure: Literal["lost", "delivered"] = field(default="lost", kw_only=True)

    def presence(self, worker: int, workers: int, rng: np.random.Generator) -> Presence:
        """Return when a worker is present.

        Args:
            worker: index of the worker.
            workers: number of workers.
            rng: random stream of the worker for its availability.
        """
        raise TypeError(f"{type(self).__name__} does not say when workers are present: define presence()")

    def check(self, workers: int) -> None:
        """Raise ValueError if it does not fit this number of workers, or no worker is ever present."""
