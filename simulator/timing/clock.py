"""The clock of a simulation: float64 seconds, which of them count as equal, and when the clock stands still."""

from __future__ import annotations

import gc
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOLERANCE = 1e-12
"""Times that differ by at most this part of their magnitude count as equal where a budget ends, where a row of the
history is due and where a trace is verified: sums of float64 times differ from what was meant by rounding only."""

NEGLIGIBLE = 1e-9
"""A random compute time that is lost in the clock's rounding counts as 0 up to this part of the worker's mean."""

READS = 512
"""A worker reads at most this many times at one moment: beyond that, simulated time does not advance."""


def reach(wallclock: float) -> float:
    """Return the last moment that counts as ``wallclock`` (seconds): that, and :data:`TOLERANCE` of it."""
    return min(wallclock * (1.0 + TOLERANCE), sys.float_info.max)


def are_seconds(value: object) -> bool:
    """Return whether a number of Python is finite seconds of at least 0."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= sys.float_info.max


def check_advance(now: float, delay: float, what: str, negligible: float = 0.0) -> None:
    """Check that the clock can represent a delay.

    Args:
        now: simulated seconds.
        delay: seconds until something happens; 0 is allowed.
        what: whose delay it is, for the error, e.g. ``uplink of cluster``.
        negligible: seconds up to which a delay may be lost in rounding and then counts as 0.

    Raises:
        ValueError: if ``now + delay`` overflows, or is ``now`` although the delay is longer than negligible.
    """
    later = now + delay
    if later == now and delay > negligible:
        raise ValueError(
            f"{what} = {delay!r} s is not allowed at {now!r} s: the clock, a float64, would not advance; its "
            f"steps there are {math.ulp(now):.3g} s"
        )
    if not later < math.inf:
        raise ValueError(
            f"{what} = {delay!r} s is not allowed at {now!r} s: the clock, a float64, would pass "
            f"{sys.float_info.max:.3g} s"
        )


class _Collector:
    """How many simulations of this process ask for no full garbage collections, and what held before."""

    lock = threading.Lock()
    simulations = 0
    thresholds = (0, 0, 0)


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Let the garbage collector look at young objects only, among which a simulation's garbage is.

    To walk over all that JAX and pandas hold, again and again, can take as long as the simulation itself. Threads
    may simulate at the same time: the first to begin changes the thresholds, the last to end restores them.
    """
    with _Collector.lock:
        if _Collector.simulations == 0:
            _Collector.thresholds = gc.get_threshold()
            gc.set_threshold(*_Collector.thresholds[:2], 1 << 30)
        _Collector.simulations += 1
    try:
        yield
    finally:
        with _Collector.lock:
            _Collector.simulations -= 1
            if _Collector.simulations == 0:
                gc.set_threshold(*_Collector.thresholds)
