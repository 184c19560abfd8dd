"""The store: nothing finished is lost or made twice, whatever happens; what is not whole is said."""

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stalegrad._core.files import write_sums
from stalegrad.simulator import Result, load, run
from stalegrad.simulator.experiments.identity import key_of
from stalegrad.simulator.replays import lanes
from stalegrad.simulator.sweeps import lanes as sweep_lanes, store as store_module
from stalegrad.simulator.sweeps.store import Outline, Store
from stalegrad.simulator.sweeps.sweep import AT_ONCE

FOUR = {"method": ["async", "sync"], "seed": range(2)}
FORTY = {"method": ["async", "sync"], "seed": range(20)}


FILES_OF_A_RUN = 8
"""Spec, summary, history, parameters, their checksums; two tables of the trace, and its checksums."""


@pytest.fixture
def made(monkeypatch):
    """The seeds of what is run from now on."""
    seeds = []
    monkeypatch.setattr(sweep_lanes, "run", lambda e, **k: seeds.append(e.seed) or run(e, **k))
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
    assert len(files) == 4 * FILES_OF_A_RUN
    for file in files:
        if file.suffix in (".toml", ".json"):  # in other bytes either may stand by chance
            assert host not in file.read_bytes()
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

    sweep_lanes.run = at_the_end  # put back by the fixture
    assert len(silent(store=place, seed=range(4))) == 4
    assert made == [0, 2, 3, 1]
    assert released


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    one, two = Store(tmp_path / "runs"), Store(tmp_path / "runs")
    with one.claim("a") as first, two.claim("a") as second, two.claim("b") as third:
        assert (first, second, third) == (True, False, True)
    with two.claim("a") as again:
        assert again


def test_a_lock_says_who_holds_it_until_it_is_given_back(tmp_path):
    one, two = Store(tmp_path / "runs"), Store(tmp_path / "runs")
    assert one.holder("a") is None
    with one.claim("a"):
        with two.claim("a") as ours:
            assert not ours
        process, host = os.getpid(), socket.gethostname()
        assert re.fullmatch(
            rf"process {process} on {re.escape(host)} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", two.holder("a")
        )
        (tmp_path / "runs" / "locks" / "a").write_bytes(b" nonsense")
        assert two.holder("a") is None
    assert two.holder("a") is None


