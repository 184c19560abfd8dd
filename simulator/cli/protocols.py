"""The protocols of papers that ``stalegrad init --paper`` writes: one file of ``papers/`` each, named as in
``policies/papers.py``."""

from __future__ import annotations

from importlib.resources import files

from stalegrad._core.specs import unknown_name
from stalegrad.policies.papers import PAPERS

FOLDER = files("stalegrad.simulator.cli") / "papers"


def papers() -> dict[str, str]:
    """Return the papers whose protocol is known: what `stalegrad init --paper` takes, and the reference."""
    names = sorted(file.name.removesuffix(".toml") for file in FOLDER.iterdir())
    return {name: PAPERS[name] for name in names}


def protocol(paper: str) -> str:
    """Return the protocol of a paper as TOML.

    Raises:
        ValueError: for a paper that is not one of :func:`papers`, with a suggestion.
    """
    known = papers()
    if paper in PAPERS and paper not in known:
        raise ValueError(
            f"there is no protocol of {paper!r}: it is not known, or its problem has no name here; there are "
            f"{', '.join(known)}"
        )
    if paper not in known:
        raise ValueError(unknown_name("paper", paper, known))
    return (FOLDER / f"{paper}.toml").read_text(encoding="utf-8")
