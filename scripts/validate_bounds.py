"""Compare bounds for Rennala, Ringmaster and Ringleader with simulation: a section of validate_theory.py.

python scripts/validate_bounds.py
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from stalegrad.analysis import (
    birch_parameters,
    malenia_parameters,
    quadratic_constants,
    rennala_parameters,
    rennala_time,
    ringleader_round_time,
    ringleader_rows,
    ringmaster_parameters,
    ringmaster_time,
    tree_distance,
)
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.policies.methods import Method
from stalegrad.policies.synchrony import Async, KAsync, KBatchSync, Ringleader, Ringmaster, Sync, Synchrony
from stalegrad.simulator import (
    Cluster,
    Delay,
    Deterministic,
    Exponential,
    MarkovModulated,
    Record,
    Trace,
    Uniform,
    replay,
    simulate,
)

Floats = NDArray[np.float64]

SEED = 2023
SETTINGS = 80
"""Number of clusters per row: 1 to 32 workers, tau over two decades, S and R from 1 to 64."""

KINDS: dict[str, Callable[[float], Delay]] = {
    "fixed": Deterministic,
    "uniform, 0.05 tau to tau": lambda tau: Uniform(0.05 * tau, tau),
    "0.05 tau or tau, switching": lambda tau: MarkovModulated([0.05 * tau, tau], mean_stay=[10.0, 4.0]),
}
"""Delays of a worker's gradients, at most tau seconds."""

PROFILES: dict[str, Callable[[int], Floats]] = {
    "i": lambda n: np.arange(1.0, n + 1),
    "sqrt(i)": lambda n: np.sqrt(np.arange(1.0, n + 1)),
    "1, the last n": lambda n: np.append(np.ones(n - 1), float(n)),
}

EXAMPLE = np.arange(1.0, 17)
EXPECTED = {1: (1.0, 0.704), 4: (3.0, 0.556), 16: (8.0, 0.271), 64: (21.0, 0.0)}
"""Longest window of R updates in seconds and share of discarded gradients, by R; an independent simulation."""


def settings(kind: str) -> Iterator[tuple[Floats, int, Cluster, int]]:
    """Draw random settings: tau, S or R, the cluster, and a seed."""
    rng = np.random.default_rng(SEED)
    for seed in range(SETTINGS):
        tau = 10 ** rng.uniform(-1, 1, rng.integers(1, 33))
        size = round(2 ** rng.uniform(0, 6))
        yield tau, size, Cluster(compute=[KINDS[kind](t) for t in tau]), seed


def windows(trace: Trace, length: int) -> Floats:
    """Return the seconds of all windows of ``length`` consecutive updates."""
    times = np.concatenate([[0.0], trace.update_times])
    return times[length:] - times[:-length]


# Times


def batch_ratio(tau: Floats, batch: int, cluster: Cluster, seed: int, updates: int = 60) -> float:
    """Return the longest Rennala iteration divided by its bound."""
    trace = simulate(cluster, KBatchSync(batch), updates=updates, seed=seed)
    return float(windows(trace, 1).max() / rennala_time(batch, tau).seconds)


def window_ratio(
    tau: Floats, threshold: int, cluster: Cluster, seed: int, *, stops: bool, updates: int = 400
) -> float:
    """Return the longest window of R updates of Ringmaster divided by its bound."""
    trace = simulate(cluster, Ringmaster(threshold, stops=stops), updates=updates, seed=seed)
    return float(windows(trace, threshold).max() / ringmaster_time(threshold, tau).seconds)


class Rounds(NamedTuple):
    """The longest round and window of n updates of Ringleader, divided by 2 tau_n, and the largest delay."""

    ratio: float
    sliding: float
    delay: int
    rows: float
    """The least harmonic mean of the numbers of gradients in the rows of the table."""


def ringleader_rounds(tau: Floats, cluster: Cluster, seed: int, rounds: int = 60) -> Rounds:
    workers = len(tau)
    trace = simulate(cluster, Ringleader(), updates=rounds * workers, seed=seed)
    bound = ringleader_round_time(tau)
    used = trace.used
    update, worker, read = (trace.column(name)[used] for name in ("update", "worker", "read_version"))
    number = update // workers
    last = (number + 1) * workers - 1  # last update of the round: a row of the table is used until then
    counts = np.zeros((rounds * workers, workers))  # gradients in the row of a worker at an update
    np.add.at(counts, (update, worker), 1)
    counts = counts.reshape(rounds, workers, workers).cumsum(axis=1)
    return Rounds(
        float(windows(trace, workers)[::workers].max() / bound),
        float(windows(trace, workers).max() / bound),
        int((last - read).max()),
        float((1 / (1 / counts).mean(axis=2)).min()),
    )


