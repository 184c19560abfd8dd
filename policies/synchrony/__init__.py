"""Who waits for whom, and who is cancelled: the synchrony of a method. One file per family; no clock in here."""

from stalegrad._core.registry import Registry
from stalegrad._core.specs import NonNegativeFloat, PositiveFloat, PositiveInt
from stalegrad.policies.synchrony.all_workers import AsyncAfterAll, Malenia, Ringleader
from stalegrad.policies.synchrony.asynchronous import Async, Dylu, KAsync, KBatchAsync
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.bounded import SSP, BoundedStaleness
from stalegrad.policies.synchrony.constant_delay import ConstantDelay
from stalegrad.policies.synchrony.deadlines import DropCompute, MindFlayer
from stalegrad.policies.synchrony.delayed_averaging import DelayedAveraging, DelayedAveragingGeneral
from stalegrad.policies.synchrony.programs import (
    ANNOUNCE,
    AWAIT,
    DISCARD,
    DROP,
    SEND,
    WAIT,
    Announced,
    Compute,
    Decision,
    Event,
    Free,
    Joined,
    Left,
    Pattern,
    Received,
    Rounds,
    Send,
    ServerProgram,
    Timeout,
    Worker,
    WorkerProgram,
)
from stalegrad.policies.synchrony.ringmaster import Ringmaster
from stalegrad.policies.synchrony.rollouts import Rollouts
from stalegrad.policies.synchrony.rounds import BackupWorkers, KBatchSync, KSync, Sync
from stalegrad.policies.synchrony.sequential import Sequential

SYNCHRONIES = Registry[type[Synchrony]](
    "synchrony",
    [
        Sync,
        KSync,
        BackupWorkers,
        KBatchSync,
        Async,
        KAsync,
        KBatchAsync,
        SSP,
        BoundedStaleness,
        Ringmaster,
        AsyncAfterAll,
        Malenia,
        Ringleader,
        MindFlayer,
        DropCompute,
        Dylu,
        ConstantDelay,
        Sequential,
        DelayedAveraging,
        DelayedAveragingGeneral,
        Rollouts,
    ],
)
"""The synchronies by name; ``SYNCHRONIES.register`` adds your own."""

__all__ = [
    "ANNOUNCE",
    "AWAIT",
    "DISCARD",
    "DROP",
    "SEND",
    "SSP",
    "SYNCHRONIES",
    "WAIT",
    "Announced",
    "Async",
    "AsyncAfterAll",
    "BackupWorkers",
    "BoundedStaleness",
    "Compute",
    "ConstantDelay",
    "Decision",
    "DelayedAveraging",
    "DelayedAveragingGeneral",
    "DropCompute",
    "Dylu",
    "Event",
    "Free",
    "Joined",
    "KAsync",
    "KBatchAsync",
    "KBatchSync",
    "KSync",
    "Left",
    "Malenia",
    "MindFlayer",
    "NonNegativeFloat",
    "Pattern",
    "PositiveFloat",
    "PositiveInt",
    "Received",
    "Ringleader",
    "Ringmaster",
    "Rollouts",
    "Rounds",
    "Send",
    "Sequential",
    "ServerProgram",
    "Sync",
    "Synchrony",
    "Timeout",
    "Worker",
    "WorkerProgram",
]
