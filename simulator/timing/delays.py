"""Laws of random times. All times are simulated seconds.

A law is drawn from with :meth:`Delay.sample`; theory uses :meth:`Delay.expectation` and :meth:`Delay.sf`. The two
sides are written independently (numpy draws, scipy knows the law) and the tests compare them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import stats

from stalegrad.policies.functions import by_name, check_function_name, import_function
from stalegrad.policies.specs import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    from_table,
    kebab,
    spec,
    unknown_name,
    validate,
)
from stalegrad.simulator.timing.measured import load_factors, load_times

Floats = npt.NDArray[np.float64]


class Delay:
    """Base of all laws of a non-negative random time in seconds."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return ``size`` independent draws."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from: define sample(rng, size)")

    def law(self) -> Any:
        """Return the frozen ``scipy.stats`` distribution of this law."""
        raise TypeError(f"{type(self).__name__} is not a scipy.stats law")

    def expectation(self) -> float:
        """Return the expected time (may be infinite)."""
        return float(self.law().mean())

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the survival function P(X > t)."""
        return np.asarray(self.law().sf(t), float)

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the law of one worker: laws with a random machine draw it here, once per run."""
        return self


@spec
class Deterministic(Delay):
    """Always ``value`` seconds."""

    value: NonNegativeFloat

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return a constant array; no draw is made."""
        return np.full(size, self.value)

    def expectation(self) -> float:
        """Return the value."""
        return self.value

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return 1 before the value, 0 from it on."""
        return (np.asarray(t) < self.value).astype(float)


@spec
class Exponential(Delay):
    """Exponential with mean ``scale``: memoryless, the law of most closed forms."""

    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return rng.exponential(self.scale, size)

    def law(self) -> Any:
        """Return ``scipy.stats.expon``."""
        return stats.expon(scale=self.scale)


@spec
class ShiftedExponential(Delay):
    """``shift`` + exponential with mean ``scale``: a fixed amount of work plus a random straggle."""

    shift: NonNegativeFloat = 1.0
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return self.shift + rng.exponential(self.scale, size)

    def law(self) -> Any:
        """Return ``scipy.stats.expon`` with its location."""
        return stats.expon(loc=self.shift, scale=self.scale)


@spec
class Pareto(Delay):
    """Pareto type I: P(X > t) = (scale / t)^shape for t >= scale. Infinite mean if ``shape`` <= 1."""

    shape: PositiveFloat
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return self.scale * (1.0 + rng.pareto(self.shape, size))

    def law(self) -> Any:
        """Return ``scipy.stats.pareto``."""
        return stats.pareto(self.shape, scale=self.scale)


@spec
class Gamma(Delay):
    """Gamma by its ``mean`` and coefficient of variation ``cv`` (shape 1/cv^2)."""

    mean: PositiveFloat
    cv: PositiveFloat

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return rng.gamma(self.cv**-2, self.mean * self.cv**2, size)

    def law(self) -> Any:
        """Return ``scipy.stats.gamma``."""
        return stats.gamma(self.cv**-2, scale=self.mean * self.cv**2)


@spec
class Erlang(Delay):
    """Sum of ``shape`` exponential stages, of mean ``mean`` in all."""

    shape: PositiveInt
    mean: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return rng.gamma(self.shape, self.mean / self.shape, size)

    def law(self) -> Any:
        """Return ``scipy.stats.erlang``."""
        return stats.erlang(self.shape, scale=self.mean / self.shape)


@spec
class HyperExponential(Delay):
    """With probability ``weights[i]`` exponential of mean ``means[i]``: new-shorter-than-used."""

    weights: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    means: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

    def check_fields(self) -> None:
        """Raise ValueError unless the weights belong to the means and sum to 1."""
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
    """exp(Normal): median ``median`` seconds, standard deviation ``sigma`` of the logarithm."""

    median: PositiveFloat = 1.0
    sigma: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return rng.lognormal(math.log(self.median), self.sigma, size)

    def law(self) -> Any:
        """Return ``scipy.stats.lognorm``."""
        return stats.lognorm(self.sigma, scale=self.median)


@spec
class Weibull(Delay):
    """Weibull: P(X > t) = exp(-(t / scale)^shape)."""

    shape: PositiveFloat
    scale: PositiveFloat = 1.0

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return self.scale * rng.weibull(self.shape, size)

    def law(self) -> Any:
        """Return ``scipy.stats.weibull_min``."""
        return stats.weibull_min(self.shape, scale=self.scale)