def test_a_killed_process_gives_its_lock_back(tmp_path):
    program = (
        "import sys, time\n"
        "from stalegrad.simulator.sweeps.store import Store\n"
        "with Store(sys.argv[1]).claim('a') as ours:\n"
        "    print(ours, flush=True)\n"
        "    time.sleep(60)\n"
    )
    store = Store(tmp_path / "runs")
    with subprocess.Popen([sys.executable, "-c", program, store.directory], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        with store.claim("a") as ours:
            assert not ours
        assert f"process {other.pid} on " in store.holder("a")
        other.kill()
    with store.claim("a") as ours:
        assert ours


def test_a_forked_child_neither_holds_nor_frees_a_lock(tmp_path):
    program = (
        "import os, sys, time\n"
        "from stalegrad.simulator.sweeps.store import Store\n"
        "one, two = Store(sys.argv[1]), Store(sys.argv[1])\n"
        "with one.claim('a'):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(1.0)\n"
        "        os._exit(0)\n"
        "    with two.claim('a') as during:\n"
        "        pass\n"
        "with two.claim('a') as after:\n"
        "    print(during, after)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, tmp_path / "runs"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False True\n"


def test_a_file_system_without_locks_is_named_with_a_remedy(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store_module, "lock_descriptor", refuse)
    with pytest.raises(
        OSError, match=r"no lock on .*locks.a \(No locks available\).*put the store on a local disk"
    ):
        Store(tmp_path / "runs").claim("a").__enter__()


def test_hundreds_of_locks_are_held_at_once(tmp_path):
    store = Store(tmp_path / "runs")
    with ExitStack() as claims:
        assert all(claims.enter_context(store.claim(str(i))) for i in range(AT_ONCE))
    with store.claim("399") as ours:
        assert ours


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
    one.save(key_of(base), replace(result, history=odd))
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
    about.write_text(about.read_text().replace("stalegrad-result-3", "stalegrad-result-4"))
    for key in (first, second):
        write_sums(store / "runs" / key)
    with pytest.warns(UserWarning, match="is left out") as said:
        assert len(load(store)) == 2
    assert any("'gravity'" in str(w.message) and first in str(w.message) for w in said)
    assert any("stalegrad-result-4" in str(w.message) and second in str(w.message) for w in said)


def test_a_run_under_the_key_of_another_is_named_and_left_out(store, base, silent, made):
    one, other = key_of(base.but(seed=0)), key_of(base.but(seed=1))
    shutil.rmtree(store / "runs" / other)
    shutil.copytree(store / "runs" / one, store / "runs" / other)
    with pytest.warns(UserWarning, match=rf"run {other} is left out: .* is not the run of that key"):
        assert len(load(store)) == 3
    with pytest.warns(UserWarning, match=other):
        found = silent(store=store, **FOUR)
    assert made == [1]
    assert sorted(found.runs["seed"]) == [0, 0, 1, 1]


def test_a_spec_that_was_edited_is_named_and_left_out_even_if_its_checksums_were_made_anew(store):
    key = min(finished(store))
    spec = store / "runs" / key / "spec.toml"
    spec.write_text(spec.read_text().replace("learning_rate = 0.01", "learning_rate = 0.02"))
    with pytest.warns(UserWarning, match=rf"run {key} is left out: .*spec.toml is damaged"):
        assert len(load(store)) == 3
    write_sums(spec.parent)
    with pytest.warns(UserWarning, match=rf"run {key} is left out: .* is not the run of that key"):
        assert len(load(store)) == 3


def test_a_trace_with_foreign_values_costs_no_other_run(store):
    key = min(finished(store))
    file = store / "runs" / key / "trace" / "updates.parquet"
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"stalegrad"]) | {"workers": "4"}
    pq.write_table(table.replace_schema_metadata({"stalegrad": json.dumps(about)}), file)
    write_sums(file.parent)
    write_sums(file.parent.parent)
    with pytest.warns(UserWarning, match=rf"run {key} is left out"):
        assert len(load(store)) == 3


def flipped(directory, count, rng, files=None):
    """Flip one random bit of a random file, so many times one after the other; yield the file, and undo it."""
    files = files or sorted(file for file in directory.rglob("*") if file.is_file())
    sizes = np.array([file.stat().st_size for file in files])
    for _ in range(count):
        file = files[rng.choice(len(files), p=sizes / sizes.sum())] if rng.random() < 0.5 else rng.choice(files)
        before = file.read_bytes()
        content = bytearray(before)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        yield file
        file.write_bytes(before)


def same_result(one, other):
    pd.testing.assert_frame_equal(one.history, other.history)
    assert one.experiment == other.experiment
    assert one.summary() == pytest.approx(other.summary(), nan_ok=True)
    assert (one.versions, one.parts, one.execution) == (other.versions, other.parts, other.execution)
    pd.testing.assert_frame_equal(one.trace.messages, other.trace.messages)
    assert one.trace.spec == other.trace.spec
    for name, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[name])


