"""DANA (Hakimi et al. 2019) and Gap-Aware (Barkai et al. 2020): momentum under staleness."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from common import SEEDS, Claim, Section, final, runs, spread, table

from stalegrad.policies import Method, StepDecay, methods
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Cluster, Record, TwoLevelGamma, simulate

EPOCHS, EXAMPLES, BATCH = 20, 10_000, 32
GRADIENTS = EPOCHS * EXAMPLES // BATCH
WORKERS = (4, 8, 12, 16, 20, 24, 32, 48)
RATES = (0.1, 0.05, 0.02, 0.01, 0.005)
RECORD = Record(gradients=GRADIENTS // EPOCHS)
FAILS = 0.05  # test error above that of one worker
DANA = ("dana-zero", "dana-slim", "dana-dc")
OTHERS = ("nag-asgd", "multi-asgd", "dc-asgd", "lwp")
METHODS = ("async", *OTHERS, *DANA, "staleness-aware", "gap-aware", "dana-sa", "dana-ga")


def schedule(peak: float) -> StepDecay:
    """Return the papers' schedule, 8 times shorter: decays at 1/2 and 3/4, warm-up from eta / N."""
    return StepDecay(peak, (EPOCHS / 2, EPOCHS * 3 / 4), 0.1, warmup=2.5, warmup_from="1/workers")


def cluster(workers: int, machine_cv: float = 0.0) -> Cluster:
    """Return the papers' cluster, homogeneous by default; a mini-batch takes 1 s."""
    return Cluster(workers, compute=TwoLevelGamma(1.0, machine_cv=machine_cv))


@functools.lru_cache
def tuned() -> float:
    """Return the learning rate that is best for one worker; all methods use it."""
    errors = {rate: final(one_worker(rate)).mean() for rate in RATES}
    return min(errors, key=lambda rate: errors[rate])


def one_worker(rate: float) -> list[Any]:
    """Run the sequential baseline."""
    return runs(methods.sgd(learning_rate=schedule(rate)), cluster(1), RECORD, gradients=GRADIENTS)


def make(name: str, **options: Any) -> Method:
    """Return a method with the tuned learning rate and defaults for all other parameters."""
    return REGISTRY[name](learning_rate=schedule(tuned()), **options)


def trained(name: str, workers: int, machine_cv: float = 0.0, **options: Any) -> list[Any]:
    """Run a method with every seed."""
    return runs(make(name, **options), cluster(workers, machine_cv), RECORD, gradients=GRADIENTS)


def error(name: str, workers: int, machine_cv: float = 0.0, **options: Any) -> float:
    """Return the mean final test error."""
    return float(final(trained(name, workers, machine_cv, **options)).mean())


def gap(name: str, workers: int) -> float:
    """Return the mean gap after the warm-up and before the first decay."""
    return mean_gap(name, workers, "epoch > 3 and epoch <= 10.01")


def mean_gap(name: str, workers: int, epochs: str) -> float:
    """Return the mean gap in these epochs."""
    return float(np.mean([r.history.query(epochs)["mean_gap"].mean() for r in trained(name, workers)]))


def threshold(name: str) -> float:
    """Return the smallest number of workers with which a method fails."""
    limit = final(one_worker(tuned())).mean() + FAILS
    return next((n for n in WORKERS if error(name, n) > limit), np.inf)


def show(value: float) -> str:
    """Return a threshold as text."""
    return f"{value:g}" if np.isfinite(value) else f"none up to {WORKERS[-1]}"


def per_cent(value: float) -> str:
    """Return an error in per cent."""
    return f"{value * 100:.1f} %"


def compare(first: str, second: str, workers: tuple[int, ...]) -> str:
    """Return the errors of two methods at each number of workers."""
    return "; ".join(f"N = {n}: {per_cent(error(first, n))} against {per_cent(error(second, n))}" for n in workers)


