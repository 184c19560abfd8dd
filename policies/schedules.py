"""Learning-rate schedules, in updates or epochs, evaluated for a whole run at once (on the host)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import Field

from stalegrad._core.registry import Registry
from stalegrad._core.specs import NonNegativeFloat, PositiveFloat, spec
from stalegrad._core.types import Floats

Unit = Literal["updates", "epochs"]


@spec
class Schedule:
    """Base: a peak learning rate with a linear warm-up.

    Args:
        peak: the learning rate after the warm-up.
        unit: what positions are counted in, ``updates`` or ``epochs`` (used gradients x batch / examples).
        warmup: length of the linear warm-up, in that unit.
        warmup_from: where it starts, as a fraction of the peak, or ``1/workers`` (Goyal et al. 2017).

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> from stalegrad.policies import Schedule
        >>> @dataclass(frozen=True)
        ... class Halving(Schedule):
        ...     def shape(self, position):
        ...         return 0.5**position
        >>> Halving(0.1, unit="updates").values(updates=np.arange(3.0), epochs=np.zeros(3))
        array([0.1  , 0.05 , 0.025])
    """

    peak: PositiveFloat
    unit: Unit = field(default="epochs", kw_only=True)
    warmup: NonNegativeFloat = field(default=0.0, kw_only=True)
    warmup_from: Annotated[float, Field(ge=0, le=1)] | Literal["1/workers"] = field(default=0.0, kw_only=True)

    def values(self, updates: Floats, epochs: Floats, workers: int = 1) -> Floats:
        """Return the learning rate of each update from its index and the epochs passed before it."""
        import numpy as np

        position = epochs if self.unit == "epochs" else updates
        rate = self.peak * self.shape(position)
        if self.warmup:
            start = 1.0 / workers if self.warmup_from == "1/workers" else self.warmup_from
            ramp = start + (1.0 - start) * np.minimum(position / self.warmup, 1.0)
            rate = rate * ramp
        return rate

    @property
    def needs_epochs(self) -> bool:
        """Whether it cannot do without data: it counts epochs, and they matter to it."""
        return self.unit == "epochs" and (bool(self.warmup) or not isinstance(self, Constant))

    def peak_of(self, rates: Floats) -> float:
        """Return the largest learning rate that the schedule ever gives; ``rates`` are those of the run."""
        return self.peak

    def shape(self, position: Floats) -> Floats:
        """Return the fraction of the peak at each position, warm-up aside."""
        import numpy as np

        return np.ones_like(position)


@spec
class Constant(Schedule):
    """The peak, after the warm-up.

    Example:
        >>> import numpy as np
        >>> from stalegrad.policies import Constant
        >>> Constant(0.1, warmup=5.0).values(updates=np.arange(3.0), epochs=np.array([0.0, 2.5, 5.0]))
        array([0.  , 0.05, 0.1 ])
    """


@spec
class StepDecay(Schedule):
    """Multiplied by ``factor`` at each of the ``milestones``.

    Args:
        milestones: positions, in the unit.
        factor: factor at each milestone, above 0.

    Example:
        >>> import numpy as np
        >>> from stalegrad.policies import StepDecay
        >>> schedule = StepDecay(0.1, milestones=[80.0, 120.0])
        >>> schedule.values(updates=np.arange(3.0), epochs=np.array([0.0, 80.0, 120.0])).round(6)
        array([0.1  , 0.01 , 0.001])
    """

    milestones: tuple[NonNegativeFloat, ...]
    factor: PositiveFloat = 0.1

    def shape(self, position: Floats) -> Floats:
        """Return ``factor`` to the number of milestones reached."""
        import numpy as np

        reached = np.searchsorted(np.sort(self.milestones), position, side="right")
        return np.asarray(self.factor**reached, float)


@spec
class Cosine(Schedule):
    """Half a cosine from the peak down to ``floor`` at ``horizon``.

    Args:
        horizon: position, in the unit, at which the floor is reached; it stays there.
        floor: a fraction of the peak.

    Example:
        >>> import numpy as np
        >>> from stalegrad.policies import Cosine
        >>> schedule = Cosine(0.1, horizon=90.0)
        >>> schedule.values(updates=np.arange(3.0), epochs=np.array([0.0, 45.0, 90.0])).round(6)
        array([0.1 , 0.05, 0.  ])
    """

    horizon: PositiveFloat
    floor: NonNegativeFloat = 0.0

    def shape(self, position: Floats) -> Floats:
        """Return the cosine, held at the floor beyond the horizon."""
        import numpy as np

        done = np.minimum(position / self.horizon, 1.0)
        return np.asarray(self.floor + (1.0 - self.floor) * 0.5 * (1.0 + np.cos(np.pi * done)))


@spec
class InverseSqrt(Schedule):
    """peak / sqrt(1 + position).

    Example:
        >>> import numpy as np
        >>> from stalegrad.policies import InverseSqrt
        >>> InverseSqrt(0.1, unit="updates").values(updates=np.array([0.0, 3.0, 15.0]), epochs=np.zeros(3))
        array([0.1  , 0.05 , 0.025])
    """

    def shape(self, position: Floats) -> Floats:
        """Return 1 / sqrt(1 + position)."""
        import numpy as np

        return np.asarray(1.0 / np.sqrt(1.0 + position))


@spec
class FromFunction(Schedule):
    """A user's ``function(position) -> learning rate``, times the warm-up: for example any optax schedule.

    Args:
        function: function of the update's index (an int), or with ``unit = "epochs"`` of the epochs passed (a
            float); the learning rate must be finite and at least 0.
    """

    peak: PositiveFloat = field(default=1.0, init=False)
    unit: Unit = field(default="updates", kw_only=True)
    function: Callable[[Any], Any]

    def peak_of(self, rates: Floats) -> float:
        """Return the largest learning rate of the run; of a function no other is known."""
        import numpy as np

        return float(np.max(rates, initial=0.0))

    def shape(self, position: Floats) -> Floats:
        """Call the function once per update.

        Raises:
            ValueError: if it returns no number, or one that is no learning rate, naming the update or epoch.
        """
        import numpy as np

        count = int if self.unit == "updates" else float
        return np.array([self._rate(count(p)) for p in position.tolist()], float)

    def _rate(self, position: float) -> float:
        import numpy as np

        where = f"learning_rate of {self.unit.removesuffix('s')} {position}"
        try:
            value = self.function(position)
        except Exception as error:
            raise ValueError(f"{where}: the function raised {type(error).__name__}: {error}") from error
        try:
            rate = float(value)
        except (TypeError, ValueError, OverflowError):
            rate = np.nan
        if not 0 <= rate < np.inf:
            raise ValueError(f"{where} = {value!r} is not allowed: a finite number of at least 0")
        return rate


SCHEDULES = Registry[type[Schedule]]("schedule", [Constant, StepDecay, Cosine, InverseSqrt], key="schedule")
"""The schedules by name; ``SCHEDULES.register`` adds your own."""


def _decay(factor: float, *milestones: float) -> Schedule:
    return StepDecay(0.1, milestones, factor, warmup=5.0, warmup_from="1/workers")


PRESETS = Registry[Callable[[], Schedule]](
    "learning_rate",
    {
        "resnet20-cifar10": lambda: _decay(0.1, 80.0, 120.0),
        "wrn16x4-cifar10": lambda: _decay(0.2, 60.0, 120.0, 160.0),
        "resnet50-imagenet": lambda: _decay(0.1, 30.0, 60.0),
    },
)
"""The schedules of the DANA and Gap-Aware papers, as functions that make them: eta / N to eta over 5 epochs, then
step decay."""


def as_schedule(value: object) -> Schedule:
    """Return the schedule that a value stands for.

    Args:
        value: a number, a :class:`Schedule`, a function of the update, the name of one of the :data:`PRESETS`,
            or a table as in TOML: ``{"schedule": "cosine", "peak": 0.1, "horizon": 90}``.

    Raises:
        ValueError: for anything else, naming it.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return Constant(float(value))
        except ValueError:
            raise ValueError(f"learning_rate = {value!r} is not allowed: it must be finite and above 0") from None
    if isinstance(value, str):
        return PRESETS.find(value)()
    if isinstance(value, dict):
        schedule: Schedule = SCHEDULES.from_table(value)
        return schedule
    if callable(value):
        return FromFunction(value)
    raise ValueError(
        f"learning_rate = {value!r} is not allowed: give a number, a schedule, its name or a function"
    )
