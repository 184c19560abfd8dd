"""MindTheStep-AsyncPSGD (Backstrom, Papatriantafilou, Tsigas 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import SEEDS, Claim, Section, runs, table

from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Gamma, Record

UPDATES, TARGET, RATE = 10_000, 0.5, 0.01
WORKERS = (8, 16, 32)
RECORD = Record(updates=100)
METHODS = {
    "constant": methods.async_(learning_rate=RATE),
    "mindthestep, Poisson": methods.mindthestep(learning_rate=RATE),
    "mindthestep, Poisson, mean kept after the clip": methods.mindthestep(
        learning_rate=RATE, normalise="after-clip", warmup=2_000
    ),
    "mindthestep, CMP fitted online": methods.mindthestep(
        learning_rate=RATE, model="cmp", online=True, warmup=500
    ),
    "tail": methods.tail(learning_rate=RATE),
    "inverse": methods.inverse(learning_rate=RATE),
}


def updates_to_target(results: list[Any]) -> Any:
    """Return the number of updates until the training loss first reaches the target; inf if it never does."""
    first = [r.history.query("train_loss <= @TARGET")["update"] for r in results]
    return np.array([rows.iloc[0] if len(rows) else np.inf for rows in first], float)


def section() -> Section:
    """Return the section of the report."""
    found = {
        label: {
            m: updates_to_target(runs(method, Cluster(m, compute=Gamma(1.0, 0.2)), RECORD, updates=UPDATES))
            for m in WORKERS
        }
        for label, method in METHODS.items()
    }

    def mean(label: str, m: int) -> str:
        values = found[label][m]
        return f"{values.mean():.0f}" if np.isfinite(values).all() else f"not by {UPDATES}"

    adaptive = [label for label in METHODS if label.startswith(("mindthestep, P", "mindthestep, C"))]
    return Section(
        "MindTheStep-AsyncPSGD",
        f"MLP 784-64-10 on fashion-mnist-small, batch 32, alpha_c = {RATE} (the authors' value), m workers with "
        f"gamma times of CV 0.2 (staleness near Poisson), {len(SEEDS)} seeds. Steps are normalised to the same "
        "mean and clipped at 5 alpha_c; the damping is K / alpha = 1 (the authors' K is not known).",
        [
            Claim(
                f"m = {m}, {label.removeprefix('mindthestep, ')}",
                f"The adaptive step reaches a training loss of {TARGET} in fewer updates than the constant one.",
                bool(found[label][m].mean() < found["constant"][m].mean()),
                f"{mean(label, m)} against {mean('constant', m)}",
            )
            for label in adaptive
            for m in WORKERS
        ],
        [
            table(
                f"Updates to a training loss of {TARGET}, mean over seeds",
                ["", *(f"m = {m}" for m in WORKERS)],
                [[label, *(mean(label, m) for m in WORKERS)] for label in METHODS],
            )
        ],
    )
