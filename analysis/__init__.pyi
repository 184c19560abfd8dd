from .fits.delays import DelayFit as DelayFit, fit_delays as fit_delays
from .fits.staleness import StalenessFit as StalenessFit, fit_staleness as fit_staleness
from .fits.stragglers import Stragglers as Stragglers, stragglers as stragglers
from .plots.anatomy import plot_anatomy as plot_anatomy, plot_dropped as plot_dropped
from .plots.busy import plot_busy as plot_busy
from .plots.curves import plot_curves as plot_curves
from .plots.difference import plot_difference as plot_difference
from .plots.frontier import plot_pareto as plot_pareto
from .plots.in_transit import plot_in_transit as plot_in_transit
from .plots.perfetto import to_perfetto as to_perfetto
from .plots.shards import plot_shards as plot_shards
from .plots.staleness import plot_staleness as plot_staleness
from .plots.staleness_time import (
    plot_staleness_map as plot_staleness_map,
    plot_staleness_time as plot_staleness_time,
)
from .plots.timeline import plot_timeline as plot_timeline
from .plots.what_if import plot_what_if as plot_what_if
from .reports.report import Report as Report, report as report
from .statistics.curves import Histories as Histories, mean_curves as mean_curves, on_grid as on_grid
from .statistics.frontier import pareto as pareto
from .statistics.method_table import comparison as comparison
from .statistics.paired import (
    SeededHistories as SeededHistories,
    paired_difference as paired_difference,
    speedups as speedups,
)
from .statistics.side_by_side import side_by_side as side_by_side
from .statistics.staleness import staleness_table as staleness_table
from .statistics.targets import to_target as to_target
from .theory.constants import (
    Constants as Constants,
    measured_gamma as measured_gamma,
    measured_noise as measured_noise,
    measured_p0 as measured_p0,
    quadratic_constants as quadratic_constants,
    ridge_constants as ridge_constants,
    softmax_constants as softmax_constants,
)
from .theory.error_bounds import (
    ErrorBound as ErrorBound,
    mind_the_step_learning_rate as mind_the_step_learning_rate,
    mind_the_step_updates as mind_the_step_updates,
)
from .theory.mindflayer import (
    MindFlayerParameters as MindFlayerParameters,
    mindflayer_parameters as mindflayer_parameters,
)
from .theory.parameters import (
    BirchParameters as BirchParameters,
    Parameters as Parameters,
    async_learning_rate as async_learning_rate,
    birch_parameters as birch_parameters,
    delay_adaptive_learning_rates as delay_adaptive_learning_rates,
    malenia_parameters as malenia_parameters,
    rennala_parameters as rennala_parameters,
    ringleader_parameters as ringleader_parameters,
    ringmaster_parameters as ringmaster_parameters,
)
from .theory.rollouts import (
    RolloutStaleness as RolloutStaleness,
    expected_rollout_staleness as expected_rollout_staleness,
)
from .theory.runtime import (
    Estimate as Estimate,
    expected_speedup as expected_speedup,
    expected_staleness as expected_staleness,
    expected_update_time as expected_update_time,
    fresh_probability as fresh_probability,
    longer_when_new as longer_when_new,
    throughput as throughput,
)
from .theory.time_bounds import (
    TimeBound as TimeBound,
    optimal_time_heterogeneous as optimal_time_heterogeneous,
    optimal_time_homogeneous as optimal_time_homogeneous,
    rennala_time as rennala_time,
    ringleader_round_time as ringleader_round_time,
    ringleader_rows as ringleader_rows,
    ringmaster_time as ringmaster_time,
)
from .theory.tree_distance import tree_distance as tree_distance
