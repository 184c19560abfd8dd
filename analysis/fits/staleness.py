"""Fits of staleness: the models of MindTheStep-AsyncPSGD, fitted to a trace or to measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from stalegrad._core.protocols import TraceLike
from stalegrad._core.specs import unknown_name
from stalegrad.analysis.fits.staleness_models import MODELS, Floats, Ints, Tie, bhattacharyya, described, search

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "all"
"""Name of the fit to the messages of all workers together."""

MEASURES = ("bhattacharyya", "fitted", "log_likelihood", "aic", "chi_square", "dof", "p_value")
"""Columns of a fit's table after the parameters."""

CELL = 5.0
"""Least expected count in a cell of the chi-square test."""


@dataclass(frozen=True)
class StalenessFit:
    """Models fitted to observed staleness.

    Attributes:
        table: one row per model (and worker), with the columns ``worker`` (if fitted per worker; ``all``: all
            messages together), ``model``, the parameters ``p, tau_hat, lam, nu, r`` (those of the chosen models;
            NaN if a model does not have one), ``bhattacharyya`` (distance between model and histogram), ``fitted``
            (number of free parameters), ``log_likelihood``, ``aic``, ``chi_square``, ``dof``, ``p_value``.
        counts: numbers of messages with staleness 0, 1, ..., by worker.
    """

    table: pd.DataFrame
    counts: Mapping[int | str, Ints]
    _parameters: Mapping[tuple[int | str, str], tuple[float, ...]]

    def pmf(self, model: str, staleness: npt.ArrayLike, worker: int | str = ALL) -> Floats:
        """Return the fitted probabilities of these values of staleness.

        Raises:
            ValueError: for a model or a worker that was not fitted.
        """
        self._check_worker(worker)
        if (worker, model) not in self._parameters:
            raise ValueError(unknown_name("fitted model", model, {m for _, m in self._parameters}))
        return np.asarray(np.exp(MODELS[model].log_pmf(np.asarray(staleness), *self._parameters[worker, model])))

    def plot(self, ax: Axes | None = None, worker: int | str = ALL) -> Axes:
        """Plot the histogram and the fitted models over it, see ``analysis.plots.staleness_fit``.

        Args:
            ax: axes to draw in; by default those of a new figure, which a notebook shows as ``ax.figure``.
            worker: worker whose staleness is drawn; by default all workers together.

        Returns:
            The axes. The legend lists the models by Bhattacharyya distance, the nearest first.

        Raises:
            ValueError: for a worker that was not fitted.
        """
        from stalegrad.analysis.plots.staleness_fit import plot_staleness_fit

        self._check_worker(worker)
        return plot_staleness_fit(self, ax, worker)

    def _check_worker(self, worker: int | str) -> None:
        if worker not in self.counts:
            raise ValueError(unknown_name("fitted worker", worker, map(str, self.counts)))

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:.4g}".format)


def fit_staleness(
    observed: TraceLike | npt.ArrayLike,
    models: Sequence[str] = tuple(MODELS),
    *,
    by: Literal["likelihood", "bhattacharyya"] = "likelihood",
    constraint: Literal["m", "m-1"] | None = None,
    workers: int | None = None,
    per_worker: bool = False,
) -> StalenessFit:
    """Fit distributions of staleness tau = 0, 1, ... to observed values.

    * ``geometric``: p (1 - p)^tau;
    * ``uniform``: 1 / (tau_hat + 1) up to tau_hat;
    * ``poisson``: e^-lam lam^tau / tau!;
    * ``cmp`` (Conway-Maxwell-Poisson): lam^tau / ((tau!)^nu Z); its mode is about lam^(1/nu); overdispersed for
      nu < 1, down to the geometric distribution at nu = 0;
    * ``negative-binomial``: r, p as in ``scipy.stats.nbinom``; its variance is at least that of the Poisson model,
      which is its limit as r goes to infinity (r is at most 1e4 times the mean).

    The messages of a run depend on each other, so that the p-values of a long trace are too small: compare models
    by ``bhattacharyya`` and ``aic``.

    Args:
        observed: a trace, whose used messages are taken, or an array of whole numbers.
        models: names of the models to fit.
        by: ``likelihood``: maximum likelihood; ``bhattacharyya``: least Bhattacharyya distance between model and
            histogram, -ln sum over tau of sqrt(q(tau) p(tau)), as in the paper. The likelihood (and AIC) is
            reported in either case; a uniform distribution fitted by distance may give some value probability 0.
        constraint: ``"m"``, the paper's, fixes p = 1/m, lam = m (Poisson) and lam^(1/nu) = m (CMP) for m
            workers; ``"m-1"`` replaces m by m - 1 in the latter two, because staleness that counts from 0 has mean
            m - 1. The uniform and the negative binomial distribution stay free. Default: all parameters are free.
        workers: number of workers m; by default that of the trace.
        per_worker: whether to fit the messages of each worker, too, after those of all.

    Raises:
        ValueError: for an empty trace, staleness that is negative or not a whole number, the same staleness in all
            messages (of all workers, or of one), no more values than a model has parameters, or an unknown name.

    Reference:
        Backstrom, Papatriantafilou, Tsigas, MindTheStep-AsyncPSGD, 2019.

    Example:
        >>> import stalegrad as sg
        >>> fit = sg.fit_staleness([0, 0, 0, 0, 1, 1, 2, 4], ["geometric"])
        >>> round(float(fit.table["p"][0]), 3)  # 1 / (1 + mean)
        0.5
    """
    if isinstance(models, str) or not len(models):
        raise ValueError(f"models is {models!r}: give a list of at least one of {', '.join(MODELS)}")
    for model in models:
        MODELS.find(model)
    if by not in ("likelihood", "bhattacharyya"):
        raise ValueError(unknown_name("way to fit (by):", by, ("likelihood", "bhattacharyya")))
    samples = _samples(observed, per_worker)
    m = workers if workers is not None else getattr(observed, "workers", None)
    tie = None if constraint is None else _tie(constraint, m)
    counts = {worker: np.bincount(_checked(worker, values, models)) for worker, values in samples.items()}
    rows, parameters = [], {}
    for worker, histogram in counts.items():
        for model in models:
            parameters[worker, model], fitted = search(model, histogram, by, tie)
            row = _row(model, parameters[worker, model], fitted, histogram)
            rows.append({"worker": worker, **row} if per_worker else row)
    columns = dict.fromkeys(column for row in rows for column in row)
    order = sorted(columns, key=lambda column: column in MEASURES)
    return StalenessFit(pd.DataFrame(rows)[order], counts, parameters)


