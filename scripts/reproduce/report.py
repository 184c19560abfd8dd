"""Section of the report on one paper, in Markdown."""

from __future__ import annotations

import importlib
import time

VERDICT = {True: "holds", False: "**does not hold**", None: "reported"}


def section(name: str) -> str:
    """Test the claims of a module of this folder and return its section."""
    start = time.perf_counter()
    done = importlib.import_module(name).section()
    lines = [f"## {done.title}", "", done.setup, "", "| | claim | verdict | measured |", "|---|---|---|---|"]
    lines += [f"| {c.name} | {c.text} | {VERDICT[c.holds]} | {c.numbers} |" for c in done.claims]
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return "\n".join([*lines, *(f"\n{table}" for table in done.tables), ""])
