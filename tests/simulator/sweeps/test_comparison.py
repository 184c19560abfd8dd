"""Two results or stores side by side: means and differences by hand, pairs, and what cannot be compared."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from stalegrad.analysis import side_by_side
from stalegrad.policies import methods
from stalegrad.simulator import compare, load, run
from stalegrad.simulator.cli import app
from stalegrad.simulator.cli.compare import compare_command


@pytest.fixture(scope="module")
def stores(tmp_path_factory, base, silent):
    """Two stores over methods and seeds, at two learning rates; the second lacks a seed and has a method more."""
    place = tmp_path_factory.mktemp("stores")
    slow = [methods.async_(learning_rate=0.01), methods.sync(learning_rate=0.01)]
    fast = [methods.async_(learning_rate=0.05), methods.sync(learning_rate=0.05), methods.k_sync(k=2)]
    silent(base, store=place / "a", method=slow, seed=[0, 1, 2])
    silent(base, store=place / "b", method=fast, seed=[1, 2])
    return place / "a", place / "b"


def test_two_results_by_hand(base):
    first, second = (run(base.but(seed=seed), progress=False) for seed in (0, 1))
    found = compare(first, second)
    table = found.table
    last = [result.history["test_error"].iloc[-1] for result in (first, second)]
    assert table.loc["last test_error", ["a", "b"]].tolist() == last
    assert table.loc["last test_error", "difference"] == pytest.approx(last[1] - last[0])
    assert table.loc["mean_staleness", "a"] == first.trace.summary()["mean_staleness"]
    assert (table["pairs"] == 0).all()
    assert table["low"].isna().all()
    assert "All settings but the seeds are the same" in found.words[0]


def test_a_result_and_itself_are_the_same(base):
    result = run(base, progress=False)
    found = compare(result, [result])
    assert (found.table["difference"].dropna() == 0).all()
    assert (found.table["pairs"] == 1).all()
    assert "the events are the same in 1 of them" in found.words[1]


def test_stores_are_compared_method_by_method_and_paired_by_seed(stores):
    found = compare(*map(str, stores))
    assert list(found.runs) == ["async", "sync"]
    assert found.table.index.get_level_values("runs").unique().tolist() == ["async", "sync"]
    assert (found.table["pairs"] == 2).all()
    rows = [load(store).runs for store in stores]
    ours, theirs = (
        table[table["method"].str.startswith("async") & table["seed"].isin([1, 2])].set_index("seed")
        for table in rows
    )
    difference = found.table.loc[("async", "last test_error"), "difference"]
    assert difference == pytest.approx((theirs["test_error"] - ours["test_error"]).mean())
    assert found.table.loc[("async", "mean_staleness"), ["difference", "low", "high"]].tolist() == [0.0, 0.0, 0.0]
    words = " ".join(found.words)
    assert "method.learning_rate (0.01 and 0.05)" in words
    assert "async: 2 seeds in common are paired; the events are the same in 2 of them" in words
    assert "Only b has k-sync" in words


def test_settings_that_vary_within_a_side_are_matched(base, silent):
    rates = {"method.learning_rate": [0.01, 0.02]}
    first, second = silent(base, seed=[0], **rates), silent(base.but(updates=30), seed=[0], **rates)
    found = compare(first, second)
    assert list(found.runs) == ["async (learning_rate = 0.01)", "async (learning_rate = 0.02)"]
    assert "updates (40 and 30)" in found.words[0]
    assert "the events are the same in 0 of them" in found.words[1]


def test_a_sweep_s_result_and_a_directory_do_as_well(stores):
    assert compare(load(stores[0]), stores[0]).table["difference"].dropna().eq(0).all()


def test_seeds_apart_are_not_paired_but_have_an_interval(stores):
    results = [r for r in load(stores[0]).results if r.experiment.method.name == "async"]
    a, b = {0: results[0], 1: results[1]}, {2: results[2], 3: results[0]}
    table = side_by_side(a, b)
    assert (table["pairs"] == 0).all()
    row = table.loc["last test_error"]
    assert row["low"] <= row["difference"] <= row["high"]
    lowest = min(r.history["test_error"].iloc[-1] for r in b.values()) - max(
        r.history["test_error"].iloc[-1] for r in a.values()
    )
    assert row["low"] >= lowest - 1e-12


def test_a_target_that_is_not_reached_is_no_number(base):
    result = run(base, progress=False)
    table = compare(result, result, target=-1.0).table
    assert np.isnan(table.loc["wallclock to test_error -1", "a"])
    known = result.history["test_error"].min()
    table = compare(result, result, target=known).table
    reached = result.history.set_index("test_error")["wallclock"][known]
    assert table.iloc[0]["a"] == pd.Series(reached).iloc[0]


def test_what_cannot_be_compared_is_said(stores, base, tmp_path):
    result = run(base, progress=False)
    with pytest.raises(ValueError, match="no kind of run in common"):
        compare(stores[0], [run(base.but(method=methods.k_sync(k=2)), progress=False)])
    with pytest.raises(ValueError, match="two results of the same experiment, async, seed 0"):
        compare([result, result], result)
    with pytest.raises(ValueError, match="has no results"):
        compare([], result)
    with pytest.raises(FileNotFoundError, match="no result in"):
        compare(tmp_path, result)


def test_the_command_prints_and_draws(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    said = CliRunner().invoke(app, ["compare", *map(str, stores), "--plot", "both.png"], catch_exceptions=False)
    assert said.exit_code == 0
    for text in ("mean_staleness", "wallclock to test_error", "Only b has k-sync", "wrote both.png"):
        assert text in said.output
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileExistsError):
        compare_command(*stores, plot=tmp_path / "both.png")
