"""Fit measured step times of training jobs, rebuild each job as a simulated cluster, and compare: Markdown.

    python scripts/validate_step_times.py llm_step_times.csv.gz

Columns of the file: job, dp_rank, stage, step, compute_seconds. Stage 0 is used.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stalegrad.analysis import DelayFit, fit_delays
from stalegrad.policies.synchrony import Sync
from stalegrad.simulator import Cluster, Delay, simulate

UPDATES = 2_000

HEAD = """\
## Measured step times

The data are the compute seconds per data-parallel rank and step (stage 0) of three large-model training jobs, from
the artefact of "Understanding Stragglers in Large Model Training Using What-if Analysis" (ByteDance Seed,
Apache-2.0).
`fit_delays` receives the times and nothing else. *Slowdown* is the time of a synchronous step divided by the mean
time of its ranks, averaged over steps. The table shows it as measured, for the best delay for all times (for the
times of each rank if the imbalance is persistent), and for `Cluster(compute=fit.compute)`, which draws from the
measured times if no delay fits. The last two are simulated, in {updates:,} synchronous updates with one seed. The
times are not part of this repository; `scripts/validate_step_times.py` printed this section.

| job | ranks x steps | cv | verdict | slow ranks | slowdown measured | best delay | compute |
|---|---|---|---|---|---|---|---|
"""


def slowdown(compute: Delay | Sequence[Delay], workers: int) -> float:
    """Return the time of a synchronous update over the mean compute time, by simulation."""
    trace = simulate(Cluster(workers, compute), Sync(), updates=UPDATES, seed=0)
    work = trace.column("finish_time") - trace.column("read_time")
    return float(trace.end / UPDATES / np.nanmean(work))


def line(job: str, times: pd.DataFrame, fit: DelayFit) -> str:
    ranks, steps = times["dp_rank"].nunique(), times["step"].nunique()
    best = fit.table.drop_duplicates("worker")["delay"].tolist()
    delays = best[1:] if fit.verdict == "persistent" else best[0]
    slow = ", ".join(map(str, fit.slow)) or "none"
    factors = (fit.imbalance.slowdown, slowdown(delays, ranks), slowdown(fit.compute, ranks))
    cells = (job, f"{ranks} x {steps}", f"{fit.workers['cv'].iloc[0]:.2f}", fit.verdict, slow)
    return "| " + " | ".join([*cells, *(f"{factor:.2f}" for factor in factors)]) + " |"


def sentences(job: str, fit: DelayFit) -> str:
    """Return the verdict, the delays that represent the times, and their ageing, in sentences."""
    ageing = ", ".join(
        sorted(set(fit.workers["ageing"][1:] if fit.verdict == "persistent" else fit.workers["ageing"][:1]))
    )
    return f"* **{job}**: {fit.words} Times are {ageing}."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="CSV with the columns job, dp_rank, stage, step, compute_seconds")
    measured = pd.read_csv(parser.parse_args().file).query("stage == 0")
    columns = {"worker": "dp_rank", "seconds": "compute_seconds", "step": "step"}
    fits = {job: (times, fit_delays(times, **columns)) for job, times in measured.groupby("job")}
    print(HEAD.format(updates=UPDATES), end="")
    print("\n".join(line(str(job), *pair) for job, pair in fits.items()))
    print("\n" + "\n".join(sentences(str(job), fit) for job, (_, fit) in fits.items()))


if __name__ == "__main__":
    main()
