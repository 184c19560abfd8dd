"""The page of the commands, generated from typer's definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pages.text import cell, inline
from stalegrad.simulator.cli import app

INTRODUCTION = """\
# Commands

`stalegrad COMMAND --help` prints the same information. Exit codes: 0 success, 1 a check failed, 2 wrong usage or
input, 130 interrupted.
"""


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command and all its subcommands, with their full names."""
    yield name, command
    for child, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from commands(found, f"{name} {child}")


def section(name: str, command: Any) -> str:
    """Return the section of a command: its description, arguments and options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = [name, *(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)]
    usage += ["COMMAND"] if hasattr(command, "commands") else []
    usage += ["[OPTIONS]"] if options else []
    paragraphs = [" ".join(inline(part).split()) for part in (command.help or "").split("\n\n")]
    lines = [f"## `{name}`", "", *"\n\n".join(paragraphs).splitlines(), "", "```text", " ".join(usage), "```", ""]
    if rows := [_row(p) for p in [*arguments, *options]]:
        lines += ["| argument or option | description |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    names = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
    names = [*names, *parameter.secondary_opts]
    default = parameter.default() if callable(parameter.default) else parameter.default
    said = [parameter.help or ""]
    if parameter.required:
        said.append("Must be given.")
    elif default is not None and default is not False and default != ():
        said.append(f"Default: {default}.")
    return f"| {', '.join(f'`{name}`' for name in names)} | {cell(' '.join(said))} |"


def text() -> str:
    """Return the page."""
    found = commands(typer.main.get_command(app), "stalegrad")
    return "\n".join([INTRODUCTION, *(section(name, command) for name, command in found)])


def pages(docs: Path) -> dict[str, str]:
    """Return the page by its file name below ``generated``."""
    return {"commands.md": text()}
