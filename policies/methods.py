"""The methods: named pairs of a synchrony and a rule, each with the paper it comes from.

A new method is one more line here, or a call of :func:`register` elsewhere. Called, it gives a :class:`Method`:
``methods.k_async(k=4)``, say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from pydantic import InstanceOf

from stalegrad._core.registry import Registry
from stalegrad._core.specs import kebab, spec, unknown_name, validate
from stalegrad.policies.controllers import AdaSync, Controller
from stalegrad.policies.method_help import help_of
from stalegrad.policies.papers import LINKS, PAPERS
from stalegrad.policies.rules import Rule, dana, descent, gap, momentum, staleness_weighted, worker_models
from stalegrad.policies.schedules import Schedule, as_schedule
from stalegrad.policies.synchrony import (
    SSP,
    Async,
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


@spec
class Method:
    """A method with its hyper-parameters filled in.

    Args:
        name: its name in the registry.
        synchrony: who waits for whom.
        learning_rate: a schedule.
        parameters: the rule's hyper-parameters, as (name, value) pairs.
    """

    name: str
    synchrony: InstanceOf[Synchrony]
    learning_rate: InstanceOf[Schedule]
    parameters: tuple[tuple[str, Any], ...] = ()

    def __hash__(self) -> int:
        return hash((self.name, self.synchrony, self.learning_rate, _hashable(self.parameters)))

    def rule(self, workers: int, numbers: Mapping[str, Any] | None = None) -> Rule:
        """Return the rule for ``workers`` workers; ``numbers`` replaces numeric parameters, by tracers say."""
        arguments = {**dict(self.parameters), **(numbers or {})}
        if self.knows_workers:
            arguments["workers"] = workers
        info = REGISTRY[self.name]
        return info.rule(**{name: value for name, value in arguments.items() if name not in info.controls})

    @property
    def controller(self) -> Controller | None:
        """What changes the synchrony's k during a run; None: nothing does."""
        info, given = REGISTRY[self.name], dict(self.parameters)
        return (
            None if info.controller is None else info.controller(**{name: given[name] for name in info.controls})
        )

    @property
    def adaptive(self) -> bool:
        """Whether a controller changes the synchrony's k from the loss: timing then needs the training."""
        return REGISTRY[self.name].controller is not None

    @property
    def knows_workers(self) -> bool:
        """Whether the rule depends on the number of workers."""
        return "workers" in inspect.signature(REGISTRY[self.name].rule).parameters

    @property
    def numbers(self) -> dict[str, float]:
        """The rule's numeric hyper-parameters: what a sweep may vary without compiling again."""
        return {k: v for k, v in self.parameters if isinstance(v, float)}

    @property
    def structure(self) -> tuple[Any, ...]:
        """What decides the shape of the computation: everything but the numbers."""
        values = tuple((k, float if isinstance(v, float) else _hashable(v)) for k, v in self.parameters)
        return (self.name, REGISTRY[self.name].rule, values)


