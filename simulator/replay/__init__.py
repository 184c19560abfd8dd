"""Replay: lowers a trace to a schedule and runs it on a problem with a rule, in JAX."""
