"""``stalegrad list``: what a spec can name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.table import Table

from stalegrad.simulator.cli.console import console, print_plainly

if TYPE_CHECKING:
    from stalegrad.policies.method import MethodInfo

Row = dict[str, Any]

Entry: TypeAlias = "str | type | MethodInfo"
"""One line about a thing, its class, or a method."""


def rows(what: str) -> list[Row]:
    """Return the entries of one list.

    Raises:
        ValueError: for an unknown list, with a suggestion.
    """
    from stalegrad._core.specs import unknown_name

    if what not in LISTS:
        raise ValueError(unknown_name("list", what, LISTS))
    return [_row(name, entry) for name, entry in LISTS[what]().items()]


def list_command(
    what: Annotated[
        str | None,
        typer.Argument(
            help="methods, synchronies, delays, availabilities, regions, models, datasets, partitions, schedules, "
            "optimizers, papers"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List what a spec can name; for one kind, describe each entry with its parameters."""
    if as_json:
        print(json.dumps(rows(what) if what else {name: rows(name) for name in LISTS}, indent=2))
    elif what:
        _print_rows(what, rows(what))
    else:
        # Without the optimizers: listing those of optax needs JAX.
        for name in [name for name in LISTS if name != "optimizers"]:
            print_plainly(f"{name}: {', '.join(LISTS[name]())}\n")
        print_plainly("optimizers: those of optax, see stalegrad list optimizers\n")
        print_plainly("stalegrad list KIND describes each entry and its parameters.")


def _methods() -> Mapping[str, Entry]:
    from stalegrad.policies.methods import REGISTRY

    return REGISTRY


def _synchronies() -> Mapping[str, Entry]:
    from stalegrad.policies.synchrony import SYNCHRONIES

    return SYNCHRONIES


def _delays() -> Mapping[str, Entry]:
    from stalegrad.simulator.timing.delays import DELAYS

    return DELAYS


def _availabilities() -> Mapping[str, Entry]:
    from stalegrad.simulator.timing.availability import AVAILABILITIES

    return AVAILABILITIES


def _regions() -> Mapping[str, Entry]:
    from stalegrad.simulator.timing.links.regions import pairs, regions

    def link(name: str, other: str) -> str:
        latency, bandwidth = pairs()[name, other]
        return f"{other} {2e3 * latency:g} ms, {bandwidth / 1.25e8:g} Gbit/s"

    others = {name: [other for other in regions() if other != name] for name in regions()}
    return {name: f"round trips to {'; '.join(link(name, other) for other in others[name])}" for name in others}


def _models() -> Mapping[str, Entry]:
    from stalegrad.models import list_models

    return list_models()


def _datasets() -> Mapping[str, Entry]:
    from stalegrad.models import list_datasets

    return list_datasets()


def _partitions() -> Mapping[str, Entry]:
    from stalegrad.models.partitions import PARTITIONS

    return PARTITIONS


def _schedules() -> Mapping[str, Entry]:
    from stalegrad.policies.schedules import SCHEDULES

    return SCHEDULES


def _optimizers() -> Mapping[str, Entry]:
    from stalegrad.policies.optimizers import optimizer_names

    return {name: f"optax.{name}" for name in optimizer_names()}


def _papers() -> Mapping[str, Entry]:
    from stalegrad.simulator.cli.protocols import papers

    return papers()


LISTS: dict[str, Callable[[], Mapping[str, Entry]]] = {
    "methods": _methods,
    "synchronies": _synchronies,
    "delays": _delays,
    "availabilities": _availabilities,
    "regions": _regions,
    "models": _models,
    "datasets": _datasets,
    "partitions": _partitions,
    "schedules": _schedules,
    "optimizers": _optimizers,
    "papers": _papers,
}
"""The entries of each kind: methods, classes or one line about each, by name."""


def _row(name: str, entry: Entry) -> Row:
    if isinstance(entry, str):
        return {"name": name, "what": entry}
    if isinstance(entry, type):
        parameters = {f.name: None if f.default is MISSING else f.default for f in fields(entry) if f.init}
        return {"name": name, "parameters": parameters, "what": (inspect.getdoc(entry) or "").splitlines()[0]}
    return {
        "name": name,
        "synchrony": entry.synchrony_name,
        "parameters": entry.parameters,
        "aliases": list(entry.aliases),
        "paper": entry.paper,
    }


def _print_rows(title: str, entries: list[Row]) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in entries[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    shared = _shared(entries)
    for entry in entries:
        table.add_row(*(_cell(value, shared) for value in entry.values()))
    console.print(table)
    if shared:
        console.print(f"all have {_cell(shared)}")


def _shared(entries: list[Row]) -> Row:
    """Return the parameters that all of several entries have, with the same defaults."""
    first, *others = (entry.get("parameters", {}) for entry in entries)
    return {k: v for k, v in first.items() if others and all(k in other and other[k] == v for other in others)}


def _cell(value: object, besides: Iterable[str] = ()) -> str:
    if isinstance(value, dict):
        own = {k: v for k, v in value.items() if k not in besides}
        return ", ".join(f"{k}={v!r}" if v is not None else k for k, v in own.items())
    return str(value)
