"""Fits: distributions of measured times and of staleness, estimated from samples.

They give tables, parameters, and delays that a cluster takes.
What may not enter: matplotlib at the top of a file, and imports of theory or reports; pictures are drawn in plots.
"""
