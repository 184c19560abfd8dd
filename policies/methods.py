"""The methods: named pairs of a synchrony and a rule, each with the paper it comes from.

A new method is one more line here. Called, it gives a :class:`Method`, e.g. ``methods.k_async(k=4)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from pydantic import InstanceOf
from stalegrad.policies.rules import Rule, gradient_descent
from stalegrad.policies.schedules import Schedule, as_schedule
from stalegrad.policies.specs import kebab, spec, unknown_name, validate
from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync, Synchrony

DUTTA = "Dutta et al., Slow and Stale Gradients Can Win the Race, AISTATS 2018"


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

    def rule(self, numbers: Mapping[str, Any] | None = None) -> Rule:
        """Return the rule; ``numbers`` replaces numeric hyper-parameters (by tracers, say)."""
        return REGISTRY[self.name].rule(**{**dict(self.parameters), **(numbers or {})})

    @property
    def numbers(self) -> dict[str, float]:
        """The rule's numeric hyper-parameters: what a sweep may vary without compiling anew."""
        return {k: v for k, v in self.parameters if isinstance(v, float)}

    @property
    def structure(self) -> tuple[Any, ...]:
        """What decides the shape of the computation: everything but the numbers."""
        return (
            self.name,
            tuple((k, None if isinstance(v, float) else _hashable(v)) for k, v in self.parameters),
        )


class MethodInfo:
    """An entry of the registry: a synchrony, a rule, and where they come from. Call it for a Method."""

    def __init__(self, name: str, synchrony: type[Synchrony], rule: Callable[..., Rule], *, paper: str) -> None:
        self.name, self.synchrony, self.rule, self.paper = name, synchrony, rule, paper
        self.__name__ = self.__qualname__ = name.replace("-", "_")
        self.__doc__ = f"{synchrony.__doc__}\n\nRule: {rule.__doc__}\n\nPaper: {paper}"
        self.__signature__ = inspect.Signature(list(self._parameters().values()))

    @property
    def synchrony_name(self) -> str:
        """The name of its synchrony."""
        return kebab(self.synchrony.__name__)

    def _parameters(self) -> dict[str, inspect.Parameter]:
        key = inspect.Parameter.KEYWORD_ONLY
        found = {"learning_rate": inspect.Parameter("learning_rate", key, default=0.1, annotation=Any)}
        for f in fields(self.synchrony):
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            found[f.name] = inspect.Parameter(f.name, key, default=default, annotation=f.type)
        return found | dict(inspect.signature(self.rule).parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter and its default (``None`` where it must be given or is off)."""
        parameters = self._parameters().values()
        return {p.name: None if p.default is p.empty else p.default for p in parameters}

    def __call__(self, *, learning_rate: Any = 0.1, **arguments: Any) -> Method:
        """Return the method with these parameters.

        Raises:
            ValueError: for an unknown, missing or wrong parameter, naming it and what is allowed.
        """
        allowed = self._parameters()
        for key in arguments:
            if key not in allowed:
                raise ValueError(unknown_name(f"parameter of method {self.name!r}:", key, allowed))
        for key, parameter in allowed.items():
            if parameter.default is parameter.empty and key not in arguments:
                raise ValueError(f"method {self.name!r} needs {key}")
        hints = get_type_hints(self.rule, include_extras=True)
        own = {f.name for f in fields(self.synchrony)}
        parameters = {}
        for key, parameter in inspect.signature(self.rule).parameters.items():
            value = arguments.get(key, parameter.default)
            parameters[key] = validate(f"{key} of method {self.name!r}", hints[key], value)
        self.rule(**parameters)
        return Method(
            self.name,
            self.synchrony(**{key: value for key, value in arguments.items() if key in own}),
            as_schedule(learning_rate),
            tuple(parameters.items()),
        )


def method(name: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """Return a method by its name in the registry.

    Raises:
        ValueError: for an unknown name (with a suggestion) or wrong parameters.
    """
    if name not in REGISTRY:
        raise ValueError(unknown_name("method", name, REGISTRY))
    return REGISTRY[name](**(arguments or {}))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((k, _hashable(v)) for k, v in value.items()))
    return tuple(_hashable(v) for v in value) if isinstance(value, list | tuple) else value


sync = MethodInfo("sync", Sync, gradient_descent, paper=DUTTA)
k_sync = MethodInfo("k-sync", KSync, gradient_descent, paper=DUTTA)
k_batch_sync = MethodInfo("k-batch-sync", KBatchSync, gradient_descent, paper=DUTTA)
async_ = MethodInfo("async", Async, gradient_descent, paper=DUTTA)
k_async = MethodInfo("k-async", KAsync, gradient_descent, paper=DUTTA)
k_batch_async = MethodInfo("k-batch-async", KBatchAsync, gradient_descent, paper=DUTTA)

REGISTRY: dict[str, MethodInfo] = {
    info.name: info for info in list(globals().values()) if isinstance(info, MethodInfo)
}
