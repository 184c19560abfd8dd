"""Delays whose times depend on each other: a Markov chain of states, and correlation between successive jobs."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field

from stalegrad._core.delay import BLOCK, Delay, Floats, Timer
from stalegrad._core.specs import Correlation, PositiveFloat, kebab, plain, spec
from stalegrad.simulator.timing.delays.convert import always_zero, as_delay, as_table

MOST_PARTS = 100
"""Largest number of delays that a delay may consist of, in all."""

FORGOTTEN = 1_000
"""Mean stays of all states together after which a Markov chain restarts, as independent of its past."""

Common = Callable[..., np.random.Generator]


class Memory(Delay):
    """Base of delays whose times depend on each other or on the clock."""

    remembers = True

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Raise TypeError: ``blocks`` or ``timer`` return the times in order."""
        raise TypeError(f"{type(self).__name__} gives times that depend on each other: draw no independent ones")

    def settings(self) -> dict[str, Any]:
        """Return the fields, including inner delays, as plain tables."""
        return plain({name: as_table(value) for name, value in super().settings().items()})


@spec
class MarkovModulated(Memory):
    """A delay that switches between the delays of several states, for example fast and slow ones.

    A worker stays in a state for a random time, then changes to one of the other states with equal probability. It
    begins in the stationary distribution: in a state with probability proportional to its mean stay.

    Args:
        states: delay of each state, two or more.
        mean_stay: mean stay in each state, in ``unit``.
        unit: unit of stays. ``jobs``: stays are geometric, in gradients computed, at least 1. ``seconds``: stays
            are exponential, in simulated seconds, and pass while a worker waits, too; a gradient takes a time of
            the state in which it begins. The state at each second is then the same under every synchrony.

    Raises:
        ValueError: for a value that is not allowed; it names the value.

    Example:
        >>> from stalegrad.simulator import Exponential, MarkovModulated
        >>> delay = MarkovModulated([Exponential(1.0), Exponential(5.0)], mean_stay=[30.0, 10.0])
        >>> delay.shares
        (0.75, 0.25)
        >>> delay.expectation()
        2.0

    Reference:
        Fischer and Meier-Hellstern, The Markov-modulated Poisson process (MMPP) cookbook, 1993,
        https://doi.org/10.1016/0166-5316(93)90035-S, for the idea of a modulating chain.
    """

    states: Any
    mean_stay: Annotated[tuple[Annotated[PositiveFloat, Field(le=1e15)], ...], Field(min_length=2)]
    unit: Literal["jobs", "seconds"] = "jobs"

    def check_fields(self) -> None:
        """Raise ValueError unless every state has a delay and a mean stay."""
        if not isinstance(self.states, tuple | list):
            raise ValueError(
                f"states of markov-modulated = {self.states!r:.200} is not allowed: give a list of delays"
            )
        states = tuple(inner_delay(f"states of markov-modulated, state {i}", s) for i, s in enumerate(self.states))
        object.__setattr__(self, "states", states)
        if len(states) != len(self.mean_stay):
            raise ValueError(
                f"markov-modulated has {len(states)} states and {len(self.mean_stay)} values of mean_stay: "
                "allowed is one per state"
            )
        for state, stay in enumerate(self.mean_stay):
            if self.unit == "jobs" and stay < 1:
                raise ValueError(
                    f"mean_stay of markov-modulated, state {state} = {stay} is not allowed: at least 1 job"
                )
        check_parts(self)

    @property
    def shares(self) -> tuple[float, ...]:
        """The stationary share of every state, in jobs or in seconds."""
        return tuple(stay / sum(self.mean_stay) for stay in self.mean_stay)

    @property
    def clocked(self) -> bool:
        """Whether stays are in seconds, or a state depends on the clock."""
        return self.unit == "seconds" or any(state.clocked for state in self.states)

    @property
    def ahead(self) -> bool:
        """Whether times may be drawn before they are needed."""
        return not self.clocked and all(state.ahead for state in self.states)

    def of_worker(self, worker: int) -> Delay:
        """Return the delay of one worker."""
        return changed(self, states=tuple(state.of_worker(worker) for state in self.states))

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay with this run's draw of the machine in every state."""
        return changed(self, states=tuple(state.realise(rng) for state in self.states))

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the times of one worker in order; one by one if the times of a state cannot be drawn ahead."""
        if self.clocked:
            raise TypeError("markov-modulated depends on when a job begins: use timer")
        draw, size = self.timer(rng, _no_stream), BLOCK if self.ahead else 1
        while True:
            yield np.array([draw(0.0) for _ in range(size)])

    def timer(self, rng: np.random.Generator, common: Common) -> Timer:
        """Return a function that draws a time from the current state."""
        chain, *own = rng.spawn(1 + len(self.states))
        draw = [state.timer(stream, common) for state, stream in zip(self.states, own, strict=True)]
        state_at = self._by_jobs(chain) if self.unit == "jobs" else self._by_seconds(chain)
        return lambda begin: draw[state_at(begin)](begin)

    def expectation(self) -> float:
        """Return the mean of the states, weighted by their shares."""
        self._check_marginal()
        return float(np.dot(self.shares, [state.expectation() for state in self.states]))

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the survival function of the states, weighted by their shares."""
        self._check_marginal()
        late = sum(share * state.sf(t) for share, state in zip(self.shares, self.states, strict=True))
        return np.asarray(np.minimum(late, 1.0))

    def _check_marginal(self) -> None:
        if self.clocked:
            raise TypeError(
                "MarkovModulated by the clock has no distribution: its times depend on when jobs begin"
            )

    def _visits(self, rng: np.random.Generator) -> Iterator[int]:
        """Yield the states in the order of their visits."""
        state = int(rng.choice(len(self.states), p=self.shares))
        while True:
            yield state
            other = int(rng.integers(len(self.states) - 1))
            state = other + (other >= state)

    def _by_jobs(self, rng: np.random.Generator) -> Callable[[float], int]:
        stays = (itertools.repeat(i, int(rng.geometric(1 / self.mean_stay[i]))) for i in self._visits(rng))
        states = itertools.chain.from_iterable(stays)
        return lambda begin: next(states)

    def _by_seconds(self, rng: np.random.Generator) -> Callable[[float], int]:
        visits, long, shortest = self._visits(rng), FORGOTTEN * sum(self.mean_stay), min(self.mean_stay)
        ends, states = [0.0], [0]  # of the stays so far; begin decreases after a cancelled job

        def state_at(begin: float) -> int:
            nonlocal visits
            if shortest <= math.ulp(begin):
                raise ValueError(
                    f"mean_stay of markov-modulated = {shortest} s is too short at {begin} s: the clock, a "
                    "float64, would not advance"
                )
            if begin - ends[-1] > long:
                visits, ends[-1] = self._visits(rng), begin
            while ends[-1] <= begin:
                states.append(next(visits))
                ends.append(ends[-1] + rng.exponential(self.mean_stay[states[-1]]))
            return states[bisect.bisect_right(ends, begin)]

        return state_at


