"""Timing: clusters, random delays, the SimPy engine and the trace it leaves. No JAX, no model in here."""
