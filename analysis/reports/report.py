"""Reports of results: one HTML file that can be read without a network and without this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from stalegrad._core.protocols import ExperimentLike, ResultLike
from stalegrad._core.text import visible
from stalegrad._core.types import Table
from stalegrad.analysis.plots.axes import axis_label
from stalegrad.analysis.plots.busy import plot_busy
from stalegrad.analysis.plots.curves import plot_curves
from stalegrad.analysis.plots.difference import plot_difference
from stalegrad.analysis.plots.staleness import plot_staleness
from stalegrad.analysis.plots.staleness_time import plot_staleness_time
from stalegrad.analysis.plots.timeline import plot_timeline
from stalegrad.analysis.reports.anatomy import anatomy_section
from stalegrad.analysis.reports.page import (
    heading,
    hundredths,
    listing,
    number,
    page,
    paragraph,
    percent,
    picture,
    table,
)
from stalegrad.analysis.statistics.curves import shown_column
from stalegrad.analysis.statistics.inputs import check_histories, check_target
from stalegrad.analysis.statistics.method_table import outcomes
from stalegrad.analysis.statistics.paired import speedups
from stalegrad.analysis.statistics.staleness import staleness_table

Runs = dict[str, dict[int, ResultLike]]
"""Results by label and seed."""

LONG = 24
"""Largest number of characters of a setting's value in a label."""

TIMES = {
    "seeds": ("seeds", number), "diverged": ("diverged", number), "updates": ("updates", number),
    "mean_staleness": ("mean staleness", hundredths), "idle": ("idle", percent), "wasted": ("wasted", percent),
}  # fmt: skip
"""Columns of outcomes that do not need a finite loss."""

TIMELINES = 8
"""Largest number of methods with pictures of their workers."""


@dataclass(frozen=True)
class Report:
    """A report as one HTML document.

    Attributes:
        html: the complete document, including pictures.
    """

    html: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the report to a file.

        Raises:
            FileExistsError: if the path exists and ``overwrite`` is False.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already: choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        """Return the document in a frame, so that its style does not affect the notebook."""
        return f'<iframe srcdoc="{escape(self.html)}" style="width: 100%; height: 40rem; border: 0"></iframe>'


def report(results: Sequence[ResultLike], target: float | None = None) -> Report:
    """Return one or several results as an HTML document: curves, times to a target, staleness, idle time, specs.

    Results that differ only in the seed are combined (mean and range over seeds); the others are compared. Their
    labels are the names of methods and, if these are equal, the settings that differ. If no run ever had a finite
    loss, the report says so and shows the rest. The same results give the same bytes, with the same version of
    matplotlib.

    Args:
        results: results of :func:`~stalegrad.simulator.run` or ``Result.load``.
        target: target of the test error (without test errors: of the test loss, or else of the training loss); by
            default the lowest value that more than half of the seeds of every method reach.

    Returns:
        The report. ``.save(path)`` writes it to a file; a notebook shows it.

    Raises:
        ValueError: if there is no result, a history has missing columns or no rows, two results have the same
            experiment and seed, or the target is not a finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> experiment = sg.Experiment(bowl, sg.Cluster(compute=[1.0, 2.5]), sg.methods.async_(), updates=10)
        >>> sg.report([sg.run(experiment, progress=False)]).save("report.html").exists()
        True
    """
    if not isinstance(results, Sequence) or not len(results):
        raise ValueError(f"results is {results!r:.40}: give a list of at least one result")
    check_histories([result.history for result in results], ("wallclock", "train_loss", "test_error"))
    runs = _by_method(results)
    y = shown_column([result.history for result in results])
    if target is not None:
        check_target(target, y)
    body = [*_top(runs), *_outcome(runs, y, target), *_staleness(runs), *_workers(runs), *_specs(runs)]
    return Report(page(_title(runs), "".join(body)))


@dataclass(frozen=True)
class _Kind:
    """Results that differ only in the seed."""

    name: str
    settings: dict[str, str]
    results: dict[int, ResultLike]


