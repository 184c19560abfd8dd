"""Plots: functions that take finished data and return matplotlib Axes, and one export to trace viewers.

They may use statistics and the results of fits. Every picture uses the styles of methods in ``style.py``.
Not allowed: statistics, pyplot or other global state, and imports of theory or reports.
"""
