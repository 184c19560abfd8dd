"""The rows of a what-if: each synchrony on measured times, exact where a formula exists, else simulated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stalegrad._core.delay import Floats
from stalegrad.policies.synchrony import Free, Rounds, Sync, Synchrony
from stalegrad.simulator.timing.blocks import pattern_of
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.engine import Engine, simulate
from stalegrad.simulator.timing.trace import Trace
from stalegrad.simulator.whatif.grid import Grid

BLOCKS = 25
"""Largest number of blocks of consecutive steps; blocks are long because neighbouring steps are correlated."""

PARTS = 200
"""Number of parts of a simulation; it may end after each part."""

SEED = 0
"""Seed of simulations; recorded times need none, but random links do."""


class Rate(NamedTuple):
    """Used gradients per second, from blocks of steps or of time, which a bootstrap counts several times or not.

    Attributes:
        used: gradients of each block, (blocks,).
        seconds: seconds of each block, (blocks,), or of each block and worker, (blocks, workers); the workers'
            rates are then added.
        scale: factor of the rate.
    """

    used: Floats
    seconds: Floats
    scale: float = 1.0

    def of(self, counts: Floats) -> Floats:
        """Return the rates, (samples,), for the number of times that each block counts, (samples, blocks)."""
        used = counts @ self.used
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.seconds.ndim == 1:
                return np.asarray(self.scale * used / (counts @ self.seconds))
            return np.asarray(self.scale * (used[:, None] / (counts @ self.seconds)).sum(axis=1))

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return len(self.used)

    @property
    def value(self) -> float:
        """The rate if each block counts once."""
        return float(self.of(np.ones((1, self.blocks)))[0])


class Row(NamedTuple):
    """The row of one synchrony on the measured times.

    Attributes:
        rate: used gradients per second.
        sync: used gradients per second of the synchronous job, on the same steps.
        per_update: used gradients of an update.
        idle: idle share of the workers' time.
        wasted: wasted share of the workers' time.
        staleness: mean staleness of the used gradients, in updates.
        staleness_p99: staleness that 99 % of the used gradients do not exceed, in updates.
        exact: whether throughput, idle and wasted are computed from all steps; else they are simulated.
    """

    rate: Rate
    sync: Rate
    per_update: float
    idle: float
    wasted: float
    staleness: float
    staleness_p99: float
    exact: bool


class Sample(NamedTuple):
    """Consecutive steps of a grid that are simulated.

    Attributes:
        start: first of the steps, counted from 0.
        seconds: times of the steps in seconds, (steps, workers).
        cluster: cluster whose workers compute in these times and continue with the following ones.
        wallclock: seconds that the synchronous job takes for the steps.
        sync: rate of the synchronous job.
    """

    start: int
    seconds: Floats
    cluster: Cluster
    wallclock: float
    sync: Rate

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.seconds)

    def simulate(self, synchrony: Synchrony) -> Trace:
        """Return the trace of a synchrony, until its workers have begun one job per time in ``seconds``.

        Cancelled jobs count, so that all synchronies use the same times. No trace is longer than the synchronous
        job.
        """
        engine = Engine(self.cluster, synchrony, Budget(wallclock=self.wallclock), SEED)
        for part in range(1, PARTS + 1):
            if engine.advance(self.wallclock * part / PARTS) or engine.log.count > self.seconds.size:
                break
        return engine.trace()

    def rate(self, trace: Trace) -> Rate:
        """Return the rate of a simulation, in blocks of its time that correspond to the same steps."""
        upto = np.append(0.0, np.cumsum(self.seconds.mean(axis=1)))
        return simulated_rate(trace, upto[block_edges(self.steps)] * (trace.end / upto[-1]))


def typical_start(seconds: Floats, steps: int) -> int:
    """Return the start of the ``steps`` consecutive steps whose slow-down by waiting is closest to that of all."""
    slowest, mean = seconds.max(axis=1), seconds.mean(axis=1)
    upto = np.cumsum(np.vstack([[0.0, 0.0], np.column_stack([slowest, mean])]), axis=0)
    sums = upto[steps:] - upto[:-steps]
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(sums[:, 0] / sums[:, 1] - slowest.sum() / mean.sum())
    return int(np.nanargmin(off))


def sample_of(grid: Grid, most: int, cluster: Callable[[Floats], Cluster]) -> Sample:
    """Return the steps that are simulated.

    Args:
        grid: all measured times.
        most: number of gradients in these steps, of all workers together; there are at least ``BLOCKS`` steps.
        cluster: function that returns a cluster of workers with given compute times, (steps, workers).
    """
    workers = len(grid.workers)
    steps = min(grid.steps, max(BLOCKS, most // workers))
    start = typical_start(grid.seconds, steps)
    seconds = grid.seconds[start : start + steps]
    whole = cluster(grid.seconds[start : start + 2 * steps] if steps < grid.steps else seconds)
    if whole.instant:
        return Sample(start, seconds, whole, float(seconds.max(axis=1).sum()), rounds_rate(seconds, workers))
    end = simulate(whole, Sync(), updates=steps, seed=SEED).end
    sample = Sample(start, seconds, whole, end, Rate(np.zeros(1), np.ones(1)))
    return sample._replace(sync=sample.rate(sample.simulate(Sync())))


def row_of(synchrony: Synchrony, grid: Grid, sample: Sample) -> Row:
    """Return the row of a synchrony."""
    workers, exact = len(grid.workers), sample.cluster.instant and synchrony.local_steps == 1
    pattern, sync = pattern_of(synchrony, workers) if exact else None, rounds_rate(grid.seconds, workers)
    if isinstance(pattern, Rounds):
        shares = rounds_shares(grid.seconds, pattern.k)
        return Row(rounds_rate(grid.seconds, pattern.k), sync, pattern.k, *shares, 0.0, 0.0, exact=True)
    if isinstance(pattern, Free):
        through = float(sample.seconds.mean(axis=1).sum())
        staleness = _mean_and_p99(simulate(sample.cluster, synchrony, wallclock=through, seed=SEED))
        return Row(free_rate(grid.seconds), sync, pattern.k, 0.0, 0.0, *staleness, exact=True)
    trace = sample.simulate(synchrony)
    busy, per_update = trace.busy().mean(), trace.updates["gradients"].mean()
    shares = round(float(busy["idle"]), 12), round(float(busy["wasted"]), 12)
    return Row(sample.rate(trace), sample.sync, float(per_update), *shares, *_mean_and_p99(trace), exact=False)


def _mean_and_p99(trace: Trace) -> tuple[float, float]:
    """Return the mean of the staleness of used gradients, and its 99 % quantile."""
    found = trace.staleness
    if not len(found):
        return math.nan, math.nan
    return float(found.mean()), float(np.quantile(found, 0.99, method="inverted_cdf"))


# Rates of blocks


def block_edges(steps: int) -> np.ndarray:
    """Return the first step of every block, followed by the number of steps."""
    return np.linspace(0, steps, blocks_of(steps) + 1).round().astype(int)


def blocks_of(steps: int) -> int:
    """Return the number of blocks for ``steps`` steps: at least five, with about three or more steps each."""
    return min(BLOCKS, max(5, steps // 3))


def in_blocks(values: Floats) -> Floats:
    """Return the sums over the blocks of the first axis."""
    return np.add.reduceat(values, block_edges(len(values))[:-1], axis=0)


def rounds_rate(seconds: Floats, k: int) -> Rate:
    """Return the exact rate of rounds that each take the time of the k-th fastest worker of a step."""
    time = np.partition(seconds, k - 1, axis=1)[:, k - 1]
    return Rate(in_blocks(np.full(len(seconds), float(k))), in_blocks(time))


def rounds_shares(seconds: Floats, k: int) -> tuple[float, float]:
    """Return the exact shares of the workers' time that are idle and wasted in these rounds."""
    ordered = np.partition(seconds, k - 1, axis=1)
    total = ordered[:, k - 1].sum() * seconds.shape[1]
    wasted = (seconds.shape[1] - k) / seconds.shape[1]
    return float(1.0 - wasted - ordered[:, :k].sum() / total), wasted


def free_rate(seconds: Floats) -> Rate:
    """Return the exact rate of workers that never wait: the sum over workers of steps over seconds."""
    return Rate(in_blocks(np.ones(len(seconds))), in_blocks(seconds))


def simulated_rate(trace: Trace, edges: Floats) -> Rate:
    """Return the rate of a simulation up to its last update, in blocks of its time.

    The gradients of an update are distributed evenly over the time since the update before, so that a block
    neither gains nor loses a whole update.
    """
    times, seconds = trace.update_times, np.diff(edges)
    if not len(times):
        return Rate(np.zeros(len(seconds)), seconds)
    scale = edges[-1] / times[-1]
    upto = np.append(0.0, np.cumsum(trace.updates["gradients"].to_numpy(float)))
    last = np.append(times[1:] > times[:-1], True)  # the last of the updates at one moment
    used = np.interp(edges / scale, np.append(0.0, times[last]), np.append(0.0, upto[1:][last]))
    return Rate(np.diff(used), seconds, scale)
