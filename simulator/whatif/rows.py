"""What each synchrony makes of a grid of measured times: exactly where it can be written down, else simulated."""

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
"""Largest number of blocks of consecutive steps: long ones, as neighbouring steps have much in common."""

PARTS = 200
"""Parts of a simulation, after each of which it may end."""

SEED = 0
"""Of simulations: recorded times need none, links that are random do."""


class Rate(NamedTuple):
    """Used gradients per second, of blocks of steps or of time that count more or less often.

    Attributes:
        used: gradients of each block (blocks,).
        seconds: of each block (blocks,), or those of each worker (blocks, workers), whose rates are then added.
        scale: factor of the rate.
    """

    used: Floats
    seconds: Floats
    scale: float = 1.0

    def of(self, counts: Floats) -> Floats:
        """Return the rates (samples,), given how often each block counts (samples, blocks)."""
        used = counts @ self.used
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.seconds.ndim == 1:
                return np.asarray(self.scale * used / (counts @ self.seconds))
            return np.asarray(self.scale * (used[:, None] / (counts @ self.seconds)).sum(axis=1))

    @property
    def blocks(self) -> int:
        """Their number."""
        return len(self.used)

    @property
    def value(self) -> float:
        """The rate, each block counting once."""
        return float(self.of(np.ones((1, self.blocks)))[0])


class Row(NamedTuple):
    """One synchrony on the measured times.

    Attributes:
        rate: used gradients per second.
        sync: the same of the synchronous job, on the same steps.
        per_update: used gradients of an update.
        idle: share of the workers' time.
        wasted: share of the workers' time.
        staleness: mean, in updates.
        staleness_p99: the staleness that 99 % of the used gradients do not exceed.
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
        start: the first of them, counted from 0.
        seconds: their times (steps, workers).
        cluster: workers that compute in these times, and go on with those that follow.
        wallclock: seconds that the synchronous job takes for them.
        sync: its rate.
    """

    start: int
    seconds: Floats
    cluster: Cluster
    wallclock: float
    sync: Rate

    @property
    def steps(self) -> int:
        """Their number."""
        return len(self.seconds)

    def simulate(self, synchrony: Synchrony) -> Trace:
        """Return the trace of a synchrony, up to when its workers have begun as many jobs as there are times here.

        A job that is cancelled counts: then all synchronies see the same times. None goes on for longer than the
        synchronous job.
        """
        engine = Engine(self.cluster, synchrony, Budget(wallclock=self.wallclock), SEED)
        for part in range(1, PARTS + 1):
            if engine.advance(self.wallclock * part / PARTS) or engine.log.count > self.seconds.size:
                break
        return engine.trace()

    def rate(self, trace: Trace) -> Rate:
        """Return the rate of a simulation, in blocks of its time in which workers are at the same steps."""
        upto = np.append(0.0, np.cumsum(self.seconds.mean(axis=1)))
        return simulated_rate(trace, upto[block_edges(self.steps)] * (trace.end / upto[-1]))


def typical_start(seconds: Floats, steps: int) -> int:
    """Return where so many consecutive steps begin whose slow-down by waiting is nearest to that of all steps."""
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
        most: gradients that a worker which never waits computes in them, all workers together.
        cluster: makes a cluster of workers that compute in given times (steps, workers).
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
    """Return the mean of the staleness of used gradients, and what 99 % of them do not exceed."""
    found = trace.staleness
    if not len(found):
        return math.nan, math.nan
    return float(found.mean()), float(np.quantile(found, 0.99, method="inverted_cdf"))


# Rates of blocks


def block_edges(steps: int) -> np.ndarray:
    """Return the first step of every block, and the number of steps."""
    return np.linspace(0, steps, blocks_of(steps) + 1).round().astype(int)


def blocks_of(steps: int) -> int:
    """Return the number of blocks of so many steps: of at least three steps each, where there are some."""
    return min(BLOCKS, max(5, steps // 3))


def in_blocks(values: Floats) -> Floats:
    """Return the sums over the blocks of the first axis."""
    return np.add.reduceat(values, block_edges(len(values))[:-1], axis=0)


def rounds_rate(seconds: Floats, k: int) -> Rate:
    """Return the rate of rounds that each take the time of the k-th fastest of a step: exact."""
    time = np.partition(seconds, k - 1, axis=1)[:, k - 1]
    return Rate(in_blocks(np.full(len(seconds), float(k))), in_blocks(time))


def rounds_shares(seconds: Floats, k: int) -> tuple[float, float]:
    """Return the shares of the workers' time that are idle and wasted in such rounds: exact."""
    ordered = np.partition(seconds, k - 1, axis=1)
    total = ordered[:, k - 1].sum() * seconds.shape[1]
    wasted = (seconds.shape[1] - k) / seconds.shape[1]
    return float(1.0 - wasted - ordered[:, :k].sum() / total), wasted


def free_rate(seconds: Floats) -> Rate:
    """Return the rate of workers that never wait: each worker's steps over their seconds, added: exact."""
    return Rate(in_blocks(np.ones(len(seconds))), in_blocks(seconds))


def simulated_rate(trace: Trace, edges: Floats) -> Rate:
    """Return the rate of a simulation up to its last update, in blocks of its time.

    Between two updates gradients count as if they came evenly: a block neither wins nor loses a whole update.
    """
    times, seconds = trace.update_times, np.diff(edges)
    if not len(times):
        return Rate(np.zeros(len(seconds)), seconds)
    scale = edges[-1] / times[-1]
    upto = np.append(0.0, np.cumsum(trace.updates["gradients"].to_numpy(float)))
    last = np.append(times[1:] > times[:-1], True)  # of the updates of one moment
    used = np.interp(edges / scale, np.append(0.0, times[last]), np.append(0.0, upto[1:][last]))
    return Rate(np.diff(used), seconds, scale)
