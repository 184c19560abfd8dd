from .experiments.experiment import (
    Experiment as Experiment,
    from_toml as from_toml,
    load_experiment as load_experiment,
)
from .experiments.observers import MLflow as MLflow, Observer as Observer, TensorBoard as TensorBoard
from .experiments.result import Result as Result
from .experiments.run import run as run
from .replays.record import Record as Record
from .replays.run import Replay as Replay, mini_batches as mini_batches, replay as replay
from .sweeps.axes import Range as Range
from .sweeps.comparison import Comparison as Comparison, compare as compare
from .sweeps.executors import processes as processes
from .sweeps.results import SweepResult as SweepResult, load as load
from .sweeps.sweep import sweep as sweep
from .timing.availability import (
    Availability as Availability,
    Counts as Counts,
    Events as Events,
    Renewal as Renewal,
)
from .timing.budget import Budget as Budget
from .timing.cluster import Cluster as Cluster
from .timing.columns import TraceError as TraceError
from .timing.delays import (
    Correlated as Correlated,
    Delay as Delay,
    Deterministic as Deterministic,
    Empirical as Empirical,
    Erlang as Erlang,
    Exponential as Exponential,
    Function as Function,
    Gamma as Gamma,
    HyperExponential as HyperExponential,
    LogNormal as LogNormal,
    MarkovModulated as MarkovModulated,
    Pareto as Pareto,
    Recorded as Recorded,
    Scipy as Scipy,
    Shared as Shared,
    ShiftedExponential as ShiftedExponential,
    TwoLevelGamma as TwoLevelGamma,
    Uniform as Uniform,
    Weibull as Weibull,
    measured_cv as measured_cv,
)
from .timing.engine import simulate as simulate
from .timing.links import Network as Network, between_regions as between_regions
from .timing.logs import (
    TraceRecorder as TraceRecorder,
    read_intervals as read_intervals,
    read_step_times as read_step_times,
    read_trace_events as read_trace_events,
)
from .timing.trace import Trace as Trace
from .whatif.answer import WhatIf as WhatIf
from .whatif.what_if import what_if as what_if
