"""Every notebook runs from top to bottom, and what is kept of its outputs reads well."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 200_000

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def complaints(notebook):
    """What was said on stderr, progress bars aside: they overwrite their line."""
    said = "".join(o.text for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr")
    return [line for line in re.split(r"[\r\n]+", said) if line.strip() and "%|" not in line]


@pytest.fixture(scope="module")
def kernel():
    """One kernel for all notebooks: most of what each of them does is to import and to compile the same."""
    client = NotebookClient(new_notebook(), timeout=300, kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STALEGRAD_SHORT", "1")
        with client.setup_kernel():
            yield client


def execute(notebook, client, place):
    """Run a notebook in this directory, without the names that others have left in the kernel."""
    notebook.cells.insert(0, new_code_cell(f"%reset -f\n%cd -q {place}"))
    client.nb = notebook
    client.reset_execution_trackers()
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)


@pytest.mark.filterwarnings("default")
@every_notebook
def test_notebook_runs_draws_and_warns_of_nothing(path, kernel, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, kernel, tmp_path)
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert complaints(notebook) == []


@every_notebook
def test_what_is_committed_is_small_and_names_no_place_on_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    pictures = re.compile(r'"image/png": "[^"]*"')
    assert not re.search(r"(?<![\w.<])/(home|root|tmp|usr|work|Users|var)/", pictures.sub("", text))


@every_notebook
def test_what_is_committed_was_executed_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert complaints(notebook) == []
    assert all(output.output_type != "error" for output in outputs(notebook))
