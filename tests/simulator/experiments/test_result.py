"""Results: saved and loaded, byte for byte; and what is said about damaged ones."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from stalegrad._core.files import write_sums
from stalegrad._core.trees import flat
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, Result, run

FILES = [
    "SHA256SUMS",
    "history.parquet",
    "params.npz",
    "result.json",
    "spec.toml",
    "trace/SHA256SUMS",
    "trace/messages.parquet",
    "trace/updates.parquet",
]
EXPERIMENT = Experiment(
    problem=Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    cluster=Cluster(workers=3, compute=Exponential(1.0)),
    method=methods.k_async(k=2),
    updates=6,
    record=Record(updates=2),
)


@pytest.fixture(scope="module")
def result():
    return run(EXPERIMENT, progress=False)


@pytest.fixture
def saved(result, tmp_path):
    return result.save(tmp_path / "saved")


def contents(directory):
    """The bytes of every file under a directory, by relative path."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def quadratic(**changes):
    problem = Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: jnp.sum(w**2))
    return EXPERIMENT.but(problem=problem, **changes)


# There and back


def test_a_result_comes_back_as_it_was_saved(result, saved):
    again = Result.load(saved)
    assert again.experiment == result.experiment
    pd.testing.assert_frame_equal(again.trace.messages, result.trace.messages)
    pd.testing.assert_frame_equal(again.trace.updates, result.trace.updates)
    assert (again.trace.workers, again.trace.end) == (result.trace.workers, result.trace.end)
    pd.testing.assert_frame_equal(again.history, result.history)
    assert again.params.keys() == flat(result.params).keys()
    for path, array in flat(result.params).items():
        np.testing.assert_array_equal(again.params[path], array)
    assert (again.diverged_at, again.execution) == (result.diverged_at, result.execution)
    assert again.summary() == result.summary()


def test_a_loaded_result_can_be_saved_again_to_the_same_bytes(saved, tmp_path):
    assert contents(Result.load(saved).save(tmp_path / "again")) == contents(saved)


def test_the_versions_that_ran_it_are_kept(result, saved):
    assert result.versions["numpy"] == np.__version__
    assert result.versions.keys() > {"python", "stalegrad", "jax"}
    assert Result.load(saved).versions == result.versions
    about = json.loads((saved / "result.json").read_text())
    (saved / "result.json").write_text(json.dumps(about | {"versions": {"numpy": "0.1"}}))
    write_sums(saved)
    assert Result.load(saved).versions == {"numpy": "0.1"}


def test_a_diverged_result_comes_back_diverged(tmp_path):
    wild = run(EXPERIMENT.but(method=methods.sync(learning_rate=1e30, weight_decay=1.0)), progress=False)
    assert wild.diverged_at is not None
    again = Result.load(wild.save(tmp_path / "wild"))
    assert again.diverged_at == wild.diverged_at
    pd.testing.assert_frame_equal(again.history, wild.history)
    assert "diverged at" in repr(again)


def test_a_result_is_these_files_readable_without_us(saved):
    assert sorted(contents(saved)) == FILES
    assert len(pd.read_parquet(saved / "history.parquet")) == 4
    assert json.loads((saved / "result.json").read_text())["format"].startswith("stalegrad-result")
    with np.load(saved / "params.npz", allow_pickle=False) as arrays:
        assert sorted(arrays[name].shape for name in arrays) == [(10,), (784, 10)]


# Byte for byte


def test_the_same_experiment_gives_the_same_bytes_with_and_without_a_progress_bar(saved, tmp_path, capsys):
    assert contents(run(EXPERIMENT, progress=True).save(tmp_path / "again")) == contents(saved)
    assert capsys.readouterr().out == ""


