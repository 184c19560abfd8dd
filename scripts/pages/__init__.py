"""Pages of the documentation that are generated from the package; ``docs/conf.py`` calls :func:`write_all`.

They are written to ``docs/generated``, which git ignores: the reference of every public name (``names.py``), every
method (``methods.py``), every key of a spec (``specs.py``) and every command (``commands.py``), the pictures of
``docs/gallery.md`` and of the synchronies (``pictures.py``), and copies of the notebooks.
"""

from __future__ import annotations

from pathlib import Path

from pages import commands, methods, names, notebooks, pictures, specs

WRITERS = (names, methods, specs, commands, notebooks, pictures)


def write_all(docs: Path) -> None:
    """Write all generated pages below ``docs/generated``; unchanged files keep their modification time."""
    generated = docs / "generated"
    for writer in WRITERS:
        for name, content in writer.pages(docs).items():
            file = generated / name
            data = content.encode() if isinstance(content, str) else content
            if not file.exists() or file.read_bytes() != data:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