def claims() -> list[Claim]:
    """Return the claims Q1 to Q17, which can be tested at this size."""
    base = float(final(one_worker(tuned())).mean())
    seen = {name: [r.trace.staleness for r in trained(name, 8)] for name in ("async", "gap-aware", "nag-asgd")}
    same = all(np.array_equal(a, b) for lags in seen.values() for a, b in zip(lags, seen["async"], strict=True))
    lag = np.mean([lag.mean() for lag in seen["async"]])
    gaps = {name: gap(name, 8) for name in ("nag-asgd", "multi-asgd", "dana-zero", "async")}
    fails = {name: threshold(name) for name in METHODS}
    dc = {n: error("dana-dc", n) - base for n in (8, 16, 20, 32)}
    best_dana = {n: min(DANA, key=lambda name: error(name, n)) for n in (24, 32)}
    best_other = {n: min(OTHERS, key=lambda name: error(name, n)) for n in (24, 32)}
    behind = {n: error("lwp", n) - error("dana-zero", n) for n in (8, 32)}
    ssgd = {n: error("ssgd", n) for n in (8, 16, 32)}
    before, after = "epoch > 8.01 and epoch <= 10.01", "epoch > 11.01 and epoch <= 13.01"
    ratios = {
        name: mean_gap(name, 8, before) / mean_gap(name, 8, after) for name in ("async", "dana-zero", "gap-aware")
    }
    penalties = penalty_around_decay()
    plain = {n: error("gap-aware", n, momentum=None) for n in (16, 32)}
    winners = {n: min(METHODS, key=lambda name: error(name, n)) for n in (16, 32)}
    granularity = {
        g: [error("gap-aware", n, granularity=g) for n in (16, 32)] for g in ("elementwise", "layer", "global")
    }
    gain = {cv: async_gain(16, cv) for cv in (0.0, 0.6)}
    ordering = {
        n: {name: error(name, n, 0.6) for name in ("dana-zero", "multi-asgd", "nag-asgd")} for n in (8, 16)
    }
    return [
        Claim(
            "Q1",
            "The distribution of staleness is the same for all methods, with mean N - 1.",
            bool(same and abs(lag - 7) < 0.01),
            f"N = 8: equal traces of async, gap-aware and nag-asgd; mean staleness {lag:.4f}",
        ),
        Claim(
            "Q2",
            "Gap: nag-asgd > multi-asgd > dana-zero, nag-asgd over 3 times dana-zero, dana-zero within a factor "
            "of 2 of async (N = 8, from warm-up to the first decay).",
            gaps["nag-asgd"] > gaps["multi-asgd"] > gaps["dana-zero"]
            and gaps["nag-asgd"] > 3 * gaps["dana-zero"]
            and 0.5 < gaps["dana-zero"] / gaps["async"] < 2,
            ", ".join(f"{name} {value:.2e}" for name, value in gaps.items()),
        ),
        Claim(
            "Q3",
            "The gap falls 5 to 15 times when the learning rate falls 10 times.",
            all(5 <= ratio <= 15 for ratio in ratios.values()),
            ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items()) + " (N = 8)",
        ),
        Claim(
            "Q4",
            f"A single momentum at the server fails from some N (error {FAILS:.0%} above that of one worker).",
            bool(np.isfinite(fails["nag-asgd"])),
            f"nag-asgd fails from N = {show(fails['nag-asgd'])}; async: {show(fails['async'])}",
        ),
        Claim(
            "Q5",
            "Failure thresholds: nag-asgd <= dc-asgd, multi-asgd < dana-*.",
            fails["nag-asgd"] <= fails["dc-asgd"] and all(fails["multi-asgd"] < fails[name] for name in DANA),
            ", ".join(f"{name} {show(value)}" for name, value in fails.items()),
        ),
        Claim(
            "Q6",
            "dana-dc stays within 1 % of one worker up to N = 16 and 1.5 % at 20, and degrades by 32.",
            max(dc[8], dc[16]) <= 0.01 and dc[20] <= 0.015 and dc[32] > dc[20],
            ", ".join(f"N = {n}: {value * 100:+.1f} %" for n, value in dc.items()),
        ),
        Claim(
            "Q7",
            "At large N (24, 32) dana-dc is at least as good as dana-zero and dana-slim, and the best of the "
            "three is better than all other methods with momentum.",
            all(error("dana-dc", n) <= min(error("dana-zero", n), error("dana-slim", n)) for n in (24, 32))
            and all(error(best_dana[n], n) < error(best_other[n], n) for n in (24, 32)),
            "; ".join(
                f"N = {n}: "
                + ", ".join(f"{name} {per_cent(error(name, n))}" for name in DANA)
                + f", best other {best_other[n]} {per_cent(error(best_other[n], n))}"
                for n in (24, 32)
            ),
        ),
        Claim(
            "Q8",
            "lwp falls behind dana-zero as N grows from 8 to 32.",
            behind[32] > behind[8],
            compare("lwp", "dana-zero", (8, 32)),
        ),
        Claim(
            "Q9",
            "ssgd with a linearly scaled learning rate loses accuracy as N grows.",
            ssgd[32] > ssgd[8],
            ", ".join(f"N = {n}: {per_cent(value)}" for n, value in ssgd.items()),
        ),
        Claim(
            "Q10",
            "gap-aware is better than staleness-aware at N = 8, 16, 32, and the difference grows with N.",
            all(error("gap-aware", n) < error("staleness-aware", n) for n in (8, 16, 32))
            and error("staleness-aware", 32) - error("gap-aware", 32)
            > error("staleness-aware", 8) - error("gap-aware", 8),
            compare("gap-aware", "staleness-aware", (8, 16, 32)),
        ),
        Claim(
            "Q11",
            "The penalty of gap-aware decreases after a learning-rate decay, that of staleness-aware does not; "
            "staleness-aware is slower at first (training loss at 1/4 of the run).",
            penalties["gap-aware"][1] - 1 < 0.5 * (penalties["gap-aware"][0] - 1)
            and abs(penalties["staleness-aware"][1] / penalties["staleness-aware"][0] - 1) < 0.05
            and early("staleness-aware") > early("gap-aware"),
            "; ".join(f"{name}: mean penalty {b:.2f} before, {a:.2f} after" for name, (b, a) in penalties.items())
            + f"; loss {early('staleness-aware'):.3f} against {early('gap-aware'):.3f} (N = 16)",
        ),
        Claim(
            "Q12",
            "With gap-aware, momentum 0.9 is better than none at N = 16 and 32; without it, none is better.",
            all(error("gap-aware", n) < plain[n] for n in (16, 32))
            and all(error("async", n) < error("nag-asgd", n) for n in (16, 32)),
            "; ".join(
                f"N = {n}: gap-aware {per_cent(error('gap-aware', n))} with, {per_cent(plain[n])} without; "
                f"nag-asgd {per_cent(error('nag-asgd', n))}, async {per_cent(error('async', n))}"
                for n in (16, 32)
            ),
        ),
        Claim(
            "Q13",
            "dana-ga is the best of all methods at N = 16 and 32.",
            all(name == "dana-ga" for name in winners.values()),
            "; ".join(
                f"N = {n}: best {name} {per_cent(error(name, n))}, dana-ga {per_cent(error('dana-ga', n))}, "
                f"gap-aware {per_cent(error('gap-aware', n))}"
                for n, name in winners.items()
            ),
        ),
        Claim(
            "Q14",
            "Nothing depends on N but the start of the warm-up, eta / N.",
            None,
            f"learning rate {tuned():g}, the best of {RATES} for one worker ({per_cent(base)}); "
            "defaults otherwise",
        ),
        Claim(
            "Q15",
            "Gap-aware: elementwise is at least as good as by layer, and by layer as global (mean of N = 16 and "
            "32).",
            np.mean(granularity["elementwise"]) <= np.mean(granularity["layer"]) <= np.mean(granularity["global"]),
            ", ".join(f"{g} {per_cent(float(np.mean(values)))}" for g, values in granularity.items()),
        ),
        Claim(
            "Q16",
            "Asynchrony is about 1.2 times as fast as synchrony on the homogeneous cluster (within 1.1 to 1.4), "
            "and several times as fast on the heterogeneous one (over 2).",
            1.1 < gain[0.0] < 1.4 and gain[0.6] > 2,
            f"mini-batches per second, N = 16: {gain[0.0]:.2f} times homogeneous, {gain[0.6]:.2f} heterogeneous",
        ),
        Claim(
            "Q17",
            "On the heterogeneous cluster dana-zero is better than multi-asgd, and multi-asgd than nag-asgd "
            "(N = 8, 16).",
            all(o["dana-zero"] < o["multi-asgd"] < o["nag-asgd"] for o in ordering.values()),
            "; ".join(
                f"N = {n}: " + ", ".join(f"{name} {per_cent(value)}" for name, value in o.items())
                for n, o in ordering.items()
            ),
        ),
    ]


