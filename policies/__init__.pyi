from . import methods as methods
from .method import Method as Method
from .rules import Rule as Rule, parts as parts
from .schedules import (
    Constant as Constant,
    Cosine as Cosine,
    InverseSqrt as InverseSqrt,
    Schedule as Schedule,
    StepDecay as StepDecay,
)
from .synchrony import (
    SSP as SSP,
    Async as Async,
    AsyncAfterAll as AsyncAfterAll,
    BackupWorkers as BackupWorkers,
    BoundedStaleness as BoundedStaleness,
    ConstantDelay as ConstantDelay,
    Decision as Decision,
    DelayedAveraging as DelayedAveraging,
    DelayedAveragingGeneral as DelayedAveragingGeneral,
    DropCompute as DropCompute,
    Dylu as Dylu,
    KAsync as KAsync,
    KBatchAsync as KBatchAsync,
    KBatchSync as KBatchSync,
    KSync as KSync,
    Malenia as Malenia,
    MindFlayer as MindFlayer,
    Ringleader as Ringleader,
    Ringmaster as Ringmaster,
    Rollouts as Rollouts,
    Sequential as Sequential,
    Sync as Sync,
    Synchrony as Synchrony,
)
