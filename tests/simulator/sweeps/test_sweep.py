"""Sweeps: what they give, failures, interrupts, the progress bar, and looking at many runs together."""

import importlib
import os
import socket
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.analysis import report
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, load, run, sweep
from stalegrad.simulator.experiments.identity import key_of
from stalegrad.simulator.sweeps import lanes as sweep_lanes
from stalegrad.simulator.sweeps.store import Store


@pytest.fixture(scope="module")
def swept(tmp_path_factory, silent):
    """Of k-async with two values of k and of async, two seeds each, in a store."""
    place = tmp_path_factory.mktemp("swept") / "runs"
    axes = {"method": ["async", "k-async"], "method.k": [2, 3], "seed": range(2)}
    return silent(store=place, **axes)


@pytest.fixture
def failing(monkeypatch):
    """Make runs of seed 1 raise something."""

    def fail(error):
        def fails(experiment, **options):
            if experiment.seed == 1:
                raise error
            return run(experiment, **options)

        monkeypatch.setattr(sweep_lanes, "run", fails)

    return fail


# What it gives


def test_a_sweep_gives_what_single_runs_give(swept, base):
    assert len(swept) == 6
    for i, (row, result) in enumerate(zip(swept.runs.to_dict("records"), swept.results, strict=True)):
        alone = run(base.but(method=result.experiment.method, seed=row["seed"]), progress=False)
        assert alone.history.equals(result.history)
        assert alone.history.equals(swept.histories[i])
        assert alone.trace.messages.equals(swept.traces[i].messages)
        summary = {name: row[name] for name in alone.summary()}
        assert summary == pytest.approx(alone.summary(), nan_ok=True)
    assert list(swept.runs["method"]) == ["async"] * 2 + ["k-async(k=2)"] * 2 + ["k-async(k=3)"] * 2


def test_in_memory_and_in_a_store_a_sweep_gives_the_same(swept, silent):
    here = silent(method=["async"], seed=range(2))
    assert here.runs.equals(swept.runs.drop(columns="method.k").iloc[:2])
    assert all(a.equals(b) for a, b in zip(here.histories, swept.histories[:2], strict=True))
    assert here.report().html == report(swept.results[:2]).html


def test_a_report_of_a_store_compares_all_methods(swept):
    assert all(text in swept.report().html for text in ("async", "k = 2", "k = 3"))


def test_histories_come_as_one_tidy_table_with_the_axes(swept):
    table = swept.history
    assert len(table) == sum(map(len, swept.histories))
    for i, history in enumerate(swept.histories):
        mine = table[table["run"] == i].reset_index(drop=True)
        assert mine[history.columns].equals(history)
        for axis in swept.axes:
            assert mine[axis].equals(swept.runs[axis].iloc[[i] * len(mine)].reset_index(drop=True))


def test_an_axis_called_like_a_column_of_the_history_does_not_replace_it(silent, base):
    found = silent(base.but(updates=None, wallclock=5.0), wallclock=[5.0, 9.0])
    assert list(found.runs["wallclock"]) == [5.0, 9.0]
    assert found.history["wallclock"].nunique() > 2


def test_runs_are_grouped_by_any_axis_and_else_by_method(swept):
    assert {label: len(found) for label, found in swept.by("seed").items()} == {"seed = 0": 3, "seed = 1": 3}
    assert {label: len(found) for label, found in swept.by("method.k").items()} == {
        "async": 2,
        "k = 2": 2,
        "k = 3": 2,
    }
    with pytest.raises(ValueError, match=r"hue = 'speed' is not allowed: give one of method, method.k, seed"):
        swept.by("speed")


def test_curves_and_times_to_a_target_are_told_apart_by_any_axis(swept):
    drawn = swept.plot(x="update", y="train_loss", hue="method.k")
    labels = [line.get_label() for line in drawn.get_lines() if line.get_label()[0] != "_"]
    assert labels == ["async", "k = 2", "k = 3"]
    assert list(swept.to_target(9.0, y="train_loss").index) == ["async", "k-async(k=2)", "k-async(k=3)"]


def test_means_are_over_the_seeds(swept):
    means = swept.means()
    assert list(means["method"]) == ["async", "k-async(k=2)", "k-async(k=3)"]
    assert list(means["runs"]) == [2, 2, 2]
    expected = [swept.runs["train_loss"].iloc[[i, i + 1]].mean() for i in (0, 2, 4)]
    assert list(means["train_loss"]) == pytest.approx(expected)


def test_a_notebook_shows_the_means_and_what_failed(swept, silent, failing):
    shown = swept._repr_html_()
    assert shown.count("<tr") == 1 + 3
    assert "6 runs over method, method.k, seed" in shown
    failing(ValueError("a < b"))
    shown = silent(seed=range(2))._repr_html_()
    assert "1 failed" in shown
    assert "seed = 1: ValueError: a &lt; b" in shown
    assert "failed" in repr(silent(seed=range(2)))


def test_values_that_are_tables_or_lists_are_shown_as_text(silent):
    laws = [{"delay": "exponential"}, {"delay": "uniform", "low": 1.0, "high": 2.0}]
    found = silent(**{"cluster.compute": laws, "cluster.speeds": [[1.0, 2.0, 1.0, 1.0]]}, mode="grid")
    assert len(found) == 2
    assert len(found.by("cluster.compute")) == 2
    assert len(found.means()) == 2


