"""Observers of runs: objects that receive finished runs, for example trackers of experiments. All are optional."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from stalegrad.simulator.experiments.experiment import Experiment, flattened
from stalegrad.simulator.experiments.identity import name_table, run_name
from stalegrad.simulator.experiments.result import Result

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

MLFLOW_LONGEST = 500
"""Largest number of characters of a parameter that every MLflow server allows."""


class Observer(Protocol):
    """An object that receives every run as it ends, in the process that called :func:`sweep` or :func:`run`.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> class Printer:
        ...     def finished(self, result):
        ...         print(result.experiment.method.name, "seed", result.experiment.seed)
        ...     def failed(self, experiment, traceback):
        ...         print(traceback)
        >>> experiment = sg.Experiment(bowl, sg.Cluster(2), sg.methods.async_(), updates=2)
        >>> results = sg.sweep(experiment, seed=[0, 1], observers=[Printer()], progress=False)
        async seed 0
        async seed 1
    """

    def finished(self, result: Result) -> None:
        """Receive the result of a run that has ended."""

    def failed(self, experiment: Experiment, traceback: str) -> None:
        """Receive the experiment and the traceback of a run that raised."""


class TensorBoard:
    """An observer that writes histories for TensorBoard, one folder per run; needs ``stalegrad[tensorboard]``.

    The step is the update; TensorBoard's wall time is the simulated wallclock.

    Args:
        directory: directory for ``tensorboard --logdir``.

    Raises:
        ValueError: if tensorboardX is not installed.

    Example:
        >>> from pathlib import Path
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> experiment = sg.Experiment(bowl, sg.Cluster(2), sg.methods.async_(), updates=2)
        >>> result = sg.run(experiment, observers=[sg.TensorBoard("logs")], progress=False)
        >>> len(list(Path("logs").glob("*/events*")))
        1
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError("TensorBoard needs tensorboardX: pip install 'stalegrad[tensorboard]'") from None
        self.directory, self._writer = Path(directory), SummaryWriter

    def finished(self, result: Result) -> None:
        """Write the history of a run and its spec."""
        with self._open(result.experiment, result.lanes) as writer:
            for row in rows(result):
                for name, value in row.numbers.items():
                    writer.add_scalar(name, value, row.update, walltime=row.wallclock)

    def failed(self, experiment: Experiment, traceback: str) -> None:
        """Write the spec of a run that raised, and the traceback."""
        with self._open(experiment) as writer:
            writer.add_text("traceback", code(traceback))

    def _open(self, experiment: Experiment, lanes: int | None = None) -> SummaryWriter:
        writer = self._writer(str(self.directory / run_name(experiment, lanes)))
        writer.add_text("spec", code(spec_of(experiment)))
        return writer


class MLflow:
    """An observer that logs specs and histories as parameters and metrics of MLflow; needs ``stalegrad[mlflow]``.

    The step is the update; the time of a metric is the simulated wallclock after the start of 1970, because MLflow
    needs a date.

    Args:
        experiment: name of the MLflow experiment, which is created if it does not exist.
        tracking_uri: address of the MLflow server; default: MLflow's configuration.

    Raises:
        ValueError: if MLflow is not installed.

    Example:
        >>> import jax.numpy as jnp
        >>> import stalegrad as sg
        >>> bowl = sg.Problem.from_functions(lambda key: jnp.ones(2), lambda w, batch, key: 0.5 * w @ w)
        >>> tracker = sg.MLflow("bowls", tracking_uri="sqlite:///mlflow.db")  # doctest: +SKIP
        >>> experiment = sg.Experiment(bowl, sg.Cluster(2), sg.methods.async_(), updates=2)
        >>> result = sg.run(experiment, observers=[tracker], progress=False)  # doctest: +SKIP
    """

    def __init__(self, experiment: str = "stalegrad", tracking_uri: str | None = None) -> None:
        try:
            import mlflow
        except ImportError:
            raise ValueError("MLflow is not installed: pip install 'stalegrad[mlflow]'") from None
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient(tracking_uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)

    def finished(self, result: Result) -> None:
        """Log a run."""
        run = self._start(result.experiment, result.lanes)
        for row in rows(result):
            time = round(1000 * row.wallclock)
            metrics = [self._entities.Metric(name, value, time, row.update) for name, value in row.numbers.items()]
            self._client.log_batch(run, metrics=metrics)
        self._client.set_terminated(run, "FINISHED")

    def failed(self, experiment: Experiment, traceback: str) -> None:
        """Log a run that raised, with its traceback."""
        run = self._start(experiment)
        self._client.log_text(run, traceback, "traceback.txt")
        self._client.set_terminated(run, "FAILED")

    def _start(self, experiment: Experiment, lanes: int | None = None) -> str:
        run = self._client.create_run(self._experiment, run_name=run_name(experiment, lanes)).info.run_id
        for name, value in flattened(name_table(experiment)).items():
            self._client.log_param(run, name, str(value)[:MLFLOW_LONGEST])
        return str(run)


class Row(NamedTuple):
    """A row of a history: its time in updates and simulated seconds, and the columns that are not NaN."""

    update: int
    wallclock: float
    numbers: dict[str, float]


def rows(result: Result) -> Iterator[Row]:
    """Yield the rows of a run's history."""
    for row in result.history.to_dict("records"):
        update, numbers = int(row.pop("update")), {str(name): float(value) for name, value in row.items()}
        known = {name: value for name, value in numbers.items() if not math.isnan(value)}
        yield Row(update, numbers["wallclock"], known)


def spec_of(experiment: Experiment) -> str:
    """Return the spec of an experiment, or its name as JSON if a part of it exists in this process only."""
    try:
        return experiment.to_toml()
    except ValueError:
        return json.dumps(name_table(experiment), indent=1, sort_keys=True)


def code(text: str) -> str:
    """Return a text as a code block of Markdown."""
    return "".join(f"    {line}\n" for line in text.splitlines())
