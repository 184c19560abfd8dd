"""Limits of clusters and traces."""

ROWS = 50_000_000
"""Largest number of rows of a table, unless more are allowed: about 5 GB of memory."""

MOST_WORKERS = 10_000_000
"""Largest number of workers of a cluster or a trace; each takes about 5 kB of memory in a simulation."""
