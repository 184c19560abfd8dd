"""The rooms: what is installed, and who may import whom."""

import ast
import functools
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("simulator", "models", "policies", "analysis")
FILES = [file for folder in ("root", *ROOMS) for file in sorted((ROOT / folder).rglob("*.py"))]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

DOORS = ["simulator.cli", "simulator.regression", "testing", "__main__"]
"""Where users come in: they may use every room, and no room uses them."""

FORBIDDEN = {  # importer: what it must not know, neither at the top of a file nor inside a function
    "_core": ["models", "policies", "simulator", "analysis", *DOORS],
    "policies": ["models", "simulator", "analysis"],
    "models": ["policies", "simulator", "analysis"],
    "analysis": ["policies", "simulator", "models"],
    "analysis.statistics": ["analysis.fits", "analysis.theory", "analysis.plots", "analysis.reports"],
    "analysis.fits": ["analysis.theory", "analysis.plots", "analysis.reports"],
    "analysis.theory": ["analysis.fits", "analysis.plots", "analysis.reports"],
    "analysis.plots": ["analysis.theory", "analysis.reports"],
    "simulator.timing": [
        "models",
        "analysis",
        "simulator.replays",
        "simulator.experiments",
        "simulator.sweeps",
        *DOORS,
    ],
    "simulator.replays": ["analysis", "simulator.experiments", "simulator.sweeps", *DOORS],
    "simulator.experiments": ["simulator.sweeps", *DOORS],
    "simulator.sweeps": DOORS,
    "simulator.whatif": ["simulator.sweeps", *DOORS],
    "simulator.regression": ["simulator.cli", "testing", "__main__"],
}
ALLOWED = {"analysis": ["simulator.timing.delays"]}  # all the same: fits and theory need the laws
INSIDE = {  # inside functions only: thin methods that draw
    "simulator.experiments.result": ["analysis"],
    "simulator.sweeps.results": ["analysis"],
    "simulator.sweeps.comparison": ["analysis"],
    "simulator.whatif.answer": ["analysis"],
    "simulator.whatif.training": ["analysis"],
    "simulator.whatif.what_if": ["analysis"],
    "analysis.fits.staleness": ["analysis.plots"],
}
EXECUTES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


