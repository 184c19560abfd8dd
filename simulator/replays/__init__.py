"""Replay: lower a trace to array operations and execute them on a problem with a rule, in JAX."""
