"""Compare theory with simulation and print the comparison as Markdown; the exit code is 1 if a check fails.

    python scripts/validate_theory.py [--quick]

Runtimes, staleness and freshness of the six synchronies must be within 4.5 standard errors (of batch means) of the
closed form or the quadrature, or on the right side of a bound if only a bound is known. Bounds on the error must
hold at every recorded point.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from validate_availability import availability_section
from validate_bounds import bounds_section
from validate_links import links_section
from validate_memory import memory_section
from validate_rollouts import rollouts_section

from stalegrad.analysis import (
    Constants,
    ErrorBound,
    expected_staleness,
    expected_update_time,
    fresh_probability,
    measured_gamma,
    measured_noise,
    measured_p0,
    quadratic_constants,
    softmax_constants,
)
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.policies.methods import Method
from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync, Synchrony
from stalegrad.simulator import (
    Cluster,
    Delay,
    Erlang,
    Exponential,
    Gamma,
    HyperExponential,
    Pareto,
    Record,
    ShiftedExponential,
    Uniform,
    replay,
    simulate,
)

Floats = NDArray[np.float64]

TITLE = "## Theory against simulation"

LIMIT = 4.5
"""Largest allowed distance between simulation and theory, in standard errors."""

BATCHES = 40
ROUNDS, GRADIENTS = 1_200, 48_000
"""Length of a simulation: updates of the synchronies with rounds, and used gradients of the others."""

SEED = 2018

HEAVY = "Pareto, shape 2"
"""A delay without a finite variance and hence without a standard error: it is reported but not judged."""

LAWS: dict[str, Delay] = {
    "exponential": Exponential(1.0),
    "1 + exponential": ShiftedExponential(1.0, 1.0),
    "Pareto, shape 3": Pareto(3.0, 1.0),
    "hyper-exponential": HyperExponential((0.9, 0.1), (0.5, 5.5)),
    "Erlang, 4 stages": Erlang(4, 1.0),
    "gamma, cv 0.3": Gamma(1.0, 0.3),
    "uniform": Uniform(0.5, 1.5),
    HEAVY: Pareto(2.0, 1.0),
}
WORKERS = (4, 8, 32, 128)
QUICK_LAWS, QUICK_WORKERS = ("exponential", "1 + exponential", "hyper-exponential"), (4, 8)

UNLIKE = [Exponential(0.5)] * 4 + [ShiftedExponential(1.0, 1.0)] * 3 + [Erlang(4, 6.0)]
"""Delays of eight workers that differ."""


# Runtimes, staleness, freshness


class Case(NamedTuple):
    law: str
    synchrony: Synchrony
    workers: int


class Check(NamedTuple):
    """The range that theory gives (one value if it is exact), and the value of a simulation."""

    lower: float
    upper: float
    simulated: float
    error: float
    """Standard error of the simulated number."""

    @property
    def z(self) -> float:
        """The signed distance from theory in standard errors; 0 between two bounds."""
        miss = self.simulated - min(max(self.simulated, self.lower), self.upper)
        if self.error == 0:
            return 0.0 if abs(miss) < 1e-9 else float(np.copysign(np.inf, miss))
        return miss / self.error

    @property
    def holds(self) -> bool:
        return abs(self.z) <= LIMIT


def cases(laws: tuple[str, ...], all_workers: tuple[int, ...]) -> Iterator[Case]:
    for law, workers in itertools.product(laws, all_workers):
        yield Case(law, Sync(), workers)
        yield Case(law, Async(), workers)
        for kind in (KSync, KBatchSync, KAsync, KBatchAsync):
            for k in sorted({1, workers // 4, workers // 2, workers}):
                yield Case(law, kind(k), workers)


def check_case(case: Case) -> dict[str, Check]:
    """Simulate one case and return its checks by quantity."""
    compute = UNLIKE if case.law == "unlike" else LAWS[case.law]
    synchrony, workers = case.synchrony, case.workers
    rounds = synchrony.name in ("sync", "k-sync", "k-batch-sync")
    k = workers if synchrony.name == "sync" else getattr(synchrony, "k", 1)
    updates = ROUNDS if rounds else GRADIENTS // k
    trace = simulate(Cluster(workers, compute), synchrony, updates=updates, seed=SEED)
    skipped = 0 if rounds else updates // 10  # until the effect of the common start has faded
    intervals = np.diff(trace.update_times, prepend=0.0)[skipped:]
    time = expected_update_time(synchrony, compute, workers)
    lower, upper = time.value, time.value
    if time.kind == "upper bound":
        lower = expected_update_time(KBatchAsync(k), compute, workers).value  # which never idles
    elif time.kind == "lower bound":
        upper = np.inf
    checks = {"time": _check(lower, upper, intervals)}
    if rounds:
        return checks
    staleness = trace.staleness[skipped * k :]
    mean = expected_staleness(synchrony, workers).value
    checks["staleness"] = _check(mean, mean, staleness)
    try:
        fresh = fresh_probability(synchrony, compute, workers).value
    except ValueError:  # no theory
        return checks
    # A batch may contain no rare event, so that the error is set to at least that of independent events.
    least = (fresh * (1 - fresh) / len(staleness)) ** 0.5
    checks["fresh"] = _check(fresh, fresh, staleness == 0, least)
    return checks


def _check(lower: float, upper: float, values: Any, least: float = 0.0) -> Check:
    means = [batch.mean() for batch in np.array_split(values.astype(float), BATCHES)]
    error = max(float(np.std(means, ddof=1)) / BATCHES**0.5, least)
    return Check(lower, upper, float(values.mean()), error)


def title(synchrony: Synchrony) -> str:
    return f"{synchrony.name} {synchrony.k}" if hasattr(synchrony, "k") else synchrony.name


def runtime_section(found: list[tuple[Case, dict[str, Check]]]) -> tuple[list[str], bool]:
    """Return the tables of all cases, and whether every check holds."""
    names = list(dict.fromkeys(case.synchrony.name for case, _ in found))
    judged = [(case, checks) for case, checks in found if case.law != HEAVY]
    number = sum(len(checks) for _, checks in judged)
    worst = max(abs(check.z) for _, checks in judged for check in checks.values())
    chance = number * 2 * special.ndtr(-2)
    beyond = sum(abs(check.z) > 2 for _, checks in judged for check in checks.values())
    holds = all(check.holds for _, checks in judged for check in checks.values())
    lines = [
        "### Runtime, staleness, freshness",
        "",
        f"{len(judged)} simulations, {number} checks. Largest distance from theory: **{worst:.2f}** standard",
        f"errors; {LIMIT} are allowed. {beyond} are beyond 2; {chance:.0f} are expected by chance alone.",
        f"Not judged: {HEAVY}, which has no variance.",
        "",
        "Largest |z| over all P and K:",
        "",
        "| times | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for law in dict.fromkeys(case.law for case, _ in found):
        cells = []
        for name in names:
            zs = [c.z for case, cs in found if (case.law, case.synchrony.name) == (law, name) for c in cs.values()]
            cells.append(f"{max(map(abs, zs)):.2f}" if zs else "")
        lines.append(f"| {law} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "<details><summary>Every case: theory, simulation, z (a range: theory has bounds only)</summary>",
        "",
        "| times | P | synchrony | s/update | simulated | z | staleness | simulated | z | fresh | simulated | z |",
        "|---" * 12 + "|",
    ]
    for case, checks in found:
        cells = [case.law, str(case.workers), title(case.synchrony)]
        for quantity in ("time", "staleness", "fresh"):
            cells += _cells(checks.get(quantity))
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "</details>", ""], holds


def _cells(check: Check | None) -> list[str]:
    if check is None:
        return ["", "", ""]
    theory = f"{check.lower:.4g}" if check.lower == check.upper else f"{check.lower:.4g} to {check.upper:.4g}"
    return [theory.replace("to inf", "or more"), f"{check.simulated:.4g}", f"{check.z:+.1f}"]


# Comparisons of k-async and k-sync


class Race(NamedTuple):
    law: str
    k: int
    sign: int
    """-1: k-async is faster than k-sync; +1: slower."""


RACES = [
    *(Race(HEAVY, k, -1 if k < 5 else 1) for k in (3, 4, 5, 6)),
    *(Race("hyper-exponential", k, +1) for k in (2, 4, 6)),
    *(Race("Erlang, 4 stages", k, -1) for k in (2, 4, 6)),
]
CLOSE = 5
"""At this K, both synchronies differ by half a per cent with Pareto times of shape 2: only the sign is checked."""

RACERS, RUNS, RACE_GRADIENTS = 8, 8, 100_000


def run_race(race: Race) -> tuple[float, Check]:
    """Return the exact E[T] of k-sync, and the simulated time of k-async over independent runs."""
    law = LAWS[race.law]
    sync = expected_update_time(KSync(race.k), law, RACERS).value
    ends = []
    for seed in range(RUNS):
        trace = simulate(Cluster(RACERS, law), KAsync(race.k), gradients=RACE_GRADIENTS, seed=seed)
        ends.append(trace.end / len(trace.update_times))
    return sync, Check(sync, sync, float(np.mean(ends)), float(np.std(ends, ddof=1)) / RUNS**0.5)


def race_section(found: list[tuple[Race, tuple[float, Check]]]) -> tuple[list[str], bool]:
    lines = [
        "### Which synchrony is faster depends on the times",
        "",
        f"k-async is compared with k-sync, for {RACERS} workers, in {RUNS} runs of {RACE_GRADIENTS:,} gradients",
        "each. With Erlang times (new-longer-than-used) k-async is faster. With hyper-exponential times (the",
        "reverse) it is slower. With Pareto times of shape 2, which are neither, it is faster for K up to 4 and",
        "slower from K = 5.",
        "",
        "| times | K | k-sync (exact) | k-async (simulated) | z | expected | found |",
        "|---|---|---|---|---|---|---|",
    ]
    holds = True
    for race, (sync, check) in found:
        as_expected = check.z * race.sign > (0 if (race.law, race.k) == (HEAVY, CLOSE) else LIMIT)
        holds &= as_expected
        said = "faster" if race.sign < 0 else "slower"
        lines.append(
            f"| {race.law} | {race.k} | {sync:.4f} | {check.simulated:.4f} | {check.z:+.1f} | {said} | "
            f"{'yes' if as_expected else '**no**'} |"
        )
    return [*lines, ""], holds


# Error bounds


class Task(NamedTuple):
    """A problem, its known constants and functions, and the start."""

    problem: Problem
    constants: Constants
    """Constants with the noise that holds everywhere; with ``examples``, the noise along a run is measured."""
    batch_size: int
    start: Floats
    least: float
    """F*"""
    value: Callable[[Floats], float]
    gradient: Callable[[Floats], Floats]
    examples: Callable[[Floats], Floats] | None


BOUND_WORKERS, BOUND_UPDATES, SEEDS = 8, 150, 8


def quadratic() -> Task:
    curvature, spread, dimension = np.linspace(0.1, 1.0, 10), 0.3, 10
    start = np.ones(dimension)

    def loss(w: jax.Array, batch: Any, key: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(curvature * w**2) + spread * jnp.sum(w * jax.random.normal(key, (dimension,)))

    return Task(
        Problem.from_functions(lambda key: jnp.asarray(start), loss),
        quadratic_constants(np.diag(curvature), dimension * spread**2), 1, start, 0.0,
        lambda w: float(0.5 * (curvature * w**2).sum()), lambda w: curvature * w, None,
    )  # fmt: skip


def softmax() -> Task:
    """Return softmax regression on three overlapping clusters of points, with all parameters regularised."""
    rng, classes, l2, batch_size = np.random.default_rng(SEED), 3, 0.05, 4
    labels = np.arange(240) % classes
    inputs = np.column_stack([rng.normal(size=(240, 4)) + 1.5 * np.eye(classes, 4)[labels], np.ones(240)])
    targets, shape = np.eye(classes)[labels], (5, classes)

    def loss(w: jax.Array, batch: Any, key: jax.Array) -> jax.Array:
        x, y = batch
        logits = x @ w.reshape(shape)
        return (jax.nn.logsumexp(logits, axis=1) - (logits * y).sum(axis=1)).mean() + l2 * (w**2).sum()

    def value(w: Floats) -> float:
        logits = inputs @ w.reshape(shape)
        return float(
            (special.logsumexp(logits, axis=1) - (logits * targets).sum(axis=1)).mean() + l2 * (w**2).sum()
        )

    def examples(w: Floats) -> Floats:
        off = special.softmax(inputs @ w.reshape(shape), axis=1) - targets
        return np.asarray((inputs[:, :, None] * off[:, None, :]).reshape(len(inputs), -1) + 2 * l2 * w)

    def gradient(w: Floats) -> Floats:
        return np.asarray(examples(w).mean(axis=0))

    start = np.full(15, 1.0) * np.resize([2.0, -1.0, 0.5], 15)
    best = optimize.minimize(value, np.zeros(15), jac=gradient, method="BFGS", options={"gtol": 1e-9})
    data = (inputs.astype(np.float32), targets.astype(np.float32))
    problem = Problem.from_functions(
        lambda key: jnp.asarray(start), loss, train=data, batch_size=batch_size, sampling="iid"
    )
    constants = softmax_constants(inputs, labels, l2)
    return Task(problem, constants, batch_size, start, float(best.fun), value, gradient, examples)


TASKS = {"quadratic": quadratic, "softmax regression": softmax}


class Descent(NamedTuple):
    task: str
    method: Method
    law: str


# Method, times, and the step as a share of the largest allowed one. Stale gradients need small steps: with larger
# steps the measured gamma exceeds 1, and there is no bound.
RUNNERS: list[tuple[Any, dict[str, int], str, float]] = [
    (methods.sync, {}, "exponential", 1.0),
    (methods.k_sync, {"k": 2}, "exponential", 0.4),
    (methods.k_batch_sync, {"k": 4}, "1 + exponential", 0.2),
    (methods.async_, {}, "exponential", 0.02),
    (methods.async_, {}, "exponential", 0.05),
    (methods.async_, {}, "hyper-exponential", 0.02),
    (methods.k_async, {"k": 4}, "exponential", 0.05),
    (methods.k_async, {"k": 4}, "exponential", 0.2),
    (methods.k_async, {"k": 4}, "1 + exponential", 0.1),
    (methods.k_batch_async, {"k": 2}, "exponential", 0.02),
    (methods.k_batch_async, {"k": 2}, "exponential", 0.1),
]


def descents() -> Iterator[Descent]:
    for task in TASKS:
        largest = ErrorBound(TASKS[task]().constants, 1e-3, 1.0).largest_learning_rate()
        for method, options, law, share in RUNNERS:
            yield Descent(task, method(learning_rate=share * largest, **options), law)


class Bounded(NamedTuple):
    gamma: float
    p0: float
    noise: float
    error: float
    """Largest ratio of the mean F(w_j) - F* to its bound, for j >= 1 (at the start they are equal)."""
    last: float
    """The ratio at the last update."""
    gradient: float
    """Largest ratio of the mean over 0..j of ||∇F(w_i)||^2 to its bound."""


def run_descent(descent: Descent, seeds: int = SEEDS, updates: int = BOUND_UPDATES) -> Bounded:
    """Run one descent with several seeds; return the measured constants of the bounds and ratios to the bounds."""
    task, method = TASKS[descent.task](), descent.method
    cluster = Cluster(BOUND_WORKERS, LAWS[descent.law])
    record = Record(updates=1, gap=False, fn=lambda w: {f"w{i}": w[i] for i in range(len(task.start))})
    traces, points = [], []
    for seed in range(seeds):
        traces.append(simulate(cluster, method.synchrony, updates=updates, seed=seed))
        history = replay(traces[-1], task.problem, method, record=record, seed=seed).history
        points.append(history[[f"w{i}" for i in range(len(task.start))]].to_numpy(float))
    gradients = [np.array([task.gradient(w) for w in run]) for run in points]
    noise = task.constants.noise
    if task.examples is not None:
        noise = measured_noise(task.examples, np.concatenate([run[::10] for run in points]))
    rounds = method.synchrony.name in ("sync", "k-sync", "k-batch-sync")
    gamma = measured_gamma(traces, gradients)
    p0 = 0.0 if rounds else measured_p0(traces)
    error = np.mean([[task.value(w) - task.least for w in run] for run in points], axis=0)
    square = np.mean([(run**2).sum(axis=1) for run in gradients], axis=0)
    k = BOUND_WORKERS if method.synchrony.name == "sync" else getattr(method.synchrony, "k", 1)
    rate = method.learning_rate.peak
    constants = task.constants._replace(noise=noise)
    bound = ErrorBound(constants, rate, task.value(task.start) - task.least, task.batch_size, gamma, p0)
    made = np.arange(updates + 1)
    average = np.cumsum(square) / (made + 1)
    errors, squares = error / bound.error(made, k), average / bound.gradient(made, k)
    return Bounded(gamma, p0, noise, float(errors[1:].max()), float(errors[-1]), float(squares.max()))


def bound_section(found: list[tuple[Descent, Bounded]]) -> tuple[list[str], bool]:
    lines = [
        "### Error bounds",
        "",
        f"{BOUND_WORKERS} workers, means over {SEEDS} seeds, each of {BOUND_UPDATES} updates recorded; gamma, p0",
        "and (for softmax regression) sigma^2 are measured during the runs. The last three columns are ratios of",
        "a measured value to its bound, and may not exceed 1: the largest and the last ratio for the error, and",
        "the largest for the mean squared gradient.",
        "",
        "| problem | times | method | step | gamma | p0 | sigma^2 | error | at the end | gradient |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    holds = True
    for descent, b in found:
        holds &= max(b.error, b.gradient) <= 1
        lines.append(
            f"| {descent.task} | {descent.law} | {title(descent.method.synchrony)} | "
            f"{descent.method.learning_rate.peak:.3g} | {b.gamma:.3f} | {b.p0:.3f} | "
            f"{b.noise:.3f} | {b.error:.3f} | {b.last:.3f} | {b.gradient:.3f} |"
        )
    return [*lines, ""], holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="compute a small part only")
    parser.add_argument("--out", type=Path, help="replace the section at the end of this file; default: print")
    arguments = parser.parse_args()
    quick = arguments.quick
    laws, workers = (QUICK_LAWS, QUICK_WORKERS) if quick else (tuple(LAWS), WORKERS)
    unlike = [Case("unlike", synchrony, len(UNLIKE)) for synchrony in (Sync(), KSync(4), Async(), KBatchAsync(4))]
    todo = [*cases(laws, workers), *unlike]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        runs = pool.map(check_case, todo, chunksize=4)
        races = pool.map(run_race, [] if quick else RACES)
        falls = list(descents())[:: 5 if quick else 1]
        bounds = pool.map(run_descent, falls)
        sections = [
            runtime_section(list(zip(todo, runs, strict=True))),
            race_section(list(zip([] if quick else RACES, races, strict=True))),
            bound_section(list(zip(falls, bounds, strict=True))),
            memory_section(LIMIT),
            availability_section(LIMIT),
            rollouts_section(LIMIT),
            *([] if quick else [bounds_section(), links_section()]),
        ]
    holds = all(ok for _, ok in sections)
    text = "\n".join(
        [
            TITLE,
            "",
            "`make validate` printed this section; seeds are fixed. z is the distance from theory in standard",
            f"errors of {BATCHES} batch means. {'Everything holds.' if holds else '**Not everything holds.**'}",
            "",
            *(line for lines, _ in sections for line in lines),
        ]
    ).rstrip()
    if arguments.out is None:
        print(text)
    else:
        before = arguments.out.read_text(encoding="utf-8").partition(TITLE)[0]
        arguments.out.write_text(f"{before}{text}\n", encoding="utf-8")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
