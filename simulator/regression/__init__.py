"""Checks: record how experiments converge, and tell later whether they still do. A door, as the command line is:
it uses everything, and only the command line and the pytest plugin use it."""

from stalegrad.simulator.regression.plan import Plan
from stalegrad.simulator.regression.recording import RecordedRun, Recording, record
from stalegrad.simulator.regression.verdict import Check, compare

__all__ = ["Check", "Plan", "RecordedRun", "Recording", "compare", "record"]
