"""Limits of clusters and traces."""

ROWS = 50_000_000
"""Rows that a table may hold unless more are allowed: about 5 GB of memory."""

MOST_WORKERS = 10_000_000
"""Workers of a cluster or a trace at most; each takes about 5 kB of memory in a simulation."""
