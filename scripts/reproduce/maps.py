"""Shared code of the maps: rates as shares of a stability limit, paired ratios with verdicts, and pictures."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from common import Claim
from jax.flatten_util import ravel_pytree
from scipy import optimize

from stalegrad import sweep
from stalegrad.analysis import speedups, to_target
from stalegrad.models import Problem
from stalegrad.simulator import Experiment

SEEDS = (0, 1, 2, 3, 4)
LANES = 30
DIMENSIONS, EXAMPLES = 20, 2_000
PICTURES = Path("docs")

Histories = dict[int, pd.DataFrame]
"""Histories by seed."""


class Ratio(NamedTuple):
    """The factor by which one method reaches the target sooner than another, with its paired interval.

    Attributes:
        value: median over seeds; NaN if no seed of either method reaches the target.
        low: lower end of the bootstrap's 95 % interval.
        high: upper end of this interval.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``sooner`` or ``later`` if the interval excludes 1, else ``open``; ``neither`` if none arrives."""
        if math.isnan(self.value):
            return "neither"
        return "sooner" if self.low > 1 else "later" if self.high < 1 else "open"

    def __str__(self) -> str:
        """Return the ratio and its interval in the format of the tables."""
        if math.isnan(self.value):
            return "-"
        return f"{_short(self.value)} ({_short(self.low)} to {_short(self.high)})"


def _short(value: float) -> str:
    return "∞" if value == math.inf else "?" if math.isnan(value) else f"{value:.2f}"


def ratio(ours: Histories, theirs: Histories, target: float, x: str) -> Ratio:
    """Return the factor by which ``ours`` reaches the training loss sooner than ``theirs``, by the column x."""
    found = speedups({"ours": ours, "theirs": theirs}, target, "theirs", "train_loss", x).loc["ours"]
    return Ratio(found["speedup"], found["low"], found["high"])


def soonest(histories: Mapping[Any, Histories], target: float, x: str) -> Any:
    """Return the label whose median time to the target is least; None if no median is finite."""
    times = to_target({k: list(v.values()) for k, v in histories.items()}, target, "train_loss", x)["median"]
    return times.idxmin() if np.isfinite(times.min()) else None


def runs_of(base: Experiment, rates: Sequence[float], lanes: int = LANES) -> list[Histories]:
    """Run an experiment at every rate and seed; return the histories of each rate, by seed."""
    done = sweep(base, progress=False, lanes=lanes, seed=SEEDS, **{"method.learning_rate": list(rates)})
    if done.failed:
        raise RuntimeError(next(iter(done.failed.values())))
    found: dict[tuple[float, int], pd.DataFrame] = {}
    for result in done.results:
        found[result.experiment.method.learning_rate.peak, result.experiment.seed] = result.history
    return [{seed: found[float(rate), seed] for seed in SEEDS} for rate in rates]


@functools.lru_cache
def least_squares(noise: float, condition: float) -> tuple[Problem, float, float]:
    """Return a least-squares problem with fixed examples, its least loss, and its loss at the start.

    Inputs are normal with variances from 1 to 1 / ``condition``, evenly spaced in logarithms. Targets are linear,
    with a normal vector of coefficients, plus normal noise. The batch size is 4.
    """
    rng = np.random.default_rng(0)
    scales = condition ** np.linspace(0, -0.5, DIMENSIONS)
    x = rng.standard_normal((EXAMPLES, DIMENSIONS)) * scales
    y = x @ rng.standard_normal(DIMENSIONS) + noise * rng.standard_normal(EXAMPLES)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    problem = Problem.from_functions(
        lambda key: jnp.zeros(DIMENSIONS),
        lambda w, batch, key: 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2),
        train=(x.astype(np.float32), y.astype(np.float32)),
        batch_size=4,
    )
    return problem, 0.5 * float(np.mean((x @ best - y) ** 2)), 0.5 * float(np.mean(y**2))


@functools.lru_cache
def softmax_regression(images: int, l2: float) -> tuple[Problem, float]:
    """Return softmax regression with L2 on the first images, with batch size 4, and its least loss."""
    objective = Problem("softmax-regression", "fashion-mnist-small", l2=l2).objective()
    train = jax.tree.map(lambda leaf: leaf[:images], objective.train)

    def loss(params: Any, batch: Any, key: Any) -> Any:
        return objective.loss(params, objective.stats, batch, key)[0]

    start, back = ravel_pytree(objective.init(jax.random.key(0)))
    whole = jax.jit(jax.value_and_grad(lambda flat: loss(back(flat), train, jax.random.key(0))))

    def at(flat: Any) -> tuple[float, Any]:
        value, gradient = whole(jnp.asarray(flat, jnp.float32))
        return float(value), np.asarray(gradient, float)

    least = optimize.minimize(at, np.asarray(start, float), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return Problem.from_functions(objective.init, loss, train=train, batch_size=4), float(least.fun)


@functools.lru_cache
def curvature(problem: Problem, examples: int = 500, steps: int = 30) -> float:
    """Return the largest absolute eigenvalue of the Hessian at the start, by power iteration on some examples."""
    objective, key = problem.objective(), jax.random.key(0)
    params = objective.init(key)
    batch = jax.tree.map(lambda leaf: leaf[:examples], objective.train)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    v = tree.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])

    @jax.jit
    def step(params: Any, batch: Any, v: Any) -> Any:
        """Return the product of the Hessian with v / |v|, and |v|."""
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(v)))
        v = jax.tree.map(lambda leaf: leaf / norm, v)
        gradient = jax.grad(lambda p: objective.loss(p, objective.stats, batch, key)[0])
        return jax.jvp(gradient, (params,), (v,))[1], norm

    for _ in range(steps):
        v, norm = step(params, batch, v)
    return float(norm)


def limit(problem: Problem, workers: int) -> float:
    """Return the largest stable rate of gradient descent whose gradients are all ``workers`` - 1 updates old.

    2 / L sin(pi / (2 (2 tau + 1))), tau = workers - 1, L the curvature at the start: exact for a quadratic loss.
    """
    return 2 / curvature(problem) * math.sin(math.pi / (2 * (2 * (workers - 1) + 1)))


def count(ratios: Sequence[Ratio]) -> str:
    """Return the numbers of cells of a map by verdict, as text."""
    verdicts = [r.verdict for r in ratios]
    names = ("sooner", "later", "open", "neither")
    return ", ".join(f"{name} in {verdicts.count(name)}" for name in names) + f" of {len(verdicts)}"


def mostly(name: str, text: str, ratios: Sequence[Ratio]) -> Claim:
    """Return a claim that holds if the interval is above 1 in most of the cells in which a method arrives."""
    told = [r for r in ratios if r.verdict != "neither"]
    holds = 2 * sum(r.verdict == "sooner" for r in told) > len(told) if told else None
    middle = float(np.median([min(r.value, 1e6) for r in told])) if told else math.nan
    return Claim(name, text, holds, f"{count(ratios)}; median ratio {_short(middle)}")


class Panel(NamedTuple):
    """One heat map: rows and columns with their names, and a ratio in each cell."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    ratios: Sequence[Sequence[Ratio]]


