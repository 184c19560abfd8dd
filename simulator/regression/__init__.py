"""Convergence checks: recordings of how experiments converge, and comparisons with them later.

Like the command line, this package uses all others; only the command line and the pytest plugin use it.
"""

from stalegrad.simulator.regression.plan import Plan
from stalegrad.simulator.regression.recording import RecordedRun, Recording, record
from stalegrad.simulator.regression.verdict import Check, compare

__all__ = ["Check", "Plan", "RecordedRun", "Recording", "compare", "record"]
