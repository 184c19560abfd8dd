"""A page for every public name of the package and its subpackages, made by Sphinx from docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from pathlib import Path
from typing import NamedTuple

from pages.text import cell

ROOMS = ("simulator", "policies", "models", "analysis")

MODULES = ("methods", "parts")
"""Public names of ``policies`` that are modules."""


class Name(NamedTuple):
    """A public name: the subpackage that exports it, the module that defines it, and the object."""

    room: str
    name: str
    module: str
    value: object

    @property
    def public(self) -> str:
        """The full name that users write."""
        return f"stalegrad.{self.room}.{self.name}"

    @property
    def also(self) -> str | None:
        """The name in the curated namespace ``stalegrad``, or None if it is not there."""
        offered = importlib.import_module("stalegrad").__all__
        return f"stalegrad.{self.name}" if self.name in offered else None

    @property
    def kind(self) -> str:
        """The kind of object in Sphinx's domain of Python."""
        if inspect.ismodule(self.value):
            return "module"
        if isinstance(self.value, type):
            return "exception" if issubclass(self.value, Exception) else "class"
        return "function" if inspect.isroutine(self.value) else "data"

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return documentation(self).splitlines()[0]

    @property
    def group(self) -> str:
        """The package of its module."""
        package, _, last = self.module.rpartition(".")
        found = importlib.import_module(self.module)
        return self.module if hasattr(found, "__path__") and last != self.room else package


def sources(room: str) -> dict[str, str]:
    """Return the module of each public name of a subpackage, according to its ``.pyi``."""
    stub = Path(importlib.import_module(f"stalegrad.{room}").__file__ or "").with_suffix(".pyi")
    found = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [f"stalegrad.{room}", node.module]))
            found |= {alias.asname or alias.name: module for alias in node.names}
    return found


def public_names(room: str) -> list[Name]:
    """Return the public names of a subpackage."""
    package, modules = importlib.import_module(f"stalegrad.{room}"), sources(room)
    return [Name(room, name, modules[name], getattr(package, name)) for name in package.__all__]


def types() -> list[str]:
    """Return the names of types that annotations of the package share."""
    from stalegrad._core import specs, types as shared

    return [name for module in (specs, shared) for name in vars(module) if name[0].isupper() and len(name) > 1]


def documentation(name: Name) -> str:
    """Return the docstring of a public name; for an alias of types, the text below its assignment."""
    if name.kind != "data":
        return inspect.getdoc(name.value) or ""
    body = ast.parse(inspect.getsource(importlib.import_module(name.module))).body
    for node, after in itertools.pairwise(body):
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == name.name and isinstance(after, ast.Expr):
            return inspect.cleandoc(ast.literal_eval(after.value))
    return ""


def members(cls: type) -> list[str]:
    """Return the documented members of a class: its own, and those of bases without their own page."""
    shown = {name.value for room in ROOMS for name in public_names(room) if isinstance(name.value, type)}
    owners = [base for base in cls.__mro__ if base is cls or (_ours(base) and base not in shown)]
    fields = {*getattr(cls, "_fields", ()), *getattr(cls, "__dataclass_fields__", ())}
    return [
        name
        for name in dict.fromkeys(name for owner in owners for name in vars(owner))
        if not name.startswith("_")
        and name not in fields
        and name != "check_fields"
        and inspect.getdoc(getattr(cls, name))
    ]


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("stalegrad.")


def page(name: Name) -> str:
    """Return the page of a public name, for autodoc."""
    lines = [name.name, "=" * len(name.name), ""]
    if name.also:
        lines += [f".. py:{name.kind}:: {name.also}", "   :no-typesetting:", ""]
    if name.kind == "data":
        lines += [f".. py:data:: {name.public}", "", *(f"   {line}" for line in documentation(name).splitlines())]
        return "\n".join([*lines, ""])
    if name.kind == "module":
        return "\n".join([*lines, *_module(name), ""])
    target = name.public
    lines += [f".. auto{name.kind}:: {target}"]
    if isinstance(name.value, type):
        lines += [f"   :members: {', '.join(members(name.value))}"] if members(name.value) else []
        lines += ["   :show-inheritance:"] if name.value.__bases__ != (object,) else []
    if name.also:
        lines += ["", f"Also ``{name.also}``."]
    return "\n".join([*lines, ""])


def _module(name: Name) -> list[str]:
    """Return the body of the page of a module: its docstring, and its functions or its own modules."""
    if name.name == "methods":
        lines = [f".. automodule:: {name.public}", "   :members: method, register", ""]
        lines += [".. autodata:: REGISTRY", "   :no-value:", ""]
        return [*lines, "Every method has a page: :doc:`../methods/index`."]
    lines = [f".. py:module:: {name.public}", "   :no-typesetting:", ""]
    lines += [f".. automodule:: {name.module}.{name.name}", ""]
    for part in name.value.__all__:  # type: ignore[attr-defined]
        title, source = f"parts.{part}", f"{name.module}.{name.name}.{part}"
        lines += [title, "-" * len(title), "", f".. automodule:: {source}", "   :members:", ""]
    return lines


def index(room: str) -> str:
    """Return the page of a subpackage: its public names by package, each with the first line of its docstring."""
    package = importlib.import_module(f"stalegrad.{room}")
    lines = [f"# stalegrad.{room}", "", *_sentences(package), ""]
    groups: dict[str, list[Name]] = {}
    for name in public_names(room):
        groups.setdefault(name.group, []).append(name)
    for group in sorted(groups, key=lambda group: (group != f"stalegrad.{room}", group)):
        if group != f"stalegrad.{room}":
            lines += [f"## {group.removeprefix(f'stalegrad.{room}.')}", ""]
            lines += [*_sentences(importlib.import_module(group)), ""]
        lines += ["| name | description |", "|---|---|"]
        lines += [f"| [`{n.name}`]({n.public}.rst) | {cell(n.summary)} |" for n in groups[group]] + [""]
    lines += ["```{toctree}", ":hidden:", "", *(name.public for name in public_names(room)), "```", ""]
    return "\n".join(lines)


def _sentences(package: object) -> list[str]:
    return (inspect.getdoc(package) or "").split("\n\nExample")[0].replace("``", "`").splitlines()


def root() -> str:
    """Return the page of the curated namespace ``import stalegrad as sg``."""
    lines = [
        "# stalegrad", "",
        "The names that most scripts need: `import stalegrad as sg`. Each is also a name of a subpackage.", "",
        "| name | description |", "|---|---|",
    ]  # fmt: skip
    named = {name.name: name for room in ROOMS for name in public_names(room)}
    for name in importlib.import_module("stalegrad").__all__:
        if name in named:
            lines += [f"| [`sg.{name}`]({named[name].public}.rst) | {cell(named[name].summary)} |"]
    return "\n".join([*lines, "", "`sg.__version__` is the version of the package.", ""])


def pages(docs: Path) -> dict[str, str]:
    """Return the pages of all public names by file name below ``generated``."""
    found = {"api/stalegrad.md": root()}
    for room in ROOMS:
        found[f"api/stalegrad.{room}.md"] = index(room)
        found |= {f"api/{name.public}.rst": page(name) for name in public_names(room)}
    return found
