"""Scaling by staleness: a factor on each message that depends on staleness alone.

Staleness is known from the trace, so the factors of a whole run are computed at once, on the host, in float64. A
weight is a function, or a spec class whose instances are called as one; its fields are hyper-parameters of the
methods that have it. What is estimated from observed staleness uses messages of the past only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat, PositiveFloat, PositiveInt, spec
from stalegrad._core.types import Floats, Ints
from stalegrad.policies.rules.hyperparameters import StalenessModel, UnitInterval

# NumPy is imported where it is used: methods can be named and listed without it.

LONGEST = 4_096
"""Models are tabulated for staleness below this, or up to the largest observed."""


StalenessWeight = Callable[..., Floats]
"""``(staleness, update, workers) -> factors``: the staleness of each used message, in the order of gradient ids,
the update that each goes into (never falling), and the number of workers; a factor of at least 0 for each. One
that has further arguments ``worker`` or ``steps`` is given that of each message as well."""


def weights(weigh: StalenessWeight | None, staleness: Ints, update: Ints, workers: int, **more: Ints) -> Floats:
    """Return the weight of each message; ``more`` are ``worker`` and ``steps`` of each."""
    import numpy as np

    if weigh is None:
        return np.ones(len(staleness))
    taken = {name: more[name] for name in inspect.signature(weigh).parameters if name in more}
    return weigh(staleness, update, workers, **taken)


@spec
class StalenessAware:
    """Messages divided by max(1, tau) (offset 0) or tau + 1 (offset 1), before the momentum.

    Args:
        offset: the convention.

    Reference: Zhang et al., Staleness-aware Async-SGD for Distributed Deep Learning, 2016.
    """

    offset: Literal[0, 1] = 0

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return the reciprocal of max(1, tau), or of tau + 1."""
        return 1.0 / (staleness + 1.0 if self.offset else staleness.clip(1.0))


@spec
class InverseStaleness:
    """Learning rate eta / (tau + 1)."""

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return 1 / (tau + 1)."""
        return 1.0 / (staleness + 1.0)


@spec
class Fleet:
    """Learning rate eta exp(-beta tau), beta = (2 / T) ln(1 + T / 2), T = N + 1; it meets 1 / (tau + 1) at T / 2.

    Args:
        integer_division: compute T / 2 in integers, as other people's code does.
    """

    integer_division: bool = False

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return exp(-beta tau)."""
        import numpy as np

        horizon = workers + 1
        half = horizon // 2 if self.integer_division else horizon / 2
        return np.asarray(np.exp(-2.0 / horizon * np.log1p(half) * staleness))


@spec
class DelayAdaptive:
    """Learning rate eta N / max(N, tau): constant up to the number of workers, then inversely proportional.

    Reference: Mishchenko et al., Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays, 2022.
    """

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return N / max(N, tau)."""
        return workers / staleness.clip(workers)


@spec
class StalenessDecay:
    """Weights that fall with staleness: 1, (1 + tau)^-a, or 1 up to tau = b and 1 / (a (tau - b) + 1) beyond.

    Args:
        decay: ``constant``, ``polynomial`` or ``hinge``.
        a: exponent of the polynomial (default 0.5), or slope of the hinge (default 10).
        b: staleness up to which the hinge is 1.

    Reference: Xie, Koyejo, Gupta, Asynchronous Federated Optimization (FedAsync), 2019.
    """

    decay: Literal["constant", "polynomial", "hinge"] = "polynomial"
    a: PositiveFloat | None = None
    b: NonNegativeFloat = 4.0

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return the weight at each staleness."""
        import numpy as np

        if self.decay == "constant":
            return np.ones(len(staleness))
        if self.decay == "polynomial":
            return np.asarray((1.0 + staleness) ** -(0.5 if self.a is None else self.a))
        a = 10.0 if self.a is None else self.a
        return np.asarray(1 / (a * np.maximum(staleness - self.b, 0.0) + 1))


@spec
class SumPerWorker:
    """The messages of an update divided by N: makes of their mean their sum divided by the number of workers."""

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return (messages of the update) / N."""
        import numpy as np

        return np.asarray(np.bincount(update)[update] / workers)


@spec
class PerGradient:
    """The messages of an update divided by their mean number of gradients: makes of their mean the gradients'."""

    def __call__(self, staleness: Ints, update: Ints, workers: int, steps: Ints) -> Floats:
        """Return (messages of the update) / (gradients of the update)."""
        import numpy as np

        return np.asarray((np.bincount(update) / np.bincount(update, steps))[update])


