"""DiLoCo and its asynchronous forms on workers of two speeds, compared by wallclock (Liu et al. 2024)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np
from common import Claim, Section, table
from maps import Histories, picture_file

from stalegrad._core.specs import PositiveFloat, spec
from stalegrad.analysis import paired_difference
from stalegrad.models import Problem
from stalegrad.policies import Dylu, KAsync, Method, methods
from stalegrad.simulator import Cluster, Experiment, Gamma, Record, Result, run

PROBLEM = Problem("transformer", "shakespeare", batch_size=8, context=32, layers=2, width=32)
SECONDS = (1.0, 1.0, 4.0, 4.0)
STEPS, GRACE, BUDGET, INNER = 10, 2.0, 480.0, 0.003
SEEDS, RATES = (0, 1, 2), (0.1, 0.3, 0.7)
RECORD = Record(wallclock=60.0, gap=False, train_examples=500)


@spec
class DyluWithGrace(KAsync):
    """Asynchronous, a grace period after the first arrival, and fewer local steps for slower workers."""

    seconds: tuple[PositiveFloat, ...] = field(kw_only=True)

    def steps_of(self, worker: int) -> int:
        """Return the number of local steps of a worker, as in DyLU."""
        return Dylu(seconds=self.seconds, local_steps=self.local_steps).steps_of(worker)


def forms(rate: float) -> dict[str, Method]:
    """Return DiLoCo and its asynchronous forms with an outer learning rate."""
    common = {"learning_rate": INNER, "outer_rate": rate}
    waiting = {"k": 1, "grace": GRACE, "local_steps": STEPS}
    slower = DyluWithGrace(**waiting, seconds=SECONDS)
    return {
        "diloco": methods.diloco(local_steps=STEPS, **common),
        "async-local-sgd, N = 1": methods.async_local_sgd(local_steps=STEPS, buffer=1, **common),
        "async-local-sgd": methods.async_local_sgd(local_steps=STEPS, **common),
        "async-local-sgd, grace": methods.async_local_sgd(synchrony=KAsync(**waiting), **common),
        "dylu": methods.dylu(seconds=SECONDS, local_steps=STEPS, **common),
        "dylu, grace": methods.async_local_sgd(synchrony=slower, **common),
    }


@functools.cache
def one(method: Method, seed: int) -> Result:
    """Return the run of a method with one seed."""
    cluster = Cluster(compute=[Gamma(mean, 0.1) for mean in SECONDS])
    return run(Experiment(PROBLEM, cluster, method, wallclock=BUDGET, seed=seed, record=RECORD), progress=False)


def final(method: Method, seed: int) -> float:
    """Return the test loss at the end of a run; inf if it diverged."""
    return float(np.nan_to_num(one(method, seed).history["test_loss"].iloc[-1], nan=np.inf))


def difference(found: dict[str, Histories], ours: str, theirs: str, x: str, at: float) -> Any:
    """Return the paired difference of the test loss of two forms at one point, as a row."""
    pair = {name: found[name] for name in (ours, theirs)}
    return paired_difference(pair, theirs, x, "test_loss", at).iloc[0]


def lower(name: str, text: str, row: Any) -> Claim:
    """Return the claim that a difference is below 0."""
    measured = f"difference {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
    return Claim(name, text, bool(row.high < 0), measured)


def at(results: Sequence[Result], seconds: float) -> float:
    """Return the mean test loss at a wallclock."""
    return float(np.mean([np.interp(seconds, r.history["wallclock"], r.history["test_loss"]) for r in results]))


def picture(file: str, found: dict[str, Histories]) -> str:
    """Draw test loss against wallclock."""
    from stalegrad.analysis import plot_curves

    with picture_file(file, (7.0, 3.8)) as ax:
        plot_curves({name: list(runs.values()) for name, runs in found.items()}, y="test_loss", ax=ax)
    return f"![Test loss against wallclock]({file})"


def section() -> Section:
    """Return the section of the report."""
    names = list(forms(0.1))
    tried = {name: {rate: final(forms(rate)[name], SEEDS[0]) for rate in RATES} for name in names}
    best = {name: min(RATES, key=lambda rate, name=name: tried[name][rate]) for name in names}
    done = {name: [one(forms(best[name])[name], seed) for seed in SEEDS] for name in names}
    found = {name: {r.experiment.seed: r.history for r in results} for name, results in done.items()}
    spent = min(r.history["gradients"].iloc[-1] for r in done["diloco"])
    grace = [
        difference(found, f"{name}, grace", name, "wallclock", BUDGET) for name in ("async-local-sgd", "dylu")
    ]
    return Section(
        "DiLoCo and its asynchronous forms",
        "Transformer of 2 layers of width 32 on shakespeare, context 32, batch 8. There are 4 workers: two need "
        f"1 s for a local step, and two need 4 s (gamma, CV 0.1). Links take no time. {STEPS} local steps of "
        f"AdamW with rate {INNER:g}, Nesterov momentum 0.9 outside, delayed Nesterov with N = 4, weights (1 + "
        f"tau)^-1/2, a grace period of {GRACE:g} s after the first arrival; {BUDGET:g} simulated seconds, "
        f"{len(SEEDS)} seeds, paired. The outer rate is the best of {RATES} for seed 0, for each form. The "
        "experiment is scaled down: the papers pretrain language models of millions of parameters with up to "
        "500 local steps; here there are 29,000 parameters and links take no time, so that asynchrony can save "
        "only the waiting for slow workers.",
        [
            lower(
                "wallclock",
                "After the same simulated time delayed Nesterov with DyLU has a lower test loss than DiLoCo.",
                difference(found, "dylu", "diloco", "wallclock", BUDGET),
            ),
            lower(
                "gradients",
                "After the same number of mini-batch gradients DiLoCo has a lower test loss than asynchronous "
                "Nesterov without delay or DyLU.",
                difference(found, "diloco", "async-local-sgd, N = 1", "gradients", spent),
            ),
            lower(
                "delayed Nesterov",
                "With the momentum updated at every fourth message only, the test loss after the same time is "
                "lower than with an update at every message.",
                difference(found, "async-local-sgd", "async-local-sgd, N = 1", "wallclock", BUDGET),
            ),
            lower(
                "DyLU",
                "With fewer local steps at slow workers the test loss is lower than with delayed Nesterov alone.",
                difference(found, "dylu", "async-local-sgd", "wallclock", BUDGET),
            ),
            Claim(
                "grace",
                "Change of the test loss after the same time by a grace period (negative: lower).",
                None,
                ", ".join(
                    f"{name}: {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
                    for name, row in zip(("async-local-sgd", "dylu"), grace, strict=True)
                ),
            ),
        ],
        [
            picture("diloco-wallclock.png", found),
            table(
                "Mean test loss in nats at simulated seconds",
                [
                    "",
                    "outer rate",
                    f"{BUDGET / 4:g} s",
                    f"{BUDGET / 2:g} s",
                    f"{BUDGET:g} s",
                    "gradients",
                    "mean staleness",
                ],
                [
                    [
                        name,
                        f"{best[name]:g}",
                        *(f"{at(results, t):.3f}" for t in (BUDGET / 4, BUDGET / 2, BUDGET)),
                        f"{np.mean([r.history['gradients'].iloc[-1] for r in results]):.0f}",
                        f"{np.mean([r.trace.staleness.mean() for r in results]):.2f}",
                    ]
                    for name, results in done.items()
                ],
            ),
            table(
                "Final test loss of seed 0 by outer rate",
                ["", *(f"{rate:g}" for rate in RATES)],
                [[name, *(f"{loss:.3f}" for loss in tried[name].values())] for name in names],
            ),
        ],
    )
