from .analysis import (
    fit_delays as fit_delays,
    fit_staleness as fit_staleness,
    plot_curves as plot_curves,
    report as report,
)
from .models import Problem as Problem, list_datasets as list_datasets, list_models as list_models
from .policies import (
    Async as Async,
    KAsync as KAsync,
    KBatchAsync as KBatchAsync,
    KBatchSync as KBatchSync,
    KSync as KSync,
    Sync as Sync,
    methods as methods,
)
from .simulator import (
    Budget as Budget,
    Cluster as Cluster,
    Deterministic as Deterministic,
    Empirical as Empirical,
    Experiment as Experiment,
    Exponential as Exponential,
    Gamma as Gamma,
    LogNormal as LogNormal,
    MLflow as MLflow,
    Pareto as Pareto,
    Range as Range,
    Record as Record,
    Result as Result,
    ShiftedExponential as ShiftedExponential,
    SweepResult as SweepResult,
    TensorBoard as TensorBoard,
    Trace as Trace,
    Uniform as Uniform,
    Weibull as Weibull,
    from_toml as from_toml,
    load as load,
    load_experiment as load_experiment,
    processes as processes,
    replay as replay,
    run as run,
    simulate as simulate,
    sweep as sweep,
)

__version__: str