def _by_method(results: Sequence[ResultLike]) -> Runs:
    """Return the results by label and seed."""
    kinds: dict[tuple[tuple[str, str], ...], _Kind] = {}
    for result in results:
        name, seed, settings = result.experiment.method.name, result.experiment.seed, _settings(result.experiment)
        kind = kinds.setdefault(tuple(sorted(settings.items())), _Kind(name, settings, {}))
        if seed in kind.results:
            raise ValueError(f"two results are of the same experiment, {name}, seed {seed}")
        kind.results[seed] = result
    runs: Runs = {}
    for _, kind in sorted(kinds.items()):
        label = _label(kind, [other.settings for other in kinds.values() if other.name == kind.name])
        again = sum(known == label or known.startswith(f"{label} #") for known in runs)
        runs[f"{label} #{again + 1}" if again else label] = dict(sorted(kind.results.items()))
    return dict(sorted(runs.items()))


def _label(kind: _Kind, alike: Sequence[dict[str, str]]) -> str:
    """Return the method's name, and the settings that differ from others of that name."""
    differing = [key for key in sorted(set().union(*alike)) if len({other.get(key) for other in alike}) > 1]
    told = [f"{key.removeprefix('method.')} = {kind.settings.get(key, 'default')[:LONG]}" for key in differing]
    return visible(f"{kind.name} ({', '.join(told)})" if told else kind.name)


def _settings(experiment: ExperimentLike) -> dict[str, str]:
    """Return all settings but the seed, by dotted names; an experiment that is not a spec is one setting."""
    try:
        return {key: str(value) for key, value in _flat(experiment.table()).items() if key != "seed"}
    except ValueError:
        return {"experiment": repr(experiment.but(seed=0))}


