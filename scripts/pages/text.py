"""Conversion of docstrings (reStructuredText, mostly plain) to Markdown."""

from __future__ import annotations

import re


def inline(text: str) -> str:
    """Return a text with literals, roles and special characters converted to Markdown."""
    parts = re.split(r"(``.+?``|:\w+:`[^`]+`|`[^`]+`|https?://\S+)", text)
    return "".join(_literal(part) if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _literal(part: str) -> str:
    if part.startswith("http"):
        return f"<{part.rstrip('.,;)')}>" + part[len(part.rstrip(".,;)")) :]
    role = re.fullmatch(r":\w+:`~?([^`]+)`", part)
    return f"`{role[1].rpartition('.')[2]}`" if role else f"`{part.strip('`')}`"


def _escaped(part: str) -> str:
    return re.sub(r"([\\*_<>\[\]|^~$])", r"\\\1", part)


def cell(text: str) -> str:
    """Return a text on one line, for a cell of a table."""
    return " ".join(inline(text).split())


def markdown(text: str) -> str:
    """Return paragraphs of a docstring as Markdown; indented lines are code."""
    blocks = []
    for block in text.split("\n\n"):
        if all(line.startswith("    ") for line in block.splitlines() if line.strip()) and block.strip():
            blocks.append("```text\n" + "\n".join(line[4:] for line in block.splitlines()) + "\n```")
        else:
            blocks.append(inline(block).replace("::", ":"))
    return "\n\n".join(blocks)
