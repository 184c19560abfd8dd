"""Analysis: statistics, plots, fits, reports, and theory to compare them with.

Functions take finished data, or delays and constants of problems, and return numbers, matplotlib ``Axes`` or HTML.
What may not enter: the simulator (except its delays), policies and models. Data come through the protocols of
``stalegrad._core.protocols``. No model is trained, and no global state of matplotlib is touched.
"""

from stalegrad.analysis.fits.delays import DelayFit, fit_delays
from stalegrad.analysis.fits.staleness import StalenessFit, fit_staleness
from stalegrad.analysis.plots.busy import plot_busy
from stalegrad.analysis.plots.curves import plot_curves
from stalegrad.analysis.plots.difference import plot_difference
from stalegrad.analysis.plots.frontier import plot_pareto
from stalegrad.analysis.plots.perfetto import to_perfetto
from stalegrad.analysis.plots.staleness import plot_staleness
from stalegrad.analysis.plots.staleness_time import plot_staleness_map, plot_staleness_time
from stalegrad.analysis.plots.timeline import plot_timeline
from stalegrad.analysis.reports.report import Report, report
from stalegrad.analysis.statistics.comparison import comparison
from stalegrad.analysis.statistics.curves import Histories, mean_curves, on_grid
from stalegrad.analysis.statistics.frontier import pareto
from stalegrad.analysis.statistics.paired import SeededHistories, paired_difference, speedups
from stalegrad.analysis.statistics.staleness import staleness_table
from stalegrad.analysis.statistics.targets import to_target
from stalegrad.analysis.theory.constants import (
    Constants,
    measured_gamma,
    measured_noise,
    measured_p0,
    quadratic_constants,
    ridge_constants,
    softmax_constants,
)
from stalegrad.analysis.theory.error_bounds import ErrorBound, mind_the_step_learning_rate, mind_the_step_updates
from stalegrad.analysis.theory.runtime import (
    Estimate,
    expected_speedup,
    expected_staleness,
    expected_update_time,
    fresh_probability,
    longer_when_new,
    throughput,
)

__all__ = [
    "Constants",
    "DelayFit",
    "ErrorBound",
    "Estimate",
    "Histories",
    "Report",
    "SeededHistories",
    "StalenessFit",
    "comparison",
    "expected_speedup",
    "expected_staleness",
    "expected_update_time",
    "fit_delays",
    "fit_staleness",
    "fresh_probability",
    "longer_when_new",
    "mean_curves",
    "measured_gamma",
    "measured_noise",
    "measured_p0",
    "mind_the_step_learning_rate",
    "mind_the_step_updates",
    "on_grid",
    "paired_difference",
    "pareto",
    "plot_busy",
    "plot_curves",
    "plot_difference",
    "plot_pareto",
    "plot_staleness",
    "plot_staleness_map",
    "plot_staleness_time",
    "plot_timeline",
    "quadratic_constants",
    "report",
    "ridge_constants",
    "softmax_constants",
    "speedups",
    "staleness_table",
    "throughput",
    "to_perfetto",
    "to_target",
]
