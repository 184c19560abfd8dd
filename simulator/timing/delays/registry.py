"""The registry of delays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalegrad._core.registry import Registry

if TYPE_CHECKING:
    from stalegrad._core.delay import Delay

DELAYS: Registry[type[Delay]] = Registry(
    "delay",
    {
        "deterministic": "stalegrad.simulator.timing.delays.parametric:Deterministic",
        "exponential": "stalegrad.simulator.timing.delays.parametric:Exponential",
        "shifted-exponential": "stalegrad.simulator.timing.delays.parametric:ShiftedExponential",
        "pareto": "stalegrad.simulator.timing.delays.parametric:Pareto",
        "gamma": "stalegrad.simulator.timing.delays.parametric:Gamma",
        "erlang": "stalegrad.simulator.timing.delays.parametric:Erlang",
        "hyper-exponential": "stalegrad.simulator.timing.delays.parametric:HyperExponential",
        "log-normal": "stalegrad.simulator.timing.delays.parametric:LogNormal",
        "weibull": "stalegrad.simulator.timing.delays.parametric:Weibull",
        "uniform": "stalegrad.simulator.timing.delays.parametric:Uniform",
        "two-level-gamma": "stalegrad.simulator.timing.delays.parametric:TwoLevelGamma",
        "empirical": "stalegrad.simulator.timing.delays.measured:Empirical",
        "recorded": "stalegrad.simulator.timing.delays.recorded:Recorded",
        "markov-modulated": "stalegrad.simulator.timing.delays.memory:MarkovModulated",
        "correlated": "stalegrad.simulator.timing.delays.memory:Correlated",
        "shared": "stalegrad.simulator.timing.delays.shared:Shared",
        "scipy": "stalegrad.simulator.timing.delays.external:Scipy",
        "function": "stalegrad.simulator.timing.delays.external:Function",
    },
    key="delay",
)
"""The delays by name; ``DELAYS.register`` adds your own, ``DELAYS.to_table`` writes one to a spec."""
