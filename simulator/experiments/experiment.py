"""The spec of an experiment, as an object and as a TOML file: everything that a run depends on."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import InstanceOf

from stalegrad._core.files import read_regular
from stalegrad._core.functions import name_of
from stalegrad._core.specs import PositiveFloat, PositiveInt, Seed, changed_fields, check_keys, spec, validate
from stalegrad._core.types import Table
from stalegrad.models import Problem
from stalegrad.policies import Method, methods
from stalegrad.policies.schedules import SCHEDULES, Constant, Schedule
from stalegrad.policies.synchrony import SYNCHRONIES, Synchrony
from stalegrad.simulator.replays.record import Record
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster

MAX_SPEC = 16 << 20
"""Largest number of bytes of a file with a spec."""


@spec
class Experiment:
    """The spec of one run: a problem, a cluster, a method, a budget and a seed.

    Exactly one of ``updates``, ``wallclock`` and ``gradients`` is given: it is the budget.

    Args:
        problem: model, data and loss that are trained.
        cluster: simulated server and workers.
        method: synchrony and rule, with their parameters.
        updates: budget in server updates.
        wallclock: budget in simulated seconds.
        gradients: budget in used mini-batch gradients.
        seed: seed of all random streams, 0 to 2^64 - 1; the same experiment gives the same bytes.
        record: rows and columns of the history.

    Raises:
        ValueError: for a value that is not allowed; it names the field, the value and what is allowed.

    Example:
        >>> import stalegrad as sg
        >>> problem = sg.Problem("softmax-regression", "fashion-mnist-small")
        >>> cluster = sg.Cluster(workers=4, compute=sg.Exponential(1.0))
        >>> experiment = sg.Experiment(problem, cluster, sg.methods.k_async(k=2), updates=100)
        >>> sg.from_toml(experiment.but(seed=1).to_toml()) == experiment.but(seed=1)
        True
    """

    problem: InstanceOf[Problem]
    cluster: InstanceOf[Cluster]
    method: InstanceOf[Method]
    updates: PositiveInt | None = None
    wallclock: PositiveFloat | None = None
    gradients: PositiveInt | None = None
    seed: Seed = 0
    record: InstanceOf[Record] = field(default_factory=Record)

    def check_fields(self) -> None:
        """Raise ValueError unless the parts fit each other."""
        _ = self.budget
        self.method.synchrony.check(self.cluster.size)
        if self.record.worker_losses:
            self.problem.check_divided("worker_losses of record")

    @property
    def budget(self) -> Budget:
        """The budget of the run."""
        return Budget(updates=self.updates, wallclock=self.wallclock, gradients=self.gradients)

    @property
    def timed_cluster(self) -> Cluster:
        """The cluster as simulated: with the bytes of the model's parameters in place of ``"model"``."""
        network = self.cluster.network
        if network is None or not network.unresolved:
            return self.cluster
        return replace(self.cluster, network=network.resolved(_parameter_bytes(self.problem)))

    def but(self, **changes: Any) -> Experiment:
        """Return the same experiment with some fields changed, e.g. ``experiment.but(seed=1)``."""
        return replace(self, **changes)

    def to_toml(self) -> str:
        """Return the experiment as TOML; :func:`from_toml` reads it back.

        Raises:
            ValueError: if a part of it exists in this process only; it names the part.
        """
        return tomli_w.dumps(self.table())

    def table(self) -> Table:
        """Return the experiment as nested plain tables.

        Raises:
            ValueError: if a part of it exists in this process only; it names the part.
        """
        table: Table = {k: v for k in ("updates", "wallclock", "gradients") if (v := getattr(self, k)) is not None}
        table["seed"] = self.seed
        table["problem"] = self.problem.table()
        table["cluster"] = self.cluster.table()
        table["method"] = method_table(self.method)
        record = changed_fields(self.record)
        if "fn" in record:
            record["fn"] = name_of(record["fn"])
        return table | ({"record": record} if record else {})


@functools.lru_cache(maxsize=32)
def _parameter_bytes(problem: Problem) -> int:
    return problem.parameter_bytes()


def read_experiment(table: Table) -> Experiment:
    """Return the experiment that nested tables describe.

    Raises:
        ValueError: for an unknown or missing key or a wrong value; it names the key or value and what is allowed.
    """
    allowed = [f.name for f in fields(Experiment)]
    check_keys("the experiment", table, allowed)
    for part in ("problem", "cluster", "method"):
        if not isinstance(table.get(part), Mapping):
            raise ValueError(f"the experiment needs a table [{part}]")
    arguments = dict(table)
    arguments["problem"] = read_problem(arguments["problem"])
    arguments["cluster"] = Cluster.from_table(arguments["cluster"])
    arguments["method"] = read_method(arguments["method"])
    if "record" in arguments:
        record = validate("record", Table, arguments["record"])
        check_keys("record", record, [f.name for f in fields(Record)])
        arguments["record"] = Record(**record)
    return Experiment(**arguments)


