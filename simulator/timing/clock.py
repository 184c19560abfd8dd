"""The clock of a simulation: float64 seconds, which times count as equal, and when the clock cannot advance."""

from __future__ import annotations

import gc
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOLERANCE = 1e-12
"""Relative difference up to which times count as equal where a budget ends, where a row of the history is due and
where a trace is verified: sums of float64 times differ from the exact ones by rounding."""

NEGLIGIBLE = 1e-9
"""Fraction of a worker's mean compute time: a random time up to it may be lost in the clock's rounding."""

READS = 512
"""Reads of a worker at one moment, at most: beyond that, simulated time does not advance."""


def reach(wallclock: float) -> float:
    """Return the last time that counts as ``wallclock``, in seconds: ``wallclock * (1 + TOLERANCE)``."""
    return min(wallclock * (1.0 + TOLERANCE), sys.float_info.max)


def are_seconds(value: object) -> bool:
    """Return whether a value is a Python number of finite seconds, at least 0."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= sys.float_info.max


def check_advance(now: float, delay: float, what: str, negligible: float = 0.0) -> None:
    """Check that the clock can represent a delay.

    Args:
        now: simulated time in seconds.
        delay: seconds from now to the event; 0 is allowed.
        what: name of the delay in the error, e.g. ``uplink of cluster``.
        negligible: seconds up to which a delay may be lost in rounding and then counts as 0.

    Raises:
        ValueError: if ``now + delay`` overflows, or equals ``now`` although the delay exceeds ``negligible``.
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
    """Number of simulations in this process without full garbage collections, and the thresholds before them."""

    lock = threading.Lock()
    simulations = 0
    thresholds = (0, 0, 0)


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Restrict the garbage collector to young objects; a simulation's garbage is among them.

    Repeated passes over all objects of JAX and pandas can take as long as the simulation itself. Threads may
    simulate at the same time: the first to begin changes the thresholds, the last to end restores them.
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
