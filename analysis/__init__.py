"""What users look at: curves, staleness, timelines and tables, read from traces and histories.

Everything here takes finished data and gives numbers or matplotlib ``Axes``. Nothing of the simulator (but its
laws of delay), the policies or the models may be imported, no model is trained, no global matplotlib state is
touched.
"""

from stalegrad.analysis.busy import plot_busy
from stalegrad.analysis.curves import Histories, mean_curves, on_grid, plot_curves
from stalegrad.analysis.delay_fit import DelayFit, fit_delays
from stalegrad.analysis.frontier import pareto, plot_pareto
from stalegrad.analysis.paired import SeededHistories, paired_difference, plot_difference, speedups
from stalegrad.analysis.perfetto import to_perfetto
from stalegrad.analysis.reports import Report, report
from stalegrad.analysis.staleness import plot_staleness, staleness_table
from stalegrad.analysis.staleness_fit import StalenessFit, fit_staleness
from stalegrad.analysis.staleness_time import plot_staleness_map, plot_staleness_time
from stalegrad.analysis.tables import comparison
from stalegrad.analysis.targets import to_target
from stalegrad.analysis.timeline import plot_timeline

__all__ = [
    "DelayFit",
    "Histories",
    "Report",
    "SeededHistories",
    "StalenessFit",
    "comparison",
    "fit_delays",
    "fit_staleness",
    "mean_curves",
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
    "report",
    "speedups",
    "staleness_table",
    "to_perfetto",
    "to_target",
]
