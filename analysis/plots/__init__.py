"""Plots: functions that take finished data and return matplotlib Axes, and one export to trace viewers.

They may use statistics and the results of fits. Every picture takes the style of a method from ``style.py``.
What may not enter: statistics, pyplot or other global state, and imports of theory or reports.
"""
