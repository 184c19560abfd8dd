"""Error bounds: proven bounds on the error after a number of updates or a wallclock."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stalegrad._core.protocols import SynchronyLike
from stalegrad.analysis.theory.arguments import Compute, worker_count
from stalegrad.analysis.theory.checks import check_constants, check_number
from stalegrad.analysis.theory.constants import Constants
from stalegrad.analysis.theory.runtime import expected_update_time

Floats = npt.NDArray[np.float64]
Quantity = Literal["error", "gradient"]


@dataclasses.dataclass(frozen=True)
class ErrorBound:
    """Bounds on E[F(w_j)] - F* and on the gradient, for plain SGD with stale gradients and a constant step.

    With gamma' = 1 - gamma + p0 / 2 and mini-batches of m:

        error(J)    = floor + (1 - eta c gamma')^J (gap - floor),  floor = eta L sigma^2 / (2 c gamma' K m)
        gradient(J) = 2 gap / ((J + 1) eta gamma') + L eta sigma^2 / (K m gamma')

    if eta <= 1 / (2 L (M_G / (K m) + 1)). The paper prints 1/K instead of the last 1, which does not follow from
    its own proof (36): with M_G = 0 and K = 8 it would allow eta = 4 / L, at which gradient descent diverges.

    Args:
        constants: constants of the problem.
        learning_rate: eta.
        gap: F(w_0) - F* at the start.
        batch_size: m, the number of examples of a gradient.
        gamma: relative error of gradients due to staleness, see ``measured_gamma``; 0 for sync, k-sync and
            k-batch-sync.
        p0: lower bound on the probability that a gradient is fresh. 0 is always valid; with gamma = 0 it gives the
            lemma for k-sync.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, Lemma 2, Theorems 3 and 5, Corollary 2.

    Example:
        >>> from stalegrad.analysis import Constants, ErrorBound
        >>> bound = ErrorBound(Constants(smoothness=1.0, convexity=1.0, noise=0.0), learning_rate=0.1, gap=1.0)
        >>> bound.error([0, 10]).round(4)  # 0.9^J without noise
        array([1.    , 0.3487])
    """

    constants: Constants
    learning_rate: float
    gap: float
    batch_size: int = 1
    gamma: float = 0.0
    p0: float = 0.0

    def __post_init__(self) -> None:
        check_constants(self.constants)
        check_number("learning_rate", self.learning_rate, above=True)
        check_number("gap", self.gap)
        check_number("batch_size", self.batch_size, low=1.0)
        check_number("gamma", self.gamma, high=1.0)
        check_number("p0", self.p0, high=1.0)
        if self.shrinkage <= 0:
            raise ValueError("gamma = 1 with p0 = 0 bounds nothing: 1 - gamma + p0 / 2 must be above 0")

    @property
    def shrinkage(self) -> float:
        """gamma' = 1 - gamma + p0 / 2."""
        return 1 - self.gamma + self.p0 / 2

    def largest_learning_rate(self, k: int = 1) -> float:
        """Return the largest step at which the bounds hold, 1 / (2 L (M_G / (K m) + 1))."""
        check_number("k", k, low=1.0)
        return 1 / (2 * self.constants.smoothness * (self.constants.growth / (k * self.batch_size) + 1))

    def error(self, updates: npt.ArrayLike, k: int = 1) -> Floats:
        """Bound the expected F(w_J) - F* after J updates of ``k`` gradients each.

        Args:
            updates: J, a number or an array; it need not be whole.
            k: number of gradients per update.

        Raises:
            ValueError: if the problem is not strongly convex, or the step is larger than the bound allows.
        """
        self._check_step(k)
        _, c, noise, _ = self.constants
        if c <= 0:
            raise ValueError(f"convexity = {c}: the error is bounded for c above 0 only; gradient() needs none")
        floor = self.learning_rate * self.constants.smoothness * noise
        floor /= 2 * c * self.shrinkage * k * self.batch_size
        remains = (1 - self.learning_rate * c * self.shrinkage) ** _updates(updates)
        return np.asarray(floor + remains * (self.gap - floor))

    def gradient(self, updates: npt.ArrayLike, k: int = 1) -> Floats:
        """Bound the mean over j = 0..J of the expected ||∇F(w_j)||^2; F need not be convex.

        Arguments and errors as for :meth:`error`.
        """
        self._check_step(k)
        step = self.learning_rate * self.shrinkage
        noise = self.constants.smoothness * self.learning_rate * self.constants.noise
        return np.asarray(
            2 * self.gap / ((_updates(updates) + 1) * step) + noise / (k * self.batch_size * self.shrinkage)
        )

    def against_wallclock(
        self,
        wallclock: npt.ArrayLike,
        synchrony: SynchronyLike,
        compute: Compute,
        workers: int | None = None,
        quantity: Quantity = "error",
    ) -> Floats:
        """Return the bound after t simulated seconds, that is, after t / E[T] updates.

        Args:
            wallclock: t, a number or an array, in simulated seconds.
            synchrony: a synchrony with a known :func:`~stalegrad.analysis.expected_update_time`.
            compute: delay of the seconds of one mini-batch, or one per worker.
            workers: number of workers.
            quantity: ``error`` or ``gradient``.

        Raises:
            ValueError: as for :meth:`error` and ``expected_update_time``; also if only a lower bound of E[T] is
                known.
        """
        if quantity not in ("error", "gradient"):
            raise ValueError(f"quantity = {quantity!r} is not allowed: 'error' or 'gradient'")
        time = expected_update_time(synchrony, compute, workers)
        if time.kind == "lower bound":
            raise ValueError(f"{synchrony.name}: no upper bound of E[T] is known for these times")
        seconds = np.asarray(wallclock, float)
        k = getattr(synchrony, "k", 1) if synchrony.name != "sync" else worker_count(compute, workers)
        return getattr(self, quantity)(seconds / time.value, k)  # type: ignore[no-any-return]

    def best_k(
        self,
        wallclock: float,
        synchrony: SynchronyLike,
        compute: Compute,
        workers: int | None = None,
        quantity: Quantity = "error",
    ) -> int:
        """Return the k, from 1 to the number of workers, with the least bound after a number of simulated seconds.

        Values of k for which the step is too large are skipped. The same ``gamma`` and ``p0`` are used for all k,
        although they depend on it; they do not matter if only the gradient is bounded, as in AdaSync.

        Args:
            wallclock: time in simulated seconds.
            synchrony: a synchrony of the desired kind; its own k is replaced.
            compute: delay of the seconds of one mini-batch, or one per worker.
            workers: number of workers.
            quantity: bounded quantity, ``error`` or ``gradient``.

        Raises:
            ValueError: as for :meth:`against_wallclock`; also if the synchrony has no k, or no k allows the step.

        References:
            Dutta et al., AdaSync, 2020.
        """
        changed: Any = synchrony
        if not any(field.name == "k" for field in dataclasses.fields(changed)):
            raise ValueError(f"{synchrony.name} has no k to choose: give one with k, such as k-sync or k-async")
        check_number("wallclock", wallclock, above=True)
        ks = range(1, worker_count(compute, workers) + 1)
        allowed = [k for k in ks if self.learning_rate <= self.largest_learning_rate(k)]
        if not allowed:
            self._check_step(ks[-1])
        bounds = [
            self.against_wallclock(wallclock, dataclasses.replace(changed, k=k), compute, workers, quantity)
            for k in allowed
        ]
        return allowed[int(np.argmin(bounds))]

    def _check_step(self, k: int) -> None:
        largest = self.largest_learning_rate(k)
        if self.learning_rate > largest * (1 + 1e-12):
            raise ValueError(
                f"learning_rate = {self.learning_rate:g} is beyond the bound's condition: with k = {k} at most "
                f"{largest:g} = 1 / (2 L (M_G / (k m) + 1))"
            )


