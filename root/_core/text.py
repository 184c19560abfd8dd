"""Names that others chose, as text that shows what it is: no markup, no control characters."""

from __future__ import annotations

import unicodedata

REPLACED = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
"""Categories of Unicode that are shown as U+FFFD: control and format characters (those that turn the direction of
writing among them), lone surrogates, code points without a character."""

LONGEST = 120
"""Characters of a name that a picture shows."""


def visible(text: object) -> str:
    """Return a text on one line, in which every character that would not be seen is replaced by U+FFFD."""
    line = " ".join(str(text).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in REPLACED else c for c in line)


def plain(text: object) -> str:
    """Return a name for matplotlib that is drawn as it is: visible, not too long, never read as mathematics."""
    line = visible(text)
    if len(line) > LONGEST:
        line = line[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")
