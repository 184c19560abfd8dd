"""The base of all delays: distributions of times, in simulated seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stalegrad._core.specs import plain
from stalegrad._core.types import Table

if TYPE_CHECKING:
    from scipy.stats.distributions import rv_frozen

Floats = npt.NDArray[np.float64]
Timer = Callable[[float], float]
"""Function that draws the times of one worker in order, given the second at which each job begins."""

BLOCK = 256
"""Number of draws in a block; a constant, because the draws of a seed depend on it."""


class RecordEndsError(ValueError):
    """Error: a worker needs more times than were recorded."""


class Delay:
    """Base of all delays: distributions of a non-negative random time in seconds.

    A subclass defines ``sample``. If its times depend on earlier ones, it sets ``remembers = True`` and defines
    ``blocks`` instead; if they depend on the clock, it also sets ``clocked`` and defines ``timer``.

    Example:
        >>> import numpy as np
        >>> from stalegrad.policies import Async
        >>> from stalegrad.simulator import Cluster, Delay, simulate
        >>> class WholeSeconds(Delay):
        ...     def sample(self, rng, size):
        ...         return np.ceil(rng.exponential(2.0, size))
        >>> trace = simulate(Cluster(workers=4, compute=WholeSeconds()), Async(), updates=20)
        >>> bool((trace.update_times % 1 == 0).all())
        True
    """

    remembers = False
    """Whether a worker's times depend on each other or on the clock."""

    @property
    def clocked(self) -> bool:
        """Whether a time depends on the second at which its job begins."""
        return False

    @property
    def ahead(self) -> bool:
        """Whether times may be drawn before they are needed."""
        return not self.clocked

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return ``size`` independent draws."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from: define sample(rng, size)")

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the times of one worker in order, in blocks of 256, without end.

        Raises:
            RecordEndsError: if more times are requested than were recorded.
        """
        while True:
            yield self.sample(rng, BLOCK)

    def timer(self, rng: np.random.Generator, common: Callable[..., np.random.Generator]) -> Timer:
        """Return a function that draws the times of one worker in order, given when each job begins.

        Args:
            rng: the worker's own random stream.
            common: function from a key (whole numbers) to a random stream, the same for all workers.
        """
        times = (time for block in self.blocks(rng) for time in np.asarray(block, float).tolist())
        return lambda begin: next(times)

    def of_worker(self, worker: int) -> Delay:
        """Return the delay of one worker.

        Raises:
            ValueError: if there is none for this worker.
        """
        return self

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay of one worker, once per run; a delay with random machines draws one machine here."""
        return self

    def parts(self) -> Iterator[Delay]:
        """Yield the delays that this delay consists of, recursively."""
        for value in getattr(self, "__dict__", {}).values():
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Delay):
                    yield part
                    yield from part.parts()

    def distribution(self) -> rv_frozen:
        """Return the frozen ``scipy.stats`` distribution of this delay."""
        raise TypeError(f"{type(self).__name__} has no scipy.stats distribution")

    def expectation(self) -> float:
        """Return the expected time (may be infinite)."""
        return float(self.distribution().mean())

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the survival function P(X > t)."""
        return np.asarray(self.distribution().sf(np.asarray(t, float)), np.float64)

    def ppf(self, q: npt.ArrayLike) -> Floats:
        """Return the quantiles of probabilities ``q``, in seconds."""
        return np.asarray(self.distribution().ppf(np.asarray(q, float)), np.float64)

    def settings(self) -> Table:
        """Return the fields as a spec holds them, defaults included; fields that are None or () are left out."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return plain({name: value for name, value in given.items() if value is not None and value != ()})