def test_without_a_store_runs_may_hold_functions_of_this_process(silent):
    mine = Experiment(
        Problem.from_functions(lambda key: np.ones(2), lambda w, batch, key: (w**2).sum()),
        Cluster(2, compute=1.0),
        methods.async_(learning_rate=lambda update: 0.1),
        updates=5,
    )
    assert len(silent(mine, seed=range(2))) == 2
    with pytest.raises(ValueError, match="this process only"):
        silent(mine, seed=range(2), store="never-made")
    assert not os.path.exists("never-made")


# What goes wrong


def test_a_run_that_raises_is_written_down_and_the_others_go_on(tmp_path, base, silent, failing, monkeypatch):
    failing(ZeroDivisionError("one is bad"))
    swept = silent(store=tmp_path / "runs", seed=range(3))
    assert len(swept) == 2
    assert swept.failed == {"seed = 1": "ZeroDivisionError: one is bad"}
    spec = tmp_path / "runs" / "failed" / key_of(base.but(seed=1)) / "spec.toml"
    assert spec.read_text() == base.but(seed=1).to_toml()
    assert "one is bad" in spec.with_name("traceback.txt").read_text()
    monkeypatch.setattr(sweep_lanes, "run", run)
    assert len(silent(store=tmp_path / "runs", seed=range(3))) == 2
    mended = silent(store=tmp_path / "runs", seed=range(3), retry_failed=True)
    assert len(mended) == 3
    assert not mended.failed
    assert not spec.parent.exists()


def test_fail_fast_raises_and_keeps_what_is_done(tmp_path, silent, failing):
    failing(ZeroDivisionError())
    with pytest.raises(RuntimeError, match=r"(?s)seed = 1.*ZeroDivisionError.*1 of 3 runs are done and kept"):
        silent(store=tmp_path / "runs", seed=range(3), fail_fast=True)
    assert len(load(tmp_path / "runs")) == 1


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(tmp_path, silent, failing, monkeypatch):
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 runs are done and kept in .*; the same call continues"):
        silent(store=tmp_path / "runs", seed=range(3))
    assert len(load(tmp_path / "runs")) == 1
    monkeypatch.setattr(sweep_lanes, "run", run)
    assert len(silent(store=tmp_path / "runs", seed=range(3))) == 3


def test_a_loaded_store_is_in_order_and_names_its_axes_as_the_sweep_does(swept):
    loaded = load(swept.results.places[0].parents[1])
    assert loaded.axes == swept.axes
    columns = ["method", "method.k", "seed"]
    in_order = swept.runs[columns].sort_values(columns, na_position="first", ignore_index=True)
    assert loaded.runs[columns].equals(in_order)
    assert loaded.by("method").keys() == {"async", "k-async(k=2)", "k-async(k=3)"}


def test_pictures_show_a_loss_where_there_is_no_test_error(base, silent):
    own = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w**2))
    found = silent(base.but(problem=own), seed=range(2))
    assert found.plot().get_ylabel() == found.results[0].plot().get_ylabel() == "training loss"
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_without_a_store_an_interrupted_sweep_goes_on_in_the_same_process(silent, failing, monkeypatch):
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match="1 of 3 runs are done, 1 of them kept in this process"):
        silent(seed=range(3))
    made = []
    monkeypatch.setattr(
        sweep_lanes, "run", lambda experiment, **how: made.append(experiment) or run(experiment, **how)
    )
    assert len(silent(seed=range(3))) == 3
    assert [experiment.seed for experiment in made] == [1, 2]
    assert len(silent(seed=range(3))) == 3
    assert len(made) == 5  # what was whole is not remembered


def test_what_cannot_be_compared_is_not_kept_without_a_store(silent, failing, base):
    noise = np.random.default_rng(0)  # nobody can tell it from another one
    own = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w**2) * noise.normal())
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=r"0 of them kept.*runs that cannot be compared are not kept"):
        silent(base.but(problem=own), seed=range(3))


def test_what_exists_in_this_process_only_is_kept_without_a_store(silent, failing, base):
    own = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w**2))
    failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 runs are done, 1 of them kept"):
        silent(base.but(problem=own), seed=range(3))


# The progress bar


def test_the_bar_says_how_many_run_are_done_and_failed(tmp_path, base, failing, capsys):
    failing(ValueError("no"))
    sweep(base, store=tmp_path / "runs", seed=range(3))
    shown = capsys.readouterr().err
    assert "running 1, done 0, failed 0" in shown
    assert "3/3" in shown.split("\r")[-1]
    assert "done 2, failed 1" in shown.split("\r")[-1]


def test_the_bar_does_not_count_what_was_there_as_speed(tmp_path, base, silent, capsys):
    silent(store=tmp_path / "runs", seed=range(3))
    sweep(base, store=tmp_path / "runs", seed=range(3))
    assert "3/3" in (shown := capsys.readouterr().err)
    assert "?" in shown.split("\r")[-1] or "0.00" in shown.split("\r")[-1]


# Waiting for others


def test_who_waits_for_a_run_that_another_process_holds_is_told_who_that_is(tmp_path, base, monkeypatch):
    store = Store(tmp_path / "runs")
    module = importlib.import_module("stalegrad.simulator.sweeps.sweep")
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "PAUSE", 0.02)
    held = store.claim(key_of(base.but(seed=1)))
    assert held.__enter__()
    monkeypatch.setattr(warnings, "warn", lambda said, **_: [told.append(said), held.__exit__(None, None, None)])
    told = []
    found = sweep(base, store=store.directory, seed=range(3), progress=False)
    assert len(found) == 3
    (said,) = told
    assert said.startswith(
        f"waiting for the run seed = 1: held by process {os.getpid()} on {socket.gethostname()} since 20"
    )
    assert str(store.locks) in said
