"""The recorder of a parameter server of one's own: four calls at four moments make a trace."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from stalegrad._core.specs import NonNegativeInt, PositiveInt, builtin, shown, validate
from stalegrad.simulator.timing.trace import Trace


class Moments(NamedTuple):
    """What is known of the messages: one entry per token, NaN or -1 where something has not happened."""

    worker: list[int | str]
    version: list[int]
    steps: list[int]
    read: list[float]
    finish: list[float]
    receive: list[float]
    apply: list[float]
    update: list[int]


class TraceRecorder:
    """A recorder of what a parameter server does, in any framework; threads may use it at the same time.

    The server calls it at the four moments of a message. A token is a whole number, which may travel with the
    model and come back with the gradient. The version that a worker reads is the number of updates recorded
    before: hold the server's own lock while parameters are copied and ``read`` is called, and while they are
    changed and ``apply`` is called.

    Args:
        clock: returns seconds; it must not go backwards. The default is the same in all processes of a machine, so
            that a process may note a moment and the server pass it as ``at``.

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
        """Record that a worker is given a model, from which it computes one message.

        A message of it that was not finished counts as cancelled.

        Args:
            worker: a number from 0 on, or a name.
            steps: mini-batch gradients that the message will consist of.
            version: that it is given, if it is not the newest.
            at: when, in seconds of the clock; default: now.

        Returns:
            The token of the message.

        Raises:
            ValueError: for a value that is not allowed, a time before the worker's latest.
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
                        f"worker {worker} cannot read at {moment!r} s: it was at work at {latest!r} s"
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
        """Record that a message has been computed; without this call, it was when it was received.

        Raises:
            ValueError: for a token that is not known, or of which this was recorded already.
        """
        with self._lock:
            self._finish(self._known(token), self._at(at))

    def receive(self, token: int, *, at: float | None = None) -> None:
        """Record that the server has a message; without this call, it was when it was applied.

        Raises:
            ValueError: for a token that is not known, or of which this was recorded already.
        """
        with self._lock:
            self._receive(self._known(token), self._at(at))

    def apply(self, tokens: Iterable[int], *, at: float | None = None) -> int:
        """Record an update: that the server has changed the parameters by these messages.

        Messages that are never applied count as discarded if an update was made after they were received.

        Args:
            tokens: of the messages, one at least.
            at: when the new version appeared, in seconds of the clock; default: now.

        Returns:
            The index of the update: 0, 1, ...

        Raises:
            ValueError: for no tokens, a token that is not known, twice the same, or one that was applied before.
        """
        with self._lock:
            moment, m, given = self._at(at), self._moments, [self._known(token) for token in tokens]
            if not given or len(set(given)) < len(given):
                raise ValueError(f"tokens = {shown(given)} is not allowed: give one at least, each of them once")
            if self._updates and moment < self._updates[-1]:
                raise ValueError(
                    f"at = {moment!r} s is not allowed: the last update was at {self._updates[-1]!r} s"
                )
            for token in given:  # all are checked before any is changed
                self._check_open(token, moment)
            for token in given:
                if math.isnan(m.receive[token]):
                    self._receive(token, moment)
                m.apply[token], m.update[token] = moment, len(self._updates)
            self._updates.append(moment)
            return len(self._updates) - 1

    def trace(self) -> Trace:
        """Return the trace so far, verified; the first read is at 0 s.

        Raises:
            ValueError: if nothing was read.
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

        That is by (update, receive_time, worker): the order of mini-batches that ``replay(batches=...)`` takes.
        """
        m = self._snapshot()
        keys = zip(m.update, m.receive, m.worker, range(len(m.worker)), strict=True)
        return [key[-1] for key in sorted(key for key in keys if key[0] >= 0)]  # type: ignore[type-var]

    def _snapshot(self) -> Moments:
        with self._lock:
            return Moments(*([*column] for column in self._moments))  # type: ignore[arg-type]

    def _at(self, at: float | None) -> float:
        """Return a moment: now, or as given."""
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
        """Raise ValueError if a message was given up, was applied, or was not yet there at a moment."""
        m = self._moments
        if token in self._given_up:
            raise ValueError(
                f"token {token} was given up when its worker {m.worker[token]} read again: give workers that "
                "compute at the same time names of their own"
            )
        if m.update[token] >= 0:
            raise ValueError(f"token {token} was applied already, by update {m.update[token]}")
        latest = max(t for t in (m.read[token], m.finish[token], m.receive[token]) if not math.isnan(t))
        if moment < latest:
            raise ValueError(f"token {token} cannot be there at {moment!r} s: it was last seen at {latest!r} s")

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