def mind_the_step_learning_rate(
    target: float, mean_staleness: float, *, constants: Constants, second_moment: float, theta: float = 1.0
) -> float:
    """Return the constant step theta c eps / (M (M + 2 L sqrt(eps) E[tau])) of MindTheStep's bound.

    Args:
        target: eps, the target of the squared distance to the minimum.
        mean_staleness: E[tau].
        constants: constants of the problem, of which L and c are used.
        second_moment: M^2, bound on the expected squared norm of a gradient.
        theta: number between 0 and 2; 1 gives the fewest updates.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed.

    References:
        Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, 2019, corollary of the convex bound.

    Example:
        >>> from stalegrad.analysis import Constants, mind_the_step_learning_rate
        >>> constants = Constants(smoothness=1.0, convexity=1.0, noise=0.0)
        >>> rates = (mind_the_step_learning_rate(0.01, t, constants=constants, second_moment=1.0) for t in (0, 20))
        >>> [round(rate, 4) for rate in rates]
        [0.01, 0.002]
    """
    check_constants(constants, convex=True)
    check_number("target", target, above=True)
    check_number("mean_staleness", mean_staleness)
    check_number("second_moment", second_moment, above=True)
    if not 0 < theta < 2:
        raise ValueError(f"theta = {theta!r} is not allowed: a number between 0 and 2")
    m = math.sqrt(second_moment)
    slowed = m * (m + 2 * constants.smoothness * math.sqrt(target) * mean_staleness)
    return theta * constants.convexity * target / slowed


