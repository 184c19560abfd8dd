"""Fits: distributions of measured times and of staleness, estimated from samples.

They return tables, parameters, and delays for ``Cluster``.
Not allowed: matplotlib at the top of a file, and imports of theory or reports; pictures are drawn in plots.
"""
