"""Delays: distributions of random times. One class each; the registry is in ``convert.py``."""

from stalegrad._core.delays import Delay
from stalegrad.simulator.timing.delays.convert import LAWS, as_delay, delay_table
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

__all__ = [
    "LAWS",
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
    "delay_table",
]
