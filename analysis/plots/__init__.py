"""Plots: take finished data, return matplotlib Axes."""
