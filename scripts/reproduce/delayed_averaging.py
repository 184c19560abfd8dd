"""Asynchronous SGD without gradient delay (Talyansky et al. 2018): averaged updates, merged while computing."""

from __future__ import annotations

from common import SEEDS, Claim, Section, final, runs, spread, table

from stalegrad.policies import DelayedAveraging, DelayedAveragingGeneral, Sync, methods
from stalegrad.simulator import (
    Cluster,
    Deterministic,
    Exponential,
    Gamma,
    LogNormal,
    Record,
    ShiftedExponential,
    simulate,
)

LINK = 2.0  # seconds up, merged and down again: T_c = 4 with t_g = 1
TAUS = (2, 4, 8, 16, 32)
LAWS = {
    "deterministic": Deterministic(1.0),
    "gamma, CV 0.1": Gamma(1.0, 0.1),
    "gamma, CV 0.5": Gamma(1.0, 0.5),
    "shifted exponential": ShiftedExponential(0.5, 0.5),
    "log-normal, CV 1": LogNormal(1.0, 1.0),
    "exponential": Exponential(1.0),
}
RATE, GRADIENTS = 0.02, 12_800
RECORD = Record(gradients=1_280)


def idle(synchrony: object, law: object, workers: int = 4) -> float:
    """Return the share of time during which workers wait, after the first tenth of the run."""
    trace = simulate(Cluster(workers, compute=law, uplink=LINK, downlink=LINK), synchrony, wallclock=2_000.0)
    g = trace.messages.query("fate == 'used' and read_time > 200")
    waits = [
        own["read_time"].to_numpy()[1:] - own["finish_time"].to_numpy()[:-1] for _, own in g.groupby("worker")
    ]
    span = [own["read_time"].iloc[-1] - own["read_time"].iloc[0] for _, own in g.groupby("worker")]
    return float(sum(w.sum() for w in waits) / sum(span))


def section() -> Section:
    """Return the section of the report."""
    idles = {label: {tau: idle(DelayedAveraging(tau=tau), law) for tau in TAUS} for label, law in LAWS.items()}
    general = {label: {t: idle(DelayedAveragingGeneral(tau=t), law) for t in TAUS} for label, law in LAWS.items()}
    waiting = {label: idle(Sync(), law) for label, law in LAWS.items()}
    bound = {tau: max(0.0, 2 * LINK - tau / 2) / max(2 * LINK, tau / 2) for tau in TAUS}
    exact = idles["deterministic"]

    cluster = Cluster(4, compute=Gamma(1.0, 0.1), uplink=LINK, downlink=LINK)
    accuracy = {
        "sync": final(runs(methods.sync(learning_rate=RATE * 4), cluster, RECORD, gradients=GRADIENTS)),
        **{
            f"tau = {tau}": final(
                runs(
                    methods.delayed_averaging(tau=tau, learning_rate=RATE * 4),
                    cluster,
                    RECORD,
                    gradients=GRADIENTS,
                )
            )
            for tau in TAUS
        },
    }
    worst = max(accuracy[f"tau = {tau}"].mean() for tau in (8, 16)) - accuracy["sync"].mean()
    rate = {}
    for workers in (1, 2, 4):
        trace = simulate(
            Cluster(workers, compute=Gamma(1.0, 0.1), uplink=LINK, downlink=LINK),
            DelayedAveraging(tau=16),
            wallclock=2_000.0,
        )
        rate[workers] = trace.throughput()["gradients_per_second"]
    speedup = {workers: rate[workers] / rate[1] for workers in rate}
    return Section(
        "Asynchronous SGD without gradient delay",
        f"4 workers; a gradient takes t_g = 1 s on average; upload, merge and download take T_c = {2 * LINK:g} "
        f"s. Accuracy: MLP 784-64-10 on fashion-mnist-small, batch 32, learning rate {RATE} times the number of "
        f"workers, {GRADIENTS} gradients, {len(SEEDS)} seeds. The authors train GoogleNet on ImageNet.",
        [
            Claim(
                "idle, deterministic",
                "The idle time is max(0, T_c - beta t_g) in a cycle of max(T_c, beta t_g): exactly 0 for tau >= "
                "2 T_c / t_g.",
                all(abs(exact[tau] - bound[tau]) < 1e-9 for tau in TAUS),
                ", ".join(f"tau = {tau}: {exact[tau]:.1%} (formula {bound[tau]:.1%})" for tau in TAUS),
            ),
            Claim(
                "idle, random times",
                "With random times the idle share falls as tau grows (see the table; no threshold).",
                None,
                "tau = 8: " + ", ".join(f"{label} {values[8]:.1%}" for label, values in idles.items()),
            ),
            Claim(
                "accuracy",
                "At tau = 8 and 16 accuracy is not lower than with synchronous SGD (within 1 % of test error).",
                bool(worst < 0.01),
                ", ".join(f"{label}: {spread(values)} %" for label, values in accuracy.items()),
            ),
            Claim(
                "speed-up",
                "Throughput grows linearly from 1 to 4 workers at tau = 16 (within 5 %).",
                all(abs(value / workers - 1) < 0.05 for workers, value in speedup.items()),
                ", ".join(f"{workers} workers: {value:.2f}" for workers, value in speedup.items()),
            ),
        ],
        [
            table(
                "Share of time that workers wait, Algorithm 2 (cycles of tau / 2) / Algorithm 1 (general form)",
                ["times", *(f"tau = {tau}" for tau in TAUS), "sync"],
                [
                    [
                        label,
                        *(f"{idles[label][tau]:.1%} / {general[label][tau]:.1%}" for tau in TAUS),
                        f"{waiting[label]:.1%}",
                    ]
                    for label in LAWS
                ],
            )
        ],
    )