def from_toml(text: str) -> Experiment:
    """Return the experiment that a TOML text describes. Functions that it names are not imported.

    Raises:
        ValueError: as for :func:`read_experiment`, or if the text is not TOML.

    Example:
        >>> import stalegrad as sg
        >>> experiment = sg.from_toml('''
        ... updates = 100
        ... problem = { model = "mlp", dataset = "fashion-mnist-small" }
        ... cluster = { workers = 4, compute = { delay = "exponential", scale = 2.0 } }
        ... method = { name = "k-async", k = 2 }
        ... ''')
        >>> experiment.cluster.compute
        Exponential(scale=2.0)
    """
    return read_experiment(parse_toml(text))


def load_experiment(path: str | Path) -> Experiment:
    """Return the experiment of a TOML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for :func:`from_toml`; it names the file.

    Example:
        >>> from pathlib import Path
        >>> import stalegrad as sg
        >>> problem = sg.Problem("mlp", "fashion-mnist-small")
        >>> experiment = sg.Experiment(problem, sg.Cluster(4), sg.methods.k_async(k=2), updates=100)
        >>> written = Path("spec.toml").write_text(experiment.to_toml())
        >>> sg.load_experiment("spec.toml") == experiment
        True
    """
    try:
        return read_experiment(read_toml(Path(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_toml(file: Path) -> Table:
    """Return the tables of a TOML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, too large for a spec, or not TOML in UTF-8.
    """
    return parse_toml(read_regular(file, MAX_SPEC, "a spec").decode("utf-8-sig"))


def parse_toml(text: str) -> Table:
    """Return the tables of a TOML text.

    Raises:
        ValueError: if it is not TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("the text is nested too deeply to be a spec") from None


def read_problem(table: Table) -> Problem:
    """Return the problem that a table describes."""
    for key in ("model", "dataset"):
        if key not in table:
            raise ValueError(f"[problem] needs {key}")
    return Problem(**table)


def read_method(table: Table) -> Method:
    """Return the method that a table describes; ``"none"`` stands for None, which TOML lacks."""
    arguments = dict(table)
    if "name" not in arguments:
        raise ValueError("[method] needs name")
    if not isinstance(arguments.get("synchrony"), Synchrony | None):
        arguments["synchrony"] = SYNCHRONIES.from_table(validate("synchrony", Table, arguments["synchrony"]))
    arguments = {k: None if isinstance(v, str) and v == "none" else v for k, v in arguments.items()}
    return methods.method(arguments.pop("name"), arguments)


def method_settings(method: Method) -> Table:
    """Return the settings of a method as objects, from which :func:`read_method` gives an equal method.

    Defaults are left out.
    """
    info = methods.REGISTRY[method.name]
    settings: Table = {"name": method.name}
    if type(method.synchrony) is info.synchrony:
        settings |= changed_fields(method.synchrony)
    else:
        settings["synchrony"] = method.synchrony
    settings |= {name: value for name, value in method.parameters if differs(value, info.parameters[name])}
    return settings | {"learning_rate": method.learning_rate}


def method_table(method: Method) -> Table:
    """Return a method as the table that :func:`read_method` reads back; defaults are left out.

    Raises:
        ValueError: if a part of it exists in this process only; it names the part.
    """
    table = method_settings(method)
    rate: Schedule = table.pop("learning_rate")
    if "synchrony" in table:
        table["synchrony"] = SYNCHRONIES.to_table(method.synchrony)
    table = {
        name: "none" if value is None else value if name == "synchrony" else _plain(f"{name} of method", value)
        for name, value in table.items()
    }
    plain = type(rate) is Constant and changed_fields(rate) == {"peak": rate.peak}
    return table | {"learning_rate": rate.peak if plain else SCHEDULES.to_table(rate)}


def differs(value: object, default: object) -> bool:
    """Return whether a value differs from a default; arrays count as different."""
    try:
        return bool(value != default)
    except ValueError:
        return True


def _plain(what: str, value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {k: _plain(what, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(what, v) for v in value]
    raise ValueError(
        f"{what} = {type(value).__qualname__} object exists in this process only and cannot be written to a spec: "
        'give a name, a table, or a function of a module as "module:function"'
    )


def flattened(table: Table) -> Table:
    """Return the table of an experiment with names like ``cluster.workers``."""
    row: Table = {}
    for name, value in table.items():
        row |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return row
