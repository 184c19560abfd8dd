"""Sweeps and their store: axes, resuming, failures, several processes, kill -9."""

import filecmp
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, load, processes, run, sweep
from stalegrad.simulator.sweeps import workers
from stalegrad.simulator.sweeps.store import Store, key_of

BASE = Experiment(
    Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    Cluster(4, compute=Exponential()),
    methods.async_(learning_rate=0.01),
    updates=40,
    record=Record(updates=20),
)
FOUR = {"method": ["async", "sync"], "seed": range(2)}


def silent(base=BASE, **options):
    return sweep(base, progress=False, **options)


def same(a, b):
    """Whether two directories hold the same files with the same bytes."""
    found = filecmp.dircmp(a, b)
    if found.left_only or found.right_only or filecmp.cmpfiles(a, b, found.common_files, shallow=False)[1]:
        return False
    return all(same(a / name, b / name) for name in found.common_dirs)


def test_a_sweep_gives_what_single_runs_give(tmp_path):
    swept = silent(store=tmp_path / "runs", **FOUR)
    assert len(swept) == 4
    for row, result in zip(swept.runs.itertuples(), swept.results, strict=True):
        method = methods.method(row.method, {"learning_rate": 0.01})
        alone = run(BASE.but(method=method, seed=row.seed), progress=False)
        assert alone.history.equals(result.history)
        assert alone.trace.summary() == result.trace.summary()
    assert set(swept.history["method"]) == {"async", "sync"}
    assert {label: len(found) for label, found in swept.by("method").items()} == {"async": 2, "sync": 2}
    assert swept.plot(y="train_loss").get_xlabel()
    assert list(swept.to_target(2.2, y="train_loss").index) == ["async", "sync"]
    assert "4 runs" in repr(swept)


def test_nothing_is_computed_twice_and_new_values_add_runs(tmp_path, monkeypatch):
    first = silent(store=tmp_path / "runs", **FOUR)
    made = []
    monkeypatch.setattr(workers, "run", lambda e, **k: made.append(e.seed) or run(e, **k))
    again = silent(store=tmp_path / "runs", method=["async", "sync"], seed=range(3))
    assert made == [2, 2]
    assert len(again) == 6
    for a in first.results:
        assert any(a.history.equals(b.history) for b in again.results)


def test_a_store_opens_elsewhere_with_the_axes_found_in_it(tmp_path):
    silent(store=tmp_path / "runs", **FOUR)
    found = load(tmp_path / "runs")
    assert len(found) == 4
    assert set(found.axes) == {"method.name", "seed"}
    assert sorted(found.by("method")) == ["async", "sync"]
    with pytest.raises(FileNotFoundError, match="no store at"):
        load(tmp_path / "nothing")


def test_an_unreadable_run_is_named_left_out_and_made_again(tmp_path):
    silent(store=tmp_path / "runs", **FOUR)
    store = Store(tmp_path / "runs")
    key = next(iter(store))
    (store.runs / key / "history.parquet").write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match=f"run {key} is left out.*history.parquet is damaged"):
        assert len(load(tmp_path / "runs")) == 3
    with pytest.warns(UserWarning, match=key):
        assert len(silent(store=tmp_path / "runs", **FOUR)) == 4
    assert len(load(tmp_path / "runs")) == 4


def test_a_run_that_raises_is_written_down_and_the_others_go_on(tmp_path, monkeypatch):
    def fails(experiment, **options):
        if experiment.seed == 1:
            raise ZeroDivisionError("one is bad")
        return run(experiment, **options)

    monkeypatch.setattr(workers, "run", fails)
    swept = silent(store=tmp_path / "runs", seed=range(3))
    assert len(swept) == 2
    assert swept.failed == {"seed = 1": "ZeroDivisionError: one is bad"}
    spec = tmp_path / "runs" / "failed" / key_of(BASE.but(seed=1)) / "spec.toml"
    assert spec.read_text() == BASE.but(seed=1).to_toml()
    monkeypatch.setattr(workers, "run", run)
    assert len(silent(store=tmp_path / "runs", seed=range(3))) == 2
    mended = silent(store=tmp_path / "runs", seed=range(3), retry_failed=True)
    assert len(mended) == 3
    assert not mended.failed
    assert not spec.parent.exists()


def test_fail_fast_raises_and_keeps_what_is_done(tmp_path, monkeypatch):
    def fails(experiment, **options):
        return run(experiment, **options) if experiment.seed == 0 else 1 / 0

    monkeypatch.setattr(workers, "run", fails)
    with pytest.raises(RuntimeError, match=r"(?s)seed = 1.*ZeroDivisionError"):
        silent(store=tmp_path / "runs", seed=range(3), fail_fast=True)
    assert len(load(tmp_path / "runs")) == 1


def test_without_a_store_runs_live_in_memory_and_may_hold_functions_of_this_process():
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


def test_foreign_directories_and_other_semantics_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="not empty and not a store"):
        silent(store=tmp_path)
    store = tmp_path / "runs"
    silent(store=store, seed=[0])
    (store / "store.json").write_text('{"format": "stalegrad-store-1", "semantics": 0}')
    with pytest.raises(ValueError, match="semantics"):
        silent(store=store, seed=[0])


def test_a_process_pool_gives_the_same_bytes(tmp_path):
    silent(store=tmp_path / "here", **FOUR)
    with processes(2) as pool:
        silent(store=tmp_path / "there", executor=pool, **FOUR)
    assert same(tmp_path / "here" / "runs", tmp_path / "there" / "runs")


SCRIPT = """
import sys
from stalegrad.simulator import from_toml, sweep
sweep(from_toml(sys.argv[1]), store=sys.argv[2], progress=False, method=["async", "sync"], seed=range(20))
"""


@pytest.mark.slow
def test_killed_ten_times_and_by_two_processes_the_store_is_the_same_to_the_byte(tmp_path):
    axes = {"method": ["async", "sync"], "seed": range(20)}
    silent(store=tmp_path / "whole", **axes)
    command = [sys.executable, "-c", SCRIPT, BASE.to_toml(), str(tmp_path / "killed")]
    rng, sizes = random.Random(0), []
    for _ in range(10):
        both = [subprocess.Popen(command) for _ in range(2)]
        time.sleep(rng.uniform(3.0, 9.0))
        for process in both:
            process.send_signal(signal.SIGKILL)
            process.wait()
        runs = tmp_path / "killed" / "runs"
        sizes.append(len([r for r in runs.iterdir() if not r.name.startswith(".")]) if runs.exists() else 0)
    assert sizes == sorted(sizes)
    subprocess.run(command, check=True)
    assert same(tmp_path / "whole" / "runs", tmp_path / "killed" / "runs")
    assert not list((tmp_path / "killed" / "failed").iterdir())
