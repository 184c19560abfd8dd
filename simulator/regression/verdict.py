"""The comparison of a recording with its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from stalegrad._core.types import Table
from stalegrad.analysis.statistics.convergence import METRICS, measure
from stalegrad.analysis.statistics.regression import ALPHA, TOLERANCE, check_pairs, check_settings, compare_runs
from stalegrad.simulator.experiments.describe import unsure
from stalegrad.simulator.regression.plan import Plan
from stalegrad.simulator.regression.recording import RecordedRun, Recording

Outcome = Literal["same", "different but not worse", "worse"]
OUTCOMES: tuple[Outcome, ...] = ("same", "different but not worse", "worse")


@dataclass(frozen=True, eq=False)
class Check:
    """The result of a comparison with a baseline.

    Attributes:
        before: the baseline.
        after: recording of the runs executed now.
        table: one row per metric of every method that is not the same, see
            :func:`~stalegrad.analysis.statistics.regression.compare_runs`.
        tolerance: largest worsening that is ignored, relative to the baseline's mean.
        alpha: probability that any result is reported as worse by chance.
    """

    before: Recording
    after: Recording
    table: pd.DataFrame
    tolerance: float
    alpha: float

    @property
    def methods(self) -> dict[str, Outcome]:
        """The outcome of every method."""
        found: dict[str, Outcome] = dict.fromkeys(self.before.histories, "same")
        for method, rows in self.table.groupby("method") if len(self.table) else ():
            found[str(method)] = "worse" if (rows["verdict"] == "worse").any() else "different but not worse"
        return found

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the methods."""
        return max(self.methods.values(), key=OUTCOMES.index)

    def passed(self, strict: bool = False) -> bool:
        """Return whether no method is worse, or, with ``strict``, whether all are the same."""
        return self.outcome == "same" or (self.outcome != "worse" and not strict)

    def changes(self, method: str) -> list[str]:
        """Return sentences on the kinds of changes: timing, numbers, or recording."""
        pairs = [(a, b) for a, b in _pairs(self.before, self.after) if a.method == method]
        said = []
        if events := [a.seed for a, b in pairs if a.digests.events != b.digests.events]:
            said.append(f"timing: other messages, or another order ({_seeds(events, len(pairs))})")
        elif times := [a.seed for a, b in pairs if a.digests.times != b.digests.times]:
            said.append(f"timing: the same messages at other times ({_seeds(times, len(pairs))})")
        if numbers := [a.seed for a, b in pairs if a.digests.params != b.digests.params]:
            said.append(f"numbers: other parameters at the end ({_seeds(numbers, len(pairs))})")
        if not said and (curves := [a.seed for a, b in pairs if not _same_curve(a, b)]):
            said.append(f"recording: other curves of the same runs ({_seeds(curves, len(pairs))})")
        return said

    @property
    def unsure(self) -> list[str]:
        """The types of the objects in the experiments that cannot be compared with the recorded ones."""
        return unsure(self.before.spec)

    def surroundings(self) -> list[str]:
        """Return the differences of package versions and machine."""
        now = {**self.after.versions, **self.after.machine}
        then = {**self.before.versions, **self.before.machine}
        return [f"{name}: {then.get(name)} -> {now.get(name)}" for name in now if now[name] != then.get(name)]


def compare(
    before: Recording,
    after: Recording,
    metrics: Sequence[str] = METRICS,
    *,
    tolerance: float = TOLERANCE,
    alpha: float = ALPHA,
) -> Check:
    """Compare a recording with its baseline. Methods whose runs are equal bit for bit need no statistics.

    Args:
        before: the baseline.
        after: recording of the same methods and seeds, executed now.
        metrics: metrics that are compared.
        tolerance: largest worsening that is ignored, relative to the baseline's mean.
        alpha: probability that any result is reported as worse by chance.

    Raises:
        ValueError: if the two hold different methods or seeds, or a value is out of range.
    """
    check_settings(tolerance, alpha)
    old, new = before.histories, after.histories
    check_pairs(old, new)
    for metric in metrics:
        measure(before.runs[0].curve, metric)  # raises for an unknown metric even if nothing has changed
    changed = {a.method for a, b in _pairs(before, after) if a.digests != b.digests or not _same_curve(a, b)}
    table = pd.DataFrame()
    if changed:
        old, new = ({label: runs[label] for label in runs if label in changed} for runs in (old, new))
        table = compare_runs(old, new, before.targets, metrics, tolerance=tolerance, alpha=alpha)
    return Check(before, after, table, tolerance, alpha)


def check_plan(before: Recording, plan: Plan, where: str) -> None:
    """Raise ValueError if a baseline was recorded from another plan; it names the differences.

    Plans are compared by qualified names and settings; functions of the same name may have different code.
    """
    now = plan.table()
    if now == before.spec:
        want = {(label, run.experiment.seed) for label, run in plan.runs}
        if want != {(run.method, run.seed) for run in before.runs}:
            raise ValueError(f"{where} was recorded from other methods or seeds: record it again")
        return
    then, found = _flat(before.spec), _flat(now)
    differing = [
        f"{name}: {then.get(name, 'absent')} -> {found.get(name, 'absent')}"
        for name in [*then, *(name for name in found if name not in then)]
        if then.get(name, "absent") != found.get(name, "absent")
    ]
    inside = ""
    if any(".closure." in name for name in (*then, *found)):
        inside = (
            ". Its names include those inside an object that was built, such as an optax transformation: a check "
            "should be given the function that builds it, or a table, so that it compares settings alone"
        )
    raise ValueError(f"{where} was recorded from another spec ({'; '.join(differing)}): record it again{inside}")


def _flat(table: Mapping[Any, object], prefix: str = "") -> Table:
    flat: Table = {}
    for name, value in table.items():
        nested = dict(enumerate(value)) if isinstance(value, list) and not _is_flat(value) else value
        flat |= _flat(nested, f"{prefix}{name}.") if isinstance(nested, Mapping) else {f"{prefix}{name}": value}
    return flat


def _is_flat(values: list[object]) -> bool:
    return not any(isinstance(value, Mapping | list) for value in values)


def _pairs(before: Recording, after: Recording) -> Iterator[tuple[RecordedRun, RecordedRun]]:
    now = {(run.method, run.seed): run for run in after.runs}
    return ((run, now[run.method, run.seed]) for run in before.runs)


def _same_curve(a: RecordedRun, b: RecordedRun) -> bool:
    return a.curve.equals(b.curve)


def _seeds(seeds: list[int], of: int) -> str:
    return "all seeds" if len(seeds) == of else f"seeds {', '.join(map(str, seeds))}"
