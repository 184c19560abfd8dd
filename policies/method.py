"""A method: a synchrony, a rule, and where they come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from pydantic import InstanceOf

from stalegrad._core.specs import kebab, spec, unknown_name, validate
from stalegrad._core.types import Scalar, Table
from stalegrad.policies.controllers import Controller
from stalegrad.policies.method_help import help_of
from stalegrad.policies.papers import LINKS, PAPERS
from stalegrad.policies.rules import Rule
from stalegrad.policies.rules.parts.staleness_weights import StalenessWeight
from stalegrad.policies.schedules import Schedule, as_schedule
from stalegrad.policies.synchrony import SSP, Synchrony


@spec
class Method:
    """A method with its hyper-parameters filled in.

    Args:
        name: its name in the registry.
        synchrony: who waits for whom.
        learning_rate: a schedule.
        parameters: the rule's hyper-parameters, as (name, value) pairs.

    Example:
        >>> from stalegrad.policies import methods
        >>> method = methods.dana_zero(learning_rate=0.05, momentum=0.5)
        >>> method.name, method.learning_rate.peak, method.numbers["momentum"]
        ('dana-zero', 0.05, 0.5)
    """

    name: str
    synchrony: InstanceOf[Synchrony]
    learning_rate: InstanceOf[Schedule]
    parameters: tuple[tuple[str, Any], ...] = ()

    def __hash__(self) -> int:
        return hash((self.name, self.synchrony, self.learning_rate, _hashable(self.parameters)))

    def rule(self, workers: int, numbers: Mapping[str, Scalar] | None = None) -> Rule:
        """Return the rule for ``workers`` workers; ``numbers`` replaces numeric parameters, e.g. by tracers."""
        info = _info(self.name)
        arguments = info.of(info.rule, {**dict(self.parameters), **(numbers or {})})
        rule = info.rule(**arguments, **({"workers": workers} if self.knows_workers else {}))
        return rule if info.weight is None else rule._replace(weight=self.weight)

    @property
    def weight(self) -> StalenessWeight | None:
        """The method's scaling by staleness; None: it has none, or its rule chooses one."""
        info = _info(self.name)
        if info.weight is None:
            return None
        return info.weight(**info.of(info.weight, dict(self.parameters)))

    @property
    def controller(self) -> Controller | None:
        """What changes the synchrony's k during a run; None: nothing does."""
        info = _info(self.name)
        if info.controller is None:
            return None
        return info.controller(**info.of(info.controller, dict(self.parameters)))

    @property
    def adaptive(self) -> bool:
        """Whether a controller changes the synchrony's k from the loss: timing then needs the training."""
        return _info(self.name).controller is not None

    @property
    def knows_workers(self) -> bool:
        """Whether the rule depends on the number of workers."""
        return "workers" in inspect.signature(_info(self.name).rule).parameters

    @property
    def numbers(self) -> dict[str, float]:
        """The rule's numeric hyper-parameters: what a sweep may vary without compiling again."""
        return {k: v for k, v in self.parameters if isinstance(v, float)}

    @property
    def structure(self) -> tuple[Hashable, ...]:
        """What decides the shape of the computation: everything but the numbers."""
        values = tuple((k, float if isinstance(v, float) else _hashable(v)) for k, v in self.parameters)
        info = _info(self.name)
        return (self.name, info.rule, info.weight, values)


