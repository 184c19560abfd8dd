"""The store: nothing finished is lost or made twice, whatever happens; what is not whole is said."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest

from stalegrad.simulator import load, run
from stalegrad.simulator.sweeps import together
from stalegrad.simulator.sweeps.store import Outline, Store, key_of

FOUR = {"method": ["async", "sync"], "seed": range(2)}
FORTY = {"method": ["async", "sync"], "seed": range(20)}


@pytest.fixture
def made(monkeypatch):
    """The seeds of what is run from now on."""
    seeds = []
    monkeypatch.setattr(together, "run", lambda e, **k: seeds.append(e.seed) or run(e, **k))
    return seeds


@pytest.fixture(scope="module")
def swept(tmp_path_factory, silent):
    """A store of four runs; to be copied before it is harmed."""
    place = tmp_path_factory.mktemp("swept") / "runs"
    silent(store=place, **FOUR)
    return place


@pytest.fixture
def store(swept, tmp_path):
    return Path(shutil.copytree(swept, tmp_path / "runs", copy_function=shutil.copy2))


def finished(store):
    runs = store / "runs"
    return {r.name for r in runs.iterdir() if not r.name.startswith(".")} if runs.exists() else set()


# What is there is taken


def test_nothing_is_computed_twice_and_new_values_add_runs(store, silent, made):
    before = load(store)
    again = silent(store=store, method=["async", "sync"], seed=range(3))
    assert made == [2, 2]
    assert len(again) == 6
    for history in before.histories:
        assert any(history.equals(other) for other in again.histories)


def test_a_store_opens_elsewhere_with_the_axes_found_in_it(store, tmp_path):
    found = load(store)
    assert len(found) == 4
    assert found.axes == ["method", "seed"]
    assert sorted(found.by("method")) == ["async", "sync"]
    with pytest.raises(FileNotFoundError, match="no store at"):
        load(tmp_path / "nothing")


def test_results_hold_no_real_time_host_or_process_and_the_log_does(store):
    lines = [json.loads(line) for line in (store / "log.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == finished(store)
    assert all(line["seconds"] > 0 and not line["failed"] for line in lines)
    host, process = lines[0]["host"].encode(), str(lines[0]["process"]).encode()
    files = [file for file in (store / "runs").rglob("*") if file.is_file()]
    assert len(files) == 4 * 7
    for file in files:
        assert host not in file.read_bytes()
        if file.suffix in (".toml", ".json"):
            assert process not in file.read_bytes()


def test_other_processes_may_take_runs_while_this_one_sweeps(tmp_path, base, silent, made):
    """The second run is held by another process at first; the sweep goes on to the others and comes back."""
    place, other = tmp_path / "runs", Store(tmp_path / "runs")
    held = other.claim(key_of(base.but(seed=1)))
    assert held.__enter__()
    released = []

    def at_the_end(e, **options):
        made.append(e.seed)
        if e.seed == 3:
            released.append(held.__exit__(None, None, None))
        return run(e, **options)

    together.run = at_the_end  # put back by the fixture
    assert len(silent(store=place, seed=range(4))) == 4
    assert made == [0, 2, 3, 1]
    assert released


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    one, two = Store(tmp_path / "runs"), Store(tmp_path / "runs")
    with one.claim("a") as first, two.claim("a") as second, two.claim("b") as third:
        assert (first, second, third) == (True, False, True)
    with two.claim("a") as again:
        assert again


def test_locks_hold_nothing_of_value(store, silent, made):
    shutil.rmtree(store / "locks")
    assert len(silent(store=store, method=["async", "sync"], seed=range(3))) == 6
    assert made == [2, 2]


def test_a_store_of_which_only_folders_were_made_is_taken_over(tmp_path, silent):
    (tmp_path / "runs" / "locks").mkdir(parents=True)
    (tmp_path / "runs" / ".store.json-x1").write_text("{")
    assert len(silent(store=tmp_path / "runs", seed=[0])) == 1


# The manifest


def test_a_store_reads_the_same_with_and_without_its_manifest(store):
    quick = load(store)
    (store / "manifest.parquet").unlink()
    slow = load(store)
    assert quick.runs.equals(slow.runs)
    assert quick.history.equals(slow.history)
    assert (store / "manifest.parquet").exists()


def test_with_a_manifest_no_file_of_a_run_is_read(store, monkeypatch):
    monkeypatch.setattr(Store, "load", lambda self, key: pytest.fail(f"{key} was read"))
    found = load(store)
    assert len(found) == 4
    assert found.plot(y="train_loss")


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_manifest_that_cannot_be_read_or_written_is_no_harm(content, store):
    manifest = store / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:-9] if content is None else content)
    assert len(load(store)) == 4
    manifest.unlink()
    manifest.mkdir()
    assert len(load(store)) == 4


def test_a_run_that_is_gone_or_new_is_seen_whatever_the_manifest_says(store, base, silent):
    gone = key_of(base.but(seed=1))
    shutil.rmtree(store / "runs" / gone)
    assert len(load(store)) == 3
    Store(store).save(gone, run(base.but(seed=1), progress=False))  # as a killed process would: no manifest
    assert len(load(store)) == 4


def test_outlines_survive_the_manifest_whatever_they_hold(tmp_path, base):
    result = run(base, progress=False)
    odd = result.history.assign(mine=[float("nan"), float("inf"), -0.0], text=["a", None, "ü"])
    one, two = Store(tmp_path / "runs"), Store(tmp_path / "runs")
    one.save(key_of(base), type(result)(result.experiment, result.trace, odd, result.params, None, "scan"))
    one.write_manifest()
    found = two.outline(key_of(base))
    assert (found.spec, found.method, found.seed) == (base.to_toml(), "async", 0)
    pd.testing.assert_frame_equal(found.history, odd, check_dtype=True)
    expected = Outline.of(result).summary
    assert found.summary == pytest.approx(expected, nan_ok=True)


# What is not whole


@pytest.mark.parametrize(
    "file", ["history.parquet", "spec.toml", "params.npz", "result.json", "trace/updates.parquet"]
)
def test_an_unreadable_run_is_named_left_out_and_made_again(file, store, silent, made):
    key = min(finished(store))
    (store / "runs" / key / file).write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match=rf"run {key} is left out.*{Path(file).name} is damaged"):
        assert len(load(store)) == 3
    with pytest.warns(UserWarning, match=key):
        assert len(silent(store=store, **FOUR)) == 4
    assert len(made) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(store)) == 4


def test_a_run_whose_file_is_missing_is_named_and_left_out(store):
    key = max(finished(store))
    (store / "runs" / key / "params.npz").unlink()
    with pytest.warns(UserWarning, match=rf"run {key} is left out.*params.npz is missing"):
        assert len(load(store)) == 3


def test_runs_of_a_newer_version_are_named_and_left_out(store):
    """One has a spec with a key that this version does not know, another a format of its own."""
    first, second = sorted(finished(store))[:2]
    spec = store / "runs" / first / "spec.toml"
    spec.write_text("gravity = 9.81\n" + spec.read_text())
    about = store / "runs" / second / "result.json"
    about.write_text(about.read_text().replace("stalegrad-result-1", "stalegrad-result-2"))
    with pytest.warns(UserWarning, match="is left out") as said:
        assert len(load(store)) == 2
    assert any("'gravity'" in str(w.message) and first in str(w.message) for w in said)
    assert any("stalegrad-result-2" in str(w.message) and second in str(w.message) for w in said)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ('{"format": "stalegrad-store-1", "semantics": 0}', "semantics"),
        ('{"format": "stalegrad-store-2", "semantics": 1}', "stalegrad-store-2"),
        ("{", "store.json is damaged"),
    ],
)
def test_other_semantics_and_formats_are_refused(about, said, store, silent):
    (store / "store.json").write_text(about)
    for act in (lambda: silent(store=store, seed=[0]), lambda: load(store)):
        with pytest.raises(ValueError, match=said):
            act()


def test_a_foreign_directory_is_refused(tmp_path, silent):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="not empty and not a store"):
        silent(store=tmp_path, seed=[0])


# A disk that is full


def small_disk(folder, command):
    """Return the command line that runs a command where ``folder`` is a file system of 300 kB, or None."""
    folder.mkdir()
    inside = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k tmpfs {folder}"
    if (
        not shutil.which("unshare")
        or subprocess.run([*inside, mount], check=False, capture_output=True).returncode
    ):
        return None
    # What was written is carried out of the name space before it ends.
    return [*inside, f'{mount} && "$@"; code=$?; cp -a {folder}/. {folder}-after; exit $code', "sh", *command]


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_what_is_done_is_kept(tmp_path, command, same, silent):
    (tmp_path / "disk-after").mkdir()
    line = small_disk(tmp_path / "disk", command(tmp_path / "disk" / "runs"))
    if line is None:
        pytest.skip("no file system may be mounted here")
    full = subprocess.run(line, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    store = tmp_path / "disk-after" / "runs"
    done = finished(store)
    assert 0 < len(done) < 40
    assert "OSError: cannot write a run" in last
    assert "No space left on device" in last
    assert f"{len(done)} of 40 runs are done and kept" in last
    assert not [r for r in (store / "runs").iterdir() if r.name.startswith(".")]
    silent(store=store, **FORTY)
    silent(store=tmp_path / "whole", **FORTY)
    assert same(store / "runs", tmp_path / "whole" / "runs")


def test_a_file_that_may_not_grow_is_one_sentence_and_the_same_call_goes_on(tmp_path, silent):
    """As on a full disk, for who may not mount one: files are limited to 20 kB, and the parameters are larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write a run: .*File too large.*0 of 1 runs are done and kept"):
            silent(store=tmp_path / "runs", seed=[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not os.listdir(tmp_path / "runs" / "runs")
    assert len(silent(store=tmp_path / "runs", seed=[0])) == 1


# Being killed


@pytest.mark.slow
def test_killed_ten_times_and_by_two_processes_the_store_is_the_same_to_the_byte(tmp_path, command, silent, same):
    silent(store=tmp_path / "whole", **FORTY)
    store = tmp_path / "killed"
    rng, sizes = random.Random(0), []
    for _ in range(10):
        before = len(finished(store))
        both = [subprocess.Popen(command(store)) for _ in range(2)]
        while len(finished(store)) == before and None in [process.poll() for process in both]:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.2))  # at any moment of the work, not of starting
        for process in both:
            process.send_signal(signal.SIGKILL)
            process.wait()
        sizes.append(len(finished(store)))
    assert sizes == sorted(sizes)
    assert sizes[4] < 40  # otherwise nothing was left to interrupt
    subprocess.run(command(store), check=True)
    assert same(tmp_path / "whole" / "runs", store / "runs")
    assert not list((store / "failed").iterdir())
    log = [json.loads(line) for line in (store / "log.jsonl").read_text().splitlines()]
    assert len(log) <= 40  # a kill between saving and logging loses a line, but nothing is made twice
    assert len({line["run"] for line in log}) == len(log)


@pytest.mark.slow
def test_two_processes_share_the_work_of_one_store(tmp_path, command, silent, same):
    store = tmp_path / "shared"
    both = [subprocess.Popen(command(store)) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    silent(store=tmp_path / "whole", **FORTY)
    assert same(tmp_path / "whole" / "runs", store / "runs")
    log = [json.loads(line) for line in (store / "log.jsonl").read_text().splitlines()]
    assert sorted(line["run"] for line in log) == sorted(finished(store))  # each once
    assert len({line["process"] for line in log}) == 2
