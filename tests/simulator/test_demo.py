"""The demo, as a user sees it: a table, pictures, and the order in which the methods finish."""

import struct
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from stalegrad.simulator import Experiment
from stalegrad.simulator.cli import demo
from stalegrad.simulator.experiments.result import load_results

METHODS = ["sync", "k-sync", "async", "k-async", "k-batch-async"]
PICTURES = [
    "error-against-wallclock",
    "staleness",
    *(f"timeline-{m}" for m in ("sync", "k-sync", "async", "k-async")),
]


def race(out, monkeypatch, *, wallclock=None):
    """Run the demo with one seed, cut short where a wallclock is given; return its table and what it said."""
    if wallclock is not None:
        short = Experiment
        monkeypatch.setattr(
            "stalegrad.simulator.Experiment", lambda **parts: short(**{**parts, "wallclock": wallclock})
        )
    said = StringIO()
    monkeypatch.setattr(demo, "console", Console(file=said, width=120))
    demo.demo_command(out, 1)
    return pd.read_csv(out / "table.csv", index_col=0), said.getvalue()


def check_pictures(out):
    assert sorted(picture.stem for picture in out.glob("*.png")) == sorted(PICTURES)
    for picture in out.glob("*.png"):
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", content[16:24])) > 250


def test_a_short_demo_ends_with_a_table_and_names_the_pictures_that_it_wrote(tmp_path, monkeypatch):
    earlier = tmp_path / "deep" / "demo" / "runs" / "sync-0" / "result.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of another demo")
    table, said = race(tmp_path / "deep" / "demo", monkeypatch, wallclock=50.0)
    assert sorted(table.index) == sorted(METHODS)
    assert all(method in said for method in METHODS)
    check_pictures(tmp_path / "deep" / "demo")
    assert all(f"{name}.png" in said for name in PICTURES)
    assert "table.csv" in said
    runs = load_results(tmp_path / "deep" / "demo")
    assert sorted(result.experiment.method.name for result in runs) == sorted(METHODS)


@pytest.mark.slow
def test_the_demo_shows_that_waiting_for_the_slowest_is_not_the_fastest(tmp_path, monkeypatch):
    table, said = race(tmp_path, monkeypatch)
    assert table["reached"].to_dict() == dict.fromkeys(METHODS, 1)
    assert table["wallclock"].idxmin() == "k-async"
    assert table.loc["k-async", "wallclock"] < table.loc["sync", "wallclock"] / 2
    assert table.loc["sync", "mean_staleness"] == 0
    assert table.loc["async", "mean_staleness"] == pytest.approx(15, abs=0.1)  # P - 1, whatever the law
    assert "Traceback" not in said
    check_pictures(tmp_path)
