"""Experiments: their specs, what a run does, its result and its identity."""
