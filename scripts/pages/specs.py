"""The page of the keys of a spec in TOML, generated from the classes that read them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from pages.text import cell
from stalegrad.models import Problem
from stalegrad.models.networks import NETWORKS
from stalegrad.models.partitions import PARTITIONS
from stalegrad.policies.method_help import allowed_by, arguments_of, summary_of
from stalegrad.policies.schedules import SCHEDULES
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator import Cluster, Experiment, Network, Record
from stalegrad.simulator.sweeps.axes import Range, Sampling
from stalegrad.simulator.timing.availability import AVAILABILITIES
from stalegrad.simulator.timing.delays import DELAYS

TABLES = {"problem", "cluster", "method", "record"}
"""Fields of an experiment that are separate tables."""

INTRODUCTION = """\
# Keys of a spec (TOML)

The commands `stalegrad run`, `trace` and `check record` read a spec. In Python, `load_experiment` reads one and
`experiment.to_toml()` writes one. `stalegrad init` writes a commented example. An unknown key, a missing key or a
wrong value raises an error that says what is allowed, before anything is simulated. Times are in seconds.

```toml
updates = 2000
seed = 0

[problem]
model = "mlp"
dataset = "fashion-mnist-small"

[cluster]
workers = 16
compute = { delay = "gamma", mean = 1.0, cv = 0.5 }

[method]
name = "k-async"
k = 4
learning_rate = 0.05
```
"""

METHOD = """\
## `[method]`

| key | description |
|---|---|
| `name` | name of a method: [the methods](methods/index.md), or a registered one. Must be given. |
| `learning_rate` | a number, the name of a paper's schedule, or a table: [schedules](#schedules). Default: 0.1. |
| `synchrony` | a table that replaces the method's synchrony: [synchronies](#synchronies). |
| all others | parameters of the method, see its page; `"none"` stands for None. |
"""

SWEEP = """\
## `[sweep]`

Every other key is an axis: a field of the experiment (`seed`, `method`), or a key of one of its tables
(`"cluster.workers"`, `"method.k"`, `"problem.partition.alpha"`), with a list of values, or, for `mode = "random"`,
with a range `{ low = 0.001, high = 1.0, log = true }`.
"""


def described(source: Any, names: Iterable[str] | None = None) -> list[str]:
    """Return a table of the fields of a class, or of the keyword arguments of a function, that a spec may give."""
    takes = source.__init__ if source is Problem else source
    text, hints = all_arguments(source), get_type_hints(takes, include_extras=True)
    rows = []
    for name, default in (defaults(source) if names is None else {n: defaults(source)[n] for n in names}).items():
        said = " ".join([text.get(name, ""), allowed_by(hints.get(name)), _default(default)])
        rows.append(f"| `{name}` | {cell(said)} |")
    return ["| key | description |", "|---|---|", *rows, ""] if rows else []


def all_arguments(source: Any) -> dict[str, str]:
    """Return the descriptions of arguments in docstrings: those of a class and of its bases."""
    classes = reversed(source.__mro__) if isinstance(source, type) else [source]
    return {name: text for each in classes if each is not object for name, text in arguments_of(each).items()}


def defaults(source: Any) -> Mapping[str, object]:
    """Return the defaults of a class's fields, or of a function's keyword arguments, by name."""
    if hasattr(source, "__dataclass_fields__"):
        return {f.name: f.default for f in fields(source) if f.init}
    parameters = inspect.signature(source).parameters.values()
    return {
        p.name: MISSING if p.default is p.empty else p.default
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in ("input_shape", "classes")
    }


def _default(value: object) -> str:
    if value is MISSING:
        return "Must be given."
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None  # type: ignore[call-overload]
    return "" if value is None else f"Default: {text or repr(value)}."


def kinds(title: str, registry: Mapping[str, Any], key: str | None, what: str) -> list[str]:
    """Return the section of the entries of one kind, each with its keys."""
    lines = [f"## {title}", "", what, ""]
    for name, source in registry.items():
        made = getattr(source, "make", source)
        head = f'{{ {key} = "{name}", ... }}' if key else name
        lines += [f"### `{head}`", "", cell(summary_of(made)), "", *described(made)]
    return lines


def text() -> str:
    """Return the page."""
    experiment = [f.name for f in fields(Experiment) if f.name not in TABLES]
    problem = [name for name in inspect.signature(Problem).parameters if name != "options"]
    lines = [
        INTRODUCTION,
        "## The experiment", "", *described(Experiment, experiment),
        "## `[problem]`", "", *described(Problem, problem),
        "All other keys are options of the network, see [networks](#networks).", "",
        "## `[cluster]`", "", *described(Cluster),
        "### `[cluster.network]`", "", *described(Network),
        METHOD,
        "## `[record]`", "", *described(Record),
        SWEEP, *described(Sampling), "A range:", "", *described(Range),
        *kinds("Networks", NETWORKS, None, "Values of `model`; their keys belong to `[problem]`."),
        *kinds("Partitions", PARTITIONS, "partition", "Values of `partition` in `[problem]`."),
        *kinds("Delays", DELAYS, "delay", "Values of `compute`, `uplink`, `server` and so on, in seconds."),
        *kinds("Availability", AVAILABILITIES, "availability", "Values of `availability` in `[cluster]`."),
        *kinds("Synchronies", SYNCHRONIES, "name", "Values of `synchrony` in `[method]`."),
        *kinds("Schedules", SCHEDULES, "schedule", "Values of `learning_rate` in `[method]`."),
    ]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def pages(docs: Path) -> dict[str, str]:
    """Return the page by its file name below ``generated``."""
    return {"specs.md": text()}