@pytest.mark.parametrize("count", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_result_changes_it_silently(store, count):
    directory = store / "runs" / min(finished(store))
    whole, noticed = Result.load(directory), 0
    for _ in flipped(directory, count, np.random.default_rng(0)):
        try:
            found = Result.load(directory)
        except (ValueError, OSError):
            noticed += 1
        else:
            same_result(found, whole)
    assert noticed == count


def test_no_flipped_bit_of_a_manifest_changes_a_table_silently(store):
    whole = load(store)
    for _ in flipped(store, 100, np.random.default_rng(1), [store / "manifest.parquet"]):
        found = load(store)
        pd.testing.assert_frame_equal(found.runs, whole.runs)
        pd.testing.assert_frame_equal(found.history, whole.history)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ('{"format": "stalegrad-store-2", "semantics": 0}', "semantics"),
        ('{"format": "stalegrad-store-1", "semantics": 2}', "stalegrad-store-1"),
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


# What was executed otherwise than planned


def test_a_run_executed_in_fewer_lanes_is_kept_as_that_and_found(tmp_path, base, silent, monkeypatch):
    """The memory holds two lanes only; later there is enough of it, and the same call finds the runs."""
    place = tmp_path / "runs"
    with monkeypatch.context() as little:
        little.setattr(lanes.Group, "bytes", lambda self: len(self.plans))
        little.setattr(lanes, "memory", lambda device: 2)
        first = silent(store=place, seed=range(4), lanes=8)
    assert {result.execution for result in first.results} == {"2 lanes"}
    assert {*Store(place)} == {key_of(base.but(seed=seed), 2) for seed in range(4)}
    monkeypatch.setattr(sweep_lanes, "run_together", lambda *a: pytest.fail("a run was made again"))
    for count in (8, 2):
        again = silent(store=place, seed=range(4), lanes=count)
        assert [h["train_loss"].iloc[-1] for h in again.histories] == [
            h["train_loss"].iloc[-1] for h in first.histories
        ]


def test_a_pointer_to_a_run_that_is_gone_or_damaged_is_no_pointer(tmp_path, base):
    store = Store(tmp_path / "runs")
    planned = key_of(base, 4)
    key, _ = store.save(planned, run(base, progress=False))
    assert key == key_of(base) == store.find(planned) == store.find(key)
    pointer = store.planned / planned
    for content in (b"", b"\xff", b"../../etc\n", key.encode()[:-1], b"0" * 20):
        pointer.write_bytes(content)
        assert store.find(planned) is None
    pointer.write_text(f"{key}\n")
    shutil.rmtree(store.runs / key)
    assert store.find(planned) is None


# Runs that raise


def test_a_failure_appears_whole_and_one_that_cannot_be_read_is_one_without_a_text(tmp_path, base, silent):
    store = Store(tmp_path / "runs")
    store.fail(key_of(base), base, "Traceback\nValueError: no\n")
    store.fail(key_of(base), base, "Traceback\nValueError: again\n")
    assert store.failure(key_of(base)).endswith("again\n")
    assert {f.name for f in (store.failed / key_of(base)).iterdir()} == {"spec.toml", "traceback.txt"}
    assert silent(store=store.directory, seed=[0]).failed == {"seed = 0": "ValueError: again"}
    for harm in (lambda f: f.write_bytes(b""), lambda f: f.write_bytes(b"\xff"), lambda f: f.unlink()):
        store.fail(key_of(base), base, "ValueError: no")
        harm(store.failed / key_of(base) / "traceback.txt")
        found = silent(store=store.directory, seed=[0])
        assert found.failed == {"seed = 0": "its traceback could not be read"}
    assert len(silent(store=store.directory, seed=[0], retry_failed=True)) == 1
    assert store.failure(key_of(base)) is None


def test_a_failure_that_cannot_be_written_leaves_nothing(tmp_path, base, monkeypatch):
    store = Store(tmp_path / "runs")
    monkeypatch.setattr(
        "stalegrad.simulator.sweeps.store.flush", lambda place: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        store.fail("a", base, "text")
    assert not list(store.failed.iterdir())


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


def test_a_file_that_may_not_grow_is_one_sentence_and_the_same_call_goes_on(tmp_path, silent, monkeypatch):
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
    monkeypatch.setattr(sweep_lanes, "run_together", lambda *a: pytest.fail("the run was lost and made again"))
    assert len(silent(store=tmp_path / "runs", seed=[0])) == 1
    assert len(load(tmp_path / "runs")) == 1


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


@pytest.mark.parametrize("name", ["log.jsonl", "manifest.parquet", "planned/KEY", "failed/KEY/traceback.txt"])
def test_a_pipe_in_place_of_a_file_of_a_store_does_not_block(name, store, base, silent, made):
    key = key_of(base)
    shutil.rmtree(store / "runs" / key)
    place = store / name.replace("KEY", key)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(place)
    found = silent(store=store, retry_failed=True, **FOUR)
    assert len(found) == 4
    assert made == [0]
    (store / "store.json").unlink()
    os.mkfifo(store / "store.json")
    with pytest.raises(ValueError, match=r"store\.json is damaged"):
        load(store)


def test_a_pointer_to_the_run_of_another_experiment_is_not_believed(store, base, silent, made):
    one, other = key_of(base), key_of(base.but(seed=1))
    shutil.rmtree(store / "runs" / one)
    (store / "planned" / one).write_text(f"{other}\n")
    found = silent(store=store, **FOUR)
    assert made == [0]
    assert sorted(found.runs["seed"]) == [0, 0, 1, 1]
