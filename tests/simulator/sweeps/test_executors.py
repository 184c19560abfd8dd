"""Executors: processes that die with their parent, Dask clusters whose workers are killed."""

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pytest

from stalegrad.simulator import load, processes
from stalegrad.simulator.sweeps import lanes as sweep_lanes
from stalegrad.simulator.sweeps.executors import as_executor, attempt_text

FOUR = {"method": ["async", "sync"], "seed": range(2)}


def children(process):
    """Return the processes that a process has started, by their numbers."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds, seconds=300.0):
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_process_pool_gives_the_same_bytes(tmp_path, silent, same):
    silent(store=tmp_path / "here", **FOUR)
    with processes(2) as pool:
        silent(store=tmp_path / "there", executor=pool, **FOUR)
    assert same(tmp_path / "here" / "runs", tmp_path / "there" / "runs")


def test_any_executor_will_do(tmp_path, silent):
    with ThreadPoolExecutor(2) as threads:
        found = silent(store=tmp_path / "runs", executor=threads, **FOUR)
    assert len(found) == len(load(tmp_path / "runs")) == 4


def test_a_run_that_raises_on_an_executor_is_written_down(tmp_path, silent, monkeypatch):
    def fails(experiment, **options):
        raise ZeroDivisionError("far away")

    monkeypatch.setattr(sweep_lanes, "run", fails)
    with ThreadPoolExecutor(2) as threads:
        found = silent(store=tmp_path / "runs", executor=threads, **FOUR)
    assert len(found.failed) == 4
    assert set(found.failed.values()) == {"ZeroDivisionError: far away"}


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "two"])
def test_a_number_of_processes_that_is_none_is_one_sentence(jobs):
    with pytest.raises(ValueError, match=f"jobs = {jobs!r} is not allowed"):
        processes(jobs)


def test_a_worker_with_other_semantics_makes_no_run(base):
    with pytest.raises(RuntimeError, match="this worker's stalegrad has semantics 3, the sweep's has 4"):
        attempt_text(base.to_toml(), 4)


def test_a_client_of_dask_stands_for_its_executor():
    pool = ThreadPoolExecutor(1)
    client = type("Client", (), {"get_executor": lambda self, pure: pool})()
    assert as_executor(client) is pool
    assert as_executor(pool) is pool


@pytest.mark.slow
def test_processes_die_with_their_parent_and_the_store_goes_on(tmp_path, command, silent):
    parent = subprocess.Popen(command(tmp_path / "runs", jobs=2))
    runs = tmp_path / "runs" / "runs"
    assert eventually(lambda: runs.exists() and len(list(runs.iterdir())) > 2)
    pool = children(parent.pid)
    assert len(pool) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: not any(alive(child) for child in pool))
    assert len(silent(store=tmp_path / "runs", method=["async", "sync"], seed=range(20))) == 40


@pytest.mark.slow
def test_a_pool_that_breaks_is_one_sentence_and_the_same_call_goes_on(tmp_path, silent, base):
    pool = processes(1)
    place = tmp_path / "runs"

    def kill():
        eventually(lambda: place.exists() and len(list((place / "runs").iterdir())) > 2)
        os.kill(next(iter(pool._processes)), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RuntimeError, match=r"the executor broke .*of 200 runs are done and kept in"):
        silent(store=place, executor=pool, seed=range(200))
    killer.join()
    pool.shutdown()
    before = len(load(place))
    with processes(1) as pool:
        assert len(silent(store=place, executor=pool, seed=range(before + 1))) == before + 1


@pytest.mark.slow
def test_an_interrupt_cancels_what_waits_and_keeps_what_is_done(tmp_path, silent):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background lacks
    cancelled = []

    class Slow(ThreadPoolExecutor):
        def submit(self, *args):
            future = super().submit(*args)
            future.add_done_callback(lambda f: cancelled.append(f.cancelled()))
            return future

    place = tmp_path / "runs"

    def interrupt():
        eventually(lambda: place.exists() and len(list((place / "runs").iterdir())) > 2)
        os.kill(os.getpid(), signal.SIGINT)

    with Slow(1) as threads:
        killer = threading.Thread(target=interrupt)
        killer.start()
        with pytest.raises(KeyboardInterrupt, match="of 100 runs are done and kept"):
            silent(store=place, executor=threads, seed=range(100))
        killer.join()
    assert sum(cancelled) > 50
    assert 2 <= len(load(place)) < 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_loses_a_worker_and_makes_every_run(tmp_path, silent, same):
    distributed = pytest.importorskip("distributed")
    axes = {"method": ["async", "sync"], "seed": range(20)}
    place = tmp_path / "dask"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))

        def kill():
            eventually(lambda: place.exists() and len(list((place / "runs").iterdir())) > 2)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = silent(store=place, executor=client, **axes)
        killer.join()
        assert not alive(victim)
        assert victim not in client.run(os.getpid).values()
    assert len(found) == 40
    assert not found.failed
    silent(store=tmp_path / "here", **axes)
    assert same(tmp_path / "here" / "runs", place / "runs")


def test_an_executor_that_breaks_or_loses_its_scheduler_fails_no_run(tmp_path, silent):
    class Broken(Executor):
        def submit(self, *args):
            raise BrokenExecutor("a process died")

    class Lost(Executor):
        def submit(self, *args):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()  # as Dask does
            return future

    for executor, said in ((Broken(), "a process died"), (Lost(), "CancelledError")):
        with pytest.raises(RuntimeError, match=rf"the executor broke \({said}\): 0 of 4 runs are done and kept"):
            silent(store=tmp_path / "runs", executor=executor, **FOUR)
    assert not list((tmp_path / "runs" / "failed").iterdir())


def test_a_run_that_the_executor_gives_up_is_recorded_as_failed(tmp_path, silent):
    class GivesUp(Executor):
        def submit(self, *args):
            future = Future()
            future.set_exception(OSError("three workers died of it"))
            return future

    found = silent(store=tmp_path / "runs", executor=GivesUp(), **FOUR)
    assert set(found.failed.values()) == {"OSError: three workers died of it"}
