"""Build simulator/timing/delays/data/alibaba/ from the mini-batch times of Alibaba's cluster trace.

    python scripts/build_alibaba_jobs.py mini-batch-times/ [--check]

The folder holds job_1_norm.csv.gz to job_4_norm.csv.gz and coefficient_variation.csv.gz, as in
https://github.com/alibaba/clusterdata (cluster-trace-gpu-v2020/mini-batch-time). For each of the four jobs, the
iterations that all ten workers have are kept unchanged. For the 100 jobs, the means over iterations are computed,
and their quantiles over jobs are kept.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

TARGET = Path(__file__).resolve().parents[1] / "simulator" / "timing" / "delays" / "data" / "alibaba"
SHA256 = {
    "job_1_norm.csv.gz": "c545badec5453c1a5ded3af3739af962cde39b98d1efe04895f1b99e17598b0c",
    "job_2_norm.csv.gz": "c64af3f36020f9de449d95889a66b63cb37e2a27130579e58034e1339549fc1b",
    "job_3_norm.csv.gz": "e6b1d6c5d2c69288682858769781592c4a13eb6023605cdec5899a970465f4db",
    "job_4_norm.csv.gz": "c11ee356d444c849ba66d596c1103a86234888fbfe95504a6220bf204defa4a7",
    "coefficient_variation.csv.gz": "4517a88243545ef4e4093723cd5fb3c7ba7b152b7a78c4da8a5389b603321369",
}
WORKERS = 10
JOB = """\
Mini-batch times of job {number} of four production training jobs: one line per logged iteration (every tenth one,
the {rows} that all workers have), one column per worker. The unit is unknown: divide by the median, {median:g}.
"""
QUANTILES = """\
Coefficient of variation of mini-batch times over the ten workers of an iteration, mean over the iterations of a
job: quantiles over 100 production training jobs. Columns: share of the jobs, coefficient of variation.
"""
SOURCE = """\
Alibaba Platform of AI, https://github.com/alibaba/clusterdata, CC BY 4.0; see README in this folder.
Built by scripts/build_alibaba_jobs.py.
"""
README = """\
Mini-batch times of production training jobs

Copyright Alibaba Group. Taken from https://github.com/alibaba/clusterdata,
cluster-trace-gpu-v2020/mini-batch-time, and licensed under the Creative Commons Attribution 4.0 International
Licence, https://creativecommons.org/licenses/by/4.0/, which these files stay under.

Changes, made by scripts/build_alibaba_jobs.py: of the four jobs (job-1.txt to job-4.txt) the iterations that all
ten workers have are kept, as a table of workers; the columns of GPUs and iterations are left out. Of the
coefficients of variation of 100 jobs only quantiles are kept (cv-quantiles.txt).

Cite: Q. Weng, W. Xiao, Y. Yu, W. Wang, C. Wang, J. He, Y. Li, L. Zhang, W. Lin, Y. Ding (2022), MLaaS in the Wild:
Workload Analysis and Scheduling in Large-Scale Heterogeneous GPU Clusters, NSDI,
https://www.usenix.org/conference/nsdi22/presentation/weng; W. Xiao, S. Ren, Y. Li, Y. Zhang, P. Hou, Z. Li,
Y. Feng, W. Lin, Y. Jia (2020), AntMan: Dynamic Scaling on GPU Clusters for Deep Learning, OSDI,
https://www.usenix.org/conference/osdi20/presentation/xiao.
"""


def comments(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def job(file: Path, number: int) -> str:
    """Return the text of a job's file."""
    rows = pd.read_csv(file).drop_duplicates(["worker", "time"])  # job 2 contains one row twice
    table = rows.pivot_table(index="time", columns="worker", values="batch_time_norm").dropna().astype(int)
    if list(table.columns) != list(range(WORKERS)):
        sys.exit(f"{file} has workers {list(table.columns)}")
    head = JOB.format(number=number, rows=len(table), median=np.median(table))
    return comments(head + SOURCE) + "".join(" ".join(map(str, row)) + "\n" for row in table.to_numpy().tolist())


def quantiles(file: Path) -> str:
    """Return the text of the file of quantiles."""
    means = pd.read_csv(file, index_col=0).mean(axis=1).to_numpy()
    shares = np.arange(0, 101, 5) / 100
    rows = zip(shares, np.quantile(means, shares), strict=True)
    return comments(QUANTILES + SOURCE) + "".join(f"{share:.2f} {value:.4f}\n" for share, value in rows)


def build(folder: Path) -> dict[str, str]:
    """Return the texts of all files by name."""
    for name, expected in SHA256.items():
        if (found := hashlib.sha256((folder / name).read_bytes()).hexdigest()) != expected:
            sys.exit(f"{folder / name} is not the expected file: its SHA-256 is {found}, not {expected}")
    texts = {f"job-{n}.txt": job(folder / f"job_{n}_norm.csv.gz", n) for n in range(1, 5)}
    return texts | {"cv-quantiles.txt": quantiles(folder / "coefficient_variation.csv.gz"), "README": README}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with the five files")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    arguments = parser.parse_args()
    for name, text in build(arguments.folder).items():
        file = TARGET / name
        if arguments.check:
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                sys.exit(f"{file} differs from what is built")
            continue
        TARGET.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"{file}: {len(text) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
