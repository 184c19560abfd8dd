"""Replay: the lowering of a trace to array operations, and their execution on a problem with a rule, in JAX."""
