"""What users look at: curves, staleness, timelines and tables, and the theory to set beside them.

Everything here takes finished data, or laws of times and constants of problems, and gives numbers or matplotlib
``Axes``. Nothing of the simulator but its laws of times, nothing of the policies or the models may be imported, no
model is trained, no global matplotlib state is touched.
"""

from stalegrad.analysis.fits.delay_fit import DelayFit, fit_delays
from stalegrad.analysis.fits.staleness_fit import StalenessFit, fit_staleness
from stalegrad.analysis.plots.busy import plot_busy
from stalegrad.analysis.plots.curves import Histories, mean_curves, on_grid, plot_curves
from stalegrad.analysis.plots.frontier import pareto, plot_pareto
from stalegrad.analysis.plots.perfetto import to_perfetto
from stalegrad.analysis.plots.staleness import plot_staleness, staleness_table
from stalegrad.analysis.plots.staleness_time import plot_staleness_map, plot_staleness_time
from stalegrad.analysis.plots.timeline import plot_timeline
from stalegrad.analysis.reports.report import Report, report
from stalegrad.analysis.statistics.paired import SeededHistories, paired_difference, plot_difference, speedups
from stalegrad.analysis.statistics.tables import comparison
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
