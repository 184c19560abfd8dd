"""Conversions of delays: from the values that may stand for a delay, and to tables."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import scipy

from stalegrad._core.delay import Delay
from stalegrad.simulator.timing.delays.external import Function, Scipy
from stalegrad.simulator.timing.delays.parametric import Deterministic
from stalegrad.simulator.timing.delays.registry import DELAYS


def as_table(value: Any) -> Any:
    """Return a field of a spec in the form of TOML: delays as tables, tuples as lists, others unchanged.

    Raises:
        ValueError: if a delay exists in this process only.
    """
    if isinstance(value, Delay):
        return DELAYS.to_table(value)
    return [as_table(inner) for inner in value] if isinstance(value, tuple | list) else value


def as_delay(value: Any) -> Delay:
    """Return the delay that a value stands for.

    Args:
        value: a :class:`Delay`; a number (deterministic seconds); a frozen ``scipy.stats`` distribution; a
            function ``f(rng, size)``; or a table as in TOML, ``{"delay": "exponential", "scale": 1.0}``.

    Raises:
        ValueError: for any other value; it names the value.
    """
    if isinstance(value, Delay):
        return value
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a delay: give e.g. Exponential(1.0)")
    if isinstance(value, Real):
        return Deterministic(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        delay: Delay = DELAYS.from_table(value)
        return delay
    if hasattr(value, "dist") and hasattr(value, "kwds"):
        shapes = [name.strip() for name in (value.dist.shapes or "").split(",") if name.strip()]
        names = [*shapes, "loc", "scale"]
        return Scipy(value.dist.name, {**dict(zip(names, value.args, strict=False)), **value.kwds})
    if isinstance(value, scipy.stats.rv_continuous | scipy.stats.rv_discrete):
        raise ValueError(
            f"{value!r} is not frozen: call it with its parameters, e.g. scipy.stats.expon(scale=2.0)"
        )
    if callable(value):
        return Function(value)
    raise ValueError(f"{value!r} is not a delay: give e.g. Exponential(1.0)")


def always_zero(delay: Delay) -> bool:
    """Return whether a delay is known to be always 0 seconds."""
    if isinstance(delay, Scipy):
        return bool(delay.distribution().sf(0.0) == 0)
    return isinstance(delay, Deterministic) and delay.value == 0
