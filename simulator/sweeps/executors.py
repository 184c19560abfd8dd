"""The task of a worker process of a sweep, and the executors of such processes."""

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
"""An executor of runs: a concurrent.futures executor, or a Dask client."""


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        result: result of the run, or None if it raised.
        traceback: traceback of the exception, or None.
        log: time, place and real time of the execution, which are never part of a result.
    """

    result: Result | None
    traceback: str | None
    log: Table


def attempt(experiments: Sequence[Experiment], lanes: int = 1) -> list[Outcome]:
    """Run experiments in ``lanes`` lanes and catch exceptions; the real time of a group is divided equally."""
    start, results, raised = time.perf_counter(), list[Result | None](), None
    try:
        results = [*run_together(experiments, lanes)]
    except Exception:
        if len(experiments) > 1:  # to find the run that raised
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
    """Run the experiment of a spec's text like :func:`attempt`; this is the task for executors.

    Raises:
        RuntimeError: if the stalegrad of this process has other semantics than the caller's.
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

    They keep compiled code in the user's cache directory, like the command line, so that the other processes and
    the next sweep can use it (``JAX_COMPILATION_CACHE_DIR`` sets another directory; empty: none). Use it as
    ``with processes(4) as pool: sweep(..., executor=pool)``; in a script, put this under
    ``if __name__ == "__main__":``, as for all processes.

    Raises:
        ValueError: if ``jobs`` is not a whole number of at least 1.

    Example:
        >>> import stalegrad as sg
        >>> problem = sg.Problem("softmax-regression", "fashion-mnist-small")
        >>> base = sg.Experiment(problem, sg.Cluster(4), sg.methods.async_(), updates=5)
        >>> with sg.processes(1) as pool:
        ...     results = sg.sweep(base, executor=pool, seed=[0, 1], progress=False)
        >>> len(results)
        2
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
    """Return the executor that a user gives: an executor, or that of a Dask client.

    Raises:
        ValueError: for any other value.
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
        OSError: if there is no scheduler at this address.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("a scheduler needs Dask: pip install 'stalegrad[dask]'") from None
    return Client(address)  # type: ignore[no-untyped-call]