class MethodInfo:
    """An entry of the registry: a synchrony, a rule, and where they come from. Call it for a Method.

    Args:
        name: what users type.
        synchrony: the method's own synchrony.
        rule: a function of a module of ``rules/``; its keyword arguments are the hyper-parameters.
        paper: a key of ``PAPERS``, or a reference.
        allowed: other synchronies that the rule can work with; None: any.
        weight: a class of ``rules/parts/staleness_weights.py``: the scaling by staleness; its fields are
            hyper-parameters, too. None: none.
        controller: a spec class of :mod:`controllers` whose fields are hyper-parameters, too; None: none.
        aliases: further names, and the paper of each, as ``paper``.
    """

    def __init__(
        self,
        name: str,
        synchrony: type[Synchrony],
        rule: Callable[..., Rule],
        paper: str,
        *,
        allowed: tuple[type[Synchrony], ...] | None = None,
        weight: Callable[..., StalenessWeight] | None = None,
        controller: Callable[..., Controller] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.synchrony, self.rule, self.aliases = name, synchrony, rule, tuple(aliases or ())
        self.allowed, self.weight, self.controller = allowed, weight, controller
        cited = {paper: "", **{key: f"{alias}: " for alias, key in (aliases or {}).items()}}
        self.papers = tuple(cited)
        self.paper = "; ".join(note + PAPERS.get(key, key) for key, note in cited.items())
        self._parts = [part for part in (controller, weight, rule) if part is not None]
        self._check_names()
        self.__name__ = self.__qualname__ = name.replace("-", "_")
        self.__wrapped__ = rule  # whose source an editor shows
        references = [f"{note}{PAPERS.get(key, key)} {LINKS.get(key, '')}" for key, note in cited.items()]
        parameters = self._parameters(synchrony)
        self.__signature__ = inspect.Signature(list(parameters.values()))
        hints = get_type_hints(synchrony, include_extras=True) | self._hints()
        self.__doc__ = help_of(name, synchrony, [rule, weight, controller], parameters, hints, references)

    def _check_names(self) -> None:
        names = [key for part in self._parts for key in inspect.signature(part).parameters]
        if twice := sorted({key for key in names if names.count(key) > 1}):
            raise ValueError(
                f"method {self.name!r} has the parameter {twice[0]!r} twice: rule, weight and controller must not "
                "share a name"
            )

    @staticmethod
    def of(part: Callable[..., object], arguments: Mapping[str, object]) -> Table:
        """Return those of the arguments that rule, weight or controller take."""
        return {key: arguments[key] for key in inspect.signature(part).parameters if key in arguments}

    def _own_parameters(self) -> dict[str, inspect.Parameter]:
        """Return the parameters of controller, weight and rule."""
        found = {k: p for part in self._parts for k, p in inspect.signature(part).parameters.items()}
        key = inspect.Parameter.KEYWORD_ONLY
        return {k: p.replace(kind=key) for k, p in found.items() if k != "workers"}

    def _hints(self) -> dict[str, object]:
        return {k: h for part in self._parts for k, h in get_type_hints(part, include_extras=True).items()}

    def _parameters(self, synchrony: type[Synchrony] | None) -> dict[str, inspect.Parameter]:
        key = inspect.Parameter.KEYWORD_ONLY
        found = {"learning_rate": inspect.Parameter("learning_rate", key, default=0.1, annotation=Any)}
        own = [] if synchrony is None else [f for f in fields(synchrony) if f.init]
        for f in sorted(own, key=lambda f: bool(f.kw_only)):  # first what must be given
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            found[f.name] = inspect.Parameter(f.name, key, default=default, annotation=f.type)
        return found | self._own_parameters()

    @property
    def built_in(self) -> bool:
        """Whether the package itself has it, rather than a user who registered it."""
        from stalegrad.policies.methods import REGISTRY

        return REGISTRY.built_in(self)

    @property
    def synchrony_name(self) -> str:
        """The name of its synchrony."""
        return kebab(self.synchrony.__name__)

    @property
    def parameters(self) -> Table:
        """Every parameter and its default (``None`` where it must be given or is off)."""
        parameters = self._parameters(self.synchrony).values()
        return {p.name: None if p.default is p.empty else p.default for p in parameters}

    def __call__(
        self, /, *, learning_rate: object = 0.1, synchrony: Synchrony | None = None, **arguments: Any
    ) -> Method:
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
        _ = method.weight, method.controller  # which check their own parameters
        # Building a rule imports JAX, so the package's own are built only where there is something to find out.
        if not self.built_in or (isinstance(synchrony, SSP) and self.synchrony is not SSP):
            self._check_rule(method.rule(workers=1), synchrony)
        return method

    def _check_rule(self, rule: object, synchrony: Synchrony) -> None:
        if not isinstance(rule, Rule):
            raise ValueError(f"the rule of method {self.name!r} returned {rule!r}: it must return a Rule")
        if not (rule.weight is None or callable(rule.weight)):
            raise ValueError(
                f"weight of method {self.name!r} = {rule.weight!r}: give a function of staleness, update, workers"
            )
        if rule.own_reads and isinstance(synchrony, SSP):
            raise ValueError(
                f"method {self.name!r} cannot work with synchrony {synchrony.name!r} and these parameters: a "
                "worker is sent a point of its own with the update of its message, but under ssp it may read a "
                "later version; allowed are async, sequential, or nesterov = false"
            )

    def _check_synchrony(self, synchrony: object) -> None:
        if not isinstance(synchrony, Synchrony):
            raise ValueError(f"synchrony of method {self.name!r} = {synchrony!r}: give e.g. KAsync(4)")
        if self.allowed is not None and not isinstance(synchrony, (self.synchrony, *self.allowed)):
            names = sorted(kebab(cls.__name__) for cls in (self.synchrony, *self.allowed))
            raise ValueError(
                f"method {self.name!r} cannot work with synchrony {synchrony.name!r}: "
                f"allowed are {', '.join(names)}"
            )


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted((k, _hashable(v)) for k, v in value.items()))
    return tuple(_hashable(v) for v in value) if isinstance(value, list | tuple) else value


def _info(name: str) -> MethodInfo:
    from stalegrad.policies.methods import REGISTRY

    return REGISTRY[name]
