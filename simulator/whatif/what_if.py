"""What-if: the effect of other synchronies on a job whose step times were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stalegrad._core.specs import (
    NonNegativeFloat,
    PositiveInt,
    changed_fields,
    check_keys,
    shown,
    validate,
)
from stalegrad._core.types import Table
from stalegrad.models import Problem
from stalegrad.policies import Method
from stalegrad.policies.synchrony import (
    SSP,
    Async,
    KAsync,
    KBatchAsync,
    KBatchSync,
    KSync,
    Ringmaster,
    Sync,
    Synchrony,
)
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Recorded
from stalegrad.simulator.timing.links import Network, as_network
from stalegrad.simulator.timing.links.network import MODEL
from stalegrad.simulator.whatif.answer import WhatIf
from stalegrad.simulator.whatif.grid import read_grid
from stalegrad.simulator.whatif.rows import SEED, Row, row_of, sample_of
from stalegrad.simulator.whatif.training import final_values, histories_of, methods_of, synchrony_of
from stalegrad.simulator.whatif.words import Facts, sentences

RATES = ("upload", "download", "ingress", "egress", "sharing", "model_bytes")
"""Keys of ``links`` that belong to the network."""

LATENCIES = ("uplink", "downlink", "server", "server_update")
"""Keys of ``links`` that belong to the cluster."""

GRADIENTS = 100_000
"""Number of gradients of a simulated row."""

TRAINED = 20_000
"""Number of gradients of a simulated row that is also trained."""

RESAMPLES = 2_000
"""Number of bootstrap samples."""

Contestants = Sequence[Synchrony | Method] | Mapping[str, Synchrony | Method]


def usual_synchronies(workers: int) -> list[Synchrony]:
    """Return the synchronies that are compared by default, from the one that waits most to async.

    An update uses, for P workers: all gradients of a step (sync); nine tenths of them, while the others are
    cancelled (k-sync); P gradients of any workers at one version (k-batch-sync); gradients of the first half of
    the workers, while the others continue (k-async); one gradient, where workers are at most two steps ahead of
    the slowest (ssp); P gradients, fresh or stale (k-batch-async); one gradient with a staleness below 2 P
    (ringmaster); any one gradient (async).
    """
    tenth = max(1, workers // 10)
    return [
        Sync(),
        KSync(workers - tenth),
        KBatchSync(workers),
        KAsync(-(-workers // 2)),
        SSP(2),
        KBatchAsync(workers),
        Ringmaster(2 * workers),
        Async(),
    ]


def what_if(
    step_times: object,
    synchronies: Contestants | None = None,
    problem: Problem | None = None,
    message_bytes: float | str = 0.0,
    links: Network | Mapping[str, object] | None = None,
    *,
    learning_rate: object = 0.1,
    seeds: int = 1,
    columns: Mapping[str, str] | None = None,
    unit: str | None = None,
    skip: int = 0,
    compute_only: bool = False,
    most: int | None = None,
) -> WhatIf:
    """Compute the effect of other synchronies on a job from its measured step times.

    Every worker takes its recorded times in order, from the same step on. Synchronies in rounds take step n of all
    workers in round n. If no worker waits, worker w computes (its steps) / (its seconds) gradients per second.
    Both are exact, from all steps. The other rows are simulated on consecutive steps, until the workers have
    completed them on average; workers that are ahead take the following steps, and begin the record again at its
    end. With ``links`` all rows are simulated.

    Args:
        step_times: seconds of computing alone, per worker and step: a file or DataFrame as for ``read_step_times``
            or ``read_intervals`` (their column ``seconds`` is used), a list of one list per worker, ``Recorded``
            times, or the name of a measured job (``alibaba-job-1``). The last steps that not all workers have made
            are left out.
        synchronies: list of synchronies, or mapping of labels to synchronies; with a problem also methods.
            Default: :func:`usual_synchronies`.
        problem: problem to train for the time that the synchronous job takes for the simulated steps; None:
            timing only.
        message_bytes: bytes of a gradient and of a model; ``model``: those of the problem's parameters.
        links: a ``Network``; or a table with its keys ``upload``, ``download`` (bytes per second of a worker's
            link), ``ingress``, ``egress`` (of the server), ``sharing``, ``model_bytes``, and those of the
            cluster, ``uplink``, ``downlink`` (latencies), ``server``, ``server_update`` (seconds per message and
            per update). Default: communication takes no time.
        learning_rate: learning rate of the methods that are trained for synchronies.
        seeds: number of seeds of each trained method: 0, 1, ...
        columns: names of columns in the log, by meaning.
        unit: unit of the times in the log.
        skip: number of first steps of every worker that are left out as warm-up.
        compute_only: whether the times are of computing alone even if all workers agree in each step.
        most: number of gradients of a simulated row; default 100,000, with a problem 20,000.

    Returns:
        The answer: ``table``, ``workers``, ``words``, ``plot()``, ``report()``.

    Raises:
        ValueError: before any simulation: as for the readers of logs, naming the row; for a log of one worker or
            fewer than 10 steps, for times that include a barrier, for a synchrony that cannot work with this
            number of workers, or for bandwidths without sizes of messages or the reverse.
        FileNotFoundError: if there is no such file.

    Example:
        >>> from stalegrad.policies import Async, Sync
        >>> answer = what_if([[1.0] * 20, [1.0, 3.0] * 10], [Sync(), Async()])
        >>> answer.table[["throughput", "speedup"]].round(3).to_dict("index")
        {'sync': {'throughput': 1.0, 'speedup': 1.0}, 'async': {'throughput': 1.5, 'speedup': 1.5}}
    """
    grid = read_grid(step_times, columns=columns, unit=unit, skip=skip, compute_only=compute_only)
    workers = len(grid.workers)
    contestants = _labelled(usual_synchronies(workers) if synchronies is None else synchronies)
    for contestant in contestants.values():
        synchrony_of(contestant).check(workers)
    trained = None if problem is None else methods_of(contestants, learning_rate)
    most = validate("most", PositiveInt, (GRADIENTS if problem is None else TRAINED) if most is None else most)
    seeds = validate("seeds", PositiveInt, seeds)
    settings = _communication(message_bytes, links, problem)
    sample = sample_of(grid, most, lambda seconds: Cluster(workers, Recorded(seconds.T.tolist()), **settings))
    rows = {label: row_of(synchrony_of(contestant), grid, sample) for label, contestant in contestants.items()}
    baseline = row_of(Sync(), grid, sample).rate
    table = _table(rows, baseline.value)
    from stalegrad.analysis.fits.stragglers import stragglers

    found = stragglers(grid.table())
    histories = {}
    if trained is not None and problem is not None:
        histories = histories_of(sample, trained, problem, seeds)
        table = table.join(final_values(histories))
    about = found.slowdown, found.workers, found.imbalance.words
    facts = Facts(grid, sample, *about, table, histories, links is not None)
    return WhatIf(grid.name, table, found.workers, found.slowdown, tuple(sentences(facts)), histories)


def _table(rows: Mapping[str, Row], sync: float) -> pd.DataFrame:
    """Return the table of an answer.

    Args:
        rows: rows by label.
        sync: throughput of the synchronous job, in gradients per second.
    """
    lines = {}
    for label, row in rows.items():
        blocks = row.rate.blocks
        rng = np.random.default_rng(SEED)  # the same blocks for all rows
        counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES).astype(float)
        speedup, drawn = row.rate.value / row.sync.value, row.rate.of(counts) / row.sync.of(counts)
        low, high = np.quantile(drawn, [0.025, 0.975])
        throughput = speedup * sync
        lines[label] = {
            "throughput": throughput, "speedup": speedup, "low": float(low), "high": float(high),
            "time_per_update": row.per_update / throughput if throughput else math.inf,
            "idle": row.idle, "wasted": row.wasted, "staleness": row.staleness,
            "staleness_p99": row.staleness_p99, "exact": row.exact,
        }  # fmt: skip
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("synchrony")


def _labelled(contestants: Contestants) -> dict[str, Synchrony | Method]:
    """Return the synchronies and methods to compare, by label."""
    if not isinstance(contestants, Mapping):
        if not isinstance(contestants, Sequence) or isinstance(contestants, str):
            raise ValueError(f"synchronies = {shown(contestants)} is not allowed: give a list, e.g. [KAsync(4)]")
        named = [(_label(contestant), contestant) for contestant in contestants]
        if twice := next((label for label, _ in named if sum(label == name for name, _ in named) > 1), None):
            raise ValueError(f"synchronies has {twice} twice: give a mapping of labels to synchronies")
        contestants = dict(named)
    if not contestants:
        raise ValueError("synchronies is empty: give at least one, e.g. [KAsync(4)]")
    for contestant in contestants.values():
        if not isinstance(contestant, Synchrony | Method):
            raise ValueError(
                f"synchronies holds {shown(contestant)}: give synchronies, e.g. KAsync(4), or methods"
            )
    return {str(label): contestant for label, contestant in contestants.items()}


def _label(contestant: object) -> str:
    """Return the name of a synchrony or method, and its settings."""
    if not isinstance(contestant, Synchrony | Method):
        raise ValueError(f"synchronies holds {shown(contestant)}: give synchronies, e.g. KAsync(4), or methods")
    settings = changed_fields(synchrony_of(contestant))
    told = ", ".join(f"{name} = {value}" for name, value in settings.items())
    return f"{contestant.name} ({told})" if told else contestant.name


def _communication(
    message_bytes: object, links: Network | Mapping[str, object] | None, problem: Problem | None
) -> Table:
    """Return the settings of a cluster that determine the times of communication."""
    if message_bytes != MODEL:
        message_bytes = validate("message_bytes", NonNegativeFloat, message_bytes)
    elif problem is None:
        raise ValueError("message_bytes = 'model' is not allowed without a problem: give a number of bytes")
    if isinstance(links, Network):
        if message_bytes:
            raise ValueError("message_bytes is not allowed beside a Network, which has its own")
        network: Network | None = links
        settings: Table = {}
    else:
        given = dict(links or {})
        check_keys("links", given, (*RATES, *LATENCIES))
        settings = {name: given.pop(name) for name in LATENCIES if name in given}
        if bool(message_bytes) != bool(given):
            raise ValueError(
                f"message_bytes = {message_bytes!r} and links = {shown(links)} do not go together: bandwidths "
                "(upload, download, ingress, egress) need the bytes of a message, and the bytes need bandwidths"
            )
        network = as_network({"message_bytes": message_bytes, **given}) if given else None
    if network is not None and network.unresolved and problem is not None:
        network = network.resolved(problem.parameter_bytes())
    if network is not None:
        network.check_sizes()
    return settings | ({} if network is None else {"network": network})
