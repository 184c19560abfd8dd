"""Parametric delays. All times are simulated seconds.

A simulation calls :meth:`Delay.sample`; theory uses :meth:`Delay.expectation` and :meth:`Delay.sf`. The two are
written independently (NumPy draws, SciPy computes the distribution), and the tests compare them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field

from stalegrad._core.delay import Delay as Delay, Floats
from stalegrad._core.specs import NonNegativeFloat, PositiveFloat, PositiveInt, spec, validate

Spread = Annotated[PositiveFloat, Field(ge=1e-150, le=1e150)]
"""A coefficient of variation; its square is finite and not 0."""


@spec
class Deterministic(Delay):
    """Deterministic: always ``value`` seconds.

    Args:
        value: seconds of every time, at least 0.

    Example:
        >>> Deterministic(2.0).sf([1.0, 2.0])
        array([1., 0.])
    """

    value: NonNegativeFloat

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return a constant array; nothing is drawn."""
        return np.full(size, self.value)

    def expectation(self) -> float:
        """Return the value."""
        return self.value

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return 1 below the value and 0 from it on."""
        return (np.asarray(t) < self.value).astype(float)


@spec
class Exponential(Delay):
    """Exponential with mean ``scale``: memoryless, the delay of most closed forms.

    Args:
        scale: mean, in seconds.

    Example:
        >>> Exponential(2.0).sf([0.0, 2.0]).round(3)  # exp(-t / 2)
        array([1.   , 0.368])
    """

    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return rng.exponential(self.scale, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.expon``."""
        return scipy.stats.expon(scale=self.scale)


