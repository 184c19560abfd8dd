"""Random streams: one per worker and purpose, and what is drawn from them in blocks."""

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
"""A number, or a delay that it is drawn from; what may stand for a delay is turned into one."""


class Purpose(IntEnum):
    """What a random stream is for. Every worker has its own stream per purpose, but SHARED ones are common."""

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
    """Return the random stream of one worker for one purpose; nobody else ever draws from it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, worker)))


def checked_draws(block: npt.ArrayLike, what: str, first: int) -> Floats:
    """Return draws as an array of floats.

    Args:
        block: the draws.
        what: what they are, for the error, e.g. ``compute of worker 3``.
        first: the number of the first.

    Raises:
        ValueError: naming the first draw that is negative or not finite.
    """
    block = np.asarray(block, float)
    if not 0.0 <= block.min(initial=0.0) <= block.max(initial=0.0) < math.inf:  # NaN compares false
        bad = ~(np.isfinite(block) & (block >= 0))
        at = int(np.argmax(bad))
        raise ValueError(f"{what}: draw {first + at} is {block[at]}; allowed are finite values of at least 0")
    return block


def number_or_delay(where: str, value: object) -> float | Delay:
    """Return a number of at least 0, or a delay that is not always the same number.

    Args:
        where: what it is, for the error.
        value: a number, or what may stand for a delay.

    Raises:
        ValueError: for anything else, or a delay that depends on the clock, naming it.
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
    """Raise ValueError, naming the worker, if a delay of several workers has none for one of them."""
    if isinstance(value, Delay) and type(value).of_worker is not Delay.of_worker:
        for worker in range(workers):
            try:
                value.of_worker(worker)
            except ValueError as error:
                raise ValueError(f"{where}, worker {worker}: {error}") from None


class Draws:
    """The values of one worker for one purpose, one after the other.

    Args:
        value: a number, which is always the value, or a delay.
        seed: of the run.
        purpose: of the stream that a delay is drawn from.
        worker: whose.
        what: what they are, for errors.

    Attributes:
        what: as given.
        next: returns the next value.
        negligible: a random value up to this, 10^-9 of the mean of the block that it is one of, may be lost in the
            rounding of the clock; a number may not.
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
