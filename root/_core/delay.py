"""The base of all delays: distributions of times, in simulated seconds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stalegrad._core.specs import plain
from stalegrad._core.types import Table

if TYPE_CHECKING:
    from scipy.stats.distributions import rv_frozen

Floats = npt.NDArray[np.float64]


class Delay:
    """Base of all delays: distributions of a non-negative random time in seconds."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return ``size`` independent draws."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from: define sample(rng, size)")

    def distribution(self) -> rv_frozen:
        """Return the frozen ``scipy.stats`` distribution of this delay."""
        raise TypeError(f"{type(self).__name__} has no scipy.stats distribution")

    def expectation(self) -> float:
        """Return the expected time (may be infinite)."""
        return float(self.distribution().mean())

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the survival function P(X > t)."""
        return np.asarray(self.distribution().sf(np.asarray(t, float)), np.float64)

    def settings(self) -> Table:
        """Return the fields as a spec holds them, those with their defaults too; what is not given is left out."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return plain({name: value for name, value in given.items() if value is not None and value != ()})

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay of one worker: delays with a random machine draw it here, once per run."""
        return self
