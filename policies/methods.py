"""The methods: named pairs of a synchrony and a rule, each with the paper it comes from.

A new method is one more line here, or a call of :func:`register` elsewhere. Called, it gives a
:class:`~stalegrad.policies.method.Method`: for example ``methods.k_async(k=4)``.

Example:
    >>> from stalegrad.policies import methods
    >>> method = methods.k_async(k=4, learning_rate=0.05)
    >>> method.name, method.synchrony.k
    ('k-async', 4)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stalegrad._core.registry import Registry
from stalegrad.policies.controllers import AdaComm, AdaSync, Controller
from stalegrad.policies.method import Method, MethodInfo
from stalegrad.policies.rules import (
    Rule,
    dana,
    deadlines,
    descent,
    federated,
    gap,
    lmo,
    local,
    momentum,
    pipeline as pipelines,
    tables,
    worker_models,
)
from stalegrad.policies.rules.parts.staleness_weights import (
    DelayAdaptive,
    ExpectedCount,
    Fleet,
    InverseStaleness,
    MindTheStep,
    PerGradient,
    StalenessAware,
    StalenessDecay,
    StalenessWeight,
    Tail,
)
from stalegrad.policies.synchrony import (
    SSP,
    Async,
    AsyncAfterAll,
    BackupWorkers,
    BoundedStaleness,
    ConstantDelay,
    DelayedAveraging,
    DelayedAveragingGeneral,
    DropCompute,
    Dylu,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Malenia,
    MindFlayer,
    Ringleader,
    Ringmaster,
    Sequential,
    Sync,
    Synchrony,
)

_SINGLE = (Async, SSP, Sequential)
"""Synchronies whose updates consume one message: rules with state per worker need that."""

_BUFFERED = (Async, KAsync)
"""Synchronies beside K-batch-async whose updates take as many messages as have been received."""

sync = MethodInfo("sync", Sync, descent.gradient_descent, "dutta2018", aliases={"local-sgd": "stich2019"})
k_sync = MethodInfo("k-sync", KSync, descent.gradient_descent, "dutta2018", aliases={"m-sync": "msync2026"})
k_batch_sync = MethodInfo(
    "k-batch-sync", KBatchSync, descent.gradient_descent, "dutta2018", aliases={"rennala": "tyurin2023"}
)
backup_workers = MethodInfo("backup-workers", BackupWorkers, descent.gradient_descent, "chen2016")
async_ = MethodInfo("async", Async, descent.gradient_descent, "dutta2018")
k_async = MethodInfo("k-async", KAsync, descent.gradient_descent, "dutta2018")
k_batch_async = MethodInfo("k-batch-async", KBatchAsync, descent.gradient_descent, "dutta2018")
adasync = MethodInfo(
    "adasync",
    KAsync,
    descent.gradient_descent,
    "dutta2020",
    allowed=(KSync, KBatchSync, KBatchAsync),
    controller=AdaSync,
)
clipped_async = MethodInfo("clipped-async", Async, descent.clipped_descent, "clipped2026")
bounded_staleness = MethodInfo("bounded-staleness", BoundedStaleness, descent.gradient_descent, "li2014")
ringmaster = MethodInfo("ringmaster", Ringmaster, descent.gradient_descent, "ringmaster2025")
ringmaster_lmo = MethodInfo("ringmaster-lmo", Ringmaster, lmo.lmo_descent, "ringmasterlmo2026")
async_muon = MethodInfo("async-muon", Async, lmo.muon, "ringmasterlmo2026")
gap_limited = MethodInfo("gap-limited", Async, descent.gap_limited_rate, "dutta2018")

mindthestep = MethodInfo("mindthestep", Async, descent.plain_descent, "mindthestep2019", weight=MindTheStep)
tail = MethodInfo("tail", Async, descent.plain_descent, "asap2022", weight=Tail)
inverse = MethodInfo("inverse", Async, descent.plain_descent, "asap2022", weight=InverseStaleness)
fleet = MethodInfo("fleet", Async, descent.plain_descent, "fleet2020", weight=Fleet)
delay_adaptive = MethodInfo("delay-adaptive", Async, descent.plain_descent, "mishchenko2022", weight=DelayAdaptive)

sgd = MethodInfo("sgd", Sequential, momentum.nag_asgd, "dana2019")
ssgd = MethodInfo("ssgd", Sync, descent.scaled_momentum, "dana2019", allowed=(KSync, KBatchSync))
nag_asgd = MethodInfo("nag-asgd", Async, momentum.nag_asgd, "dana2019")
multi_asgd = MethodInfo("multi-asgd", Async, momentum.multi_asgd, "dana2019", allowed=_SINGLE)
dc_asgd = MethodInfo("dc-asgd", Async, momentum.dc_asgd, "dcasgd2017", allowed=_SINGLE)
lwp = MethodInfo("lwp", Async, momentum.lwp, "lwp2020", allowed=_SINGLE)
dana_zero = MethodInfo("dana-zero", Async, dana.dana_zero, "dana2019", allowed=_SINGLE)
dana_slim = MethodInfo("dana-slim", Async, dana.dana_slim, "dana2019", allowed=_SINGLE)
dana_dc = MethodInfo("dana-dc", Async, dana.dana_dc, "dana2019", allowed=_SINGLE)

gap_aware = MethodInfo("gap-aware", Async, gap.gap_aware_momentum, "gapaware2020")
staleness_aware = MethodInfo("staleness-aware", Async, momentum.nag_asgd, "zhang2016", weight=StalenessAware)
dana_ga = MethodInfo("dana-ga", Async, dana.dana_ga, "gapaware2020", allowed=_SINGLE)
dana_sa = MethodInfo("dana-sa", Async, dana.dana_zero, "gapaware2020", allowed=_SINGLE, weight=StalenessAware)

smega2 = MethodInfo("smega2", Async, momentum.smega2_rule, "smega2022", allowed=_SINGLE)
fasgd = MethodInfo("fasgd", Async, gap.fasgd_rule, "fasgd2016", allowed=_SINGLE)
spectrain = MethodInfo("spectrain", Async, momentum.spectrain, "spectrain2018", allowed=_SINGLE)
ssp = MethodInfo("ssp", SSP, descent.gradient_descent, "ssp2013")
easgd = MethodInfo("easgd", Async, worker_models.elastic_averaging, "easgd2015", allowed=_SINGLE)
downpour = MethodInfo("downpour", Async, worker_models.downpour, "downpour2012", allowed=_SINGLE)
delayed_averaging = MethodInfo(
    "delayed-averaging", DelayedAveraging, worker_models.delayed_averaging, "talyansky2018", allowed=()
)
delayed_averaging_general = MethodInfo(
    "delayed-averaging-general",
    DelayedAveragingGeneral,
    worker_models.delayed_averaging_general,
    "talyansky2018",
    allowed=(),
)

fedbuff = MethodInfo(
    "fedbuff", KBatchAsync, federated.buffered, "fedbuff2022", allowed=_BUFFERED, weight=StalenessDecay
)
fedasync = MethodInfo(
    "fedasync", Async, federated.model_mixing, "fedasync2019", allowed=_SINGLE, weight=StalenessDecay
)
fadas = MethodInfo("fadas", KBatchAsync, federated.adaptive, "fadas2024", allowed=_BUFFERED)
ca2fl = MethodInfo("ca2fl", KBatchAsync, tables.calibrated, "ca2fl2024", allowed=_BUFFERED)

ia2sgd = MethodInfo(
    "ia2sgd",
    AsyncAfterAll,
    tables.latest_gradients,
    "ringleader2026",
    allowed=(Async,),
    aliases={"ace": "ACE"},
)
dude = MethodInfo("dude", AsyncAfterAll, tables.latest_gradients_incremental, "dude2024", allowed=(Async,))
malenia = MethodInfo("malenia", Malenia, tables.mean_of_workers, "tyurin2023", allowed=())
ringleader = MethodInfo("ringleader", Ringleader, tables.mean_of_workers_in_rounds, "ringleader2026", allowed=())

mindflayer = MethodInfo(
    "mindflayer", MindFlayer, descent.plain_descent, "mindflayer2025", allowed=(), weight=ExpectedCount
)
dropcompute = MethodInfo(
    "dropcompute",
    DropCompute,
    deadlines.accumulated,
    "dropcompute2023",
    allowed=(Sync, KSync, KAsync, Async),
    weight=PerGradient,
)
adacomm = MethodInfo("adacomm", Sync, descent.gradient_descent, "adacomm2019", allowed=(), controller=AdaComm)

diloco = MethodInfo("diloco", Sync, local.diloco, "diloco2023", allowed=(KSync, KAsync, KBatchAsync, Async))
async_local_sgd = MethodInfo(
    "async-local-sgd",
    Async,
    local.delayed_nesterov,
    "asynclocalsgd2024",
    allowed=(KAsync, KBatchAsync),
    weight=StalenessDecay,
)
dylu = MethodInfo("dylu", Dylu, local.delayed_nesterov, "asynclocalsgd2024", allowed=(), weight=StalenessDecay)

constant_delay = MethodInfo("constant-delay", ConstantDelay, descent.gradient_descent, "langford2009")
pipeline = MethodInfo("pipeline", Sequential, pipelines.pipeline, "pipedream2019", allowed=())

_METHODS = (
    sync, k_sync, k_batch_sync, async_, k_async, k_batch_async, adasync, gap_limited, mindthestep, tail,
    inverse, fleet, delay_adaptive, sgd, ssgd, nag_asgd, multi_asgd, dc_asgd, lwp, dana_zero, dana_slim,
    dana_dc, gap_aware, staleness_aware, dana_ga, dana_sa, smega2, fasgd, spectrain, ssp, easgd, downpour,
    delayed_averaging, delayed_averaging_general, backup_workers, clipped_async, bounded_staleness, ringmaster,
    ringmaster_lmo, async_muon, fedbuff, fedasync, fadas, ca2fl, ia2sgd, dude, malenia, ringleader, mindflayer,
    dropcompute, adacomm, diloco, async_local_sgd, dylu, constant_delay, pipeline,
)  # fmt: skip

REGISTRY = Registry[MethodInfo](
    "method",
    {info.name: info for info in _METHODS},
    aliases={alias: info.name for info in _METHODS for alias in info.aliases},
)
"""The methods by name; :func:`register` adds your own."""

local_sgd, m_sync, rennala, ace = sync, k_sync, k_batch_sync, ia2sgd
"""The aliases."""


def register(
    name: str,
    rule: Callable[..., Rule],
    synchrony: type[Synchrony] = Async,
    *,
    paper: str = "unpublished",
    allowed: tuple[type[Synchrony], ...] | None = None,
    weight: Callable[..., StalenessWeight] | None = None,
    controller: Callable[..., Controller] | None = None,
) -> MethodInfo:
    """Add your own method to the registry, under a name that specs and sweeps understand.

    It is known to this process only: for ``processes`` or a cluster, call it in a module that they import. Given
    again, a name means the new rule; a store tells the two apart by what they compute.

    Args:
        name: what users type, e.g. ``my-method``.
        rule: a function that gives a :class:`Rule`; its keyword arguments are the hyper-parameters, all with type
            hints and defaults. One called ``workers`` is filled in by the run.
        synchrony: the method's own.
        paper: where it comes from.
        allowed: other synchronies that the rule can work with; None: any.
        weight: a scaling by staleness, a spec class as those of
            :mod:`~stalegrad.policies.rules.parts.staleness_weights`; its fields are hyper-parameters, too.
        controller: a class with fields and defaults that changes the synchrony's k during a run, see
            :class:`~stalegrad.policies.controllers.AdaSync`.

    Returns:
        The method: call it with hyper-parameters.

    Raises:
        ValueError: if the package itself has a method of this name, or two parts have a parameter of one name.
    """
    info = MethodInfo(name, synchrony, rule, paper, allowed=allowed, weight=weight, controller=controller)
    return REGISTRY.register(name, info)


def method(name: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """Return a method by its name in the registry.

    Raises:
        ValueError: for an unknown name (with a suggestion) or wrong parameters.
    """
    return REGISTRY.find(name)(**(arguments or {}))
