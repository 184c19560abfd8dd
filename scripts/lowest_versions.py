"""Print pip constraints that pin every dependency of the package, and pytest and hypothesis, to its lower bound.

    python scripts/lowest_versions.py > constraints.txt

They are computed from pyproject.toml and not stored: `make test-lowest` installs them and runs a part of the
tests.
"""

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9][0-9.]*)(?:,|$)")
TESTS = ("pytest", "hypothesis")


def constraints(pyproject: str) -> list[str]:
    """Return ``name==bound`` of every dependency.

    Raises:
        ValueError: for a dependency without a lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    development = [entry for entry in project["optional-dependencies"]["dev"] if entry.split(">=")[0] in TESTS]
    pinned = []
    for entry in [*project["dependencies"], *development]:
        found = BOUND.match(entry)
        if found is None:
            raise ValueError(f"dependency {entry!r} has no lower bound: write name>=version")
        pinned.append("==".join(found.groups()))
    return pinned


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    print("\n".join(constraints((root / "pyproject.toml").read_text(encoding="utf-8"))))