class MethodInfo:
    """An entry of the registry: a synchrony, a rule, and where they come from. Call it for a Method.

    Args:
        name: what users type.
        synchrony: the method's own synchrony.
        rule: a function of a module of ``rules/``; its keyword arguments are the hyper-parameters.
        paper: a key of ``PAPERS``, or a reference.
        allowed: other synchronies that the rule can work with; None: any.
        controller: a spec class of :mod:`controllers` whose fields are hyper-parameters, too; None: none.
    """

    def __init__(
        self,
        name: str,
        synchrony: type[Synchrony],
        rule: Callable[..., Rule],
        paper: str,
        *,
        allowed: tuple[type[Synchrony], ...] | None = None,
        controller: type[Any] | None = None,
    ) -> None:
        self.name, self.synchrony, self.rule, self.paper = name, synchrony, rule, PAPERS.get(paper, paper)
        self.allowed, self.controller = allowed, controller
        self.__name__ = self.__qualname__ = name.replace("-", "_")
        reference = "\n    ".join([self.paper, LINKS[paper]] if paper in LINKS else [self.paper])
        parameters = self._parameters(synchrony)
        self.__signature__ = inspect.Signature(list(parameters.values()))
        hints = get_type_hints(synchrony, include_extras=True) | self._hints()
        self.__doc__ = help_of(name, rule, synchrony, controller, parameters, hints, reference)

    @property
    def controls(self) -> tuple[str, ...]:
        """The parameters of its controller."""
        return () if self.controller is None else tuple(f.name for f in fields(self.controller))

    @property
    def _functions(self) -> list[Callable[..., Any]]:
        return [self.rule] if self.controller is None else [self.controller, self.rule]

    def _own_parameters(self) -> dict[str, inspect.Parameter]:
        """Return the parameters of the controller and of the rule."""
        found = {k: p for function in self._functions for k, p in inspect.signature(function).parameters.items()}
        key = inspect.Parameter.KEYWORD_ONLY
        return {k: p.replace(kind=key) for k, p in found.items() if k != "workers"}

    def _hints(self) -> dict[str, Any]:
        return {
            k: h for function in self._functions for k, h in get_type_hints(function, include_extras=True).items()
        }

    def _parameters(self, synchrony: type[Synchrony] | None) -> dict[str, inspect.Parameter]:
        key = inspect.Parameter.KEYWORD_ONLY
        found = {"learning_rate": inspect.Parameter("learning_rate", key, default=0.1, annotation=Any)}
        for f in (f for f in fields(synchrony) if f.init) if synchrony is not None else ():
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            found[f.name] = inspect.Parameter(f.name, key, default=default, annotation=f.type)
        return found | self._own_parameters()

    @property
    def built_in(self) -> bool:
        """Whether the package itself has it, rather than a user who registered it."""
        return REGISTRY.built_in(self)

    @property
    def synchrony_name(self) -> str:
        """The name of its synchrony."""
        return kebab(self.synchrony.__name__)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter and its default (``None`` where it must be given or is off)."""
        parameters = self._parameters(self.synchrony).values()
        return {p.name: None if p.default is p.empty else p.default for p in parameters}

    def __call__(self, /, *, learning_rate: Any = 0.1, synchrony: Any = None, **arguments: Any) -> Method:
        """Return the method with these parameters.

        Args:
            learning_rate: a number, a schedule, a table, or a function of the update.
            synchrony: another one than the method's own, e.g. ``KAsync(4)``.
            **arguments: of the synchrony and of the rule.

        Raises:
            ValueError: for an unknown, missing or wrong parameter, or a synchrony that the rule cannot work
                with, naming it and what is allowed.
        """
        if synchrony is not None:
            self._check_synchrony(synchrony)
        allowed = self._parameters(self.synchrony if synchrony is None else None)
        for key in arguments:
            if key not in allowed:
                raise ValueError(unknown_name(f"parameter of method {self.name!r}:", key, allowed))
        for key, parameter in allowed.items():
            if parameter.default is parameter.empty and key not in arguments:
                raise ValueError(f"method {self.name!r} needs {key}")
        hints = self._hints()
        own = {f.name for f in fields(self.synchrony) if f.init}
        parameters = tuple(
            (key, validate(f"{key} of method {self.name!r}", hints[key], arguments.get(key, parameter.default)))
            for key, parameter in self._own_parameters().items()
        )
        if synchrony is None:
            synchrony = self.synchrony(**{key: value for key, value in arguments.items() if key in own})
        method = Method(self.name, synchrony, as_schedule(learning_rate), parameters)
        # Building a rule imports JAX, so the package's own are built only where there is something to find out.
        if not self.built_in or (isinstance(synchrony, SSP) and self.synchrony is not SSP):
            self._check_rule(method.rule(workers=1), synchrony)
        return method

    def _check_rule(self, rule: Any, synchrony: Synchrony) -> None:
        if not isinstance(rule, Rule):
            raise ValueError(f"the rule of method {self.name!r} returned {rule!r}: it must return a Rule")
        if rule.own_reads and isinstance(synchrony, SSP):
            raise ValueError(
                f"method {self.name!r} cannot work with synchrony {synchrony.name!r} and these parameters: a "
                "worker is sent a point of its own with the update of its message, but under ssp it may read a "
                "later version; allowed are async, sequential, or nesterov = false"
            )

    def _check_synchrony(self, synchrony: Any) -> None:
        if not isinstance(synchrony, Synchrony):
            raise ValueError(f"synchrony of method {self.name!r} = {synchrony!r}: give e.g. KAsync(4)")
        if self.allowed is not None and not isinstance(synchrony, (self.synchrony, *self.allowed)):
            names = sorted(kebab(cls.__name__) for cls in (self.synchrony, *self.allowed))
            raise ValueError(
                f"method {self.name!r} cannot work with synchrony {synchrony.name!r}: "
                f"allowed are {', '.join(names)}"
            )


def method(name: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """Return a method by its name in the registry.

    Raises:
        ValueError: for an unknown name (with a suggestion) or wrong parameters.
    """
    return REGISTRY.find(name)(**(arguments or {}))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((k, _hashable(v)) for k, v in value.items()))
    return tuple(_hashable(v) for v in value) if isinstance(value, list | tuple) else value


_SINGLE = (Async, SSP, Sequential)
"""Synchronies whose updates consume one message: rules with state per worker need that."""

sync = MethodInfo("sync", Sync, descent.gradient_descent, "dutta2018")
k_sync = MethodInfo("k-sync", KSync, descent.gradient_descent, "dutta2018")
k_batch_sync = MethodInfo("k-batch-sync", KBatchSync, descent.gradient_descent, "dutta2018")
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
gap_limited = MethodInfo("gap-limited", Async, descent.gap_limited_rate, "dutta2018")

mindthestep = MethodInfo("mindthestep", Async, staleness_weighted.mindthestep, "mindthestep2019")
tail = MethodInfo("tail", Async, staleness_weighted.tail, "asap2022")
inverse = MethodInfo("inverse", Async, staleness_weighted.inverse_staleness, "asap2022")
fleet = MethodInfo("fleet", Async, staleness_weighted.fleet, "fleet2020")
delay_adaptive = MethodInfo("delay-adaptive", Async, staleness_weighted.delay_adaptive, "mishchenko2022")

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
staleness_aware = MethodInfo("staleness-aware", Async, staleness_weighted.staleness_aware, "zhang2016")
dana_ga = MethodInfo("dana-ga", Async, dana.dana_ga, "gapaware2020", allowed=_SINGLE)
dana_sa = MethodInfo("dana-sa", Async, dana.dana_sa, "gapaware2020", allowed=_SINGLE)

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

_METHODS = (
    sync, k_sync, k_batch_sync, async_, k_async, k_batch_async, adasync, gap_limited, mindthestep, tail,
    inverse, fleet, delay_adaptive, sgd, ssgd, nag_asgd, multi_asgd, dc_asgd, lwp, dana_zero, dana_slim,
    dana_dc, gap_aware, staleness_aware, dana_ga, dana_sa, smega2, fasgd, spectrain, ssp, easgd, downpour,
    delayed_averaging, delayed_averaging_general,
)  # fmt: skip

REGISTRY = Registry[MethodInfo]("method", {info.name: info for info in _METHODS})
"""The methods by name; :func:`register` adds one of your own."""


def register(
    name: str,
    rule: Callable[..., Rule],
    synchrony: type[Synchrony] = Async,
    *,
    paper: str = "unpublished",
    allowed: tuple[type[Synchrony], ...] | None = None,
    controller: type[Any] | None = None,
) -> MethodInfo:
    """Add a method of your own to the registry, under a name that specs and sweeps understand.

    It is known to this process only: for ``processes`` or a cluster, call it in a module that they import. Given
    again, a name means the new rule; a store tells the two apart by what they compute.

    Args:
        name: what users type, e.g. ``my-method``.
        rule: a function that gives a :class:`Rule`; its keyword arguments are the hyper-parameters, all with type
            hints and defaults. One called ``workers`` is filled in by the run.
        synchrony: the method's own.
        paper: where it comes from.
        allowed: other synchronies that the rule can work with; None: any.
        controller: a class with fields and defaults that changes the synchrony's k during a run, see
            :class:`~stalegrad.policies.controllers.AdaSync`.

    Returns:
        The method: call it with hyper-parameters.

    Raises:
        ValueError: if the package itself has a method of this name.
    """
    return REGISTRY.register(
        name, MethodInfo(name, synchrony, rule, paper, allowed=allowed, controller=controller)
    )
