"""The base of all kinds of availability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, Literal, NamedTuple

from stalegrad._core.specs import spec

if TYPE_CHECKING:
    import numpy as np


class Presence(NamedTuple):
    """When one worker is there.

    Attributes:
        at_start: whether it is there at 0 s.
        changes: the times, in seconds, rising, at which it leaves or returns, in turn; it may never end.
    """

    at_start: bool
    changes: Iterator[float]


@spec
class Availability:
    """Base of all kinds of availability.

    Args:
        departure: what becomes of the job in progress when its worker leaves. ``lost``: it ends there, and what
            has been computed and not yet begun to travel is lost; ``delivered``: the worker finishes the job and
            sends the message first (a graceful drain), and stays if it is to be back by then.
    """

    departure: Literal["lost", "delivered"] = field(default="lost", kw_only=True)

    def presence(self, worker: int, workers: int, rng: np.random.Generator) -> Presence:
        """Return when a worker is there.

        Args:
            worker: which.
            workers: how many there are.
            rng: its random stream for this purpose.
        """
        raise TypeError(f"{type(self).__name__} does not say when workers are there: define presence()")

    def check(self, workers: int) -> None:
        """Raise ValueError if that many workers do not go together with it, or nobody is ever there."""
