"""Safe text from names of unknown origin: without markup and control characters."""

from __future__ import annotations

import unicodedata

REPLACED = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
"""Categories of Unicode that are shown as U+FFFD: control and format characters (including those that change the
direction of writing), lone surrogates, and code points without a character."""

LONGEST = 120
"""Largest number of characters of a name in a picture."""


def visible(text: object) -> str:
    """Return a text on one line, with every invisible character replaced by U+FFFD."""
    line = " ".join(str(text).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in REPLACED else c for c in line)


def plain(text: object) -> str:
    """Return a name that matplotlib draws literally: visible, shortened if long, and without mathematics."""
    line = visible(text)
    if len(line) > LONGEST:
        line = line[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")
