"""Lowering of a trace to a list of array operations, as a compiler lowers variables to registers.

A version that a worker will read gets a *slot*. Version v is live from the update that creates it to the update
that last uses it (half-open), and slots are reused as soon as they are free, so memory grows with the number of
versions alive at once and not with the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stalegrad.simulator.timing.trace import Trace

Ints = npt.NDArray[np.int32]


class Jobs(NamedTuple):
    """All messages of a trace, of any fate, in the order in which their workers read.

    Attributes:
        worker: worker that computed each message, (messages,).
        steps: largest number of mini-batch gradients in a message.
        used: indices of the used messages, in the order of gradient ids.
    """

    worker: npt.NDArray[np.int64]
    steps: int
    used: npt.NDArray[np.int64]


class LoweredTrace(NamedTuple):
    """A trace in the form that the replay executes.

    The first axis of ``worker``, ``staleness``, ``read_version``, ``read_slot`` and ``batch`` is the gradient id
    (rank of a used message by update, receive time, worker); that of ``first``, ``write_slot`` and ``time`` is the
    update.

    Attributes:
        worker: worker that computed the message.
        staleness: number of updates between its read and its use.
        read_version: version at which it was computed.
        read_slot: slot of that version.
        batch: number of mini-batches used before this message; message i draws ``batch[i]`` and the following
            ones, one for each of its local steps.
        first: first gradient id of each update; one entry more than updates, so that update u consumes
            ``first[u]`` to ``first[u + 1] - 1``.
        initial_slot: slot of version 0.
        write_slot: slot of the version that an update makes.
        time: time of each update, in simulated seconds.
        steps: largest number of mini-batch gradients in a message.
        steps_of: number of mini-batch gradients in each message, (messages,); None if all have ``steps``.
        returned: whether each message is the first of its worker after a return, (messages,); None if none is.
        slots: largest number of versions live at once.
        scratch: whether some version that no worker reads found no free slot, so that one more slot is needed.
        jobs: all messages, including unused ones.
    """

    worker: Ints
    staleness: Ints
    read_version: npt.NDArray[np.int64]
    read_slot: Ints
    batch: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    initial_slot: int
    write_slot: Ints
    time: npt.NDArray[np.float64]
    steps: int
    slots: int
    scratch: bool
    jobs: Jobs
    steps_of: Ints | None = None
    returned: npt.NDArray[np.bool_] | None = None

    @property
    def bucket(self) -> int:
        """The number of slots to allocate, rounded up."""
        return bucket(self.slots + self.scratch)

    @property
    def updates(self) -> int:
        """The number of updates."""
        return len(self.time)

    @property
    def messages_per_update(self) -> int | None:
        """The number of messages that every update consumes, or None if it varies."""
        counts = np.unique(np.diff(self.first))
        return int(counts[0]) if len(counts) == 1 else None

    @property
    def always_fresh(self) -> bool:
        """Whether every gradient is computed at the current version (sync, K-sync)."""
        return not self.staleness.any()

    @property
    def gradients_before(self) -> npt.NDArray[np.int64]:
        """The number of mini-batch gradients used before each update, and in all: one entry more than updates."""
        if self.steps_of is None:
            return self.first * self.steps
        return np.append(0, np.cumsum(self.steps_of, dtype=np.int64))[self.first]


def lower(trace: Trace, live: Iterable[int] = ()) -> LoweredTrace:
    """Lower a trace.

    Args:
        trace: the trace (so far).
        live: versions that are needed after its end, if the trace continues. Lowering a longer part of the
            same trace then begins with the same slots.
    """
    used = trace.used
    update, read = trace.column("update")[used], trace.column("read_version")[used]
    steps = trace.column("steps")[used]
    most = int(steps.max(initial=1))
    updates = len(trace.update_times)
    first = np.searchsorted(update, np.arange(updates + 1))
    slot_of, slots, scratch = allocate(read, update, updates, live)
    return LoweredTrace(
        worker=trace.column("worker")[used].astype(np.int32),
        staleness=(update - read).astype(np.int32),
        read_version=read,
        read_slot=slot_of[read],
        batch=np.cumsum(steps, dtype=np.int64) - steps,
        first=first,
        initial_slot=int(slot_of[0]),
        write_slot=slot_of[1:],
        time=trace.update_times,
        steps=most,
        slots=slots,
        scratch=scratch,
        jobs=Jobs(trace.column("worker"), int(trace.column("steps").max(initial=1)), used),
        steps_of=None if (steps == most).all() else steps,
        returned=_returned(trace, used),
    )


def _returned(trace: Trace, used: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
    """Return whether each used message is the first of its worker after a return; None if none is."""
    away = trace.absences
    if away.empty:
        return None
    worker, read = trace.column("worker")[used], trace.column("read_time")[used]
    returned = np.zeros(len(used), bool)
    for index, absences in away.groupby("worker"):
        mine = np.flatnonzero(worker == index)
        stay = np.searchsorted(np.sort(absences["leave_time"]), read[mine], side="right")
        returned[mine[1:]] = stay[1:] > np.maximum.accumulate(stay)[:-1]
    return returned if returned.any() else None


def allocate(
    read: npt.NDArray[np.int64], update: npt.NDArray[np.int64], updates: int, live: Iterable[int] = ()
) -> tuple[Ints, int, bool]:
    """Give every version a slot, by liveness.

    Args:
        read: version read by each message.
        update: update that consumes each message.
        updates: number of updates; versions are 0 to ``updates``.
        live: versions needed after the last update.

    Returns:
        The slot of each version (a version that no worker reads gets any free slot, or the scratch slot
        ``slots``); the number of slots; whether the scratch slot is needed.
    """
    last_use = np.full(updates + 1, -1, np.int64)
    np.maximum.at(last_use, read, update)
    last_use[list(live)] = updates
    is_read = last_use >= 0
    kept, unread = np.flatnonzero(is_read), np.flatnonzero(~is_read)
    dying = kept[np.argsort(last_use[kept], kind="stable")]
    freed = np.searchsorted(last_use[dying], np.arange(updates + 1))  # slots freed before each version

    # A version takes the slot that has been free for longest, or a new one if all are in use.
    most = np.maximum.accumulate((np.cumsum(is_read) - freed)[kept])
    takes_new = np.diff(most, prepend=0) > 0
    slots = int(most[-1]) if len(kept) else 0
    slot_of = np.full(updates + 1, slots, np.int32)
    slot_of[kept[takes_new]] = np.arange(slots)
    heirs = kept[~takes_new]
    origin = np.arange(updates + 1)  # the version whose slot is reused; traced back to the first in that slot
    origin[heirs] = dying[: len(heirs)]
    while (slot_of[origin[heirs]] == slots).any():
        origin = origin[origin]
    slot_of = slot_of[origin]

    # A version that no worker reads takes a free slot, else the scratch slot, of which there is only one.
    taken = np.searchsorted(heirs, unread)
    has_room = taken < freed[unread]
    slot_of[unread[has_room]] = slot_of[dying[taken[has_room]]]
    return slot_of, max(slots, 1), slots > 0 and not has_room.all()


def windows(read_version: npt.NDArray[np.int64], longest: int) -> Ints:
    """Divide updates of one message each into windows whose messages can all be computed before one is applied.

    Args:
        read_version: versions that the messages read, counted from the version that the first update changes.
        longest: largest number of messages in a window.

    Returns:
        The start of each window, and the end of the last one.
    """
    count = len(read_version)
    start = np.arange(count)
    length = np.ones(count, int)
    for ahead in range(1, min(longest, count)):
        known = read_version[ahead:] <= start[: count - ahead]
        length[: count - ahead] += known & (length[: count - ahead] == ahead)
    starts, steps = [0], length.tolist()
    while starts[-1] < count:
        starts.append(starts[-1] + steps[starts[-1]])
    return np.array(starts, np.int32)


def bucket(slots: int) -> int:
    """Round up to 1, 2, 3, 4, 6, 8, 12, 16, ..., so that runs with other seeds can share compiled code."""
    power = 1 << (slots - 1).bit_length()
    return power * 3 // 4 if power > 2 and slots <= power * 3 // 4 else power
