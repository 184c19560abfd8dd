"""The outputs of a check: a table for people, JUnit XML and GitHub annotations for machines, and pictures."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

import pandas as pd

from stalegrad.analysis import plot_curves
from stalegrad.analysis.plots.style import styles
from stalegrad.analysis.statistics.convergence import ARRIVALS
from stalegrad.analysis.statistics.curves import shown_column
from stalegrad.simulator.regression.verdict import Check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("method", "metric", "before", "after", "change", "interval", "tolerance", "p", "verdict")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a check as text."""
    columns = {
        "method": table["method"],
        "metric": table["metric"].str.replace("_", " "),
        "before": table["before"].map(_number),
        "after": table["after"].map(_number),
        "change": table["difference"].map(_percent),
        "interval": [f"{_percent(a)} to {_percent(b)}" for a, b in zip(table["low"], table["high"], strict=True)],
        "tolerance": [_percent(margin).lstrip("+") for margin in table["margin"]],
        "p": [_probability(p) for p in table["p"]],
        "verdict": table["verdict"],
    }
    return pd.DataFrame(columns, columns=list(SHOWN))


def text(check: Check) -> str:
    """Return the findings of a check as lines of text, for a terminal of any width and for logs."""
    lines = [f"convergence: {check.outcome}"]
    for method, outcome in check.methods.items():
        changes = "; ".join(check.changes(method))
        lines.append(f"  {method}: {outcome}" + (f" ({changes})" if changes else ""))
    if len(check.table):
        table = shown(check.table)
        wide = {name: max(len(name), *map(len, table[name])) for name in SHOWN}
        rows = [SHOWN, *table.itertuples(index=False)]
        lines += [
            "",
            *("  ".join(v.ljust(w) for v, w in zip(r, wide.values(), strict=True)).rstrip() for r in rows),
        ]
        lines += ["", legend(check)]
    if check.outcome != "same" and (said := check.surroundings()):
        lines.append(f"not as recorded: {'; '.join(said)}")
    if check.unsure:
        lines.append(
            f"objects of {', '.join(check.unsure)} may differ from the recorded ones: only types are compared"
        )
    return "\n".join(lines)


def legend(check: Check) -> str:
    """Return the meaning of the table's columns."""
    return (
        "change: mean over the paired seeds, relative to before, with its 90 % interval; less is better. worse: "
        f"beyond the tolerance (at least {check.tolerance:.3g}) with p <= {check.alpha:g}, corrected for all rows "
        "(Holm). unclear: these seeds do not suffice to decide; see stalegrad check power."
    )


def junit(check: Check, name: str) -> str:
    """Return a check as JUnit XML: a test case for each method."""
    methods = check.methods
    failures = sum(outcome == "worse" for outcome in methods.values())
    counts = {"tests": str(len(methods)), "failures": str(failures), "errors": "0", "skipped": "0"}
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", {"name": "stalegrad.check", **counts})
    for method, outcome in methods.items():
        case = ET.SubElement(suite, "testcase", classname=name, name=_printable(method))
        said = [outcome, *check.changes(method)]
        if outcome != "same":
            said.append(shown(check.table[check.table["method"] == method]).to_string(index=False))
        told = _printable("\n".join(said))
        if outcome == "worse":
            ET.SubElement(case, "failure", message=_printable(sentence(check, method)), type="worse").text = told
        else:
            ET.SubElement(case, "system-out").text = told
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def sentence(check: Check, method: str) -> str:
    """Return the outcome of a method in one line, with the metrics that are worse or unclear."""
    rows = check.table[(check.table["method"] == method) & check.table["verdict"].isin(("worse", "unclear"))]
    noted = [
        f"{row['metric'].replace('_', ' ')} {_number(row['before'])} -> {_number(row['after'])}"
        + ("" if math.isnan(row["difference"]) else f" ({_percent(row['difference'])})")
        + (", unclear with these seeds" if row["verdict"] == "unclear" else "")
        for row in rows.to_dict("records")
    ]
    return "; ".join([f"{method}: {check.methods[method]}", *noted])


def github(check: Check, file: str) -> list[str]:
    """Return a check as workflow commands of GitHub Actions: an error per worse method, notices for others."""
    said = []
    for method, outcome in check.methods.items():
        if outcome != "same":
            level = "error" if outcome == "worse" else "notice"
            changes = "; ".join([sentence(check, method), *check.changes(method)])
            properties = f"file={_escaped(file, True)},title={_escaped(f'convergence {outcome}', True)}"
            said.append(f"::{level} {properties}::{_escaped(changes)}")
    return said


def pictures(check: Check, directory: Path) -> list[Path]:
    """Draw the curves before and after for every worse metric of every method; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    worse = check.table[check.table["verdict"] == "worse"] if len(check.table) else check.table
    for method in dict.fromkeys(worse["method"]) if len(worse) else ():
        columns = {_column(check, method, metric) for metric in worse.loc[worse["method"] == method, "metric"]}
        for y in sorted(columns):
            written.append(_draw(check, method, y, directory))
    return written


def _column(check: Check, method: str, metric: str) -> str:
    """Return the column of a history from which a metric of a method is computed."""
    if metric in ARRIVALS:
        target = check.before.targets.get(method)
        return target.column if target else shown_column(list(check.before.histories[method].values()))
    return "train_loss" if metric == "lost_runs" else metric.partition("_")[2]


def _draw(check: Check, method: str, y: str, directory: Path) -> Path:
    curves = {
        name: list(recording.histories[method].values())
        for name, recording in {"before": check.before, "after": check.after}.items()
    }
    looks = dict(zip(curves, styles([f"{method}, {name}" for name in curves]).values(), strict=True))
    ax = plot_curves(curves, y=y, styles=looks)
    ax.set_title(method, loc="left")
    file = directory / f"{re.sub(r'[^A-Za-z0-9.=-]+', '-', method).strip('-')}-{y.replace('_', '-')}.png"
    cast("Figure", ax.figure).savefig(file, dpi=160, bbox_inches="tight", metadata={"Software": None})
    return file


def _number(value: float) -> str:
    return f"{value:.4g}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2%}"


def _probability(value: float) -> str:
    return "-" if math.isnan(value) else "<1e-4" if value < 1e-4 else f"{value:.3g}"


def _printable(said: str) -> str:
    """Return the text with a question mark in place of each character that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "?", said)


def _escaped(said: str, inside: bool = False) -> str:
    escapes = {"%": "%25", "\r": "%0D", "\n": "%0A"} | ({":": "%3A", ",": "%2C"} if inside else {})
    return "".join(escapes.get(character, character) for character in said)
