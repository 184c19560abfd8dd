"""The identity of a run, in two forms.

The *name* of an experiment holds qualified names and settings; labels, baselines and observers use it.
Its *digest* adds the code of functions and the data; keys of stores, sweeps and checkpoints use it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

from stalegrad._core.errors import UnknownPartError
from stalegrad._core.functions import import_function, is_function_name
from stalegrad._core.registry import Registry
from stalegrad._core.specs import changed_fields
from stalegrad._core.types import Table
from stalegrad.models import Problem
from stalegrad.models.networks import NETWORKS
from stalegrad.models.partitions import PARTITIONS, Partition
from stalegrad.policies import Method, methods
from stalegrad.policies.schedules import SCHEDULES, Schedule
from stalegrad.policies.synchrony import SYNCHRONIES, Synchrony
from stalegrad.simulator.experiments.describe import Description, described, digest_of
from stalegrad.simulator.experiments.experiment import (
    Experiment,
    differs,
    method_settings,
    method_table,
    parse_toml,
)
from stalegrad.simulator.timing.availability import AVAILABILITIES, Availability
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import DELAYS, Delay
from stalegrad.simulator.timing.links import Network

T = TypeVar("T")

SEMANTICS = 3
"""Version of the semantics of experiments, a part of every key. It is increased when the same experiment gives
different numbers or is written differently.

2: EASGD takes gradients before the pull; gap-aware without momentum normalises raw gradients; learning rates
go into named optimizers (fromage, rprop, lars, rmsprop with momentum); seeds from 2^32 on; 16-bit parameters;
wallclock budgets end by a tolerance; images with alpha, 16 bits or an orientation.
3: numbers are unchanged; the table of a delay names it as ``delay``, and lanes and execution have their new names.
"""

PATHS = ("directory", "file")
"""Keys of a spec whose texts are paths, never names of functions."""


class Identity(NamedTuple):
    """The identity of a stored run: everything that determines its bytes, besides versions and machine.

    Attributes:
        spec: canonical text of the experiment, see :func:`canonical`.
        parts: digests of the parts that the spec names but does not hold, see :func:`parts_of`.
        lanes: number of lanes in which the run is executed; None if it is executed alone. Rounding differs between
            the two.
    """

    spec: str
    parts: Mapping[str, str]
    lanes: int | None = None

    @classmethod
    def of(cls, experiment: Experiment, lanes: int | None = None) -> Identity:
        """Return the identity of an experiment; this imports the functions that its spec names.

        Raises:
            ValueError: if a part of it exists in this process only, or cannot be compared with another one.
        """
        return cls(canonical(experiment), parts_of(experiment), lanes)

    @property
    def key(self) -> str:
        """The key of the run in a store."""
        text = json.dumps([SEMANTICS, self.spec, dict(self.parts), self.lanes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def canonical(experiment: Experiment) -> str:
    """Return the spec of an experiment as JSON with sorted keys: equal specs have the same text.

    Raises:
        ValueError: if a part of it exists in this process only; it names the part.
    """
    return json.dumps(experiment.table(), sort_keys=True)


def canonical_text(spec: str) -> str:
    """Return the canonical text of the experiment of a TOML spec, without building the experiment."""
    return json.dumps(parse_toml(spec), sort_keys=True)


def key_of(experiment: Experiment, lanes: int | None = None) -> str:
    """Return the key of an experiment in a store; errors are those of :meth:`Identity.of`."""
    return Identity.of(experiment, lanes).key


def parts_of(experiment: Experiment) -> dict[str, str]:
    """Return digests of the parts that a spec only names: functions, a user's registered classes, local data.

    This imports, and so executes, the modules of the functions.

    Raises:
        ValueError: if a function cannot be imported, local data cannot be found, or a part cannot be compared with
            another one.
    """
    parts: dict[str, object] = {where: import_function(name) for where, name in functions_in(experiment).items()}
    parts |= registered_in(experiment)
    try:
        found = {where: digest_of(described(part, content=True)) for where, part in parts.items()}
    except UnknownPartError as error:
        raise UnknownPartError(f"{error}: give what it needs as numbers, texts or arrays") from None
    data = experiment.problem.data_fingerprint()
    return found if data is None else found | {"problem.data": data}


def registered_in(experiment: Experiment) -> dict[str, object]:
    """Return the classes and functions of an experiment that a user has registered, by their place in it."""
    method, problem = experiment.method, experiment.problem
    info, found = methods.REGISTRY[method.name], dict[str, object]()
    if not info.built_in:
        own = {"rule": info.rule, "weight": info.weight, "controller": info.controller}
        found |= {f"method.{name}": part for name, part in own.items() if part is not None}
    if not SYNCHRONIES.built_in(type(method.synchrony)):
        found["method.synchrony"] = type(method.synchrony)
    if _is_own(SCHEDULES, type(method.learning_rate)):
        found["method.learning_rate"] = type(method.learning_rate)
    if problem.named and _is_own(NETWORKS, NETWORKS[problem.model]):
        found["problem.model"] = NETWORKS[problem.model].make
    if _is_own(PARTITIONS, type(problem.partition)):
        found["problem.partition"] = type(problem.partition)
    for name, value in changed_fields(experiment.cluster).items():
        kinds = _kinds(value)
        mine: dict[str, type] = {DELAYS.name_of(kind): kind for kind in kinds if _is_own(DELAYS, kind)}
        mine |= {AVAILABILITIES.name_of(kind): kind for kind in kinds if _is_own(AVAILABILITIES, kind)}
        found |= {f"cluster.{name}.{kind_name}": kind for kind_name, kind in mine.items()}
    return found


def _kinds(value: Any) -> dict[type, None]:
    """Return the types of a value of the cluster and of its parts."""
    if isinstance(value, tuple):
        found = {type(each): None for each in value}
        return found | {kind: None for each in value if is_dataclass(each) for kind in _kinds(each)}
    parts = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else []
    return {type(value): None} | {kind: None for part in parts for kind in _kinds(part)}


def _is_own(registry: Registry[T], entry: object) -> bool:
    """Return whether an entry of a registry was added by a user."""
    return registry.has(entry) and not registry.built_in(entry)


def functions_in(experiment: Experiment) -> dict[str, str]:
    """Return the names of the functions that a run will import, by their place; nothing is imported here."""
    tables = {
        "cluster": changed_fields(experiment.cluster),
        "method": {"optimizer": _name_in(dict(experiment.method.parameters).get("optimizer"))},
        "record": {"fn": experiment.record.fn},
    }
    return {where: text for where, text in _texts(tables) if is_function_name(text)}


def _name_in(optimizer: object) -> object:
    return {"name": optimizer.get("name")} if isinstance(optimizer, Mapping) else optimizer


def _texts(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    if isinstance(value, Delay | Availability | Network):
        value = {f.name: getattr(value, f.name) for f in fields(value) if f.name not in PATHS}  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    if isinstance(value, list | tuple) and not all(isinstance(inner, float | int) for inner in value):
        for i, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{i}]")


def digest(experiment: Experiment) -> str | None:
    """Return the digest of any experiment; None if it has a part that cannot be compared."""
    try:
        return digest_of([canonical(experiment), parts_of(experiment)])
    except UnknownPartError:
        return None
    except ValueError:  # a part of it exists in this process only
        pass
    try:
        return digest_of(described(experiment, content=True))
    except UnknownPartError:
        return None


def name_table(experiment: Experiment) -> Table:
    """Return the name of an experiment as nested tables: its spec, with descriptions of parts it cannot hold."""
    parts: dict[str, Callable[[], Table]] = {
        "problem": experiment.problem.table,
        "cluster": lambda: experiment.cluster.table(),
        "method": lambda: method_table(experiment.method),
    }
    named: Table = changed_fields(experiment.budget) | {"seed": experiment.seed}
    for part, write in parts.items():
        try:
            named[part] = write()
        except ValueError:
            named[part] = _described_fields(getattr(experiment, part))
    record = {name: _plain(value) for name, value in changed_fields(experiment.record).items()}
    return named | ({"record": record} if record else {})


def _described_fields(part: object) -> Table:
    if isinstance(part, Method):
        return {name: _plain(value) for name, value in method_settings(part).items()}
    if isinstance(part, Problem):
        return {name: _plain(value) for name, value in part.settings.items()}
    return {name: _plain(value) for name, value in changed_fields(part).items()}


def _plain(value: object) -> Description:
    return value if isinstance(value, str | int | float) else described(value, content=False)


def text_of(value: object, *, content: bool = False) -> str | int | float | None:
    """Return a value in the form for labels and tables: a number, or a text without an address.

    Args:
        value: value of an axis or a parameter.
        content: whether functions with the same name but different code have different texts.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(inner, str | int | float) for inner in value):
        return str(value)
    if isinstance(value, Mapping) and all(isinstance(inner, str | int | float) for inner in value.values()):
        return str(dict(value))
    if isinstance(value, Method):
        return method_label(value)
    if _is_spec(value):
        return str(value)
    try:
        found = digest_of(described(value, content=content))
    except UnknownPartError:
        found = digest_of(described(value, content=False))
    return f"{_short_name(value)} {found[:6]}"


