from .convert import always_zero as always_zero, as_delay as as_delay, as_table as as_table
from .external import Function as Function, Scipy as Scipy
from .measured import Empirical as Empirical
from .memory import Correlated as Correlated, MarkovModulated as MarkovModulated, Memory as Memory
from .parametric import (
    Delay as Delay,
    Deterministic as Deterministic,
    Erlang as Erlang,
    Exponential as Exponential,
    Gamma as Gamma,
    HyperExponential as HyperExponential,
    LogNormal as LogNormal,
    Pareto as Pareto,
    ShiftedExponential as ShiftedExponential,
    TwoLevelGamma as TwoLevelGamma,
    Uniform as Uniform,
    Weibull as Weibull,
)
from .recorded import Recorded as Recorded, measured_cv as measured_cv
from .registry import DELAYS as DELAYS
from .shared import Shared as Shared