def penalty_around_decay() -> dict[str, tuple[float, float]]:
    """Return the mean penalty (learning rate / effective step) in the epochs before and after the first decay."""
    found = {}
    record = Record(gradients=GRADIENTS // EPOCHS, per_gradient=True)
    for name in ("gap-aware", "staleness-aware"):
        result = runs(make(name), cluster(16), record, seeds=SEEDS[:1], gradients=GRADIENTS)[0]
        table = result.gradients
        penalty = table["learning_rate"] / table["effective_step"]
        epoch = table["update"] * BATCH / EXAMPLES
        found[name] = float(penalty[epoch.between(8, 10)].mean()), float(penalty[epoch.between(11, 13)].mean())
    return found


def early(name: str) -> float:
    """Return the mean training loss after a quarter of the run, N = 16."""
    return float(np.mean([r.history.query("epoch >= 5")["train_loss"].iloc[0] for r in trained(name, 16)]))


def async_gain(workers: int, machine_cv: float) -> float:
    """Return the throughput of async over that of sync, in mini-batches per second, over 20 seeds of machines."""
    rate = {"async": 0.0, "sync": 0.0}
    for seed in range(20):
        for name in rate:
            trace = simulate(cluster(workers, machine_cv), REGISTRY[name]().synchrony, gradients=4_000, seed=seed)
            rate[name] += trace.throughput()["gradients_per_second"]
    return rate["async"] / rate["sync"]


def section() -> Section:
    """Return the section of the report."""
    rows = [[name, *(spread(final(trained(name, n))) for n in WORKERS)] for name in [*METHODS, "ssgd"]]
    base = final(one_worker(tuned()))
    return Section(
        "Momentum and the gap: DANA, Gap-Aware",
        f"MLP 784-64-10 on fashion-mnist-small, batch {BATCH} per worker, {EPOCHS} epochs, momentum 0.9, "
        f"{len(SEEDS)} seeds. Task times are gamma with CV 0.1 (heterogeneous: machines are gamma with CV 0.6). "
        f"The learning rate is {tuned():g}, divided by 10 after 1/2 and again after 3/4 of the run, with a "
        "warm-up from eta / N over 2.5 epochs. The papers train ResNet-20 on CIFAR-10: compare the order of the "
        "methods, not their errors. A diverged run counts as an error of 90 %.",
        claims(),
        [
            table(
                f"Final test error in per cent, mean and standard error over seeds; one worker: {spread(base)}",
                ["method", *(f"N = {n}" for n in WORKERS)],
                rows,
            )
        ],
    )
