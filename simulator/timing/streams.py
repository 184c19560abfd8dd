"""Random streams, one per worker and purpose, and the values drawn from them in blocks."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from enum import IntEnum
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stalegrad._core.delay import Delay, Floats, RecordEndsError
from stalegrad._core.specs import NonNegativeFloat, builtin, shown, validate
from stalegrad.simulator.timing.clock import NEGLIGIBLE
from stalegrad.simulator.timing.delays import Deterministic, as_delay

Amount: TypeAlias = Any
"""A number, or a delay from which it is drawn; values that stand for a delay are converted."""


class Purpose(IntEnum):
    """The purpose of a random stream. Every worker has its own stream per purpose; SHARED streams are common."""

    COMPUTE = 0
    MACHINE = 1
    SPEED = 2
    JOIN = 3
    SHARED = 4
    AVAILABILITY = 10
    UPLINK = 20
    DOWNLINK = 21
    SERVER = 22
    SERVER_UPDATE = 23
    MESSAGE_BYTES = 24
    MODEL_BYTES = 25


def stream(seed: int, purpose: Purpose, worker: int) -> np.random.Generator:
    """Return the random stream of one worker for one purpose; nothing else draws from it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, worker)))


def checked_draws(block: npt.ArrayLike, what: str, first: int) -> Floats:
    """Return draws as an array of floats.

    Args:
        block: the draws.
        what: name of the draws in the error, e.g. ``compute of worker 3``.
        first: number of the first draw.

    Raises:
        ValueError: if a draw is negative or not finite; it names the first such draw.
    """
    block = np.asarray(block, float)
    if not 0.0 <= block.min(initial=0.0) <= block.max(initial=0.0) < math.inf:  # NaN compares false
        bad = ~(np.isfinite(block) & (block >= 0))
        at = int(np.argmax(bad))
        raise ValueError(f"{what}: draw {first + at} is {block[at]}; allowed are finite values of at least 0")
    return block


def number_or_delay(where: str, value: object) -> float | Delay:
    """Return a number of at least 0, or a delay; a deterministic delay becomes a number.

    Args:
        where: name of the value in the error.
        value: a number, or a value that stands for a delay.

    Raises:
        ValueError: for any other value, or a delay that depends on the clock; it names the value.
    """
    value = builtin(value)
    if isinstance(value, Real):
        number: float = validate(where, NonNegativeFloat, value)
        return number
    try:
        delay = as_delay(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if delay.clocked:
        raise ValueError(f"{where} = {shown(delay)} is not allowed: it depends on when a job begins")
    return delay.value if isinstance(delay, Deterministic) else delay


def check_workers(where: str, value: float | Delay, workers: int) -> None:
    """Raise ValueError, naming the worker, if a delay gives each worker its own times and lacks those of one."""
    if isinstance(value, Delay) and type(value).of_worker is not Delay.of_worker:
        for worker in range(workers):
            try:
                value.of_worker(worker)
            except ValueError as error:
                raise ValueError(f"{where}, worker {worker}: {error}") from None


class Draws:
    """The values of one worker for one purpose, one after another.

    Args:
        value: a number, which is the constant value, or a delay.
        seed: seed of the run.
        purpose: purpose of the stream from which a delay is drawn.
        worker: index of the worker.
        what: name of the values in errors.

    Attributes:
        what: name of the values in errors.
        next: function that returns the next value.
        negligible: largest value that may be lost in the rounding of the clock: 10^-9 of the mean of the current
            block of draws; 0 for a number.
    """

    __slots__ = ("_block", "_blocks", "_first", "negligible", "next", "what")

    next: Callable[[], float]

    def __init__(self, value: float | Delay, seed: int, purpose: Purpose, worker: int, what: str) -> None:
        self.what, self.negligible = what, 0.0
        if not isinstance(value, Delay):
            self.next = lambda: value
            return
        rng = stream(seed, purpose, worker)
        self._blocks, self._first = value.of_worker(worker).realise(rng).blocks(rng), 0
        self._block: Iterator[float] = iter(())
        self.next = self._draw

    def _draw(self) -> float:
        for value in self._block:
            return value
        try:
            block = checked_draws(next(self._blocks), self.what, self._first)
        except RecordEndsError as error:
            raise ValueError(f"{self.what}: draw {self._first} does not exist: {error}") from None
        self._first += len(block)
        self.negligible = NEGLIGIBLE * float((block / len(block)).sum())
        self._block = iter(array("d", block.tobytes()))
        return next(self._block)