def _flat(table: Mapping[str, object], prefix: str = "") -> Table:
    flat: Table = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _common_target(runs: Runs, y: str) -> float | None:
    """Return the lowest value that more than half of the seeds of every method reach; None if none is finite."""
    best = [np.sort([_least(r.history[y]) for r in seeds.values()]) for seeds in runs.values()]
    seen = [values[np.isfinite(values)] for values in best]
    return max((float(values[len(values) // 2]) for values in seen if len(values)), default=None)


def _least(values: pd.Series[float]) -> float:
    """Return the least finite value, NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.min()) if len(finite) else np.nan


def _title(runs: Runs) -> str:
    if len(runs) > 1:
        return f"{len(runs)} methods compared"
    ((label, seeds),) = runs.items()
    return f"{label}, {_seeds(list(seeds))}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _top(runs: Runs) -> list[str]:
    number_of_runs = sum(map(len, runs.values()))
    text = f"{number_of_runs} simulated run{'s' * (number_of_runs > 1)}. Wallclock is simulated seconds."
    return [heading(_title(runs), 1), paragraph(text, "under")]


def _outcome(runs: Runs, y: str, given: float | None) -> list[str]:
    what, common = _what(y), _common_target(runs, y)
    target = common if given is None else given
    pairs = {label: [(r.trace, r.history) for r in s.values()] for label, s in runs.items()}
    lost = [
        f"{label}, seed {seed}, at {r.diverged_at:g} s"
        for label, s in runs.items() for seed, r in s.items() if r.diverged_at is not None
    ]  # fmt: skip
    diverged = [paragraph(f"Diverged: {'; '.join(lost)}.")] if lost else []
    if common is None or target is None:
        found = outcomes(pairs, -np.inf, y)
        return [heading("Outcome"), paragraph(f"No run ever had a finite {what}."), table(found, TIMES), *diverged]
    found = outcomes(pairs, target, y)
    columns = {
        "seeds": ("seeds", number), "reached": ("reached", number),
        "wallclock": ("wallclock to target (s)", number), "updates": ("updates", number),
        "mean_staleness": ("mean staleness", hundredths), "idle": ("idle", percent),
        "wasted": ("wasted", percent), y: (f"final {what}", number),
    }  # fmt: skip
    why = ", the lowest that more than half of the seeds of every method reach" if given is None else ""
    histories = {label: [r.history for r in s.values()] for label, s in runs.items()}
    log = all((h[y] > 0).to_numpy()[np.isfinite(h[y])].all() for hs in histories.values() for h in hs)
    parts = [
        heading("Outcome"),
        paragraph(
            f"The target is a {what} of {target:.4g}{why}. Numbers are medians over seeds; runs that ended before "
            "the target are censored (Kaplan and Meier). A dash means: not reached by more than half of the "
            "seeds. Staleness is in updates, over used messages; idle and wasted are shares of the workers' time."
        ),
        table(found, columns),
        picture(
            plot_curves(histories, y=y, log=log), f"{what.capitalize()} against wallclock; band: range over seeds."
        ),
    ]
    return parts + diverged + _against_baseline(runs, y, target)


def _what(y: str) -> str:
    return axis_label(y).split(" (")[0]


def _against_baseline(runs: Runs, y: str, target: float) -> list[str]:
    """Return speed-ups and differences by pairs of seeds, if all methods share some."""
    baseline = "sync" if "sync" in runs else next(iter(runs))
    common = set.intersection(*(set(seeds) for seeds in runs.values()))
    if len(runs) < 2 or not common:
        return []
    histories = {label: {seed: s[seed].history for seed in sorted(common)} for label, s in runs.items()}
    columns = {
        "pairs": ("pairs of seeds", number), "speedup": (f"times sooner than {baseline}", hundredths),
        "low": ("low", hundredths), "high": ("high", hundredths),
    }  # fmt: skip
    return [
        heading(f"Against {baseline}"),
        paragraph(
            "Runs are paired by seed, so that effects common to the runs of a seed cancel. The number is the "
            f"wallclock to the target of {baseline} over that of the method: median of the ratios and 95 % "
            "bootstrap interval, which is too narrow for fewer than six pairs. A pair counts if it shows which "
            "run arrives first; the ratio is ∞ if only the method arrives, and 0 if only the baseline arrives."
        ),
        table(speedups(histories, target, baseline, y), columns),
        picture(
            plot_difference(histories, baseline, y=y),
            f"{_what(y).capitalize()}, minus that of {baseline}: below zero is better than {baseline}.",
        ),
    ]


def _staleness(runs: Runs) -> list[str]:
    traces = {label: [r.trace for r in seeds.values()] for label, seeds in runs.items()}
    columns = {name: (name, number) for name in ("messages", "mean", "sd", "median", "p99", "max")}
    columns |= {name: (name, hundredths) for name in ("mean", "sd")}
    parts = [
        heading("Staleness"),
        paragraph("Updates between the read of a gradient and its use, over the used messages of all seeds."),
        table(staleness_table(traces), columns | {"fresh": ("fresh", percent)}),
    ]
    if any(len(trace.used) for found in traces.values() for trace in found):
        parts += [
            picture(plot_staleness(traces), "Histogram of staleness; the triangle is the mean."),
            picture(plot_staleness_time(traces), "Staleness over time."),
        ]
    return parts


def _workers(runs: Runs) -> list[str]:
    parts = [heading("Workers")]
    if len(runs) > TIMELINES:
        parts.append(paragraph(f"The first {TIMELINES} of {len(runs)} methods."))
    for label, seeds in list(runs.items())[:TIMELINES]:
        seed, result = next(iter(seeds.items()))
        if result.trace.end <= 0:
            continue
        parts += [
            heading(f"{label}, seed {seed}", 3),
            picture(plot_busy(result.trace), "Shares of the workers' time (means in brackets)."),
            *anatomy_section(result.trace),
            picture(plot_timeline(result.trace), "The first messages: bars are computing, lines are updates."),
        ]
    return parts


def _specs(runs: Runs) -> list[str]:
    parts = [
        heading("How to reproduce this"),
        paragraph(
            "Save each specification under its name and run it for each seed. With the same versions, on the same "
            "type of machine, the numbers are the same to the last bit."
        ),
    ]
    for place, (label, seeds) in enumerate(runs.items(), start=1):
        experiment = next(iter(seeds.values())).experiment
        try:
            spec = experiment.to_toml()
            commands = [f"stalegrad run spec-{place}.toml -o runs/{place}-{seed} --seed {seed}" for seed in seeds]
        except ValueError as error:
            spec, commands = f"{experiment!r}\n\n{error}", []
        parts += [heading(f"spec-{place}.toml: {label}, {_seeds(list(seeds))}", 3), listing(spec)]
        parts += [listing("\n".join(commands))] if commands else []
    found: dict[str, set[str]] = {}
    for seeds in runs.values():
        for result in seeds.values():
            for name, version in result.versions.items():
                found.setdefault(visible(name), set()).add(visible(version))
    versions = pd.DataFrame({"version": {name: ", ".join(sorted(v)) for name, v in found.items()}})
    parts.append(heading("Versions of the runs", 3))
    known = table(versions.rename_axis("package"), {"version": ("version", str)})
    return [*parts, known if found else paragraph("Not recorded.")]
