"""What users look at: curves, staleness, timelines and tables, read from traces and histories.

Everything here takes finished data and gives numbers or matplotlib ``Axes``. Nothing of the simulator (but its
laws of delay), the policies or the models may be imported, no model is trained, no global matplotlib state is
touched.
"""

from stalegrad.analysis.curves import Histories, on_grid, plot_curves, to_target
from stalegrad.analysis.delay_fit import DelayFit, fit_delays
from stalegrad.analysis.staleness import plot_staleness, staleness_table
from stalegrad.analysis.staleness_fit import StalenessFit, fit_staleness
from stalegrad.analysis.tables import comparison
from stalegrad.analysis.timeline import plot_timeline

__all__ = [
    "DelayFit",
    "Histories",
    "StalenessFit",
    "comparison",
    "fit_delays",
    "fit_staleness",
    "on_grid",
    "plot_curves",
    "plot_staleness",
    "plot_timeline",
    "staleness_table",
    "to_target",
]
