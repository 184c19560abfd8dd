"""What ``stalegrad list`` shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from stalegrad._core.specs import unknown_name
from stalegrad.models import list_datasets, list_models
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.optimizers import optimizer_names
from stalegrad.policies.schedules import SCHEDULES
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator.timing.delays import DELAYS

Row = dict[str, Any]


def rows(what: str) -> list[Row]:
    """Return the entries of one list.

    Raises:
        ValueError: for an unknown list, with a suggestion.
    """
    if what not in LISTS:
        raise ValueError(unknown_name("list", what, LISTS))
    return LISTS[what]()


def _methods() -> list[Row]:
    return [
        {"name": m.name, "synchrony": m.synchrony_name, "parameters": m.parameters, "paper": m.paper}
        for m in REGISTRY.values()
    ]


def _classes(table: Mapping[str, type[Any]]) -> list[Row]:
    return [{"name": name, "parameters": _fields(cls), "what": _first_line(cls)} for name, cls in table.items()]


def _described(table: dict[str, str]) -> list[Row]:
    return [{"name": name, "what": what} for name, what in table.items()]


def _fields(cls: type[Any]) -> dict[str, Any]:
    return {f.name: None if f.default is MISSING else f.default for f in fields(cls) if f.init}


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "methods": _methods,
    "synchronies": lambda: _classes(SYNCHRONIES),
    "delays": lambda: _classes(DELAYS),
    "models": lambda: _described(list_models()),
    "datasets": lambda: _described(list_datasets()),
    "schedules": lambda: _classes(SCHEDULES),
    "optimizers": lambda: [{"name": name, "what": f"optax.{name}"} for name in optimizer_names()],
}
