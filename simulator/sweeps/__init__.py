"""Sweeps: many experiments, the store of their results, and what executes them."""
