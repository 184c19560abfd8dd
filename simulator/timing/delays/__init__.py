"""Delays: distributions of random times. One class each; the registry is in ``registry.py``."""

from stalegrad._core.delays import Delay
from stalegrad.simulator.timing.delays.external import Function, Scipy
from stalegrad.simulator.timing.delays.measured import Empirical
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
from stalegrad.simulator.timing.delays.registry import DELAYS, as_delay

__all__ = [
    "DELAYS",
    "Delay",
    "Deterministic",
    "Empirical",
    "Erlang",
    "Exponential",
    "Function",
    "Gamma",
    "HyperExponential",
    "LogNormal",
    "Pareto",
    "Scipy",
    "ShiftedExponential",
    "TwoLevelGamma",
    "Uniform",
    "Weibull",
    "as_delay",
]