def _row(model: str, parameters: tuple[float, ...], fitted: int, counts: Ints) -> dict[str, float | str]:
    log_p = MODELS[model].log_pmf(np.arange(len(counts)), *parameters)
    seen = counts > 0
    log_likelihood = float(counts[seen] @ log_p[seen])
    statistic, dof = _chi_square(counts, np.exp(log_p), fitted)
    return {
        "model": model,
        **described(model, parameters),
        "bhattacharyya": bhattacharyya(counts[seen] / counts.sum(), log_p[seen]),
        "fitted": fitted,
        "log_likelihood": log_likelihood,
        "aic": 2 * fitted - 2 * log_likelihood,
        "chi_square": statistic,
        "dof": dof,
        "p_value": float(stats.chi2.sf(statistic, dof)) if dof > 0 else np.nan,
    }


def _chi_square(counts: Ints, p: Floats, fitted: int) -> tuple[float, int]:
    """Return Pearson's statistic and its degrees of freedom, with cells pooled to expected counts of ``CELL``."""
    total = counts.sum()
    expected = np.append(p, max(1.0 - p.sum(), 0.0)) * total
    observed = np.append(counts, 0)
    starts, inside = [0], 0.0
    for place, count in enumerate(expected.tolist()):
        if inside >= CELL:
            starts.append(place)
            inside = 0.0
        inside += count
    if inside < CELL and len(starts) > 1:
        starts.pop()
    expected, observed = np.add.reduceat(expected, starts), np.add.reduceat(observed, starts)
    return float(((observed - expected) ** 2 / expected).sum()), len(starts) - 1 - fitted


def _tie(constraint: str, workers: int | None) -> Tie:
    if constraint not in ("m", "m-1"):
        raise ValueError(unknown_name("constraint", constraint, ("m", "m-1")))
    if workers is None:
        raise ValueError(f"constraint = {constraint!r} needs the number of workers m: give workers=...")
    if workers < 2:
        raise ValueError(f"constraint = {constraint!r} with {workers} workers is not allowed: at least 2")
    return Tie(workers, workers if constraint == "m" else workers - 1)


def _samples(observed: Any, per_worker: bool) -> dict[int | str, npt.ArrayLike]:
    if not hasattr(observed, "staleness"):
        if per_worker:
            raise ValueError("per_worker needs a Trace: fit the values of each worker separately")
        return {ALL: observed}
    samples: dict[int | str, npt.ArrayLike] = {ALL: observed.staleness}
    if per_worker:
        worker = observed.column("worker")[observed.used]
        samples |= {int(w): observed.staleness[worker == w] for w in np.unique(worker)}
    return samples


def _checked(worker: int | str, observed: npt.ArrayLike, models: Sequence[str]) -> Ints:
    """Return staleness as integers.

    Raises:
        ValueError: if the values are not staleness, or no model can be fitted to them.
    """
    of = "staleness" if worker == ALL else f"staleness of worker {worker}"
    values = np.asarray(observed)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(f"{of} is {observed!r:.60}: give a Trace or a one-dimensional array of whole numbers")
    if not len(values):
        raise ValueError(f"{of} is empty: no message was used, so there is nothing to fit")
    bad = ~(np.isfinite(values) & (values >= 0) & (values == np.floor(values)))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"{of}: value {at} is {values[at]}; allowed are whole numbers of at least 0")
    if (values == values[0]).all():
        raise ValueError(
            f"{of} is {values[0]:g} in all {len(values)} messages: a constant has no distribution to fit "
            "(cmp and negative-binomial would have no best parameters)"
        )
    for model in models:
        if len(values) <= len(MODELS[model].parameters):
            raise ValueError(
                f"{of} has {len(values)} values, {model} has {len(MODELS[model].parameters)} parameters: "
                "more values than parameters are needed"
            )
    return values.astype(np.int64)