def name(file):
    """``simulator/timing/engine.py`` -> ``simulator.timing.engine``; ``root`` is left out."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts).removeprefix("root").removeprefix(".").replace("simulator.testing", "testing")


def within(module, package):
    return module == package or module.startswith(f"{package}.")


@functools.cache
def statements(file, *, functions=True, types=False):
    """Return every import statement of a file as (module, names or None, line).

    Args:
        file: of the package.
        functions: whether imports inside functions count.
        types: whether imports for type checkers only count.
    """
    found = []

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not types:
            return
        if isinstance(node, ast.FunctionDef | ast.Lambda) and not functions:
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, None, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            found.append((node.module, [alias.name for alias in node.names], node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text()))
    return found


def imports(file, **which):
    """Return every module (and, as it may be one, every name) that a file imports, with its line."""
    found = []
    for module, names, line in statements(file, **which):
        found += [(module, line), *((f"{module}.{imported}", line) for imported in names or ())]
    return found


def offences(file, forbidden, *, allowed=(), functions=True, types=False):
    return [
        f"{name(file)}:{line} imports {module}"
        for module, line in imports(file, functions=functions, types=types)
        if any(within(module, package) for package in forbidden)
        and not any(within(module, package) for package in allowed)
    ]


def import_graph(files):
    """Return module -> modules of ours that it imports, at the top of the file or for type checkers.

    An imported name counts as the module of that name, or else as the module that it is imported from. An
    ``__init__`` that only lists names for lazy loading imports none of them.
    """
    modules = {f"stalegrad.{name(file)}".rstrip("."): file for file in files}
    graph = {}
    for module, file in modules.items():
        found = set()
        for source, names, _ in statements(file, functions=False, types=True):
            full = [f"{source}.{imported}" for imported in names or ()]
            found |= {one if one in modules else source for one in full} or {source}
        graph[module] = found & modules.keys()
    return graph


def circles(graph):
    """Return the strongly connected components of more than one module, found by reachability."""
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for other in graph[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        reach[start] = seen
    return sorted({tuple(sorted(n for n in reach[m] if m in reach[n])) for m in graph if m in reach[m]})


def run(code, cwd):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


# What is installed


def test_every_folder_with_an_init_is_listed_as_a_package():
    folders = {name(file) for file in FILES if file.name == "__init__.py"}
    assert set(SETUPTOOLS["packages"]) == {f"stalegrad.{folder}".rstrip(".") for folder in folders}
    rooms = {f"stalegrad.{room}": room for room in ROOMS}
    assert SETUPTOOLS["package-dir"] == {"stalegrad": "root", "stalegrad.testing": "simulator/testing"} | rooms


def test_no_folder_of_the_checkout_hides_the_package():
    assert not (ROOT / "stalegrad").exists()


def test_every_folder_with_code_has_an_init():
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_typed(room):
    assert (ROOT / room / "py.typed").exists()


@pytest.mark.parametrize("room", ROOMS)
def test_the_only_import_name_is_stalegrad(room, tmp_path):
    assert f"No module named '{room}'" in run(f"import {room}", tmp_path).stderr
    assert run(f"import stalegrad.{room}", tmp_path).stderr == ""


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_offers_is_sorted_and_there(room):
    module = importlib.import_module(f"stalegrad.{room}")
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [offered for offered in module.__all__ if not hasattr(module, offered)] == []
    assert module.__doc__


# Who may import whom


@pytest.mark.parametrize("package", FORBIDDEN)
def test_rooms_know_only_what_they_may(package):
    forbidden = [f"stalegrad.{other}" for other in FORBIDDEN[package]]
    for file in FILES:
        if within(name(file), package):
            allowed = [f"stalegrad.{other}" for other in ALLOWED.get(package, []) + INSIDE.get(name(file), [])]
            assert offences(file, forbidden, allowed=allowed) == []


def test_only_the_doors_import_analysis_at_the_top_of_a_file():
    for file in FILES:
        inside = name(file) in INSIDE
        if not any(within(name(file), package) for package in ["analysis", *DOORS]):
            assert offences(file, ["stalegrad.analysis"], functions=not inside) == []


@pytest.mark.parametrize("module", INSIDE)
def test_what_is_allowed_inside_functions_is_not_at_the_top_of_a_file(module):
    (file,) = [file for file in FILES if name(file) == module]
    forbidden = [f"stalegrad.{other}" for other in INSIDE[module]]
    assert offences(file, forbidden, functions=False, types=True) == []
    assert offences(file, forbidden) != []


def test_analysis_knows_protocols_only_for_type_checkers_too():
    forbidden, allowed = ([f"stalegrad.{n}" for n in kind["analysis"]] for kind in (FORBIDDEN, ALLOWED))
    for file in FILES:
        if within(name(file), "analysis"):
            assert offences(file, forbidden, allowed=allowed, types=True) == []


@pytest.mark.parametrize("room", ["statistics", "fits", "theory"])
def test_rooms_below_plots_know_no_matplotlib(room):
    for file in FILES:
        if within(name(file), f"analysis.{room}"):
            assert offences(file, ["matplotlib"]) == []


def test_no_modules_import_one_another_in_a_circle():
    assert circles(import_graph(FILES)) == []


def test_a_circle_would_be_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}
    assert circles(graph) == [("b", "c"), ("d",)]


def test_entries_import_nothing_of_ours_at_the_top_of_a_file():
    for file in FILES:
        if name(file) in ("testing", "__main__"):
            assert offences(file, ["stalegrad", "jax", "numpy", "pandas"], functions=False) == []


def test_timing_knows_no_jax():
    for file in FILES:
        if within(name(file), "simulator.timing"):
            assert offences(file, ["jax", "jaxlib", "optax", "flax"]) == []


def test_only_timing_knows_simpy():
    for file in FILES:
        if not within(name(file), "simulator.timing"):
            assert offences(file, ["simpy"]) == []


def test_nothing_that_can_execute_what_it_reads_is_imported():
    assert [offence for file in FILES for offence in offences(file, EXECUTES)] == []


def test_a_forbidden_import_would_be_found():
    file = ROOT / "tests" / "test_layout.py"
    assert offences(file, ["ast", "pathlib"]) == [
        "tests.test_layout:3 imports ast",
        "tests.test_layout:9 imports pathlib",
        "tests.test_layout:9 imports pathlib.Path",
    ]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_fits_on_a_few_screens(file):
    assert len(file.read_text().splitlines()) <= 350


# Types

MOST_ANY = {"root": 16, "models": 14, "policies": 13, "simulator": 180, "analysis": 18}
"""How often the files of a folder may say ``Any``. An alias of it counts once, where it is defined."""


def uses_of_any(source):
    """Count where the annotations of a source say ``Any``, as a name or attribute, quoted ones included."""
    said, todo = 0, [ast.parse(source)]
    while todo:
        for node in ast.walk(todo.pop()):
            said += "Any" in (getattr(node, "id", None), getattr(node, "attr", None))
            parts = [getattr(node, part, None) for part in ("annotation", "returns")]
            parts += [node.value] if isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node) else []
            todo += [ast.parse(p.value) for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
    return said


@pytest.mark.parametrize("folder", MOST_ANY)
def test_annotations_say_any_seldom(folder):
    found = {name(f): n for f in FILES if f.is_relative_to(ROOT / folder) and (n := uses_of_any(f.read_text()))}
    assert sum(found.values()) <= MOST_ANY[folder], found


def test_any_would_be_found():
    source = "import typing\nfrom typing import Any\nTree: TypeAlias = 'dict[str, Any]'\n"
    source += "def f(a: Any, *, b: 'list[Any]' = Any) -> typing.Any:\n    'Any.'\n    c: dict[Any, Tree] = {}\n"
    assert uses_of_any(source) == 6


# State

KEPT = {  # documented caches, and what outlives a call on purpose
    "simulator.experiments.describe": {"_HASHED"},
    "simulator.sweeps.sweep": {"INTERRUPTED"},
    "models.datasets.fingerprints": {"_known"},
}
CHANGES = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "popitem",
    "clear",
    "remove",
    "discard",
}


def changed_globals(source):
    """The module-level names whose objects the functions of a source change."""
    tree = ast.parse(source)
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                found.update(node.names)
            targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
            found.update(
                t.value.id for t in targets if isinstance(t, ast.Subscript) and isinstance(t.value, ast.Name)
            )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
                found.update([node.func.value.id] if isinstance(node.func.value, ast.Name) else [])
    return found & names


def test_modules_keep_no_state_but_documented_caches():
    assert {name(f): state for f in FILES if (state := changed_globals(f.read_text()))} == KEPT


def test_a_changed_global_would_be_found():
    body = ["global A", "B.append(1)", "C['x'] = 1", "d = {}", "d['x'] = 2"]
    source = "A = 0\nB = []\nC = {}\nd = {}\ndef f():\n    " + "\n    ".join(body[:3])
    assert changed_globals(source) == {"A", "B", "C"}
