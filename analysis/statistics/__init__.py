"""Statistics of histories and traces: means over seeds, targets, paired differences, comparisons of convergence.

The lowest of the rooms: functions from tables and arrays to tables and numbers, and the checks of their inputs.
What may not enter: matplotlib, and imports of plots, fits, theory or reports.
"""
