"""Constants of error bounds, computed from the arrays of a problem or the trace of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad._core.protocols import TraceLike
from stalegrad.analysis.statistics.inputs import as_traces

Floats = npt.NDArray[np.float64]


class Constants(NamedTuple):
    """The constants of a function F and of its gradient at one example.

    Attributes:
        smoothness: L, with ||∇F(u) - ∇F(w)|| <= L ||u - w||.
        convexity: c, with 2 c (F(w) - F*) <= ||∇F(w)||^2; 0 if there is none.
        noise: sigma^2, with E||g(w) - ∇F(w)||^2 <= sigma^2 + M_G ||∇F(w)||^2 for the gradient g at one example
            drawn at random. For the mean of m gradients the bound is divided by m.
        growth: M_G in this bound.

    Example:
        >>> from stalegrad.analysis import Constants, ErrorBound
        >>> constants = Constants(smoothness=2.0, convexity=0.5, noise=1.0)
        >>> ErrorBound(constants, learning_rate=0.1, gap=1.0).largest_learning_rate()
        0.25
    """

    smoothness: float
    convexity: float
    noise: float
    growth: float = 0.0


def quadratic_constants(hessian: npt.ArrayLike, noise: float) -> Constants:
    """Return the constants of F(w) = (w - w*)' H (w - w*) / 2, with gradient noise of constant variance.

    Args:
        hessian: H (d, d), symmetric, positive semi-definite.
        noise: sigma^2, expected squared norm of the noise of a gradient at one example.

    Raises:
        ValueError: if the matrix is not symmetric and positive semi-definite, or the noise is negative.

    Example:
        >>> from stalegrad.analysis import quadratic_constants
        >>> quadratic_constants([[2.0, 0.0], [0.0, 0.5]], noise=1.0)
        Constants(smoothness=2.0, convexity=0.5, noise=1.0, growth=0.0)
    """
    matrix = np.asarray(hessian, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"hessian has shape {matrix.shape}: give a symmetric square matrix")
    if not np.allclose(matrix, matrix.T):
        largest = np.abs(matrix - matrix.T).max()
        raise ValueError(f"hessian is not symmetric: it differs from its transpose by up to {largest:.3g}")
    values = np.linalg.eigvalsh(matrix)
    if values[0] < -1e-9 * abs(values[-1]) or values[-1] <= 0:
        raise ValueError(f"hessian has eigenvalues from {values[0]:g} to {values[-1]:g}: none may be negative")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise = {noise!r} is not allowed: a finite number of at least 0")
    return Constants(float(values[-1]), max(float(values[0]), 0.0), float(noise))


def ridge_constants(inputs: npt.ArrayLike, targets: npt.ArrayLike, l2: float = 0.0) -> Constants:
    """Return the exact constants of ridge regression, F(w) = mean (x'w - y)^2 / 2 + l2 ||w||^2.

    The variance of an example's gradient is a quadratic function of w. M_G is twice the smallest value with a
    finite sigma^2, and sigma^2 is then the smallest value that holds for all w.

    Args:
        inputs: array (n, d), with a column of ones for a bias (which is regularised, too).
        targets: array (n,).
        l2: factor of ||w||^2.

    Raises:
        ValueError: if the shapes do not fit together, l2 is negative, or F is not strongly convex.

    Example:
        >>> from stalegrad.analysis import ridge_constants
        >>> constants = ridge_constants([[1.0], [1.0]], targets=[1.0, -1.0], l2=0.5)
        >>> constants.smoothness, constants.convexity, constants.noise
        (2.0, 2.0, 1.0)
    """
    x, y = _data(inputs, targets, l2)
    n, d = x.shape
    hessian = x.T @ x / n + 2 * l2 * np.eye(d)
    values = np.linalg.eigvalsh(hessian)
    if values[0] <= 1e-12 * values[-1]:
        raise ValueError(f"inputs of rank below {d} without l2 are not strongly convex: give l2 above 0")
    # With e = w - w* an example's gradient is (x x' + 2 l2 I) e + g, so its variance is e'Qe + b'e + a.
    best = np.linalg.solve(hessian, x.T @ y / n)
    residual = x @ best - y
    at_best = x * residual[:, None] + 2 * l2 * best
    square = np.einsum("ni,nj,n->ij", x, x, (x**2).sum(axis=1)) / n
    regular = 4 * l2 * (x.T @ x) / n + 4 * l2**2 * np.eye(d)
    q = square + regular - hessian @ hessian
    b = 2 * (x * (x * at_best).sum(axis=1)[:, None]).mean(axis=0)  # the mean of g is 0
    a = float((at_best**2).sum(axis=1).mean())
    inverse = np.linalg.inv(hessian)
    growth = 2 * max(float(np.linalg.eigvalsh(inverse @ q @ inverse)[-1]), 0.0)
    noise = a + float(b @ np.linalg.pinv(growth * hessian @ hessian - q) @ b) / 4
    return Constants(float(values[-1]), float(values[0]), noise, growth)


def softmax_constants(inputs: npt.ArrayLike, labels: npt.ArrayLike, l2: float = 0.0) -> Constants:
    """Return bounds on the constants of softmax regression, F(W) = mean cross-entropy + l2 ||W||^2.

    L <= lambda_max(X'X / n) / 2 + 2 l2, because diag(p) - pp' <= 1/2; c >= 2 l2; sigma^2 <= 2 mean ||x||^2 with
    M_G = 0, because ||p - e_y||^2 <= 2 and the regularisation adds no noise. The bounds hold for all W; near the
    minimum sigma^2 is smaller, see :func:`measured_noise`.

    Args:
        inputs: array (n, d), with a column of ones for a bias (which is regularised, too).
        labels: array (n,) of whole numbers.
        l2: factor of ||W||^2.

    Raises:
        ValueError: if the shapes do not fit together or l2 is negative.

    Example:
        >>> from stalegrad.analysis import softmax_constants
        >>> softmax_constants([[1.0, 0.0], [0.0, 1.0]], labels=[0, 1], l2=0.25)
        Constants(smoothness=0.75, convexity=0.5, noise=2.0, growth=0.0)
    """
    x, _ = _data(inputs, labels, l2)
    largest = float(np.linalg.eigvalsh(x.T @ x / len(x))[-1])
    return Constants(largest / 2 + 2 * l2, 2 * l2, 2 * float((x**2).sum(axis=1).mean()))


def measured_noise(
    example_gradients: Callable[[Floats], npt.ArrayLike], points: npt.ArrayLike, growth: float = 0.0
) -> float:
    """Return the smallest sigma^2 that holds at all given points, for a given M_G.

    Args:
        example_gradients: ``example_gradients(w) -> (n, d)``, the gradient at every example; all are equally
            likely.
        points: array (number, d), such as the parameters that a run visited.
        growth: M_G.

    Raises:
        ValueError: if there are no points, or growth is negative.

    Example:
        >>> import numpy as np
        >>> from stalegrad.analysis import measured_noise
        >>> examples = np.array([[1.0], [-1.0]])
        >>> measured_noise(lambda w: w - examples, points=[[0.0], [3.0]])  # of F(w) = mean (w - x)^2 / 2
        1.0
    """
    places = np.atleast_2d(np.asarray(points, float))
    if not places.size:
        raise ValueError("points is empty: give at least one, an array (number, d)")
    if not 0 <= growth < math.inf:
        raise ValueError(f"growth = {growth!r} is not allowed: a finite number of at least 0")
    excess = []
    for place in places:
        gradients = np.asarray(example_gradients(place), float)
        mean = gradients.mean(axis=0)
        excess.append(((gradients - mean) ** 2).sum(axis=1).mean() - growth * (mean**2).sum())
    return max(float(max(excess)), 0.0)


def measured_gamma(traces: TraceLike | Sequence[TraceLike], gradients: Sequence[npt.ArrayLike]) -> float:
    """Return gamma, the relative error of gradients due to staleness: the maximum over updates j of

        E||∇F(w_j) - ∇F(w_v)||^2 / E||∇F(w_j)||^2,

    where v is the version at which a gradient of update j was computed. The expectations are means over the
    gradients of an update and over runs.

    Args:
        traces: traces of one synchrony, one per seed.
        gradients: for each trace, the true gradient at every version, (versions, d), starting with that of w_0.

    Returns:
        A number of at least 0; the bounds need it to be at most 1.

    Raises:
        ValueError: if traces and gradients do not fit together.

    References:
        Dutta et al., Slow and Stale Gradients Can Win the Race, 2018, Assumption 5.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import measured_gamma
        >>> trace = sg.simulate(sg.Cluster(2), sg.Async(), updates=2)  # the second gradient is of version 0, too
        >>> measured_gamma(trace, [[[4.0], [2.0], [1.0]]])
        1.0
    """
    runs = as_traces(traces, "gamma")
    if len(runs) != len(gradients):
        raise ValueError(f"gradients has {len(gradients)} entries for {len(runs)} traces: give one per trace")
    count = min(len(trace.update_times) for trace in runs)
    off, size = np.zeros(count), np.zeros(count)
    for trace, gradient in zip(runs, gradients, strict=True):
        true = np.asarray(gradient, float)
        if true.ndim != 2 or len(true) < count:
            raise ValueError(f"gradients of shape {true.shape} do not cover {count} updates: give (versions, d)")
        rows = trace.used[trace.column("update")[trace.used] < count]
        update, read = trace.column("update")[rows], trace.column("read_version")[rows]
        squared = ((true[update] - true[read]) ** 2).sum(axis=1)
        off += np.bincount(update, squared, count) / np.bincount(update, minlength=count)
        size += (true[:count] ** 2).sum(axis=1)
    moved = off > 0
    return float((off[moved] / size[moved]).max(initial=0.0))


def measured_p0(traces: TraceLike | Sequence[TraceLike]) -> float:
    """Return p0, the share of fresh gradients: the minimum over the places (first, second, ...) in an update.

    Args:
        traces: traces of one synchrony, which are pooled.

    Raises:
        ValueError: if no gradient was used.

    References:
        Dutta et al. 2018, Lemma 1.

    Example:
        >>> import stalegrad as sg
        >>> from stalegrad.analysis import measured_p0
        >>> measured_p0(sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=4))
        0.5
    """
    fresh, count = np.zeros(0), np.zeros(0)
    for trace in as_traces(traces, "p0"):
        update = trace.column("update")[trace.used]
        place = np.arange(len(update)) - np.searchsorted(update, update)
        places = max(len(count), int(place.max(initial=-1)) + 1)
        fresh, count = (np.pad(total, (0, places - len(total))) for total in (fresh, count))
        fresh += np.bincount(place, trace.staleness == 0, places)
        count += np.bincount(place, minlength=places)
    if not len(count):
        raise ValueError("traces hold no used gradient: p0 is a share of them")
    return float((fresh / count).min())


def _data(inputs: npt.ArrayLike, targets: npt.ArrayLike, l2: float) -> tuple[Floats, Floats]:
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or not x.size:
        raise ValueError(f"inputs of shape {x.shape} and targets of shape {y.shape}: give (n, d) and (n,)")
    if not 0 <= l2 < math.inf:
        raise ValueError(f"l2 = {l2!r} is not allowed: a finite number of at least 0")
    return x, y