@spec
class ExpectedCount:
    """The messages of an update divided by their expected number: of their mean makes an unbiased one.

    Args:
        expected: messages of an update on average; None: they are divided by their number.
    """

    expected: PositiveFloat | None = None

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return (messages of the update) / (expected number)."""
        import numpy as np

        counts = np.bincount(update)[update]
        return np.asarray(counts / (counts if self.expected is None else self.expected))


@spec
class Tail:
    """Learning rate eta (1 + A (1 - 2 F(tau))), F the staleness distribution measured in this run.

    F is taken from the updates 10 N < step < 15 N (N workers); until then the factor is 1. Staleness of 200 and
    more counts as 199.

    Args:
        amplitude: A, by which the learning rate varies at most.
        cdf: ``midpoint``: P[T < tau] + P[T = tau] / 2, whose mean factor is exactly 1; ``strict``: P[T < tau],
            normalised by 5 N, what the authors' code does.

    Reference: Backstrom, Papatriantafilou, Tsigas, ASAP.SGD: Instance-based Adaptiveness to Staleness in
    Asynchronous SGD, 2022 (TAIL-tau).
    """

    amplitude: UnitInterval = 1.0
    cdf: Literal["midpoint", "strict"] = "midpoint"

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return 1 until F is measured, then 1 + A (1 - 2 F(tau))."""
        import numpy as np

        bound = 200
        window = (update > 10 * workers) & (update < 15 * workers)
        seen = staleness[window & (staleness < bound)]
        factors = np.ones(len(staleness))
        if not len(seen):
            return factors
        counts = np.bincount(seen, minlength=bound).astype(float)
        p = counts / (len(seen) if self.cdf == "midpoint" else 5.0 * workers)
        below = np.cumsum(p) - p
        distribution = below + p / 2 if self.cdf == "midpoint" else below
        after = update >= 15 * workers
        factors[after] = 1 + self.amplitude * (1 - 2 * distribution[np.minimum(staleness[after], bound - 1)])
        return factors


@spec
class MindTheStep:
    """Learning rate alpha(tau) from a model p of the staleness, F its distribution function.

    alpha(tau) = c eta (1 - damping F(tau - 1)) / p(tau), c such that the mean step stays eta; the geometric model
    with a target momentum mu: alpha(tau) = c eta C^-tau, C = (1 - p) / mu.

    What was computed at the initial parameters is not counted: all workers read them at once, and those few low
    values, to which the models give next to no probability, would decide the mean factor.

    Args:
        model: ``geometric``, ``poisson``, ``cmp`` or ``uniform``.
        mean: the model's m; by default the number of workers.
        nu: dispersion of ``cmp``, if it is not fitted.
        damping: K / alpha of the paper; 1 makes the step non-increasing in tau.
        target_momentum: for the geometric model: the implicit momentum wanted, C = (1 - p) / target.
        online: fit the model to the staleness observed so far, whenever the histogram is taken.
        normalise: keep the mean step at eta under the observed staleness, before the clip or ``after-clip``.
        warmup: messages with factor 1 before the histogram is first taken.
        refresh: messages after which it is taken again; None: never.
        clip: largest factor.
        drop_above: staler messages count nothing.

    Reference: Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, 2019. The implicit momentum of the
    geometric step is (1 - p) / C (the sign printed in the paper, as we recall it, does not survive a check).
    """

    model: StalenessModel = "poisson"
    mean: PositiveFloat | None = None
    nu: PositiveFloat = 1.0
    damping: UnitInterval = 1.0
    target_momentum: Annotated[float, Field(gt=0, le=1)] | None = None
    online: bool = False
    normalise: bool | Literal["after-clip"] = True
    warmup: PositiveInt = 300
    refresh: PositiveInt | None = None
    clip: PositiveFloat | None = 5.0
    drop_above: PositiveInt | None = 150

    def __call__(self, staleness: Ints, update: Ints, workers: int) -> Floats:
        """Return 1 during the warm-up, then alpha(tau) / eta from the histogram of the past."""
        import numpy as np

        factors = np.ones(len(staleness))
        size = max(LONGEST, int(staleness.max(initial=0)) + 1)
        for start in range(self.warmup, len(staleness), self.refresh or max(len(staleness), 1)):
            stop = len(staleness) if self.refresh is None else min(start + self.refresh, len(staleness))
            seen = staleness[:start][update[:start] > staleness[:start]]
            if len(seen):
                q = np.bincount(seen, minlength=size) / len(seen)
                factors[start:stop] = self._table(q, workers)[staleness[start:stop]]
        return factors

    def _table(self, q: Floats, workers: int) -> Floats:
        """Return the factor at each staleness, given the histogram observed so far."""
        import numpy as np

        from stalegrad.policies.rules.parts.staleness_models import fit, log_pmf, mean_factor, step_factors

        support = np.arange(len(q))
        m = float(workers if self.mean is None else self.mean)
        fitted = fit(self.model, q, mean=m) if self.online else {"mean": m, "nu": self.nu}
        if self.model == "geometric" and self.target_momentum is not None:
            p = min(1.0 / fitted["mean"], 1.0 - 1e-12)
            with np.errstate(over="ignore"):
                factors = np.minimum(np.exp(-support * np.log((1 - p) / self.target_momentum)) / p, 1e300)
        else:
            factors = step_factors(log_pmf(self.model, support, **fitted), self.damping)
        if self.drop_above is not None:
            factors = np.where(support <= self.drop_above, factors, 0.0)
        if self.normalise:
            average = mean_factor(q, factors, self.clip if self.normalise == "after-clip" else None)
            factors = factors / average if average > 0 else np.ones(len(q))
        return factors if self.clip is None else np.asarray(np.minimum(factors, self.clip))
