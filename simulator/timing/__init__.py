"""Timing: clusters, random delays, the SimPy engine and the trace that it returns. No JAX and no model."""
