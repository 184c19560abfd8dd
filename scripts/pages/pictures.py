"""Pictures of ``docs/gallery.md``, made by the code on that page, and a timeline of every synchrony."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n!\[[^\]]*\]\(generated/pictures/(.*?)\.png\))?", re.M | re.S)
"""A block of code, and the name of the picture of its axes ``ax``, if a picture follows."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "dylu": {"seconds": (1.0, 1.5, 2.0, 3.0), "local_steps": 6},
    "mind-flayer": {"limit": 1.5, "trials": 2},
    "drop-compute": {"limit": 2.5},
    "malenia": {"batch": 2},
    "ringmaster": {"threshold": 3},
    "bounded-staleness": {"bound": 2},
    "rollouts": {"batch": 3, "train": 0.75},
    "backup-workers": {"backups": 1},
    "ssp": {"bound": 1},
    "constant-delay": {"delay": 2},
    "delayed-averaging": {"tau": 4},
    "delayed-averaging-general": {"tau": 4},
}
"""Arguments of synchronies whose parameters have no defaults; all synchronies with a k use k = 2."""


def code_blocks(text: str) -> list[tuple[str, str | None]]:
    """Return the blocks of code of a page, each with the name of the picture that it makes, or None."""
    return [(code, picture or None) for code, picture in BLOCK.findall(text)]


def gallery(text: str) -> dict[str, bytes]:
    """Execute the code of the gallery and return its pictures by name."""
    names: dict[str, Any] = {"__name__": "gallery"}
    found = {}
    for code, picture in code_blocks(text):
        exec(code, names)
        if picture:
            found[picture] = png(names["ax"].figure)
    return found


def timeline(synchrony: type) -> Any:
    """Return the figure of a synchrony with four workers of different speeds."""
    from dataclasses import fields

    import stalegrad as sg
    from stalegrad._core.specs import kebab
    from stalegrad.analysis import plot_timeline

    arguments = ARGUMENTS.get(kebab(synchrony.__name__), {})
    if "k" in {f.name for f in fields(synchrony)}:
        arguments = {"k": 2}
    cluster = sg.Cluster(compute=[sg.Gamma(mean, 0.3) for mean in (1.0, 1.2, 1.5, 2.5)])
    trace = sg.simulate(cluster, synchrony(**arguments), wallclock=12.0, seed=1)
    return plot_timeline(trace, end=min(12.0, trace.end)).figure


def png(figure: Any) -> bytes:
    """Return a figure as PNG, and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def pages(docs: Path) -> dict[str, bytes]:
    """Return all pictures by file name below ``generated``."""
    import matplotlib as mpl

    mpl.use("agg")
    from stalegrad.policies.synchrony import SYNCHRONIES

    text = (docs / "gallery.md").read_text(encoding="utf-8")
    found = {f"pictures/{name}.png": data for name, data in gallery(text).items()}
    return found | {f"pictures/synchrony-{name}.png": png(timeline(cls)) for name, cls in SYNCHRONIES.items()}