@spec
class Uniform(Delay):
    """Uniform on [low, high]."""

    low: NonNegativeFloat
    high: PositiveFloat

    def check_fields(self) -> None:
        """Raise ValueError unless low < high."""
        if not self.low < self.high:
            raise ValueError(f"high of uniform = {self.high} is not allowed: it must exceed low = {self.low}")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return rng.uniform(self.low, self.high, size)

    def law(self) -> Any:
        """Return ``scipy.stats.uniform``."""
        return stats.uniform(self.low, self.high - self.low)


@spec
class TwoLevelGamma(Delay):
    """Random machines times random tasks: the cluster model of DANA and Gap-Aware.

    With ``machine_cv`` > ``task_cv`` every worker draws its own mean once per run, Gamma(mean,
    machine_cv), and each gradient takes Gamma(that mean, task_cv); otherwise each gradient draws its mean
    first (Gamma(mean, task_cv)), then its time around it with ``machine_cv``. ``machine_cv = 0`` is
    the papers' homogeneous cluster; 0.6 (task 0.1) their heterogeneous one.

    Reference: the CVB method of Ali et al., Task execution time modeling for heterogeneous computing
    systems, 2000.
    """

    mean: PositiveFloat = 128.0
    task_cv: PositiveFloat = 0.1
    machine_cv: NonNegativeFloat = 0.6

    def realise(self, rng: np.random.Generator) -> Delay:
        """Draw this worker's machine, if machines vary more than tasks."""
        if self.machine_cv == 0:
            return Gamma(self.mean, self.task_cv)
        if self.machine_cv > self.task_cv:
            own_mean = Gamma(self.mean, self.machine_cv).sample(rng, 1)
            return Gamma(float(own_mean[0]), self.task_cv)
        return self

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw tasks, each on a machine of its own."""
        outer, inner = sorted((self.task_cv, self.machine_cv), reverse=True)
        means = Gamma(self.mean, outer).sample(rng, size)
        return means if inner == 0 else means * Gamma(1.0, inner).sample(rng, size)

    def expectation(self) -> float:
        """Return the mean over machines and tasks."""
        return self.mean


@spec
class Empirical(Delay):
    """Draws with replacement from measured times.

    Args:
        samples: the times, in seconds.
        file: instead, a text file with one time a line (comments with ``#``).
        sha256: its checksum, if you want it verified; filled in when the file is read.
        weights: how often each of ``samples`` counts, in any unit; by default all alike.
    """

    samples: tuple[NonNegativeFloat, ...] = ()
    file: str | None = None
    sha256: str | None = None
    weights: tuple[PositiveFloat, ...] = ()

    @classmethod
    def measured(cls, name: str, median: PositiveFloat = 1.0) -> Self:
        """Return a law that comes with the package, scaled to ``median`` seconds.

        ``nn-training-times``: times of 995,328 trainings of a network over the median of four repetitions, in
        346 weighted values that keep mean and maximum exactly and the quantiles to 0.2 % (its file says more).
        """
        factors, weights = load_factors(name)
        scale = validate("median", PositiveFloat, median)
        return cls(samples=tuple(scale * factor for factor in factors), weights=tuple(weights))

    def check_fields(self) -> None:
        """Read the file, if one is given; raise ValueError if there is nothing to draw from."""
        if self.file is not None:
            if self.samples:
                raise ValueError("empirical takes samples or a file, not both")
            content = Path(self.file).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if self.sha256 not in (None, digest):
                raise ValueError(f"sha256 of {self.file} is {digest}, but the spec says {self.sha256}")
            object.__setattr__(self, "sha256", digest)
        times = self.times()
        if len(times) == 0 or not np.isfinite(times).all() or times.min() < 0 or times.max() == 0:
            raise ValueError(
                f"empirical with {len(times)} samples is not allowed: give at least one, all finite, "
                "none negative, not all zero"
            )
        if self.weights and len(self.weights) != len(self.samples):
            counts = f"{len(self.samples)} samples and {len(self.weights)} weights"
            raise ValueError(f"empirical has {counts}: allowed is one weight per sample, or none")

    def times(self) -> Floats:
        """Return the measured times (of the file as it was when first read)."""
        return load_times(self.file, self.sha256) if self.file is not None else np.asarray(self.samples, float)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw with replacement."""
        return rng.choice(self.times(), size, p=self._shares() if self.weights else None)

    def expectation(self) -> float:
        """Return the (weighted) sample mean."""
        return float(np.average(self.times(), weights=self.weights or None))

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the (weighted) fraction of samples above ``t``."""
        times = self.times()
        order = np.argsort(times)
        late = np.append(np.cumsum(self._shares()[order][::-1])[::-1], 0.0)
        return np.asarray(np.minimum(late[np.searchsorted(times[order], np.asarray(t), side="right")], 1.0))

    def _shares(self) -> Floats:
        weights = np.asarray(self.weights) if self.weights else np.ones(len(self.times()))
        return np.asarray(weights / weights.sum())


@spec
class Scipy(Delay):
    """A ``scipy.stats`` distribution by name, e.g. ``Scipy("invgauss", {"mu": 0.5})``.

    Passing the frozen distribution itself, ``compute=scipy.stats.invgauss(0.5)``, means the same.
    """

    name: str
    parameters: Any = ()

    def check_fields(self) -> None:
        """Raise ValueError for unknown names, bad parameters or a support below 0."""
        plain = {name: np.asarray(value).item() for name, value in dict(self.parameters).items()}
        object.__setattr__(self, "parameters", tuple(sorted(plain.items())))
        if not isinstance(getattr(stats, self.name, None), stats.rv_continuous | stats.rv_discrete):
            known = [n for n in dir(stats) if isinstance(getattr(stats, n), stats.rv_continuous)]
            raise ValueError(unknown_name("scipy.stats distribution", self.name, known))
        try:
            low = self.law().support()[0]
        except TypeError as error:
            raise ValueError(f"parameters of scipy.stats.{self.name} = {dict(self.parameters)}: {error}") from None
        if not low >= 0:
            raise ValueError(f"scipy.stats.{self.name} has support from {low}: a time must not be negative")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw."""
        return np.asarray(self.law().rvs(size=size, random_state=rng), float)

    def law(self) -> Any:
        """Return the frozen distribution."""
        return getattr(stats, self.name)(**dict(self.parameters))


@spec
class Function(Delay):
    """A user's own ``function(rng, size) -> times``, given as itself or as ``"module:function"``.

    A name is imported, and so executed, when the first time is drawn.
    """

    function: Any

    def check_fields(self) -> None:
        """Raise ValueError unless it is a function or the name of one."""
        if isinstance(self.function, str):
            check_function_name("function", self.function)
        elif not callable(self.function):
            raise ValueError(f"function = {self.function!r} is not callable: give function(rng, size)")
        else:
            object.__setattr__(self, "function", by_name(self.function))

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Call the function."""
        function = import_function(self.function) if isinstance(self.function, str) else self.function
        times = np.asarray(function(rng, size), float)
        if times.shape != (size,):
            raise ValueError(
                f"{self.function!r} must return {size} times, an array of that length; got {times.shape}"
            )
        return times


LAWS: dict[str, type[Any]] = {
    kebab(cls.__name__): cls
    for cls in (
        Deterministic, Exponential, ShiftedExponential, Pareto, Gamma, Erlang, HyperExponential, LogNormal,
        Weibull, Uniform, TwoLevelGamma, Empirical, Scipy, Function,
    )
}  # fmt: skip


def as_delay(value: Any) -> Delay:
    """Return the law that a user meant.

    Args:
        value: a :class:`Delay`; a number (deterministic seconds); a frozen ``scipy.stats`` distribution; a
            function ``f(rng, size)``; or a table as in TOML, ``{"law": "exponential", "scale": 1.0}``.

    Raises:
        ValueError: for anything else, naming it.
    """
    if isinstance(value, Delay):
        return value
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a law of times: give e.g. Exponential(1.0)")
    if isinstance(value, Real):
        return Deterministic(float(value))
    if isinstance(value, Mapping):
        law: Delay = from_table("law", value, LAWS, "law")
        return law
    if hasattr(value, "dist") and hasattr(value, "kwds"):
        shapes = [name.strip() for name in (value.dist.shapes or "").split(",") if name.strip()]
        names = [*shapes, "loc", "scale"]
        return Scipy(value.dist.name, {**dict(zip(names, value.args, strict=False)), **value.kwds})
    if isinstance(value, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"{value!r} is not frozen: call it with its parameters, e.g. scipy.stats.expon(scale=2.0)"
        )
    if callable(value):
        return Function(value)
    raise ValueError(f"{value!r} is not a law of times: give e.g. Exponential(1.0)")
