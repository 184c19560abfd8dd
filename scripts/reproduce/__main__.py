"""Reproduce the claims of the papers on real images: ``make reproduce`` writes docs/reproduction.md.

Every claim is tested as it stands; one that does not hold is reported as such.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jax
from report import section

SECTIONS = ("slow_and_stale", "mindthestep", "delayed_averaging", "momentum")
HEAD = """# Reproduction of the papers' claims

Written by `make reproduce`: every claim with its verdict and the numbers it rests on, at a size that two cores can
bear. Nothing is tuned towards a verdict; a claim that does not hold here is said not to.
"""


def main() -> None:
    """Run the sections, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="default: all")
    parser.add_argument("--out", type=Path, default=Path("docs/reproduction.md"))
    a = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(section, a.only))
    versions = f"jax {jax.__version__} on {jax.default_backend()}.\n"
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text("\n".join([HEAD, versions, *parts]), encoding="utf-8")
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
