"""Execute the notebooks from top to bottom, in full, and keep their outputs in the files.

python scripts/execute_notebooks.py [NAME ...]     # e.g. 04_dana; by default all

Progress bars and execution times are left out, so that a file changes only if its outputs change.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute(path: Path) -> None:
    """Run a notebook in an empty directory, and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as place:
        resources = {"metadata": {"path": place}}
        NotebookClient(notebook, timeout=1_800, kernel_name="python3", resources=resources).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    nbformat.write(notebook, path)


def smaller(picture: str) -> str:
    """Return a PNG (base64) with 256 colours, which suffice for curves, at about a third of the size."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(256)
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def is_progress_bar(output: nbformat.NotebookNode) -> bool:
    """Return whether an output is a progress bar, as a widget or (without ipywidgets) as text without warnings."""
    if output.output_type == "stream":
        return output.name == "stderr" and "%|" in output.text and "Warning" not in output.text
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


if __name__ == "__main__":
    for path in [NOTEBOOKS / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.perf_counter()
        execute(path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e3:.0f} KB", flush=True)
