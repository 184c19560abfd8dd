"""Copies of the notebooks, because Sphinx reads files below its own folder only."""

from __future__ import annotations

from pathlib import Path


def pages(docs: Path) -> dict[str, str]:
    """Return the notebooks with the outputs that ``make notebooks`` stored, and links to pages of the site."""
    files = (docs.parent / "notebooks").glob("*.ipynb")
    texts = {f"notebooks/{file.name}": file.read_text(encoding="utf-8") for file in files}
    return {name: text.replace("](../docs/", "](../../") for name, text in texts.items()}
