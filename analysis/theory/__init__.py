"""Theory: expected runtimes, staleness and errors, to compare simulations with.

Closed forms, quadrature and bounds, computed from delays, synchronies and constants of problems.
Not allowed: matplotlib, simulation, and imports of plots, fits or reports.
"""
