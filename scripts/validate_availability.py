"""Compare workers that leave and return with renewal theory: a section of validate_theory.py, printed as Markdown.

python scripts/validate_availability.py
"""

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalegrad.policies import Async
from stalegrad.simulator import (
    Cluster,
    Delay,
    Deterministic,
    Exponential,
    Gamma,
    LogNormal,
    Renewal,
    Trace,
    Uniform,
    simulate,
)

SEED = 2018
WORKERS, SECONDS = 400, 2_000.0

PERIODS: dict[str, tuple[Delay, Delay]] = {
    "exponential, exponential": (Exponential(12.0), Exponential(5.0)),
    "log-normal, uniform": (LogNormal(8.0, 0.8), Uniform(1.0, 9.0)),
    "gamma of cv 0.3, constant": (Gamma(10.0, 0.3), Deterministic(4.0)),
}
"""Delays of the times up and down."""


class Check(NamedTuple):
    """A number that theory gives, a simulated one, and its standard error."""

    what: str
    theory: float
    found: float
    error: float

    @property
    def z(self) -> float:
        return (self.found - self.theory) / self.error


def _over_workers(what: str, theory: float, values: NDArray[np.float64]) -> Check:
    return Check(what, theory, float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def presence(trace: Trace) -> NDArray[np.float64]:
    """Return the share of time during which each worker is present."""
    away = trace.absences["return_time"].fillna(trace.end) - trace.absences["leave_time"]
    absent = away.groupby(trace.absences["worker"]).sum().reindex(range(trace.workers), fill_value=0.0)
    return 1 - absent.to_numpy() / trace.end


def rate(trace: Trace) -> NDArray[np.float64]:
    """Return the number of used gradients per second of each worker."""
    used = trace.column("worker")[trace.used]
    return np.bincount(used, minlength=trace.workers) / trace.end


def shares() -> Iterator[Check]:
    for name, (up, down) in PERIODS.items():
        preempted = Renewal(up, down, start="stationary")
        cluster = Cluster(WORKERS, Exponential(1.0), availability=preempted)
        trace = simulate(cluster, Async(), wallclock=SECONDS, seed=SEED)
        theory = up.expectation() / (up.expectation() + down.expectation())
        yield _over_workers(f"{name}: share of presence", theory, presence(trace))
        yield _over_workers(f"{name}: gradients per second, exponential compute", theory, rate(trace))


def completed() -> Iterator[Check]:
    """Check jobs of c seconds with exponential up-times of rate lambda: 1 / (exp(lambda c) - 1) per up-time."""
    for up, compute in ((6.0, 2.0), (6.0, 6.0), (20.0, 1.0)):
        down = Uniform(1.0, 5.0)
        cluster = Cluster(WORKERS, Deterministic(compute), availability=Renewal(Exponential(up), down))
        trace = simulate(cluster, Async(), wallclock=SECONDS, seed=SEED)
        theory = 1 / math.expm1(compute / up) / (up + down.expectation())
        what = f"jobs of {compute:g} s, exponential up-times of {up:g} s: gradients per second"
        yield _over_workers(what, theory, rate(trace))


def at_moments() -> Iterator[Check]:
    """Check that the share of present workers is the same at every time, in the stationary state."""
    for name, (up, down) in PERIODS.items():
        preempted, count = Renewal(up, down, start="stationary"), 5_000
        moments = np.array([0.0, 1.0, 3.0, 10.0])
        there = np.zeros(len(moments))
        for worker in range(count):
            present, changes = preempted.presence(worker, count, np.random.default_rng([SEED, worker]))
            change = next(changes)
            for i, moment in enumerate(moments):
                while change <= moment:
                    present, change = not present, next(changes)
                there[i] += present
        share = preempted.share()
        for moment, found in zip(moments, there / count, strict=True):
            error = math.sqrt(share * (1 - share) / count)
            yield Check(f"{name}: share there at {moment:g} s", share, float(found), error)


def availability_section(limit: float) -> tuple[list[str], bool]:
    """Return the table, and whether every number is within ``limit`` standard errors."""
    found = [*shares(), *completed(), *at_moments()]
    lines = [
        "### Workers that leave and return",
        "",
        f"Async with {WORKERS} workers for {SECONDS:,.0f} s; jobs in progress are lost. Names give the times",
        f"up and down. z is the distance in standard errors over workers; {limit} are allowed.",
        "",
        "| what | theory | found | z |",
        "|---|---|---|---|",
        *(f"| {c.what} | {c.theory:.4f} | {c.found:.4f} | {c.z:+.2f} |" for c in found),
    ]
    return [*lines, ""], all(abs(c.z) <= limit for c in found)


def main() -> int:
    lines, holds = availability_section(4.5)
    print("\n".join(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