@spec
class ShiftedExponential(Delay):
    """``shift`` + exponential with mean ``scale``: a fixed amount of work plus a random delay.

    Args:
        shift: smallest time, in seconds.
        scale: mean of the exponential part, in seconds.

    Example:
        >>> ShiftedExponential(shift=1.0, scale=0.5).expectation()
        1.5
    """

    shift: NonNegativeFloat = 1.0
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return self.shift + rng.exponential(self.scale, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.expon`` with its location."""
        return scipy.stats.expon(loc=self.shift, scale=self.scale)


@spec
class Pareto(Delay):
    """Pareto type I: P(X > t) = (scale / t)^shape for t >= scale. Infinite mean if ``shape`` <= 1.

    Args:
        shape: tail index: moments of this order and above are infinite.
        scale: smallest time, in seconds.

    Example:
        >>> Pareto(shape=1.5).expectation(), Pareto(shape=1.0).expectation()
        (3.0, inf)
    """

    shape: PositiveFloat
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return self.scale * (1.0 + rng.pareto(self.shape, size))

    def distribution(self) -> Any:
        """Return ``scipy.stats.pareto``."""
        return scipy.stats.pareto(self.shape, scale=self.scale)


@spec
class Gamma(Delay):
    """Gamma with ``mean`` and coefficient of variation ``cv`` (shape 1/cv^2).

    Args:
        mean: mean, in seconds.
        cv: coefficient of variation: standard deviation over mean.

    Example:
        >>> round(float(Gamma(mean=2.0, cv=0.5).distribution().std()), 3)  # mean cv
        1.0
    """

    mean: PositiveFloat
    cv: Spread

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return rng.gamma(self.cv**-2, self.mean * self.cv**2, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.gamma``."""
        return scipy.stats.gamma(self.cv**-2, scale=self.mean * self.cv**2)


@spec
class Erlang(Delay):
    """Sum of ``shape`` exponential stages, with mean ``mean`` in all.

    Args:
        shape: number of stages.
        mean: mean of the sum, in seconds.

    Example:
        >>> round(float(Erlang(shape=4, mean=2.0).distribution().std()), 3)  # mean / sqrt(shape)
        1.0
    """

    shape: Annotated[PositiveInt, Field(le=2**53)]
    mean: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return rng.gamma(self.shape, self.mean / self.shape, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.erlang``."""
        return scipy.stats.erlang(self.shape, scale=self.mean / self.shape)


@spec
class HyperExponential(Delay):
    """Exponential with mean ``means[i]``, with probability ``weights[i]``: new-shorter-than-used.

    Args:
        weights: probabilities of the branches; they sum to 1.
        means: means of the branches, in seconds, one per weight.

    Example:
        >>> round(HyperExponential(weights=[0.9, 0.1], means=[1.0, 11.0]).expectation(), 3)
        2.0
    """

    weights: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    means: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

    def check_fields(self) -> None:
        """Raise ValueError unless there is one weight per mean and the weights sum to 1."""
        if len(self.weights) != len(self.means):
            raise ValueError(
                f"hyper-exponential has {len(self.weights)} weights and {len(self.means)} means: "
                "allowed is one weight per mean"
            )
        if not math.isclose(sum(self.weights), 1.0, rel_tol=1e-9):
            raise ValueError(f"weights of hyper-exponential = {self.weights} sum to {sum(self.weights)}, not 1")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw a branch, then its exponential."""
        branch = np.searchsorted(np.cumsum(self.weights)[:-1], rng.random(size), side="right")
        return np.asarray(rng.exponential(1.0, size) * np.asarray(self.means)[branch])

    def expectation(self) -> float:
        """Return the weighted mean."""
        return float(np.dot(self.weights, self.means))

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the weighted sum of the branches' survival functions."""
        late = np.exp(-np.asarray(t, float)[..., None] / np.asarray(self.means))
        return np.asarray(np.minimum(late @ np.asarray(self.weights), 1.0))


@spec
class LogNormal(Delay):
    """Log-normal, exp(Normal): median ``median`` seconds, standard deviation ``sigma`` of the logarithm.

    Args:
        median: median, in seconds.
        sigma: standard deviation of the logarithm.

    Example:
        >>> round(LogNormal(median=2.0, sigma=1.0).expectation(), 3)  # 2 exp(1 / 2)
        3.297
    """

    median: PositiveFloat = 1.0
    sigma: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return rng.lognormal(math.log(self.median), self.sigma, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.lognorm``."""
        return scipy.stats.lognorm(self.sigma, scale=self.median)


@spec
class Weibull(Delay):
    """Weibull: P(X > t) = exp(-(t / scale)^shape).

    Args:
        shape: shape parameter; 1 is exponential; below 1, the longer a gradient has taken, the longer it still
            takes.
        scale: time that a share 1 / e of all times exceeds, in seconds.

    Example:
        >>> round(Weibull(shape=0.5).expectation(), 3)
        2.0
    """

    shape: PositiveFloat
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return self.scale * rng.weibull(self.shape, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.weibull_min``."""
        return scipy.stats.weibull_min(self.shape, scale=self.scale)


@spec
class Uniform(Delay):
    """Uniform on [low, high].

    Args:
        low: smallest time, in seconds.
        high: largest time, in seconds, above ``low``.

    Example:
        >>> Uniform(1.0, 3.0).ppf([0.0, 0.5, 1.0])
        array([1., 2., 3.])
    """

    low: NonNegativeFloat
    high: PositiveFloat

    def check_fields(self) -> None:
        """Raise ValueError unless low < high."""
        if not self.low < self.high:
            raise ValueError(f"high of uniform = {self.high} is not allowed: it must exceed low = {self.low}")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return rng.uniform(self.low, self.high, size)

    def distribution(self) -> Any:
        """Return ``scipy.stats.uniform``."""
        return scipy.stats.uniform(self.low, self.high - self.low)


@spec
class TwoLevelGamma(Delay):
    """Random machines times random tasks: the cluster model of DANA and Gap-Aware.

    With ``machine_cv`` > ``task_cv`` every worker draws its own mean once per run, Gamma(mean,
    machine_cv), and each gradient takes Gamma(that mean, task_cv). Otherwise each gradient draws its mean
    first, Gamma(mean, task_cv), then its time around that mean with ``machine_cv``. ``machine_cv = 0`` is
    the papers' homogeneous cluster; 0.6 (task 0.1) is their heterogeneous one.

    Args:
        mean: mean of all times, in seconds.
        task_cv: coefficient of variation between the gradients of a worker.
        machine_cv: coefficient of variation between workers; 0 if all are equal.

    Reference: the CVB method of Ali et al., Task execution time modeling for heterogeneous computing
    systems, 2000.

    Example:
        >>> import numpy as np
        >>> machine = TwoLevelGamma(machine_cv=0.6, task_cv=0.1).realise(np.random.default_rng(0))
        >>> type(machine).__name__, machine.cv  # its mean is drawn
        ('Gamma', 0.1)
    """

    mean: PositiveFloat = 128.0
    task_cv: Spread = 0.1
    machine_cv: Annotated[NonNegativeFloat, Field(le=1e150)] = 0.6

    def check_fields(self) -> None:
        """Raise ValueError for a coefficient of variation whose square overflows or underflows."""
        if self.machine_cv != 0:
            validate("machine_cv of two-level-gamma", Spread, self.machine_cv)

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay on this worker's machine, drawn if machines vary more than tasks."""
        if self.machine_cv == 0:
            return Gamma(self.mean, self.task_cv)
        if self.machine_cv > self.task_cv:
            own_mean = Gamma(self.mean, self.machine_cv).sample(rng, 1)
            return Gamma(float(own_mean[0]), self.task_cv)
        return self

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw tasks, each on its own machine."""
        outer, inner = sorted((self.task_cv, self.machine_cv), reverse=True)
        means = Gamma(self.mean, outer).sample(rng, size)
        return means if inner == 0 else means * Gamma(1.0, inner).sample(rng, size)

    def expectation(self) -> float:
        """Return the mean over machines and tasks."""
        return self.mean