def time_bounds() -> tuple[list[str], bool]:
    lines = [
        f"Worker i takes at most tau_i seconds for a gradient. {SETTINGS} clusters per row: 1 to 32 workers, tau",
        "over two decades, S and R from 1 to 64. The table shows the largest ratio of a simulated time to its",
        "bound, which may not exceed 1: Rennala's longest iteration divided by t'(S), Ringmaster's longest",
        "window of R updates divided by t(R), Ringleader's longest round of n updates divided by 2 tau_n.",
        "",
        "| times | Rennala | Ringmaster | with stops | Ringleader |",
        "|---|---|---|---|---|",
    ]
    holds = True
    for kind in KINDS:
        rennala = [batch_ratio(*setting) for setting in settings(kind)]
        without = [window_ratio(*setting, stops=False) for setting in settings(kind)]
        stopped = [window_ratio(*setting, stops=True) for setting in settings(kind)]
        rounds = [ringleader_rounds(tau, cluster, seed).ratio for tau, _, cluster, seed in settings(kind)]
        largest = [max(ratios) for ratios in (rennala, without, stopped, rounds)]
        holds &= max(largest) <= 1 + 1e-9
        lines.append(f"| {kind} | " + " | ".join(f"{ratio:.3f}" for ratio in largest) + " |")
    return [*lines, ""], holds


def example() -> tuple[list[str], bool]:
    lines = [
        "Ringmaster without stops, tau_i = i, n = 16, 20,000 updates, compared with an independent simulation:",
        "",
        "| R | t(R) | m* | longest window | independent | discarded | independent |",
        "|---|---|---|---|---|---|---|",
    ]
    holds = True
    for threshold, (window, share) in EXPECTED.items():
        trace = simulate(Cluster(compute=list(EXAMPLE)), Ringmaster(threshold), updates=20_000)
        fate = trace.column("fate")
        discarded = (fate == "discarded").sum() / np.isin(fate, ["used", "discarded"]).sum()
        longest, bound = windows(trace, threshold).max(), ringmaster_time(threshold, EXAMPLE)
        holds &= abs(longest - window) < 1e-9 and abs(discarded - share) < 1e-3
        lines.append(
            f"| {threshold} | {bound.seconds:.4f} | {bound.workers} | {longest:g} | {window:g} | "
            f"{discarded:.3f} | {share:.3f} |"
        )
    return [*lines, ""], holds


def rounds() -> tuple[list[str], bool]:
    lines = [
        "Ringleader with fixed times. *Delay* is the largest delay of a row of its table, which is 2n - 2.",
        "*Rounds* and *sliding windows* are the longest ones of n updates, divided by 2 tau_n, which bounds",
        "rounds only. *B* is the smallest harmonic mean of the numbers of gradients in the rows of its table,",
        "with its lower bound.",
        "",
        "| tau_i | n | delay | 2n - 2 | rounds | sliding windows | B | bound of B |",
        "|---|---|---|---|---|---|---|---|",
    ]
    holds = True
    for name, profile in PROFILES.items():
        for n in (2, 4, 10, 30):
            tau = profile(n)
            found, rows = ringleader_rounds(tau, Cluster(compute=list(tau)), SEED), ringleader_rows(tau)
            holds &= found.delay == 2 * n - 2 and found.ratio <= 1 + 1e-9 and found.rows >= rows - 1e-9
            lines.append(
                f"| {name} | {n} | {found.delay} | {2 * n - 2} | {found.ratio:.3f} | {found.sliding:.3f} | "
                f"{found.rows:.3f} | {rows:.3f} |"
            )
    return [*lines, ""], holds


# Parameters

WORKERS, SEEDS, EPSILON = 8, 4, 0.1
CLUSTER = Cluster(WORKERS, Exponential())
LONGER = 20_000
"""Number of updates of the traces whose beginnings are used; their tree distance is not smaller."""

CURVATURE, SPREAD = np.linspace(0.1, 1.0, 10), 0.2
CONSTANTS = quadratic_constants(np.diag(CURVATURE), len(CURVATURE) * SPREAD**2)
GAP = float(CURVATURE.sum() / 2)
"""F at the start, where all parameters are 1."""


