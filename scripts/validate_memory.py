"""Compare delays with memory with their specification: a section of validate_theory.py, printed as Markdown.

python scripts/validate_memory.py
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from stalegrad.simulator import (
    Cluster,
    Correlated,
    Delay,
    Exponential,
    Gamma,
    LogNormal,
    MarkovModulated,
    Recorded,
    Shared,
    ShiftedExponential,
)

Floats = NDArray[np.float64]

SEED = 2018

DRAWS, APART, LEAST_P = 100_000, 20, 1e-3
"""Number of draws of a test; distance between draws in tests of distributions, beyond memory; least p-value."""

PHIS = (-0.5, 0.5, 0.7, 0.95)
STATES = [1.0, 5.0]
STAYS = (30.0, 10.0)
PERIOD = 64.0


class Memory(NamedTuple):
    """A property of a delay with memory: its theoretical and its simulated value, and whether they agree."""

    what: str
    theory: str
    found: str
    holds: bool


def _near(what: str, theory: float, found: float, error: float, limit: float) -> Memory:
    """Compare a number with theory, given its standard error."""
    z = (found - theory) / error
    return Memory(what, f"{theory:.4g}", f"{found:.4f} (z = {z:+.1f})", abs(z) <= limit)


def _drawn(delay: Delay, count: int, worker: int = 0) -> Floats:
    blocks = delay.of_worker(worker).blocks(np.random.default_rng(SEED))
    return np.concatenate(list(itertools.islice(blocks, -(-count // 256))))[:count]


def _lag(values: Floats, by: int = 1) -> float:
    centred = values - values.mean()
    return float((centred[by:] * centred[:-by]).sum() / (centred**2).sum())


def _share(what: str, hits: NDArray[np.bool_], share: float, correlation: float, limit: float) -> Memory:
    """Compare the share of a state of a two-state chain, whose indicator has the autocorrelation correlation^n."""
    inflation = (1 + correlation) / (1 - correlation)
    return _near(what, share, float(hits.mean()), (share * (1 - share) * inflation / len(hits)) ** 0.5, limit)


def _distribution(what: str, draws: Floats, cdf: Callable[[Floats], Floats]) -> Memory:
    test = stats.kstest(draws, cdf)
    found = f"KS distance {test.statistic:.4f} (p = {test.pvalue:.2f})"
    return Memory(what, "the distribution", found, test.pvalue >= LEAST_P)


def correlated(limit: float) -> Iterator[Memory]:
    for phi in PHIS:
        blocks = Correlated(Gamma(1.0, 0.5), phi).normals(np.random.default_rng(SEED))
        normals = np.concatenate(list(itertools.islice(blocks, -(-DRAWS // 256))))
        error = ((1 - phi**2) / len(normals)) ** 0.5
        yield _near(
            f"Correlated, phi {phi}: lag-1 autocorrelation of the normals", phi, _lag(normals), error, limit
        )
    bases: dict[str, Delay] = {"log-normal": LogNormal(1.0, 0.5), "1 + exponential": ShiftedExponential(1.0, 1.0)}
    for name, base in bases.items():
        draws = _drawn(Correlated(base, 0.5), DRAWS * APART)[::APART]
        yield _distribution(f"Correlated, phi 0.5: {name} times", draws, base.distribution().cdf)


def markov_modulated(limit: float) -> Iterator[Memory]:
    correlation = 1 - 1 / STAYS[0] - 1 / STAYS[1]
    slow = _drawn(MarkovModulated(STATES, STAYS), DRAWS * 4) == STATES[1]
    yield _share("MarkovModulated, jobs: share of the slow state", slow, 0.25, correlation, limit)
    mixed = MarkovModulated([Exponential(1.0), Gamma(5.0, 0.3)], (3.0, 1.5))
    draws = _drawn(mixed, DRAWS * APART)[::APART]
    yield _distribution("MarkovModulated, jobs: mixture of the states", draws, lambda t: 1 - mixed.sf(t))
    timer = Cluster(1, MarkovModulated(STATES, STAYS, unit="seconds")).compute_timer(SEED, 0)
    slow = np.array([timer(2.0 * i) for i in range(DRAWS)]) == STATES[1]
    correlation = float(np.exp(-2.0 * (1 / STAYS[0] + 1 / STAYS[1])))
    yield _share("MarkovModulated, seconds: share of time of the slow state", slow, 0.25, correlation, limit)


def shared(limit: float) -> Iterator[Memory]:
    delay = Shared(1.0, Exponential(1.0), period=PERIOD, group=[0, 0, 1])
    timers = [Cluster(3, delay).compute_timer(SEED, worker) for worker in range(3)]
    factors = np.array([[timer(PERIOD * i) for i in range(DRAWS)] for timer in timers])
    yield _distribution("Shared: factors of periods", factors[0], stats.expon.cdf)
    apart = float(np.abs(factors[0] - factors[1]).max())
    yield Memory("Shared: largest difference within a group", "0", f"{apart:g}", apart == 0)
    between = float(np.corrcoef(factors[0], factors[2])[0, 1])
    yield _near("Shared: correlation between groups", 0.0, between, DRAWS**-0.5, limit)


def recorded(limit: float) -> Iterator[Memory]:
    for number, lag in enumerate((0.77, 0.60, 0.64, 0.71), 1):
        job = Recorded.measured(f"alibaba-job-{number}")
        own = [_lag(_drawn(job, len(job.records.times[0]), worker)) for worker in range(10)]
        value = float(np.median(own))
        what = f"Recorded: median lag-1 autocorrelation of job {number} (theory: as measured)"
        yield Memory(what, f"{lag:.2f}", f"{value:.3f}", abs(value - lag) < 0.006)


def memory_section(limit: float) -> tuple[list[str], bool]:
    """Return the table, and whether every number is within ``limit`` standard errors."""
    found = [check for part in (correlated, markov_modulated, shared, recorded) for check in part(limit)]
    lines = [
        "### Times with memory",
        "",
        f"Each row uses at least {DRAWS:,} draws. z is the distance in standard errors that account for the",
        f"memory; {limit} are allowed. Tests of a distribution use {DRAWS:,} draws, {APART} apart, and require",
        f"p >= {LEAST_P}.",
        "",
        "| what | theory | found | holds |",
        "|---|---|---|---|",
        *(f"| {m.what} | {m.theory} | {m.found} | {'yes' if m.holds else '**no**'} |" for m in found),
    ]
    return [*lines, ""], all(m.holds for m in found)


def main() -> int:
    lines, holds = memory_section(4.5)
    print("\n".join(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
