"""The demo, as a user sees it: a table, pictures, and the order in which the methods finish."""

import re
import struct
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Cluster, Experiment, simulate
from stalegrad.simulator.cli import demo
from stalegrad.simulator.experiments.result import load_results

METHODS = ["sync", "k-sync", "async", "k-async", "k-batch-async"]
PICTURES = [
    "error-against-wallclock",
    "staleness",
    *(f"timeline-{m}" for m in ("sync", "k-sync", "async", "k-async")),
]


def race(out, monkeypatch, *, wallclock=None, methods=None):
    """Run the demo with one seed, cut short where a wallclock is given; return its table and what it said."""
    if wallclock is not None:
        short = Experiment
        monkeypatch.setattr(
            "stalegrad.simulator.Experiment", lambda **parts: short(**{**parts, "wallclock": wallclock})
        )
    said = StringIO()
    monkeypatch.setattr(demo, "console", Console(file=said, width=120))
    demo.demo_command(out, 1, methods)
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


def test_a_demo_of_chosen_methods_compares_these(tmp_path, monkeypatch):
    chosen = ["rennala:k=2", "k-async:k=2", "k-async"]
    table, said = race(tmp_path, monkeypatch, wallclock=30.0, methods=chosen)
    assert sorted(table.index) == ["k-async", "k-async(k=2)", "rennala(k=2)"]
    assert (tmp_path / "timeline-k-async(k=2).png").exists()
    runs = {result.experiment.method for result in load_results(tmp_path)}
    assert {(method.name, method.synchrony.k) for method in runs} == {
        ("k-batch-sync", 2),
        ("k-async", 2),
        ("k-async", 4),
    }
    assert "timeline-rennala(k=2).png" in said


@pytest.mark.parametrize("name", REGISTRY)
def test_every_method_can_be_chosen_and_runs_on_the_demo_s_workers(name):
    _, method = demo.contestant(name)
    method.synchrony.check(demo.WORKERS)
    if not method.adaptive:
        trace = simulate(Cluster(demo.WORKERS), method.synchrony, wallclock=30.0)
        assert len(trace.updates) > 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asinc", "unknown method 'asinc'. Did you mean 'async'?"),
        ("k-async:k", "--method = 'k' is not allowed: give NAME=VALUE"),
        ("k-async:kk=2", "unknown parameter of method 'k-async': 'kk'. Did you mean 'k'?"),
        ("k-async:k=two", "k of k-async = 'two' is not allowed"),
    ],
)
def test_a_wrong_choice_is_one_sentence(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        demo.contestant(text)


def test_values_are_read_as_toml_and_lists_may_hold_commas():
    label, method = demo.contestant("dylu:seconds=[1.0, 2.0],least=2,inner=sgd")
    assert label == "dylu(seconds=[1.0, 2.0], least=2, inner=sgd)"
    assert (method.synchrony.seconds, method.synchrony.least) == ((1.0, 2.0), 2)
    assert dict(method.parameters)["inner"] == "sgd"


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
