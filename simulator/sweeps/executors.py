"""The task of a worker process of a sweep, and the executors that have such processes."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import socket
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from stalegrad._core.specs import PositiveInt, validate
from stalegrad._core.types import Table
from stalegrad.simulator.experiments.experiment import Experiment, from_toml
from stalegrad.simulator.experiments.identity import SEMANTICS
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.replays.compiling import keep_compiled
from stalegrad.simulator.sweeps.lanes import run_together

if TYPE_CHECKING:
    from distributed import Client

ExecutorLike: TypeAlias = "Executor | Client"
"""What runs may be given to: a concurrent.futures executor, or a Dask client."""


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
        result: its result, or None if it raised.
        traceback: of what it raised, or None.
        log: when and where it was made, in how much real time: what is never written into a result.
    """

    result: Result | None
    traceback: str | None
    log: Table


def attempt(experiments: Sequence[Experiment], lanes: int = 1) -> list[Outcome]:
    """Run experiments in ``lanes`` lanes, whatever they raise; the real time of a group is shared out evenly."""
    start, results, raised = time.perf_counter(), list[Result | None](), None
    try:
        results = [*run_together(experiments, lanes)]
    except Exception:
        if len(experiments) > 1:  # find out who it was
            return [outcome for experiment in experiments for outcome in attempt([experiment], lanes)]
        results, raised = [None], traceback.format_exc()
    log = {
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round((time.perf_counter() - start) / len(experiments), 3),
        "host": socket.gethostname(),
        "process": os.getpid(),
    }
    return [Outcome(result, raised, log) for result in results]


def attempt_text(text: str, semantics: int) -> Outcome:
    """Run the experiment of a spec's text like :func:`attempt`: the task that executors are given.

    Raises:
        RuntimeError: if this process has a stalegrad whose numbers are others than the caller's.
    """
    if semantics != SEMANTICS:
        raise RuntimeError(
            f"this worker's stalegrad has semantics {SEMANTICS}, the sweep's has {semantics}: "
            "install the same version"
        )
    (outcome,) = attempt([from_toml(text)])
    return outcome


def processes(jobs: int) -> ProcessPoolExecutor:
    """Return an executor of ``jobs`` processes on this machine, which exit when this process exits.

    They keep compiled code in the user's cache directory, as the command line does: what one of them has compiled
    the others need not, nor does the next sweep (``JAX_COMPILATION_CACHE_DIR`` names another place; empty: none).
    Use it as ``with processes(4) as pool: sweep(..., executor=pool)``; in a script under
    ``if __name__ == "__main__":``, as always with processes.

    Raises:
        ValueError: if ``jobs`` is not a whole number of at least 1.
    """
    jobs = validate("jobs", PositiveInt, jobs)
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin_process)


def begin_process() -> None:
    """Set up a process that runs experiments."""
    die_with_parent()
    keep_compiled()


def die_with_parent() -> None:
    """Exit when the parent process exits, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def as_executor(given: object) -> Executor:
    """Return an executor for what a user may call one: it itself, or a Dask client's.

    Raises:
        ValueError: if it is neither.
    """
    adapt = getattr(given, "get_executor", None)
    if callable(adapt):
        given = adapt(pure=False)
    if not isinstance(given, Executor):
        raise ValueError(
            f"executor = {given!r} is not allowed: give a concurrent.futures executor (such as processes(4)), "
            "a Dask client, or None for this process"
        )
    return given


def dask_client(address: str) -> Client:
    """Return a client of the Dask cluster whose scheduler has this address, e.g. ``tcp://10.0.0.1:8786``.

    Raises:
        ValueError: if Dask is not installed.
        OSError: if there is no scheduler.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("a scheduler needs Dask: pip install 'stalegrad[dask]'") from None
    return Client(address)  # type: ignore[no-untyped-call]
