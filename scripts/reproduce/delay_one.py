"""A delay of one update: AdamW against Muon (arXiv 2606.30634)."""

from __future__ import annotations

import functools
import math

import numpy as np
from common import Claim, Section, table

from stalegrad.analysis.statistics.paired import bootstrap
from stalegrad.models import Problem
from stalegrad.policies import ConstantDelay, Method, methods
from stalegrad.simulator import Cluster, Experiment, Record, run

PROBLEM = Problem("transformer", "shakespeare", batch_size=8, context=32, layers=2, width=64)
UPDATES, SEEDS = 500, (0, 1, 2, 3, 4)
RATES = {"AdamW": (0.0005, 0.001, 0.002, 0.004), "Muon": (0.005, 0.01, 0.02, 0.04)}
RECORD = Record(updates=UPDATES // 5, gap=False, train_examples=1_000)


def method(optimizer: str, delay: int, rate: float) -> Method:
    """Return a method of this optimizer whose gradients are all ``delay`` updates old."""
    if optimizer == "Muon":
        return methods.async_muon(synchrony=ConstantDelay(delay), learning_rate=rate)
    return methods.constant_delay(delay=delay, optimizer="adamw", learning_rate=rate)


@functools.cache
def loss(optimizer: str, delay: int, rate: float, seed: int) -> float:
    """Return the test loss at the end of a run; inf if it diverged."""
    with_delay = method(optimizer, delay, rate)
    experiment = Experiment(PROBLEM, Cluster(2), with_delay, updates=UPDATES, seed=seed, record=RECORD)
    final = float(run(experiment, progress=False).history["test_loss"].iloc[-1])
    return final if math.isfinite(final) else math.inf


def section() -> Section:
    """Return the section of the report."""
    tried, found = {}, {}
    for optimizer, rates in RATES.items():
        for delay in (0, 1):
            first = {rate: loss(optimizer, delay, rate, SEEDS[0]) for rate in rates}
            tried[optimizer, delay] = first
            best = min(first, key=lambda rate: first[rate])
            found[optimizer, delay] = np.array([loss(optimizer, delay, best, seed) for seed in SEEDS])
    rise = {o: found[o, 1] - found[o, 0] for o in RATES}
    interval = {o: bootstrap(rise[o], np.mean, 0.95, 2_000, 0) for o in RATES}
    gap = bootstrap(rise["AdamW"] - rise["Muon"], np.mean, 0.95, 2_000, 0)

    def shown(o: str) -> str:
        low, high = interval[o]
        ends = f"{found[o, 0].mean():.3f} without delay, {found[o, 1].mean():.3f} with"
        return f"{o}: {ends}; difference {rise[o].mean():+.3f} ({low:+.3f} to {high:+.3f})"

    return Section(
        "A delay of one update: AdamW and Muon",
        f"Transformer of 2 layers of width 64 on shakespeare, context 32, batch 8, {UPDATES} updates, constant "
        f"learning rate, {len(SEEDS)} seeds, paired. Rates are the best of four for seed 0, for each optimizer "
        "and delay. The experiment is scaled down: the paper, of which only the abstract was read, is about "
        "pretraining of language models; here there are 106,000 parameters, 128,000 tokens and no schedule of "
        "the rate.",
        [
            Claim(
                "AdamW",
                "With AdamW a delay of one update raises the final test loss (interval above 0).",
                bool(interval["AdamW"][0] > 0),
                shown("AdamW"),
            ),
            Claim(
                "Muon",
                "With Muon a delay of one update does not raise it (interval not above 0).",
                bool(interval["Muon"][0] <= 0),
                shown("Muon"),
            ),
            Claim(
                "AdamW against Muon",
                "AdamW's loss rises more than Muon's (interval of the paired difference above 0).",
                bool(gap[0] > 0),
                f"{(rise['AdamW'] - rise['Muon']).mean():+.3f} ({gap[0]:+.3f} to {gap[1]:+.3f})",
            ),
        ],
        [
            table(
                "Final test loss of seed 0 in nats, by learning rate",
                ["", *(f"{n} rate" for n in ("lowest", "second", "third", "highest"))],
                [
                    [f"{o}, delay {d}", *(f"{rate:g}: {loss:.3f}" for rate, loss in first.items())]
                    for (o, d), first in tried.items()
                ],
            )
        ],
    )