@spec
class Correlated(Memory):
    """A delay whose successive times are correlated: an autoregressive Gaussian copula of order 1.

    z_0 ~ N(0, 1), z_{n+1} = phi z_n + sqrt(1 - phi^2) e_n with e_n ~ N(0, 1), and the time of job n is
    F^{-1}(Phi(z_n)), where F is the distribution of ``base``. Times have that distribution for every phi. The
    lag-1 autocorrelation of z is phi; that of the times is somewhat smaller.

    Args:
        base: delay of a single time, with quantiles (``ppf``).
        phi: lag-1 autocorrelation of z, between -1 and 1.

    Raises:
        ValueError: for a value that is not allowed, or a base without quantiles.

    Example:
        >>> from stalegrad.simulator import Cluster, Correlated, Gamma
        >>> cluster = Cluster(workers=8, compute=Correlated(Gamma(mean=1.0, cv=0.5), phi=0.7))

    Reference:
        Cario and Nelson, Autoregressive to anything: time-series input processes for simulation, 1996,
        https://doi.org/10.1016/0167-6377(96)00017-X.
    """

    base: Any
    phi: Correlation

    def check_fields(self) -> None:
        """Raise ValueError unless the base has quantiles."""
        object.__setattr__(self, "base", inner_delay("base of correlated", self.base))
        if self.base.remembers:
            raise ValueError(
                f"base of correlated = {self.base!r:.200} is not allowed: its times depend on each other"
            )
        try:
            middle = float(self.base.realise(np.random.default_rng(0)).ppf(0.5))
        except TypeError as error:
            raise ValueError(
                f"base of correlated = {self.base!r:.200} is not allowed: it has no quantile function ({error})"
            ) from None
        if not math.isfinite(middle):
            raise ValueError(f"base of correlated = {self.base!r:.200} is not allowed: its median is {middle}")

    def realise(self, rng: np.random.Generator) -> Delay:
        """Return the delay with this run's draw of the machine of the base."""
        return changed(self, base=self.base.realise(rng))

    def blocks(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the times of one worker in order."""
        for normals in self.normals(rng):
            shares = np.minimum(scipy.special.ndtr(normals), 1 - 2**-53)  # 1 would give an infinite time
            yield self.base.ppf(shares)

    def normals(self, rng: np.random.Generator) -> Iterator[Floats]:
        """Yield the copula's normal values z, in blocks of 256."""
        last, rest = float(rng.standard_normal()), math.sqrt(1 - self.phi**2)
        while True:
            fresh = (rest * rng.standard_normal(BLOCK)).tolist()
            found = list(itertools.accumulate(fresh, lambda z, e: self.phi * z + e, initial=last))
            yield np.array(found[:-1])
            last = found[-1]

    def distribution(self) -> Any:
        """Return the distribution of the base."""
        return self.base.distribution()

    def expectation(self) -> float:
        """Return the expectation of the base."""
        return float(self.base.expectation())

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the survival function of the base."""
        return np.asarray(self.base.sf(t))


def inner_delay(where: str, value: Any) -> Delay:
    """Return an inner delay, given in any form that :func:`as_delay` takes."""
    try:
        delay = as_delay(value)
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    if always_zero(delay):
        raise ValueError(f"{where} = {delay!r:.200} is not allowed: it is always 0")
    return delay


def check_parts(delay: Delay) -> None:
    """Raise ValueError if a delay consists of more than :data:`MOST_PARTS` delays."""
    if sum(1 for _ in itertools.islice(delay.parts(), MOST_PARTS + 1)) > MOST_PARTS:
        kind = kebab(type(delay).__name__)
        raise ValueError(f"{kind} consists of more than {MOST_PARTS} delays: at most {MOST_PARTS} are allowed")


def changed(delay: Any, **changes: Any) -> Delay:
    """Return a delay with some fields changed, or the delay itself if no field differs."""
    same = all(getattr(delay, name) == value for name, value in changes.items())
    found: Delay = delay if same else replace(delay, **changes)
    return found


def _no_stream(*key: int) -> np.random.Generator:
    raise TypeError("a delay that does not depend on the clock asks for a common stream")
