"""A recorder for a user's parameter server: four calls at four moments make a trace."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stalegrad._core.specs import NonNegativeInt, PositiveInt, builtin, shown, validate
from stalegrad.simulator.timing.trace import Trace


class Moments(NamedTuple):
    """The records of the messages: one entry per token, NaN or -1 for an event that has not happened."""

    worker: list[int | str]
    version: list[int]
    steps: list[int]
    read: list[float]
    finish: list[float]
    receive: list[float]
    apply: list[float]
    update: list[int]


class TraceRecorder:
    """A recorder of the events of a parameter server, in any framework; threads may use it at the same time.

    The server calls it at the four moments of a message. A token is a whole number that can be sent with the model
    and returned with the gradient. The version that a worker reads is the number of updates recorded before: hold
    the server's own lock while parameters are copied and ``read`` is called, and while they are changed and
    ``apply`` is called.

    Args:
        clock: function that returns seconds and does not go backwards. The default clock is the same in all
            processes of a machine: a worker's process may take a time, and the server may pass it as ``at``.

    Example:
        >>> from stalegrad.simulator import TraceRecorder
        >>> seconds = iter([0.0, 0.5, 2.0, 2.25, 3.0])
        >>> recorder = TraceRecorder(clock=lambda: next(seconds))
        >>> token, late = recorder.read(0), recorder.read(1)
        >>> recorder.receive(token)
        >>> recorder.apply([token])
        0
        >>> recorder.trace().messages[["worker", "read_time", "receive_time", "fate"]]
           worker  read_time  receive_time     fate
        0       0        0.0           2.0     used
        1       1        0.5           NaN  pending
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._moments = Moments([], [], [], [], [], [], [], [])
        self._updates: list[float] = []
        self._current: dict[int | str, int] = {}
        self._given_up: set[int] = set()

    def read(
        self, worker: int | str, *, steps: int = 1, version: int | None = None, at: float | None = None
    ) -> int:
        """Record that a worker reads a model, from which it computes one message.

        An earlier message of the worker that is not finished counts as cancelled.

        Args:
            worker: number of the worker, from 0 on, or its name.
            steps: number of mini-batch gradients of the message.
            version: version that the worker reads; default: the newest.
            at: time, in seconds of the clock; default: now.

        Returns:
            The token of the message.

        Raises:
            ValueError: for a value that is not allowed, or a time before the worker's latest one.
        """
        worker = worker if isinstance(worker, str) and worker else validate("worker", NonNegativeInt, worker)
        steps = validate("steps", PositiveInt, steps)
        with self._lock:
            moment, m = self._at(at), self._moments
            newest = len(self._updates)
            version = newest if version is None else validate("version", NonNegativeInt, version)
            if version > newest:
                raise ValueError(f"version = {version} is not allowed: {newest} updates have been made")
            if m.worker and isinstance(worker, str) != isinstance(m.worker[0], str):
                raise ValueError(
                    f"worker = {worker!r} is not allowed beside {m.worker[0]!r}: all numbers, or all names"
                )
            token = len(m.worker)
            before = self._current.get(worker)
            if before is not None:
                latest = m.read[before] if math.isnan(m.finish[before]) else m.finish[before]
                if moment < latest:
                    raise ValueError(
                        f"worker {worker} cannot read at {moment!r} s: it was computing until {latest!r} s"
                    )
                if math.isnan(m.finish[before]):
                    m.finish[before] = moment
                    self._given_up.add(before)
            self._current[worker] = token
            values = (worker, version, steps, moment, math.nan, math.nan, math.nan, -1)
            for column, value in zip(m, values, strict=True):
                column.append(value)  # type: ignore[attr-defined]
            return token

    def finish(self, token: int, *, at: float | None = None) -> None:
        """Record that a message has been computed; without this call, it finishes when it is received.

        Raises:
            ValueError: for an unknown token, or a message that has finished already.
        """
        with self._lock:
            self._finish(self._known(token), self._at(at))

    def receive(self, token: int, *, at: float | None = None) -> None:
        """Record that the server has received a message; without this call, it is received when it is applied.

        Raises:
            ValueError: for an unknown token, or a message that has been received already.
        """
        with self._lock:
            self._receive(self._known(token), self._at(at))

    def apply(self, tokens: Iterable[int], *, at: float | None = None) -> int:
        """Record an update of the parameters by these messages.

        Messages that are never applied count as discarded if an update was made after they were received.

        Args:
            tokens: tokens of the messages, at least one.
            at: time at which the new version appeared, in seconds of the clock; default: now.

        Returns:
            The index of the update: 0, 1, ...

        Raises:
            ValueError: if there are no tokens, or for a token that is unknown, repeated, or applied already.
        """
        with self._lock:
            moment, m, given = self._at(at), self._moments, [self._known(token) for token in tokens]
            if not given or len(set(given)) < len(given):
                raise ValueError(f"tokens = {shown(given)} is not allowed: give at least one, each of them once")
            if self._updates and moment < self._updates[-1]:
                raise ValueError(
                    f"at = {moment!r} s is not allowed: the last update was at {self._updates[-1]!r} s"
                )
            for token in given:  # all are checked before one is changed
                self._check_open(token, moment)
            for token in given:
                if math.isnan(m.receive[token]):
                    self._receive(token, moment)
                m.apply[token], m.update[token] = moment, len(self._updates)
            self._updates.append(moment)
            return len(self._updates) - 1

    def trace(self) -> Trace:
        """Return the verified trace so far; its first read is at 0 s.

        Raises:
            ValueError: if no read was recorded.
        """
        import pandas as pd

        m = self._snapshot()
        if not m.worker:
            raise ValueError("nothing was read: there is no trace yet")
        times = {"read_time": m.read, "finish_time": m.finish, "receive_time": m.receive, "apply_time": m.apply}
        log = {"worker": m.worker, "read_version": m.version, **times, "update": m.update, "steps": m.steps}
        return Trace.from_log(pd.DataFrame(log), unit="s")

    def used(self) -> list[int]:
        """Return the tokens of the messages that were applied, in the order of gradient ids.

        The order is by (update, receive_time, worker), as for the mini-batches of ``replay(batches=...)``.
        """
        m = self._snapshot()
        keys = zip(m.update, m.receive, m.worker, range(len(m.worker)), strict=True)
        return [key[-1] for key in sorted(key for key in keys if key[0] >= 0)]  # type: ignore[type-var]

    def _snapshot(self) -> Moments:
        with self._lock:
            return Moments(*([*column] for column in self._moments))  # type: ignore[arg-type]

    def _at(self, at: float | None) -> float:
        """Return a time in seconds of the clock: ``at``, or now."""
        moment = builtin(self._clock() if at is None else at)
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not math.isfinite(moment):
            raise ValueError(f"at = {shown(moment)} is not allowed: give finite seconds of the clock")
        return float(moment)

    def _known(self, token: int) -> int:
        token = validate("token", NonNegativeInt, token)
        if token >= (count := len(self._moments.worker)):
            raise ValueError(f"token {token} is not known: there are {count}, counted from 0")
        return token

    def _check_open(self, token: int, moment: float) -> None:
        """Raise ValueError if a message was given up or applied, or has an event later than a moment."""
        m = self._moments
        if token in self._given_up:
            raise ValueError(
                f"token {token} was given up when its worker {m.worker[token]} read again: give different names "
                "to workers that compute at the same time"
            )
        if m.update[token] >= 0:
            raise ValueError(f"token {token} was applied already, by update {m.update[token]}")
        latest = max(t for t in (m.read[token], m.finish[token], m.receive[token]) if not math.isnan(t))
        if moment < latest:
            raise ValueError(f"token {token}: at = {moment!r} s is not allowed: its last event is at {latest!r} s")

    def _finish(self, token: int, moment: float) -> None:
        self._check_open(token, moment)
        if not math.isnan(self._moments.finish[token]):
            raise ValueError(f"token {token} was finished already")
        self._moments.finish[token] = moment

    def _receive(self, token: int, moment: float) -> None:
        self._check_open(token, moment)
        if not math.isnan(self._moments.receive[token]):
            raise ValueError(f"token {token} was received already")
        if math.isnan(self._moments.finish[token]):
            self._moments.finish[token] = moment
        self._moments.receive[token] = moment
