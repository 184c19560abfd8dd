"""Print measured jobs under other synchronies, in Markdown: the table of docs/what-if.md.

    python scripts/validate_what_if.py [llm_step_times.csv.gz]

Columns of the file: job, dp_rank, stage, step, compute_seconds. Stage 0 is used. Without a file, only the jobs of
the package are shown.
"""

import argparse
from pathlib import Path

import pandas as pd

from stalegrad.simulator import WhatIf, what_if
from stalegrad.simulator.timing.delays.recorded import JOBS

KINDS = ("k-sync", "k-batch-sync", "k-async", "ssp", "ringmaster", "async")


def line(job: str, answer: WhatIf) -> str:
    """Return the row of a job."""
    table = answer.table.rename(index=lambda label: str(label).split(" ")[0])
    cells = [
        f"{row['speedup']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        for _, row in table.loc[[*KINDS]].iterrows()
    ]
    slow = answer.workers[answer.workers["slow"]]["slowdown"].sort_values(ascending=False)
    who = ", ".join(f"{worker} ({share:.2f})" for worker, share in slow[:4].items())
    steps = answer.words[0].split(" steps")[0].replace(" workers, ", " x ")
    staleness = f"{table.loc['async', 'staleness']:.1f}"
    return f"| {' | '.join([job, steps, f'{answer.slowdown:.2f}', who or 'none', *cells, staleness])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="CSV with job, dp_rank, stage, step, compute_seconds")
    file = parser.parse_args().file
    answers = {job: what_if(job) for job in JOBS}
    if file is not None:
        for job, times in pd.read_csv(file).query("stage == 0").groupby("job"):
            answers[str(job)] = what_if(times)
    print(f"| job | workers x steps | S | slow workers (S_w) | {' | '.join(KINDS)} | staleness of async |")
    print(f"|{'---|' * (5 + len(KINDS))}")
    print("\n".join(line(job, answer) for job, answer in answers.items()))
    print()
    for job, answer in answers.items():
        print(f"* **{job}**: {answer.words[1]} {answer.words[2]}")


if __name__ == "__main__":
    main()
