"""Execute the notebooks from top to bottom, in full, and keep their outputs in the files.

Progress bars and execution times are left out, so that a file changes only if its outputs change.
"""

from __future__ import annotations

import argparse
import base64
import io
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
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; by default all")
    names = parser.parse_args().names
    if unknown := set(names) - set(known):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for path in [NOTEBOOKS / f"{name}.ipynb" for name in names or known]:
        start = time.perf_counter()
        execute(path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e3:.0f} KB", flush=True)
