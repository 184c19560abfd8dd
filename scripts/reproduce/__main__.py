"""Reproduce the claims of the papers on real images: ``make reproduce`` writes docs/reproduction.md.

Every claim is tested as stated; a claim that does not hold is reported as such.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from report import section

PARTS = Path("results/reproduce")
SECTIONS = (
    "slow_and_stale", "adasync_map", "mindthestep", "mindthestep_map", "delayed_averaging", "momentum",
    "optimal_times", "data_skew", "delay_one", "diloco",
)  # fmt: skip
HEAD = """# Reproduction of the papers' claims

`make reproduce` writes this page. It lists every claim with its verdict and the measured numbers, at a size that
two cores can compute. Nothing is tuned to obtain a verdict. If a claim does not hold here, the page says so.
"""


def main() -> None:
    """Run the chosen sections; the report contains the latest text of every section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="default: all")
    parser.add_argument("--processes", type=int, default=2, help="number of sections at a time (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("docs/reproduction.md"))
    a = parser.parse_args()
    PARTS.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(a.processes, mp_context=get_context("spawn")) as pool:
        for name, text in zip(a.only, pool.map(section, a.only), strict=True):
            (PARTS / f"{name}.md").write_text(text, encoding="utf-8")
    parts = [file.read_text(encoding="utf-8") for name in SECTIONS if (file := PARTS / f"{name}.md").exists()]
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text("\n".join([HEAD, *parts]), encoding="utf-8")
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
