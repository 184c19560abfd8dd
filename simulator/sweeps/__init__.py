"""Sweeps: many experiments, the store of their results, and their executors."""
