"""A recording: the results of the runs of a plan, as a small text file that is committed beside the code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stalegrad._core.files import put, read_regular
from stalegrad._core.types import Table
from stalegrad.analysis.statistics.convergence import (
    ARRIVALS,
    KINDS,
    Target,
    default_target,
    lost,
    measure,
)
from stalegrad.analysis.statistics.curves import shown_column
from stalegrad.analysis.statistics.inputs import check_target
from stalegrad.simulator.experiments.result import Result, versions
from stalegrad.simulator.regression.digests import Digests, machine
from stalegrad.simulator.regression.plan import SEEDS, Plan
from stalegrad.simulator.sweeps.executors import ExecutorLike
from stalegrad.simulator.sweeps.sweep import execute

FORMAT = "stalegrad-baseline-3"
DIGITS = 6
"""Significant digits of a recorded curve; the digests cover all bits."""
MAX_BASELINE = 256 << 20
"""Largest number of bytes of a baseline."""
UNUSED = ("gradients", "epoch", "mean_staleness", "max_staleness", "mean_gap", "learning_rate")
"""Columns of a history that are not recorded."""


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """The record of a run.

    Attributes:
        method: label of the run: the method, and the values of other axes.
        seed: seed of the run.
        digests: digests of the run, equal only if runs are equal bit for bit.
        mean_staleness: mean staleness of its trace.
        curve: history of the run, without the columns ``UNUSED``.
    """

    method: str
    seed: int
    digests: Digests
    mean_staleness: float
    curve: pd.DataFrame

    @classmethod
    def of(cls, method: str, result: Result) -> RecordedRun:
        """Return the record of a result."""
        digests, staleness = Digests.of(result), rounded(result.trace.summary()["mean_staleness"])
        kept = result.history.drop(columns=list(UNUSED), errors="ignore").dropna(axis="columns", how="all")
        for name in ("train_loss", "test_error"):
            kept[name] = result.history[name]
        curve = pd.DataFrame({name: [rounded(v) for v in kept[name]] for name in kept.columns}).astype(float)
        return cls(method, result.experiment.seed, digests, staleness, curve)

    def summary(self, target: Target | None) -> dict[str, float]:
        """Return the metrics of the run."""
        columns = [name for name in self.curve.columns if name not in ("wallclock", "update")]
        names = [*(f"{kind}_{column}" for column in columns for kind in KINDS if kind != "mean"), *ARRIVALS]
        found = {name: measure(self.curve, name, target) for name in names}
        return {name: rounded(m.value) for name, m in found.items() if m is not None}


@dataclass(frozen=True, eq=False)
class Recording:
    """The recorded runs of a plan, as a baseline or for comparison with one.

    Attributes:
        spec: name of the plan as nested tables, see :meth:`Plan.table`.
        written: whether the spec suffices to run the plan again; otherwise it exists in a test only.
        targets: target of each method, for its time of arrival.
        versions: versions of the packages that executed the runs.
        machine: machine that executed the runs.
        runs: one record for each method and seed.
    """

    spec: Table
    written: bool
    targets: Mapping[str, Target]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    runs: tuple[RecordedRun, ...]

    @property
    def plan(self) -> Plan:
        """The plan of the recorded runs.

        Raises:
            ValueError: if the plan exists in a test only, or its spec cannot be read by this version.
        """
        if not self.written:
            raise ValueError("the experiments of this baseline exist in a test only, not as a spec: run that test")
        return Plan.read(self.spec)

    @property
    def histories(self) -> dict[str, dict[int, pd.DataFrame]]:
        """The curves, by method and seed."""
        found: dict[str, dict[int, pd.DataFrame]] = {}
        for run in self.runs:
            found.setdefault(run.method, {})[run.seed] = run.curve
        return found

    def lost(self) -> list[str]:
        """Return a sentence for each method of which runs are lost, which hides what a change makes worse."""
        said = []
        for method, runs in self.histories.items():
            if gone := sum(map(lost, runs.values())):
                said.append(
                    f"{gone} of {len(runs)} runs of {method} are lost (the training loss ends above its start, or "
                    "is not finite): such a baseline hides what a change makes worse; lower the learning rate"
                )
        return said

    def dumps(self) -> str:
        """Return the recording as JSON, with a line for each column of a curve, so that a diff is readable."""
        runs = [
            {
                "method": run.method,
                "seed": run.seed,
                "digests": run.digests._asdict(),
                "summary": {"mean_staleness": _written(run.mean_staleness)}
                | {k: _written(v) for k, v in run.summary(self.targets.get(run.method)).items()},
                "curve": {name: [_written(v) for v in run.curve[name]] for name in run.curve.columns},
            }
            for run in self.runs
        ]
        table = {
            "format": FORMAT,
            "spec": self.spec,
            "written": self.written,
            "targets": {label: target._asdict() for label, target in self.targets.items()},
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "runs": runs,
        }
        table["sha256"] = _checksum(table)
        text = json.dumps(table, indent=1, allow_nan=False)
        return re.sub(r"\[\n[^\[\]{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text) + "\n"

    def save(self, file: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the recording to a file, completely or not at all.

        Raises:
            FileExistsError: if the file exists and ``force`` is false.
        """
        file = check_new(file, force)
        text = self.dumps()
        file.parent.mkdir(parents=True, exist_ok=True)
        put(file, text.encode())
        return file

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Recording:
        """Read a recording that :meth:`save` wrote. Functions that its spec names are not imported.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, edited, of another version, or lacks a run; it names the file.
        """
        content = read_regular(Path(file), MAX_BASELINE, "a baseline")
        try:
            table = dict(json.loads(content.decode()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} is damaged: {error}") from None
        if table.get("format") != FORMAT:
            raise ValueError(f"{file} is not a baseline of format {FORMAT}: found {table.get('format')!r}")
        if table.pop("sha256", None) != _checksum(table):
            raise ValueError(
                f"{file} is damaged or was edited: its SHA-256 is not the one in the file; record it again"
            )
        try:
            found = cls(
                dict(table["spec"]),
                bool(table["written"]),
                {label: Target(str(t["column"]), float(t["value"])) for label, t in table["targets"].items()},
                dict(table["versions"]),
                dict(table["machine"]),
                tuple(_read_run(run) for run in table["runs"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"{file} is damaged: {type(error).__name__} {error}") from None
        found.check(str(file))
        return found

    def check(self, where: str) -> None:
        """Raise ValueError unless every method has the same two or more seeds, exactly those of the spec."""
        have = {method: set(runs) for method, runs in self.histories.items()}
        if not have or len(self.runs) != sum(map(len, have.values())):
            raise ValueError(f"{where} is damaged: it holds {len(self.runs)} runs, some of them twice or none")
        if not self.written:
            want = dict.fromkeys(have, set().union(*have.values()))
        else:
            want = {}
            try:
                runs = self.plan.runs
            except ValueError as error:
                raise ValueError(f"the spec in {where} cannot be read: {error}") from None
            for label, run in runs:
                want.setdefault(label, set()).add(run.experiment.seed)
        for label in want | have:
            if missing := want.get(label, set()) - have.get(label, set()):
                raise ValueError(f"{where} lacks seeds {sorted(missing)} of {label!r}: record it again")
            if unknown := have.get(label, set()) - want.get(label, set()):
                raise ValueError(f"{where} has seeds {sorted(unknown)} of {label!r}, which are not in its spec")
        for label, seeds in have.items():
            if len(seeds) < 2:
                raise ValueError(f"{where} has one seed of {label!r}: statistics need at least 2 (better {SEEDS})")


def record(
    plan: Plan, *, target: float | None = None, executor: ExecutorLike | None = None, progress: bool = True
) -> Recording:
    """Run a plan and record the results.

    Args:
        plan: methods and seeds to run.
        target: test error (without one, test or training loss) whose time of arrival is recorded; by default, for
            each method, the value after 90 % of its mean improvement.
        executor: executor, as for :func:`stalegrad.simulator.sweep`.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if the target is not a number.
        RuntimeError: if a run raises.
    """
    if target is not None:
        check_target(target, "the test error")
    todo = plan.runs
    made = execute([run for _, run in todo], executor=executor, progress=progress, fail_fast=True)
    runs = tuple(RecordedRun.of(label, result) for (label, _), result in zip(todo, made.results, strict=True))
    by_method: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run.curve)
    targets = {method: _target(curves, target) for method, curves in by_method.items()}
    known = {method: found for method, found in targets.items() if found is not None}
    return Recording(plan.table(), plan.written, known, versions(), machine(), runs)


def _target(curves: list[pd.DataFrame], value: float | None) -> Target | None:
    return default_target(curves) if value is None else Target(shown_column(curves), value)


def check_new(file: str | os.PathLike[str], force: bool = False) -> Path:
    """Return the path; raise FileExistsError if the file exists and ``force`` is false."""
    file = Path(file)
    if file.exists() and not force:
        raise FileExistsError(f"{file} exists already: --force replaces it")
    return file


def _checksum(table: Table) -> str:
    """Return the SHA-256 of a baseline's content, independent of its layout."""
    text = json.dumps(table, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rounded(value: float) -> float:
    """Return a number rounded to ``DIGITS`` significant digits."""
    return float(f"{float(value):.{DIGITS}g}")


def _written(value: float) -> float | int | str | None:
    """Return a number in a form that JSON can hold."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def _read(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _read_run(table: Table) -> RecordedRun:
    curve = pd.DataFrame({name: [_read(v) for v in column] for name, column in table["curve"].items()})
    if missing := {"wallclock", "update", "train_loss", "test_error"} - set(curve.columns):
        raise ValueError(f"a curve lacks {sorted(missing)}")
    if not len(curve) or curve[["wallclock", "update"]].isna().any(axis=None):
        raise ValueError("a curve has no rows, or a row has no wallclock or update")
    digests = Digests(**table["digests"])
    return RecordedRun(
        str(table["method"]), int(table["seed"]), digests, _read(table["summary"]["mean_staleness"]), curve
    )
