"""The registry of delays, what may stand for one, and delays as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from numbers import Real
from typing import Any

from scipy import stats

from stalegrad._core.delays import Delay
from stalegrad._core.functions import name_of
from stalegrad._core.specs import from_table, kebab
from stalegrad.simulator.timing.delays.external import Function, Scipy
from stalegrad.simulator.timing.delays.measured import INLINE_SAMPLES, Empirical
from stalegrad.simulator.timing.delays.parametric import (
    Deterministic,
    Erlang,
    Exponential,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    ShiftedExponential,
    TwoLevelGamma,
    Uniform,
    Weibull,
)

LAWS: dict[str, type[Any]] = {
    kebab(cls.__name__): cls
    for cls in (
        Deterministic, Exponential, ShiftedExponential, Pareto, Gamma, Erlang, HyperExponential, LogNormal,
        Weibull, Uniform, TwoLevelGamma, Empirical, Scipy, Function,
    )
}  # fmt: skip


def as_delay(value: Any) -> Delay:
    """Return the law that a user meant.

    Args:
        value: a :class:`Delay`; a number (deterministic seconds); a frozen ``scipy.stats`` distribution; a
            function ``f(rng, size)``; or a table as in TOML, ``{"law": "exponential", "scale": 1.0}``.

    Raises:
        ValueError: for anything else, naming it.
    """
    if isinstance(value, Delay):
        return value
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a law of times: give e.g. Exponential(1.0)")
    if isinstance(value, Real):
        return Deterministic(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        law: Delay = from_table("law", value, LAWS, "law")
        return law
    if hasattr(value, "dist") and hasattr(value, "kwds"):
        shapes = [name.strip() for name in (value.dist.shapes or "").split(",") if name.strip()]
        names = [*shapes, "loc", "scale"]
        return Scipy(value.dist.name, {**dict(zip(names, value.args, strict=False)), **value.kwds})
    if isinstance(value, stats.rv_continuous | stats.rv_discrete):
        raise ValueError(
            f"{value!r} is not frozen: call it with its parameters, e.g. scipy.stats.expon(scale=2.0)"
        )
    if callable(value):
        return Function(value)
    raise ValueError(f"{value!r} is not a law of times: give e.g. Exponential(1.0)")


def delay_table(delay: Delay) -> dict[str, Any]:
    """Return a law as the table that :func:`as_delay` reads back.

    Raises:
        ValueError: if the law only exists in this process (a lambda, a class of your own).
    """
    name = kebab(type(delay).__name__)
    if LAWS.get(name) is not type(delay):
        raise ValueError(f"{delay!r} is a class of your own: it runs, but cannot be written to a spec")
    table: dict[str, Any] = {"law": name}
    for field in fields(delay):  # type: ignore[arg-type]
        value = getattr(delay, field.name)
        if value is None or value == ():
            continue
        table[field.name] = list(value) if isinstance(value, tuple) else value
    if isinstance(delay, Scipy):
        table["parameters"] = dict(delay.parameters)
    if isinstance(delay, Empirical) and len(delay.samples) > INLINE_SAMPLES:
        raise ValueError(
            f"empirical with {len(delay.samples)} samples cannot stand in a spec (at most {INLINE_SAMPLES}): "
            "write them to a file, one a line, and use Empirical(file=...), or use Empirical.thinned(samples)"
        )
    if isinstance(delay, Function):
        table["function"] = name_of(delay.function)
    return table
