"""The run of an experiment: the simulation of its timing, then the replay. JAX is imported when a run begins."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from stalegrad._core.errors import UnknownPartError
from stalegrad.simulator.experiments.experiment import Experiment
from stalegrad.simulator.experiments.identity import digest, parts_of
from stalegrad.simulator.experiments.result import Result, versions
from stalegrad.simulator.experiments.traces import simulate_ahead, trace_of

if TYPE_CHECKING:
    from stalegrad.simulator.experiments.observers import Observer
    from stalegrad.simulator.replays.checkpoint import Checkpoint


def run(
    experiment: Experiment,
    *,
    progress: bool = True,
    execution: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    observers: Sequence[Observer] = (),
) -> Result:
    """Run an experiment: simulate its timing, then replay it.

    Args:
        experiment: experiment to run.
        progress: whether to show a progress bar (in a terminal or notebook).
        execution: ``scan``, ``windows`` or ``loop``; by default chosen from backend and problem.
        checkpoint: path of a file for the state of the run. After any interruption, the same call continues from
            this state and gives the same bytes; Ctrl-C saves the state and stops. The file is kept: remove it
            when the result is saved.
        checkpoint_every: real seconds between two saved states.
        observers: observers that receive the result, e.g. ``[TensorBoard("logs")]``.

    Returns:
        The result; also for a run that diverges.

    Raises:
        ValueError: before any work, if the experiment is impossible, or the checkpoint is damaged or that of
            another run.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.

    Example:
        >>> import stalegrad as sg
        >>> problem = sg.Problem("softmax-regression", "fashion-mnist-small")
        >>> experiment = sg.Experiment(problem, sg.Cluster(4), sg.methods.async_(), updates=40)
        >>> result = sg.run(experiment, progress=False)
        >>> result.trace.summary()["mean_staleness"], bool(result.history["test_error"].iloc[-1] < 0.5)
        (2.85, True)
    """
    from stalegrad.simulator.replays.checkpoint import Checkpoint

    e, silent = experiment, None if progress else True
    bar = functools.partial(tqdm, desc=f"{e.method.name}, seed {e.seed}", unit=" updates", disable=silent)
    kept: Checkpoint | None = None
    with ExitStack() as stack:
        if checkpoint is not None:
            kept = Checkpoint(checkpoint, _checkpoint_identity(experiment, execution), checkpoint_every)
            stack.enter_context(kept.guarding())
        result = _run(experiment, bar, execution, kept)
    for observer in observers:
        with never_failing(observer, f"the run ({e.method.name}, seed {e.seed})"):
            observer.finished(result)
    return result


@contextmanager
def never_failing(observer: Observer, run: str) -> Iterator[None]:
    """Turn exceptions of an observer into warnings, so that no run is lost."""
    try:
        yield
    except Exception as error:
        name = type(observer).__name__
        said = f"observer {name} missed {run}: {type(error).__name__}: {error}"
        try:
            warnings.warn(said, stacklevel=4)
        except Warning:  # where warnings are errors
            logging.getLogger("stalegrad").error(said)


def _run(e: Experiment, bar: Callable[..., tqdm], execution: str | None, checkpoint: Checkpoint | None) -> Result:
    from stalegrad.simulator.replays.adaptive import simulate_and_replay
    from stalegrad.simulator.replays.execution import check_execution
    from stalegrad.simulator.replays.history import History
    from stalegrad.simulator.replays.run import replay_on
    from stalegrad.simulator.replays.training import Training

    check_execution(execution)
    training = Training(e.problem, e.method, e.cluster.size, e.record, e.budget, e.seed)
    parts = known_parts(e)
    if e.method.adaptive:
        with bar() as told:
            trace, done = simulate_and_replay(
                e.timed_cluster, training, progress=told.update, execution=execution, checkpoint=checkpoint
            )
        return Result.of(e, trace, done, parts)
    simulate_ahead(e)
    history = History(training)  # JAX compiles and evaluates the start meanwhile
    trace = trace_of(e)
    with bar(total=len(trace.update_times)) as told:
        done = replay_on(
            trace, training, history=history, progress=told.update, execution=execution, checkpoint=checkpoint
        )
    return Result.of(e, trace, done, parts)


def known_parts(experiment: Experiment) -> dict[str, str]:
    """Return the digests of :func:`parts_of`; if a part cannot be compared, only the key ``unknown``."""
    try:
        return parts_of(experiment)
    except UnknownPartError as error:
        return {"unknown": str(error)}


def _checkpoint_identity(experiment: Experiment, execution: str | None) -> dict[str, str]:
    """Return everything that determines the bytes of a run.

    Raises:
        ValueError: if a part of the experiment cannot be compared with one of another process.
    """
    import jax

    found = digest(experiment)
    if found is None:
        raise ValueError(
            "a checkpoint is not allowed for this experiment: it holds an object that cannot be compared with one "
            "of another process"
        )
    try:
        about = {"spec": experiment.to_toml()}
    except ValueError:
        about = {}
    about |= {
        "spec's functions or data": found,
        "execution": str(execution),
        "device": jax.devices()[0].device_kind,
    }
    return about | {f"version of {name}": version for name, version in versions().items()}
