"""Slow-downs that workers share: a delay that depends on the clock."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stalegrad._core.delay import BLOCK, Delay, Floats, Timer
from stalegrad._core.specs import NonNegativeInt, PositiveFloat, spec, validate
from stalegrad.simulator.timing.delays.memory import Common, Memory, changed, check_parts, inner_delay


@spec
class Shared(Memory):
    """A delay times a slow-down that all workers of a group share in the same period.

    Time is divided into periods of ``period`` simulated seconds. In each period a group has one factor, drawn
    independently; the time of a gradient that begins in the period is multiplied by it.

    Args:
        base: delay of a single time without the slow-down.
        factor: distribution of the factors, e.g. ``Empirical([1, 1, 1, 4])``; any delay without memory.
        period: length of a period in simulated seconds; the first begins at 0 s, for all groups.
        group: group of all workers that have this delay, a whole number; or a list of one group per worker of the
            cluster. Delays with the same group number share the factors; a Shared inside another one has its own
            groups.

    Raises:
        ValueError: for a value that is not allowed; it names the value.

    Example:
        >>> from stalegrad.simulator import Cluster, Empirical, Gamma, Shared
        >>> racks = Shared(Gamma(1.0, 0.2), factor=Empirical([1, 1, 1, 4]), period=60.0, group=[0, 0, 1, 1])
        >>> cluster = Cluster(workers=4, compute=racks)
    """

    base: Any
    factor: Any
    period: PositiveFloat
    group: Any = 0

    def check_fields(self) -> None:
        """Raise ValueError unless factors are independent and groups are whole numbers."""
        for name in ("base", "factor"):
            object.__setattr__(self, name, inner_delay(f"{name} of shared", getattr(self, name)))
        if self.factor.remembers:
            raise ValueError(
                f"factor of shared = {self.factor!r:.200} is not allowed: factors are drawn independently"
            )
        number = Annotated[NonNegativeInt, Field(lt=2**32)]
        if isinstance(self.group, tuple | list) or getattr(self.group, "ndim", 0) == 1:
            groups = tuple(validate(f"group of shared, worker {i}", number, g) for i, g in enumerate(self.group))
            object.__setattr__(self, "group", groups)
        else:
            object.__setattr__(self, "group", validate("group of shared", number, self.group))
        check_parts(self)

    @property
    def clocked(self) -> bool:
        """True: times depend on the period in which a job begins."""
        return True

    def of_worker(self, worker: int) -> Delay:
        """Return the delay of one worker, with the group of this worker.

        Raises:
            ValueError: if the list of groups has no entry for this worker.
        """
        group = self.group
        if isinstance(group, tuple):
            if worker >= len(group):
                raise ValueError(f"group of shared has {len(group)} entries, none for worker {worker}")
            group = group[worker]
        return changed(self, base=self.base.of_worker(worker), group=group)

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay with this run's draw of the machine of the base."""
        return changed(self, base=self.base.realise(rng))

    def timer(self, rng: np.random.Generator, common: Common) -> Timer:
        """Return a function that draws from the base and multiplies by the factor of the period."""
        if isinstance(self.group, tuple):
            raise ValueError("shared has a group per worker: say which worker, of_worker(0) for example")
        level = sum(isinstance(part, Shared) for part in self.parts())
        draw, held, factors = self.base.timer(rng, common), -1, np.empty(0)

        def timer(begin: float) -> float:
            nonlocal held, factors
            block, place = divmod(self._period_at(begin), BLOCK)
            if block != held:
                held, factors = block, self.factor.sample(common(level, self.group, block), BLOCK)
            factor = float(factors[place])
            if not 0 <= factor < math.inf:
                raise ValueError(
                    f"factor of shared in period {block * BLOCK + place} is {factor}: allowed are finite ones of "
                    "at least 0"
                )
            time: float = draw(begin)
            return time * factor

        return timer

    def expectation(self) -> float:
        """Raise TypeError: the times depend on when jobs begin."""
        raise TypeError("Shared has no distribution: its times depend on when jobs begin")

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Raise TypeError: the times depend on when jobs begin."""
        raise TypeError("Shared has no distribution: its times depend on when jobs begin")

    def _period_at(self, begin: float) -> int:
        periods = begin / self.period
        if not periods < 2**53:
            raise ValueError(f"period of shared = {self.period} s is too short at {begin} s: give a longer one")
        return int(periods)
