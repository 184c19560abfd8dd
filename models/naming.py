"""What to say when a user mistypes a name. (Rooms share no code, hence the twin in policies/specs.py.)"""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Return what was wrong, what was probably meant, and what is allowed."""
    names = sorted(allowed)
    close = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(names)}."