def _short_name(value: object) -> str:
    """Return a short name of an object; for an optax transformation, that of the function that made it."""
    if isinstance(value, tuple) and value and callable(value[0]):
        value = value[0]
    name = getattr(value, "__qualname__", None) or getattr(value, "model", None) or type(value).__name__
    return str(name).partition(".<locals>.init_fn")[0].replace("<locals>.", "")


def _is_spec(value: object) -> bool:
    """Return whether a value can be written to a spec, so that its ``repr`` holds no address."""
    try:
        if isinstance(value, Delay):
            DELAYS.to_table(value)
        elif isinstance(value, Schedule):
            SCHEDULES.to_table(value)
        elif isinstance(value, Partition):
            PARTITIONS.to_table(value)
        elif isinstance(value, Problem | Cluster):
            value.table()
        else:
            return isinstance(value, Synchrony)
    except ValueError:
        return False
    return True


def method_label(method: Method) -> str:
    """Return the name of a method with its parameters, without the learning rate: ``k-async(k=4)``."""
    defaults = methods.REGISTRY[method.name].parameters
    changed = {k: v for k, v in method.parameters if differs(v, defaults[k])}
    given = changed_fields(method.synchrony) | changed
    return method.name + (f"({', '.join(f'{k}={text_of(v)}' for k, v in given.items())})" if given else "")


def run_name(experiment: Experiment, lanes: int | None = None) -> str:
    """Return a name for a run that any file system allows: method, seed and the beginning of its key in a store.

    Args:
        experiment: experiment of the run.
        lanes: number of lanes in which it was executed; None if alone.
    """
    name = re.sub(r"[^A-Za-z0-9=.,()-]+", "_", method_label(experiment.method))[:80]
    try:
        key = key_of(experiment, lanes)
    except ValueError:  # a part of it exists in this process only
        key = digest_of([digest(experiment) or name_table(experiment), lanes])
    return f"{name}-seed{experiment.seed}-{key[:8]}"
