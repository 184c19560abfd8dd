"""Sweeps: many experiments, each executed once and kept in a store."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import ExitStack, contextmanager

from tqdm.auto import tqdm

from stalegrad._core.specs import PositiveInt, validate
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.identity import SEMANTICS, canonical, canonical_text, digest, key_of
from stalegrad.simulator.experiments.observers import Observer
from stalegrad.simulator.experiments.result import Result
from stalegrad.simulator.experiments.run import never_failing
from stalegrad.simulator.experiments.traces import simulate_ahead, trace_text
from stalegrad.simulator.sweeps.axes import Axis, Mode, Run, Sampling, plan
from stalegrad.simulator.sweeps.executors import ExecutorLike, Outcome, as_executor, attempt, attempt_text
from stalegrad.simulator.sweeps.lanes import default_lanes, planned_lanes
from stalegrad.simulator.sweeps.results import SweepResult, collect, label, stored
from stalegrad.simulator.sweeps.store import Outline, Store

AT_ONCE = 400
"""Runs handed to an executor at a time; each holds a lock, an open file."""
GROUPS = 4
"""Runs claimed per pass, in multiples of the number of lanes; runs that share code are grouped within a pass."""
PAUSE = 0.5
"""Seconds between two checks of an executor, or of runs that other processes hold."""
PATIENCE = 5.0
"""Seconds without progress after which a warning names the runs that other processes hold, and the processes."""

INTERRUPTED: dict[str, Result] = {}
"""Results of interrupted sweeps without a store, by key: the same call continues from them."""

Tell = Callable[[int], None]
"""Callback that receives the number of runs in progress."""


def sweep(
    base: Experiment,
    *,
    store: str | os.PathLike[str] | None = None,
    mode: Mode = "grid",
    samples: int | None = None,
    sampling_seed: int = 0,
    executor: ExecutorLike | None = None,
    observers: Sequence[Observer] = (),
    progress: bool = True,
    fail_fast: bool = False,
    retry_failed: bool = False,
    lanes: int | None = None,
    **axes: Axis,
) -> SweepResult:
    """Run an experiment for every combination of its axes' values.

    Runs that differ only in the rule share one trace, so their comparison is paired.

    Args:
        base: experiment whose fields the axes change.
        store: directory for the finished runs. After an interruption at any moment, the same call continues. It
            needs experiments that can be written as a spec. Without a store the runs are kept in memory, and the
            same call continues only in this process.
        mode: ``grid``: all combinations; ``zip``: the first values of all axes, then the second ones, ...;
            ``random``: a random value of each axis.
        samples: number of points of ``random``.
        sampling_seed: seed of the draws of ``random``.
        executor: executor of the runs: any ``concurrent.futures.Executor``, e.g. ``processes(4)``, or a Dask
            client; it needs experiments that can be written as a spec. None: this process.
        observers: observers that receive every run executed by this call, e.g. ``[TensorBoard("logs")]``.
        progress: whether to show a progress bar.
        fail_fast: whether to raise as soon as a run raises; else its traceback is kept and the sweep continues.
        retry_failed: whether to execute runs again that have raised according to the store.
        lanes: number of lanes in which runs that share compiled code are executed together in this process; by
            default one on CPU, where more lanes gain little, and several on an accelerator. It changes rounding.
        **axes: axes, as for :func:`stalegrad.simulator.sweeps.axes.plan`; names with a dot are given as
            ``**{"cluster.workers": [8, 16]}``.

    Returns:
        The finished runs, and the runs that raised.

    Raises:
        ValueError: before any run, for a wrong axis or value.
        OSError: if the store cannot be written, e.g. because the disk is full; finished runs are kept.
        RuntimeError: if a run raised and ``fail_fast`` is set, or the executor broke.
        KeyboardInterrupt: after an interruption, with the number of finished runs.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> base = sg.Experiment(bowl, sg.Cluster(4), sg.methods.k_async(k=4), updates=8)
        >>> results = sg.sweep(base, **{"method.k": [1, 2, 4]}, progress=False)
        >>> results.runs["wallclock"].tolist()
        [2.0, 4.0, 8.0]
    """
    runs = plan(base, axes, Sampling(mode, samples, sampling_seed))
    return execute(
        runs, store=store, executor=executor, observers=observers, progress=progress, fail_fast=fail_fast,
        retry_failed=retry_failed, lanes=lanes,
    )  # fmt: skip


def execute(
    runs: Sequence[Run],
    *,
    store: str | os.PathLike[str] | None = None,
    executor: ExecutorLike | None = None,
    observers: Sequence[Observer] = (),
    progress: bool = True,
    fail_fast: bool = False,
    retry_failed: bool = False,
    lanes: int | None = None,
) -> SweepResult:
    """Execute runs; arguments, result and errors are those of :func:`sweep`."""
    executor = None if executor is None else as_executor(executor)
    if executor is not None and lanes is not None:
        raise ValueError(f"lanes = {lanes} is not allowed with an executor: it executes one run at a time")
    lanes = (
        1 if executor is not None else default_lanes() if lanes is None else validate("lanes", PositiveInt, lanes)
    )
    job = Job(runs, store, observers, fail_fast, retry_failed, lanes)
    known = len(runs) - len(job.left())
    name = f"sweep ({known} done before)" if known else "sweep"
    with tqdm(desc=name, total=len(runs), initial=known, unit=" runs", disable=not progress) as bar:

        def tell(running: int) -> None:
            bar.n = len(job.done) + len(job.failed)
            at_work = f"running {running}, " if running else ""  # unknown for Dask's futures
            bar.set_postfix_str(f"{at_work}done {len(job.done)}, failed {len(job.failed)}")

        try:
            if executor is None:
                job.run_here(tell)
            else:
                job.run_on(executor, tell)
            tell(0)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {job.so_far()}") from None
        except (BrokenExecutor, CancelledError) as error:  # a process died or a scheduler is gone
            cause = str(error) or type(error).__name__
            raise RuntimeError(f"the executor broke ({cause}): {job.so_far()}") from error
        finally:
            job.close()
    return job.outcome()


class Job:
    """A sweep in progress: the runs that are done, that raised, and that are left."""

    def __init__(
        self, runs: Sequence[Run], store: str | os.PathLike[str] | None, observers: Sequence[Observer],
        fail_fast: bool, retry_failed: bool, lanes: int,
    ) -> None:  # fmt: skip
        self.runs, self.observers, self.fail_fast, self.retry_failed = runs, observers, fail_fast, retry_failed
        self.lanes = lanes
        self.keys = [self.key(run, stored=store is not None) for run in runs]
        self.store = Store(store) if store is not None else None
        self.made: dict[int, str] = {}  # the keys in the store, those of the runs as executed
        self.done: dict[int, Outline] = {}
        self.results: dict[int, Result] = {}  # without a store
        self.failed: dict[int, str] = {}
        self.waiting_for: Sequence[int] = ()
        self.waited = 0.0
        first: dict[str, int] = {}
        texts = [trace_text(run.experiment) for run in runs]
        order = [first.setdefault(text, i) if text is not None else i for i, text in enumerate(texts)]
        self.order = sorted(range(len(runs)), key=order.__getitem__)  # runs that share a trace are adjacent
        for i in range(len(runs)):
            self.known(i)

    def key(self, run: Run, stored: bool) -> str:
        """Return the planned key of a run; empty if the run cannot be compared with others.

        Raises:
            ValueError: if the run must be stored and has no key.
        """
        lanes = planned_lanes(run.experiment, self.lanes)
        if stored:
            return key_of(run.experiment, lanes)
        found = digest(run.experiment)
        return "" if found is None else f"{found}, {lanes} lanes"

    def close(self) -> None:
        """Write the manifest of the store; without a store, keep the finished runs if some are left."""
        if self.store is not None:
            self.store.write_manifest()
        elif self.left():
            INTERRUPTED.update({self.keys[i]: result for i, result in self.results.items() if self.keys[i]})

    def left(self) -> list[int]:
        """Return the runs that are neither done nor failed, in the order of execution."""
        return [i for i in self.order if i not in self.done and i not in self.failed]

    def known(self, i: int) -> bool:
        """Take a run from the store or from an interrupted sweep; return whether it was found."""
        key = self.keys[i]
        if (result := INTERRUPTED.pop(key, None)) is not None:
            self.keep_result(i, result)
        elif self.store is not None:
            made = self.store.find(key)
            outline = self.store.outline(made) if made is not None else None
            if made is not None and outline is not None and self.is_of(outline, i):
                self.made[i], self.done[i] = made, outline
            elif (said := self.store.failure(key)) is not None and not self.retry_failed:
                self.failed[i] = said
        return i in self.done or i in self.failed

    def is_of(self, outline: Outline, i: int) -> bool:
        """Return whether a stored run is that of an experiment; a pointer in the store may be wrong."""
        return canonical_text(outline.spec) == canonical(self.runs[i].experiment)

    @contextmanager
    def claim(self, i: int) -> Iterator[bool]:
        """Hold a run; yield False if another process holds it or has finished it."""
        if self.store is None:
            yield True
            return
        with self.store.claim(self.keys[i]) as ours:
            yield ours and not self.known(i)

    def run_here(self, tell: Tell) -> None:
        """Execute the runs that are left in this process; runs that other processes hold come last."""
        at_once = 1 if self.lanes == 1 else GROUPS * self.lanes
        while left := self.left():
            for start in range(0, len(left), at_once):
                with ExitStack() as claims:
                    ours = [i for i in left[start : start + at_once] if claims.enter_context(self.claim(i))]
                    tell(len(ours))
                    for i in left[start + at_once : start + at_once + 1]:
                        simulate_ahead(self.runs[i].experiment)  # while this one is replayed
                    if ours:
                        outcomes = attempt([self.runs[i].experiment for i in ours], self.lanes)
                        for i, outcome in zip(ours, outcomes, strict=True):
                            self.finish(i, outcome)
            if self.left() == left:
                self.wait(left)

    def wait(self, held: Sequence[int]) -> None:
        """Pause while other processes hold runs; after some time a warning names them."""
        time.sleep(PAUSE)
        self.waited = self.waited + PAUSE if held == self.waiting_for else PAUSE
        self.waiting_for = held
        if self.store is not None and self.waited - PAUSE < PATIENCE <= self.waited:
            i, others = held[0], len(held) - 1
            who = self.store.holder(self.keys[i]) or "another process"
            more = f" and {others} more" if others else ""
            warnings.warn(
                f"waiting for the run {label(self.runs[i]) or self.keys[i]}{more}: held by {who} "
                f"({self.store.locks / self.keys[i]})",
                stacklevel=2,
            )

    def run_on(self, executor: Executor, tell: Tell) -> None:
        """Execute the runs that are left on an executor, and keep their results."""
        under_way: dict[Future[Outcome], tuple[int, ExitStack]] = {}
        try:
            while left := self.left():
                busy = {i for i, _ in under_way.values()}
                for i in [i for i in left if i not in busy][: AT_ONCE - len(busy)]:
                    with ExitStack() as claims:
                        if claims.enter_context(self.claim(i)):
                            text = self.runs[i].experiment.to_toml()
                            future = executor.submit(attempt_text, text, SEMANTICS)
                            under_way[future] = (i, claims.pop_all())
                tell(sum(future.running() for future in under_way))
                if not under_way:
                    self.wait(left)
                for future in wait(under_way, PAUSE, FIRST_COMPLETED).done:
                    i, claims = under_way.pop(future)
                    with claims:
                        self.finish(i, self.returned(future))
        finally:
            for future, (_, claims) in under_way.items():
                future.cancel()
                claims.close()

    def returned(self, future: Future[Outcome]) -> Outcome:
        """Return the outcome of a run on an executor."""
        try:
            return future.result()
        except (BrokenExecutor, CancelledError):
            raise
        except Exception as error:  # e.g. Dask gives up a run whose workers died
            return Outcome(None, f"{type(error).__name__}: {error}", {})

    def finish(self, i: int, outcome: Outcome) -> None:
        """Keep the outcome of a run, and pass it to the observers."""
        run = self.runs[i]
        try:
            self.keep(i, outcome)
        except OSError as error:
            raise OSError(f"cannot write a run: {error}; {self.so_far()}") from error
        for observer in self.observers:
            with never_failing(observer, f"a run ({label(run)})"):
                if outcome.result is None:
                    observer.failed(run.experiment, self.failed[i])
                else:
                    observer.finished(outcome.result)
        if outcome.result is None and self.fail_fast:
            raise RuntimeError(f"run {label(run)} raised:\n{self.failed[i]}\n{self.so_far()}")

    def keep(self, i: int, outcome: Outcome) -> None:
        """Keep the outcome of a run, in the store or in memory."""
        result = outcome.result
        if result is None:
            self.failed[i] = outcome.traceback or "no traceback"
            if self.store is not None:
                self.store.fail(self.keys[i], self.runs[i].experiment, self.failed[i])
        else:
            self.keep_result(i, result)
        if self.store is not None:
            self.store.log(self.keys[i], {"failed": result is None, **outcome.log})

    def keep_result(self, i: int, result: Result) -> None:
        """Keep the result of a run, in the store or in memory; also in memory if the store cannot be written."""
        if self.store is None:
            self.done[i], self.results[i] = Outline.of(result), result
            return
        try:
            self.made[i], self.done[i] = self.store.save(self.keys[i], result)
        except OSError:
            INTERRUPTED[self.keys[i]] = result
            raise

    def so_far(self) -> str:
        """Return a sentence on the runs that are done, and how to continue."""
        done = f"{len(self.done)} of {len(self.runs)} runs are done"
        if self.store is None:
            kept = sum(bool(self.keys[i]) for i in self.done)
            how = "the same call continues from there" if kept else "runs that cannot be compared are not kept"
            return f"{done}, {kept} of them kept in this process; {how}; store=DIRECTORY keeps runs on disk"
        return f"{done} and kept in {self.store.directory}; the same call continues from there"

    def outcome(self) -> SweepResult:
        """Return the result of the sweep."""
        done = sorted(self.done)
        results: Sequence[Result] = [self.results[i] for i in done if i in self.results]
        if self.store is not None:
            results = stored(self.store, [self.made[i] for i in done])
        unread = ["its traceback could not be read"]
        last = {i: (text.strip().splitlines() or unread)[-1] for i, text in sorted(self.failed.items())}
        failed = {label(self.runs[i]): line for i, line in last.items()}
        return collect([self.runs[i].point for i in done], [self.done[i] for i in done], results, failed)
