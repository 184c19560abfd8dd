"""Algorithms: who waits for whom (synchrony) and what a stale gradient is worth (rules).

Knows no clock, no model and no data. Order of reading: specs, synchrony, schedules, corrections,
weights, work, optimizers, momentum, rules, methods.
"""

from stalegrad.policies import methods
from stalegrad.policies.methods import Method
from stalegrad.policies.rules import Rule
from stalegrad.policies.schedules import Constant, Cosine, InverseSqrt, Schedule, StepDecay
from stalegrad.policies.synchrony import (
    SSP,
    Async,
    Decision,
    DelayedAveraging,
    DelayedAveragingGeneral,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Sequential,
    Sync,
    Synchrony,
)

__all__ = [
    "SSP",
    "Async",
    "Constant",
    "Cosine",
    "Decision",
    "DelayedAveraging",
    "DelayedAveragingGeneral",
    "InverseSqrt",
    "KAsync",
    "KBatchAsync",
    "KBatchSync",
    "KSync",
    "Method",
    "Rule",
    "Schedule",
    "Sequential",
    "StepDecay",
    "Sync",
    "Synchrony",
    "methods",
]
