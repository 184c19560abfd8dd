"""Statistics of histories and traces: means over seeds, targets, paired differences, comparisons of convergence.

Functions from tables and arrays to tables and numbers, and checks of their inputs, for all packages of analysis.
Not allowed: matplotlib, and imports of plots, fits, theory or reports.
"""
