"""The cluster: its workers, their speeds, links and availability, and its server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from stalegrad._core.delay import BLOCK, RecordEndsError, Timer
from stalegrad._core.specs import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    changed_fields,
    check_keys,
    kebab,
    spec,
    validate,
)
from stalegrad.simulator.timing.availability import AVAILABILITIES, Availability, as_availability
from stalegrad.simulator.timing.availability.base import Presence
from stalegrad.simulator.timing.delays import Delay, always_zero, as_delay, as_table
from stalegrad.simulator.timing.limits import MOST_WORKERS
from stalegrad.simulator.timing.links import Network, as_network
from stalegrad.simulator.timing.streams import (
    Amount,
    Draws,
    Purpose,
    check_workers,
    checked_draws,
    number_or_delay,
    stream,
)


@spec
class Cluster:
    """A parameter server and its workers.

    Args:
        workers: number of workers, at most 10,000,000; may be left out where a list has one entry per worker.
        compute: delay of one mini-batch gradient, for all workers, or a list of one delay per worker (see
            :mod:`stalegrad.simulator.timing.delays`). A number, a frozen ``scipy.stats`` distribution and a
            function ``f(rng, size)`` are allowed, too. Times may depend on earlier ones, be measured ones in
            order, or slow down together: ``Correlated``, ``MarkovModulated``, ``Recorded``, ``Shared``.
        speeds: relative speeds (a worker of speed 2 needs half the time): a list of one per worker, or a delay
            that is drawn once per run and worker. Default: all 1.
        uplink: latency of the links to the server in seconds: a number or a delay, for all workers or a list of
            one per worker. Messages on a link arrive in the order in which they were sent, whatever is drawn.
        downlink: latency of the links to the workers, for models; in the same forms.
        server: seconds that the server spends on each message that it keeps: a number or a delay. It handles one
            message at a time, first in, first out.
        join: seconds at which each worker joins and reads the current version: a list, or a delay that is drawn
            once per run and worker. Default: all at 0.
        availability: when workers leave and return: :class:`Renewal`, :class:`Events` or :class:`Counts`. A worker
            that returns reads the current version. Default: no worker ever leaves.
        server_update: seconds of one update (an optimizer or training step): a number or a delay. The server does
            nothing else meanwhile; the new version appears at the end.
        network: sizes of messages and bandwidths: a :class:`Network`. Default: transfers take no time.

    The clock is a float64: at t seconds it counts in steps of about t / 10^16. A positive delay that is lost in
    such a step (t + delay == t) raises an error when it occurs, and so does a delay at which the clock overflows.
    A random compute time may be lost, and then counts as 0, if it is below 10^-9 of the mean of its block of 256
    draws. Compute times may be 0, but not those of a whole block, and not so often that a worker reads more than
    512 times at one moment.

    Raises:
        ValueError: for a value that is not allowed; it names the field, the value and what is allowed.

    Example:
        >>> import stalegrad as sg
        >>> cluster = sg.Cluster(compute=[1.0, 2.0, 4.0], uplink=0.25)
        >>> sg.simulate(cluster, sg.Sync(), updates=3).update_times.tolist()
        [4.25, 8.5, 12.75]
    """

    workers: PositiveInt | None = None
    compute: Any = 1.0
    speeds: Any = None
    uplink: Amount = 0.0
    downlink: Amount = 0.0
    server: Amount = 0.0
    join: Any = None
    availability: Any = None
    server_update: Amount = 0.0
    network: Any = None

    def check_fields(self) -> None:
        """Determine the number of workers and convert what stands for a delay into a delay."""
        if self.network is not None:
            object.__setattr__(self, "network", as_network(self.network))
        workers = self._agreed_workers()
        object.__setattr__(self, "workers", workers)
        object.__setattr__(self, "compute", self._delays("compute"))
        one_by_one = isinstance(self.compute, tuple) or type(self.compute).of_worker is not Delay.of_worker
        for worker in range(workers if one_by_one else 1):
            try:
                own = self.delay_of(worker)
            except ValueError as error:
                raise ValueError(f"compute of worker {worker}: {error}") from None
            if always_zero(own):
                raise ValueError(f"compute of worker {worker} always takes 0 seconds: time would never advance")
        for name in ("uplink", "downlink"):
            object.__setattr__(self, name, self._latencies(name))
        for name in ("server", "server_update"):
            object.__setattr__(self, name, number_or_delay(f"{name} of cluster", getattr(self, name)))
        for name in ("uplink", "downlink", "server"):
            check_workers(f"{name} of cluster", getattr(self, name), workers)
        if self.network is not None:
            self.network.check(workers)
        if self.speeds is not None:
            speeds = self._numbers("speeds", PositiveFloat) if _is_list(self.speeds) else self._delays("speeds")
            object.__setattr__(self, "speeds", speeds)
        if self.join is not None:
            object.__setattr__(self, "join", self._join_times() if _is_list(self.join) else self._delays("join"))
        if self.availability is not None:
            if self.join is not None:
                raise ValueError("cluster takes join or availability, not both: availability includes joining")
            object.__setattr__(self, "availability", as_availability(self.availability))
            self.availability.check(workers)

    def _agreed_workers(self) -> int:
        """Return the number of workers, on which all lists agree."""
        lists = ("compute", "speeds", "uplink", "downlink", "join")
        lengths = {f"{name} of cluster": len(value) for name in lists if _is_list(value := getattr(self, name))}
        lengths |= {} if self.network is None else self.network.lengths
        workers = self.workers if self.workers is not None else next(iter(lengths.values()), None)
        if workers is None:
            raise ValueError(
                "workers of cluster is missing: give a number, or compute as a list of one per worker"
            )
        if not 1 <= workers <= MOST_WORKERS:
            raise ValueError(f"workers of cluster = {workers!r} is not allowed: 1 to {MOST_WORKERS}")
        for name, length in lengths.items():
            if length != workers:
                raise ValueError(f"{name} has {length} entries, but there are {workers} workers")
        return workers

    def _latencies(self, name: str) -> Amount:
        value, where = getattr(self, name), f"{name} of cluster"
        if not _is_list(value):
            return number_or_delay(where, value)
        values = tuple(number_or_delay(f"{where}, worker {i}", each) for i, each in enumerate(value))
        same = isinstance(values[0], float) and all(value == values[0] for value in values)
        return values[0] if same else values

    def _delays(self, name: str) -> Delay | tuple[Delay, ...]:
        value = getattr(self, name)
        try:
            found = tuple(as_delay(v) for v in value) if _is_list(value) else as_delay(value)
        except ValueError as error:
            raise ValueError(f"{name} of cluster: {error}") from None
        if name != "compute" and isinstance(found, Delay) and found.remembers:
            raise ValueError(
                f"{name} of cluster: times of {kebab(type(found).__name__)} depend on each other, but {name} "
                "is drawn once per worker: give a delay without memory, or a list of one number per worker"
            )
        return found

    def _numbers(self, name: str, annotation: Any) -> tuple[float, ...]:
        values = enumerate(getattr(self, name))
        return tuple(validate(f"{name} of cluster, worker {i}", annotation, v) for i, v in values)

    def _join_times(self) -> tuple[float, ...]:
        if all(time == math.inf for time in self.join):
            raise ValueError("join of cluster: all workers are always absent; at least one must join")
        for worker, time in enumerate(self.join):
            if time == math.inf:
                raise ValueError(
                    f"join of cluster: worker {worker} never joins (inf); leave it out of the cluster"
                )
        return self._numbers("join", NonNegativeFloat)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Cluster:
        """Return the cluster that a table describes, e.g. ``{"workers": 4, "compute": {"delay": "exponential"}}``.

        Raises:
            ValueError: for an unknown key or a wrong value; it names the key or value and what is allowed.
        """
        check_keys("cluster", table, [field.name for field in fields(cls)])
        return cls(**table)

    def table(self) -> dict[str, Any]:
        """Return the cluster as the table that :meth:`from_table` reads back; defaults are left out.

        Raises:
            ValueError: if one of its delays exists in this process only.
        """
        return {name: _plain(value) for name, value in changed_fields(self).items()}

    @property
    def instant(self) -> bool:
        """Whether only computing takes time: neither links nor the server do."""
        unknown = self.network is not None and self.network.unresolved
        travels = self.travels("uplink") or self.travels("downlink")
        return not (travels or unknown or self.server or self.server_update)

    def travels(self, direction: str) -> bool:
        """Return whether transfers in a direction, ``uplink`` or ``downlink``, take time."""
        return bool(getattr(self, direction)) or (self.network is not None and self.network.limits(direction))

    @property
    def size(self) -> int:
        """The number of workers."""
        assert self.workers is not None
        return self.workers

    def delay_of(self, worker: int) -> Delay:
        """Return the compute delay of a worker, without this run's draws of its machine and its speed.

        Raises:
            ValueError: if the delay gives each worker its own times and has none for this worker.
        """
        delay: Delay = self.compute[worker] if isinstance(self.compute, tuple) else self.compute
        return delay.of_worker(worker)

    def compute_times(self, seed: int, worker: int) -> Iterator[float]:
        """Yield a worker's compute times in seconds, one per gradient, without end.

        Raises:
            ValueError: in the same cases as :meth:`compute_blocks`.
        """
        for block in self.compute_blocks(seed, worker):
            yield from block.tolist()

    def compute_blocks(self, seed: int, worker: int) -> Iterator[npt.NDArray[np.float64]]:
        """Yield a worker's compute times in seconds, in blocks of 256, without end.

        Raises:
            ValueError: if a user's delay yields a negative or non-finite time or a block of zeros, or if a record
                has ended; it names the worker and the draw. Also if the times depend on the clock.
        """
        delay, speed = self._machine(seed, worker)
        what, first = f"compute of worker {worker}", 0
        if delay.clocked:
            raise ValueError(f"{what} = {delay!r} depends on when a job begins: use compute_timer")

        def checked(block: npt.ArrayLike) -> npt.NDArray[np.float64]:
            nonlocal first
            times: npt.NDArray[np.float64] = _block(block, speed, what, first)
            first += len(times)
            return times

        try:  # unlike a loop, map keeps no block between draws: 200 MB less with 100,000 workers
            yield from map(checked, delay.blocks(stream(seed, Purpose.COMPUTE, worker)))
        except RecordEndsError as error:
            raise ValueError(f"{what}: draw {first} does not exist: {error}") from None

    def compute_timer(self, seed: int, worker: int) -> Timer:
        """Return a function ``begin -> time`` that draws a worker's compute times one by one, in seconds.

        ``begin`` is the time in seconds at which the job begins. The function raises ValueError in the same cases
        as :meth:`compute_blocks`.
        """
        delay, speed = self._machine(seed, worker)

        def common(*key: int) -> np.random.Generator:
            return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(Purpose.SHARED, *key)))

        draw, numbers = delay.timer(stream(seed, Purpose.COMPUTE, worker), common), itertools.count()

        def timer(begin: float) -> float:
            what, number = f"compute of worker {worker}", next(numbers)
            try:
                time = draw(begin) / speed
            except RecordEndsError as error:
                raise ValueError(f"{what}: draw {number} does not exist: {error}") from None
            if not 0.0 <= time < math.inf:
                raise ValueError(f"{what}: draw {number} is {time}; allowed are finite times of at least 0")
            return time

        return timer

    def _machine(self, seed: int, worker: int) -> tuple[Delay, float]:
        """Return a worker's delay and speed, as drawn for this run."""
        delay = self.delay_of(worker)
        if type(delay).realise is not Delay.realise:  # a stream takes 20 microseconds to make
            delay = delay.realise(stream(seed, Purpose.MACHINE, worker))
        speed = self._once(self.speeds, "speeds", seed, Purpose.SPEED, worker, default=1.0)
        if speed == 0:
            raise ValueError(f"speeds of cluster: worker {worker} drew speed 0; allowed is any above 0")
        return delay, speed

    def draws(self, name: str, seed: int, worker: int) -> Draws:
        """Return the draws of a time that the server takes, ``server`` or ``server_update``, for a worker."""
        value, what = getattr(self, name), f"{name} of cluster"
        if isinstance(value, Delay) and name == "server":
            what = f"{what}, worker {worker}"
        return Draws(value, seed, Purpose[name.upper()], worker, what)

    def presence(self, seed: int, worker: int) -> Presence:
        """Return when a worker is present, for a cluster with availability."""
        presence: Presence = self.availability.presence(
            worker, self.size, stream(seed, Purpose.AVAILABILITY, worker)
        )
        return presence

    def join_time(self, seed: int, worker: int) -> float:
        """Return the time at which a worker joins, in seconds."""
        return self._once(self.join, "join", seed, Purpose.JOIN, worker, default=0.0)

    def _once(self, value: Any, name: str, seed: int, purpose: Purpose, worker: int, default: float) -> float:
        if value is None:
            return default
        if isinstance(value, tuple):
            return float(value[worker])
        draw = value.sample(stream(seed, purpose, worker), 1)
        return float(checked_draws(draw, f"{name} of worker {worker}", 0)[0])


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _block(block: Any, speed: float, what: str, first: int) -> Any:
    block = checked_draws(block, what, first)
    whole = len(block) == BLOCK
    if whole and not block.any():
        raise ValueError(f"{what} drew {BLOCK} times 0: time would never advance")
    if speed == 1.0:
        return block
    what = f"{what}, divided by its speed {speed!r}"
    with np.errstate(over="ignore", under="ignore"):
        times = checked_draws(block / speed, what, first)
    if whole and not times.any():
        raise ValueError(f"{what}, is {BLOCK} times 0: time would not advance")
    return times


def _plain(value: Any) -> Any:
    if isinstance(value, Availability):
        return AVAILABILITIES.to_table(value)
    if isinstance(value, Network):
        return value.table()
    return as_table(value)
