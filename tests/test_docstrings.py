"""The docstrings of all public names: each has an example, and the example runs."""

import doctest
import importlib
import inspect
import socket

import pytest

ROOMS = [f"stalegrad.{room}" for room in ("simulator", "models", "policies", "analysis")]

RETURNED = {
    "BirchParameters", "Comparison", "DelayFit", "Estimate", "MindFlayerParameters", "Parameters", "Replay",
    "Report", "RolloutStaleness", "StalenessFit", "Stragglers", "TimeBound", "WhatIf",
}  # fmt: skip
"""Results: a function returns them, and its example shows them; users do not make them."""

TYPES = {"Histories", "SeededHistories"}
"""Names of types for annotations: they have no docstring of their own."""

SKIPPED = {"MLflow"}
"""Names whose example needs a package that the tests do not install."""


FLAT = importlib.import_module("stalegrad")

NAMES = {"stalegrad": FLAT} | {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in map(importlib.import_module, ROOMS)
    for name in sorted(module.__all__)
}
SHOWN = [path for path in NAMES if path.rpartition(".")[2] not in RETURNED | TYPES]


def members(value):
    """A public object and, of a class, its public methods and properties, those of our bases included."""
    yield value
    for name in dir(value) if inspect.isclass(value) else ():
        member = getattr(value, name)
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and getattr(function, "__module__", "").startswith("stalegrad."):
            yield member


def examples(path):
    """The examples of a name. Each knows the name itself; whatever else it uses it must import."""
    name, value = path.rpartition(".")[2], NAMES[path]
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    return [
        example
        for member in members(value)
        for example in finder.find(member, path, module=False, globs={name: value, "__name__": "example"})
    ]


def test_the_flat_namespace_is_covered_by_the_rooms():
    assert [
        name for name in FLAT.__all__ if not any(getattr(FLAT, name) is value for value in NAMES.values())
    ] == []
    assert len(SHOWN) > 150


@pytest.mark.parametrize("path", SHOWN)
def test_every_public_name_has_an_example(path):
    before, found, after = (NAMES[path].__doc__ or "").partition("Example:\n")
    assert found, f"{path} has no section Example:"
    assert after.lstrip().startswith(">>> "), f"the example of {path} is no doctest"
    assert ">>> " not in before


@pytest.mark.parametrize("name", sorted(RETURNED))
def test_what_is_exempt_is_a_plain_record(name):
    (value,) = [value for path, value in NAMES.items() if path.rpartition(".")[2] == name]
    assert hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__")
    assert "Example:" not in value.__doc__


@pytest.mark.parametrize("path", SHOWN)
def test_its_examples_run(path, tmp_path, monkeypatch):
    def refuse(*address):
        raise OSError(f"an example asks for the network: {address}")

    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "XDG_CACHE_HOME", "STALEGRAD_DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = examples(path)
    runner, said = doctest.DocTestRunner(), []
    for example in found:
        runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0
    lines = [line for example in found for line in example.examples]
    assert any(doctest.SKIP in line.options for line in lines) == (path.rpartition(".")[2] in SKIPPED)


def test_an_example_that_is_wrong_would_be_found():
    def wrong():
        """Return 2.

        Example:
            >>> wrong()
            3
        """
        return 2

    (example,) = doctest.DocTestFinder().find(wrong, "wrong", module=False, globs={"wrong": wrong})
    runner = doctest.DocTestRunner()
    runner.run(example, out=lambda text: None)
    assert runner.failures == 1