def mean_square(method: Method, updates: int, seeds: int = SEEDS) -> tuple[float, int]:
    """Return the mean of ||∇F||^2 over versions and seeds, and the largest tree distance of the runs.

    Every version is weighted by the number of gradients of its update.
    """

    def loss(w: jax.Array, batch: object, key: jax.Array) -> jax.Array:
        noise = SPREAD * jnp.sum(w * jax.random.normal(key, CURVATURE.shape))
        return 0.5 * jnp.sum(jnp.asarray(CURVATURE) * w**2) + noise

    problem = Problem.from_functions(lambda key: jnp.ones(len(CURVATURE)), loss)
    record = Record(updates=1, gap=False, fn=lambda w: {"square": jnp.sum((jnp.asarray(CURVATURE) * w) ** 2)})
    found, distances = [], []
    for seed in range(seeds):
        trace = simulate(CLUSTER, method.synchrony, updates=updates, seed=seed)
        distances.append(tree_distance(trace))
        square = replay(trace, problem, method, record=record, seed=seed).history["square"].to_numpy(float)
        found.append(np.average(square[:-1], weights=trace.updates.gradients))
    return float(np.mean(found)), max(distances)


class Target(NamedTuple):
    """The conditions of a theorem: a method and updates, and R for the theorem about the tree distance."""

    what: str
    method: Method
    updates: int
    distance: int | None = None


def targets() -> Iterator[Target]:
    given = (CONSTANTS, EPSILON)
    ringmaster, rennala = ringmaster_parameters(*given, GAP), rennala_parameters(*given, GAP)
    malenia = malenia_parameters(*given, WORKERS, GAP)
    for stops in (False, True):
        method = methods.ringmaster(
            threshold=ringmaster.threshold, stops=stops, learning_rate=ringmaster.learning_rate
        )
        yield Target(
            "its own; Ringmaster with stops" if stops else "its own; Ringmaster", method, ringmaster.updates
        )
    method = methods.rennala(k=rennala.batch, learning_rate=rennala.learning_rate)
    yield Target("its own; Rennala", method, rennala.updates)
    method = methods.malenia(batch=malenia.batch, learning_rate=malenia.learning_rate)
    yield Target("its own; Malenia", method, malenia.updates)
    others: dict[str, tuple[Synchrony, int]] = {
        "async": (Async(), 1),
        "k-async, k = 4": (KAsync(4), 4),
        "sync": (Sync(), WORKERS),
        "Rennala": (KBatchSync(rennala.batch), rennala.batch),
        "Ringmaster": (Ringmaster(ringmaster.threshold), 1),
    }
    for name, (synchrony, size) in others.items():
        longer = (simulate(CLUSTER, synchrony, updates=LONGER, seed=seed) for seed in range(SEEDS))
        distance = max(map(tree_distance, longer))
        step, gradients = birch_parameters(distance, *given, GAP)
        method = methods.async_(synchrony=synchrony, learning_rate=size * step)
        yield Target(f"tree distance; {name}", method, -(-gradients // size), distance)


def parameters() -> tuple[list[str], bool]:
    lines = [
        f"Parameters from constants: a quadratic of ten dimensions, L = 1, sigma^2 = {CONSTANTS.noise:g}, Delta = "
        f"{GAP:g},",
        f"target E||∇F||^2 <= {EPSILON}; {WORKERS} workers, exponential times, means over {SEEDS} seeds. Every",
        "method runs with the learning rate and the number of updates of its own theorem, or of the theorem about",
        "the tree distance R of its traces. The last column is the mean squared gradient divided by the target;",
        "it may not exceed 1.",
        "",
        "| theorem; method | R | learning rate | updates | found / target |",
        "|---|---|---|---|---|",
    ]
    holds = True
    for target in targets():
        square, distance = mean_square(target.method, target.updates)
        holds &= square <= EPSILON and (target.distance is None or distance <= target.distance)
        lines.append(
            f"| {target.what} | {'' if target.distance is None else target.distance} | "
            f"{target.method.learning_rate.peak:.4f} | {target.updates} | {square / EPSILON:.3f} |"
        )
    return [*lines, ""], holds


def bounds_section() -> tuple[list[str], bool]:
    """Return the tables, and whether every bound holds."""
    found = [time_bounds(), example(), rounds(), parameters()]
    lines = ["### Bounds of Rennala, Ringmaster, Ringleader", "", *(line for part, _ in found for line in part)]
    return lines, all(holds for _, holds in found)


def main() -> int:
    lines, holds = bounds_section()
    print("\n".join(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