@contextlib.contextmanager
def picture_file(file: str, size: tuple[float, float], **grid: Any) -> Iterator[Any]:
    """Yield the axes of a new picture, and write the picture afterwards."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size, layout="constrained", **grid)
    yield axes
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / file, dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)


def draw(file: str, panels: Sequence[Sequence[Panel]], x: str, colour: str) -> None:
    """Draw rows of panels: the ratio in each cell as colour and number, in bold if its interval excludes 1."""
    heights = [max(len(panel.rows) for panel in row) + 1.8 for row in panels]
    across = max(len(row) for row in panels)
    names = max(1 + sum(panel.rows != row[0].rows for panel in row) for row in panels)
    size = 1.0 + 2.4 * across + 1.6 * names, 0.24 * sum(heights) + 0.6
    with picture_file(file, size, nrows=len(panels), ncols=across, squeeze=False, height_ratios=heights) as axes:
        for row, places in zip(panels, axes, strict=True):
            for panel, ax in zip(row, places, strict=False):
                image = heat_map(panel, ax, named=ax is places[0] or panel.rows != row[0].rows)
            for ax in places[len(row) :]:
                ax.set_axis_off()
        axes[0, 0].figure.supxlabel(x, fontsize=8)
        bar = axes[0, 0].figure.colorbar(image, ax=axes, ticks=[-2, -1, 0, 1, 2], shrink=0.6, aspect=30)
        bar.ax.set_yticklabels(["1/4", "1/2", "1", "2", "4"], fontsize=7)
        bar.set_label(colour, fontsize=7)


def heat_map(panel: Panel, ax: Any, *, named: bool) -> Any:
    """Draw one panel, with the names of its rows if ``named``; return its image."""
    values = np.array([[r.value for r in line] for line in panel.ratios], float)
    with np.errstate(divide="ignore"):
        shown = np.clip(np.log2(values), -2, 2)
    for (i, j), value in np.ndenumerate(values):
        text = "" if math.isnan(value) else "∞" if value > 99 else f"{value:.2g}"
        weight = "bold" if panel.ratios[i][j].verdict in ("sooner", "later") else "normal"
        colour = "white" if abs(shown[i, j]) > 1.3 else "black"
        ax.text(j, i, text, ha="center", va="center", fontsize=6.5, weight=weight, color=colour)
    ax.set_facecolor("0.85")
    ax.set_xticks(range(len(panel.columns)), panel.columns, fontsize=7)
    ax.set_yticks(range(len(panel.rows)), panel.rows if named else [""] * len(panel.rows), fontsize=7)
    ax.set_title(panel.title, fontsize=7.5)
    return ax.imshow(shown, cmap="PuOr", vmin=-2, vmax=2, aspect="auto")


def share_name(share: float) -> str:
    """Return a share of the limit as text."""
    return f"1/{1 / share:g}" if share < 1 and (1 / share).is_integer() else f"{share:g}"