def mind_the_step_updates(
    learning_rates: npt.ArrayLike,
    staleness: npt.ArrayLike,
    target: float,
    distance: float,
    *,
    constants: Constants,
    second_moment: float,
) -> float:
    """Return the number of updates after which E||x - x*||^2 is below ``target``, for steps by staleness:

        T = ln(||x_0 - x*||^2 / eps) / (2 (c E[alpha] - eps^(-1/2) L M E[tau alpha^2]) - eps^(-1) M^2 E[alpha^2])

    Args:
        learning_rates: alpha(0), alpha(1), ..., not increasing.
        staleness: P(tau = 0), P(tau = 1), ..., of the same length.
        target: eps.
        distance: ||x_0 - x*||^2 at the start.
        constants: constants of the problem, of which L and c are used.
        second_moment: M^2, bound on the expected squared norm of a gradient.

    Raises:
        ValueError: for an argument out of range; the error names it and what is allowed. Also if the steps are too
            large for the bound.

    References:
        Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, 2019, the bound for convex functions.

    Example:
        >>> from stalegrad.analysis import Constants, mind_the_step_updates
        >>> constants = Constants(smoothness=1.0, convexity=1.0, noise=0.0)
        >>> round(mind_the_step_updates([0.01], [1.0], 0.1, 1.0, constants=constants, second_moment=1.0), 2)
        121.19
    """
    check_constants(constants, convex=True)
    check_number("target", target, above=True)
    check_number("distance", distance, above=True)
    check_number("second_moment", second_moment, above=True)
    alpha, share = np.asarray(learning_rates, float), np.asarray(staleness, float)
    if alpha.ndim != 1 or alpha.shape != share.shape or not alpha.size:
        raise ValueError(f"learning_rates {alpha.shape} and staleness {share.shape}: give one number each per tau")
    if (share < 0).any() or not math.isclose(share.sum(), 1.0, rel_tol=1e-6):
        raise ValueError(f"staleness sums to {share.sum():g}: give probabilities that sum to 1")
    if (alpha <= 0).any() or (np.diff(alpha) > 0).any():
        raise ValueError("learning_rates must be above 0 and not increase with staleness: the bound needs it")
    first, second = float(share @ alpha), float(share @ alpha**2)
    late = float(share @ (np.arange(len(alpha)) * alpha**2))
    m = math.sqrt(second_moment)
    progress = 2 * (constants.convexity * first - constants.smoothness * m * late / math.sqrt(target))
    progress -= second_moment * second / target
    if progress <= 0:
        raise ValueError(f"learning_rates are beyond the bound's condition: progress per update {progress:g} <= 0")
    return max(math.log(distance / target) / progress, 0.0)


def _updates(updates: npt.ArrayLike) -> Floats:
    count = np.asarray(updates, float)
    if not (count >= 0).all():
        raise ValueError("updates must be numbers of at least 0")
    return count
