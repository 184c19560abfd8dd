"""Ringleader ASGD (Maranjyan, Richtarik 2026): workers whose data differ, on Fashion-MNIST."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from common import SEEDS, Claim, Section, table
from optimal_times import best, reached

from stalegrad.models import Dirichlet, Problem
from stalegrad.policies import Method, methods
from stalegrad.simulator import Cluster, Experiment, Gamma, Record, Result, run

WORKERS, ALPHA, TIME, TARGET = 20, 0.1, 1_500.0, 0.6
MEANS = tuple(float(1 + i) for i in range(WORKERS))
CLUSTER = Cluster(compute=tuple(Gamma(mean, 0.2) for mean in MEANS))
PROBLEM = Problem("mlp", "fashion-mnist-small", batch_size=4, hidden=(128,), partition=Dirichlet(ALPHA))
RATES = (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2)
GRIDS = {
    "ringleader": {},
    "malenia": {"batch": WORKERS},
    "ia2sgd": {},
    "ca2fl": {"k": 5},
    "async": {},
    "ringmaster": {"threshold": WORKERS},
    "sync": {},
}


def done(method: Method, seed: int, worker_losses: bool = False) -> Result:
    """Run a method with one seed and return its result."""
    record = Record(wallclock=TIME / 75, gap=False, worker_losses=worker_losses)
    experiment = Experiment(PROBLEM, CLUSTER, method, wallclock=TIME, seed=seed, record=record)
    return run(experiment, progress=False)


def section() -> Section:
    """Return the section of the report."""
    found, worst, last = {}, {}, {}
    for name, options in GRIDS.items():
        grid = [(f"rate {rate:g}", methods.method(name, {**options, "learning_rate": rate})) for rate in RATES]
        found[name] = best(grid, lambda method, seed: reached(done(method, seed).history, TARGET))
        histories = [done(dict(grid)[found[name].label], seed, True).history for seed in SEEDS]
        last[name] = np.array([h["train_loss"].iloc[-15:].mean() for h in histories])
        worst[name] = np.array([h.filter(like="worker_loss[").iloc[-15:].mean().max() for h in histories], float)
    mean = {name: float(tuned.times.mean()) for name, tuned in found.items()}
    others = ("malenia", "ia2sgd", "async")

    def seconds(value: float) -> str:
        return f"{value:.0f} s" if math.isfinite(value) else f"not by {TIME:.0f} s"

    claims = [
        Claim(
            f"Ringleader, {other}",
            f"Tuned Ringleader reaches a training loss of {TARGET} before tuned {other}.",
            bool(mean["ringleader"] < mean[other]),
            f"{seconds(mean['ringleader'])} against {seconds(mean[other])}",
        )
        for other in others
    ]
    claims.append(
        Claim(
            "worst worker",
            "At the end the largest loss of a worker is lower with Ringleader than with plain async.",
            bool(worst["ringleader"].mean() < worst["async"].mean()),
            f"largest loss of a worker {worst['ringleader'].mean():.2f} against {worst['async'].mean():.2f}",
        )
    )
    rows: list[list[Any]] = [
        [
            name,
            tuned.label,
            ", ".join(seconds(time) for time in tuned.times),
            f"{last[name].mean():.3f}",
            f"{worst[name].mean():.2f}",
        ]
        for name, tuned in found.items()
    ]
    return Section(
        "Ringleader ASGD: workers whose data differ",
        f"MLP 784-128-10 on fashion-mnist-small, batch 4, {WORKERS} workers (100 in the paper). Shards are drawn "
        f"from a Dirichlet distribution with alpha = {ALPHA}; worker i has gamma times of CV 0.2 and mean i; "
        f"{TIME:g} simulated seconds. Rates of 0.003 to 0.2 are tuned for the time to a training loss of "
        f"{TARGET} with one seed, and the best is run with {len(SEEDS)} seeds. Malenia has S = {WORKERS}, CA2FL "
        f"a buffer of 5, Ringmaster R = {WORKERS}.",
        claims,
        [
            table(
                f"Simulated seconds to a training loss of {TARGET}; mean losses over the last fifth of the run",
                ["method", "best of the grid", "by seed", "training loss", "largest loss of a worker"],
                rows,
            )
        ],
    )
