"""The log of a simulation's messages, and its conversion to the columns of a trace."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from stalegrad._core.types import Columns
from stalegrad.policies.synchrony import Received
from stalegrad.simulator.timing.columns import MESSAGE_COLUMNS, Fate

PENDING, CANCELLED, DISCARDED, LOST, USED = range(5)
"""Codes of fates in the log. The log writes no USED: a message is used if its ``update`` is at least 0."""

_NAMES = np.array([Fate.PENDING, Fate.CANCELLED, Fate.DISCARDED, Fate.LOST, Fate.USED], MESSAGE_COLUMNS["fate"])
_COLUMNS = (
    ("worker", "i", 0), ("read_version", "q", 0), ("read_time", "d", 0.0), ("finish_time", "d", math.nan),
    ("receive_time", "d", math.nan), ("update", "q", -1), ("steps", "i", 1), ("fate", "b", PENDING),
)  # fmt: skip
_BLOCK = 4096


class Message(simpy.Event, Received):
    """A message of the simulation: the SimPy event that ends its computation, and the event that the server gets.

    Attributes:
        number: number of messages begun before it, in the whole run.
        earlier: message before it in the same upload; None if there is none.
    """

    __slots__ = ("callbacks", "earlier", "number")

    callbacks: Any
    earlier: Message | None
    _ok = True
    _value = None

    def __init__(
        self, callbacks: tuple[Callable[[Message], None], ...], number: int, worker: int, version: int, steps: int
    ) -> None:
        self.callbacks = callbacks
        self.number, self.worker, self.read_version, self.steps = number, worker, version, steps

    __repr__ = Received.__repr__

    def gather(self) -> None:
        """Add the gradients of the earlier messages of the same upload to ``steps``."""
        message = self.earlier
        while message is not None:
            self.steps += message.steps
            message = message.earlier


class Log:
    """Columns of the messages begun so far, in the order in which they began; the rest holds default values.

    The engine writes into the arrays directly: this is its innermost loop.

    Attributes:
        count: number of messages begun.
        room: number of rows of the arrays.
    """

    worker: array[int]
    read_version: array[int]
    read_time: array[float]
    finish_time: array[float]
    receive_time: array[float]
    update: array[int]
    steps: array[int]
    fate: array[int]

    def __init__(self) -> None:
        self.count = self.room = 0
        for name, code, _ in _COLUMNS:
            setattr(self, name, array(code))

    def grow(self) -> None:
        """Add rows for more messages."""
        for name, code, default in _COLUMNS:
            getattr(self, name).extend(array(code, [default]) * _BLOCK)
        self.room += _BLOCK

    def note(self, column: array[Any], message: Message | None, value: float) -> None:
        """Write a value into a column, for a message and for the earlier ones of the same upload."""
        while message is not None:
            column[message.number] = value
            message = message.earlier

    def pending(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the messages that may still be used."""
        return np.flatnonzero((_view(self.fate, self.count) == PENDING) & (_view(self.update, self.count) < 0))

    def columns(self, end: float) -> Columns:
        """Return the columns of a trace that ends at ``end``, in seconds."""
        return columns_of({name: _view(getattr(self, name), self.count) for name, *_ in _COLUMNS}, end)


def columns_of(found: Columns, end: float) -> Columns:
    """Return the columns of a trace, without pending messages that were begun at its end.

    Args:
        found: columns of a log, as arrays: ``fate`` is a code, and the staleness is missing.
        end: end of the trace, in seconds.
    """
    used = found["update"] >= 0
    rows = np.flatnonzero(used | (found["fate"] != PENDING) | (found["read_time"] < end))
    found, used = {name: values[rows] for name, values in found.items()}, used[rows]
    found["staleness"] = np.where(used, found["update"] - found["read_version"], -1)
    found["fate"] = _NAMES[np.where(used, USED, found["fate"])]
    return {name: found[name] for name in MESSAGE_COLUMNS}


def _view(column: array[Any], count: int) -> np.ndarray:
    return np.frombuffer(column, column.typecode, count).copy()