def test_the_same_experiment_gives_the_same_bytes_in_another_process(saved, tmp_path):
    code = f"""
from stalegrad.simulator import load_experiment, run
run(load_experiment({str(saved / "spec.toml")!r}), progress=False).save({str(tmp_path / "again")!r})
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert contents(tmp_path / "again") == contents(saved)


def test_another_seed_gives_another_history(result):
    other = run(EXPERIMENT.but(seed=1), progress=False)
    assert not other.history.equals(result.history)
    assert not other.trace.messages.equals(result.trace.messages)


# Saving


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(result, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty: choose another place"):
        result.save(tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(FileExistsError, match=r"mine\.txt exists"):
        result.save(tmp_path / "mine.txt")


def test_an_empty_directory_and_missing_parents_are_fine(result, tmp_path):
    (tmp_path / "empty").mkdir()
    assert sorted(contents(result.save(tmp_path / "empty"))) == FILES
    assert sorted(contents(result.save(str(tmp_path / "a" / "b")))) == FILES


def test_a_save_that_fails_leaves_nothing_behind(result, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        result.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_to_a_spec_is_not_saved_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="made of functions runs in this process only"):
        run(quadratic(), progress=False).save(tmp_path / "deep" / "saved")
    assert list(tmp_path.iterdir()) == []


# Loading


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=os.path.basename(name)):
        Result.load(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["empty", "foreign", "cut short"])
def test_a_damaged_file_is_named(saved, name, damage):
    file = saved / name
    file.write_bytes({"empty": b"", "foreign": b"\xff\xfe not ours", "cut short": file.read_bytes()[:-60]}[damage])
    with pytest.raises(ValueError, match=os.path.basename(name)):
        Result.load(saved)


@pytest.mark.parametrize(
    "change", [{"execution": ...}, {"diverged_at": ...}, {"versions": "1.0"}, {"versions": ...}]
)
def test_what_is_missing_or_wrong_in_the_summary_is_damage(saved, change):
    about = json.loads((saved / "result.json").read_text()) | change
    (saved / "result.json").write_text(json.dumps({k: v for k, v in about.items() if v is not ...}))
    write_sums(saved)
    with pytest.raises(ValueError, match=r"result.json is damaged"):
        Result.load(saved)


def test_a_flipped_byte_in_the_parameters_is_noticed(saved):
    content = bytearray((saved / "params.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (saved / "params.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"params\.npz is damaged"):
        Result.load(saved)


@pytest.mark.parametrize("about", ["[1]", '{"format": "of somebody else"}', "{}", "null"])
def test_a_foreign_result_is_refused(saved, about):
    (saved / "result.json").write_text(about)
    with pytest.raises(ValueError, match=r"result\.json is damaged|not a stalegrad result of format"):
        Result.load(saved)


def test_nothing_is_ever_unpickled(saved, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(saved / "params.npz", params=np.array([Bomb()], dtype=object))
    write_sums(saved)
    with pytest.raises(ValueError, match=r"params\.npz is damaged"):
        Result.load(saved)
    assert not (tmp_path / "exploded").exists()


def test_a_place_without_a_result_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result at .*result.json is missing"):  # noqa: RUF043
        Result.load(tmp_path)


# Looking at it


def test_a_result_shows_itself_in_a_notebook(result):
    html = result._repr_html_()
    assert "<b>k-async</b>, seed 0" in html
    assert "<table" in html
    assert "mean_staleness" in html
    assert repr(result).startswith("Result(k-async, seed 0: test error 0.")


def test_plot_returns_labelled_axes(result):
    ax = result.plot()
    assert isinstance(ax, Axes)
    assert "wallclock" in ax.get_xlabel()
    assert "error" in ax.get_ylabel()
    assert result.plot(x="update", y="train_loss", ax=ax) is ax


def test_a_run_without_test_data_shows_its_loss_and_plots_it():
    result = run(quadratic(), progress=False)
    assert "loss" in repr(result)
    assert isinstance(result.plot(y="train_loss"), Axes)
    assert result.summary()["test_error"] != result.summary()["test_error"]


def test_the_summary_holds_the_trace_and_the_last_row(result):
    summary = result.summary()
    assert summary["updates"] == 6
    assert summary["gradients"] == 12
    assert summary["test_error"] == result.history["test_error"].iloc[-1]


def test_flat_names_every_leaf_by_its_path():
    tree = {"a": [jnp.ones(1), jnp.zeros(2)], "b": (jnp.ones(()),)}
    assert {path: array.shape for path, array in flat(tree).items()} == {"a/0": (1,), "a/1": (2,), "b/0": ()}
    assert list(flat(jnp.ones(3))) == ["params"]


# Before any work


def test_a_run_that_cannot_be_is_refused_before_it_is_simulated(monkeypatch):
    monkeypatch.setattr(
        "stalegrad.simulator.experiments.run.trace_of", lambda *a, **k: pytest.fail("work was done")
    )
    problem = Problem("softmax-regression", "fashion-mnist-small", batch_size=4_000, sampling="sharded")
    with pytest.raises(ValueError, match="10000 examples sharded over 3 workers leave 3333 each"):
        run(EXPERIMENT.but(problem=problem), progress=False)
    with pytest.raises(ValueError, match="batch_size = 10001 is not allowed"):
        run(EXPERIMENT.but(problem=Problem("mlp", "fashion-mnist-small", batch_size=10_001)), progress=False)


def test_a_budget_too_short_for_an_update_is_a_result_too(tmp_path):
    short = EXPERIMENT.but(updates=None, wallclock=1e-6, record=Record())
    result = run(short, progress=False)
    assert result.summary()["updates"] == 0
    assert len(set(result.history["test_error"])) == 1
    start = short.problem.objective().init(jax.random.split(jax.random.key(0))[0])
    for path, array in flat(start).items():
        np.testing.assert_array_equal(flat(result.params)[path], array)
    assert Result.load(result.save(tmp_path / "short")).summary()["updates"] == 0


# Types of parameters


def test_parameters_of_every_floating_type_come_back_as_they_were(result, tmp_path):
    types = [jnp.bfloat16, jnp.float16, jnp.float32, np.float64]
    params = {jnp.dtype(t).name: np.linspace(-1.0, 1.0, 5).astype(jnp.dtype(t)) for t in types}
    again = Result.load(replace(result, params=params).save(tmp_path / "types")).params
    assert {name: array.dtype for name, array in again.items()} == {name: jnp.dtype(name) for name in params}
    for name, array in params.items():
        np.testing.assert_array_equal(again[name], array)
