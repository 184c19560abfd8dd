"""Mechanism: time, workers, events, and the replay of what they did. Knows no algorithm by name.

Three rooms: ``timing`` (delays, cluster, engine, trace), ``replay`` (schedule, step, run), ``sweeps`` (experiment,
result); and the doors: ``checks`` (does it still converge?), ``cli``, ``testing`` (the pytest plugin).
"""

from stalegrad.simulator.experiments.experiment import Experiment, from_toml, load_experiment
from stalegrad.simulator.experiments.observers import MLflow, Observer, TensorBoard
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.experiments.run import run
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.replays.run import Replay, replay
from stalegrad.simulator.sweeps.axes import Range
from stalegrad.simulator.sweeps.executors import processes
from stalegrad.simulator.sweeps.results import SweepResult, load
from stalegrad.simulator.sweeps.sweep import sweep
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import TraceError
from stalegrad.simulator.timing.delays import (
    Delay,
    Deterministic,
    Empirical,
    Erlang,
    Exponential,
    Function,
    Gamma,
    HyperExponential,
    LogNormal,
    Pareto,
    Scipy,
    ShiftedExponential,
    TwoLevelGamma,
    Uniform,
    Weibull,
)
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.trace import Budget, Trace

__all__ = [
    "Budget",
    "Cluster",
    "Delay",
    "Deterministic",
    "Empirical",
    "Erlang",
    "Experiment",
    "Exponential",
    "Function",
    "Gamma",
    "HyperExponential",
    "LogNormal",
    "MLflow",
    "Observer",
    "Pareto",
    "Range",
    "Record",
    "Replay",
    "Result",
    "Scipy",
    "ShiftedExponential",
    "SweepResult",
    "TensorBoard",
    "Trace",
    "TraceError",
    "TwoLevelGamma",
    "Uniform",
    "Weibull",
    "from_toml",
    "load",
    "load_experiment",
    "processes",
    "replay",
    "run",
    "simulate",
    "sweep",
]
