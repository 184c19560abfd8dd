"""The help of a method: its recurrence, its parameters with what is allowed, an example that runs, its paper."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from stalegrad._core.specs import kebab

EXAMPLES = {
    "k": 4,
    "tau": 4,
    "bound": 2,
    "backups": 1,
    "threshold": 8,
    "batch": 8,
    "trials": 2,
    "limit": 2.0,
    "delay": 1,
    "seconds": (1.0, 2.0),
}
"""Values that examples give where a parameter has no default."""

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def help_of(
    name: str,
    synchrony: type[object],
    parts: Sequence[Callable[..., object] | None],
    parameters: Mapping[str, inspect.Parameter],
    annotations: Mapping[str, object],
    references: Sequence[str],
) -> str:
    """Return the docstring of a method.

    Args:
        name: what users type.
        synchrony: who waits for whom.
        parts: the rule, whose docstring holds the recurrence; scaling by staleness and controller, or None.
        parameters: all of them, by name.
        annotations: annotations of the parameters of synchrony and parts.
        references: the papers.
    """
    rule, *further = [part for part in parts if part is not None]
    described = {key: text for source in (synchrony, *further, rule) for key, text in arguments_of(source).items()}
    described["learning_rate"] = "a number, a schedule, a table, or a function of the update."
    described["local_steps"] = "mini-batch gradients in a message; each is a step of the worker's own."
    lines = [text_of(rule)]
    for part in further:
        lines += ["", text_of(part)]
    summary = f"Synchrony {kebab(synchrony.__name__)}. {summary_of(synchrony)}"
    lines += ["", *textwrap.wrap(summary, 100)]
    lines += ["", "Args:"]
    for key, parameter in parameters.items():
        entry = " ".join(
            [f"{key}:", described.get(key, ""), allowed_by(annotations.get(key)), default_of(parameter)]
        )
        lines += textwrap.wrap(" ".join(entry.split()), 100, initial_indent=" " * 4, subsequent_indent=" " * 8)
    function = "async_" if name == "async" else name.replace("-", "_")
    given = {key: EXAMPLES.get(key, 1) for key, p in parameters.items() if p.default is p.empty}
    call = ", ".join(f"{key}={value!r}" for key, value in {"learning_rate": 0.1, **given}.items())
    lines += [
        "    synchrony: another one than the method's own, e.g. ``KAsync(4)``, where the rule can work with it.",
        "",
        "Returns:",
        "    The method, for an ``Experiment``, ``run``, ``sweep`` or ``replay``.",
        "",
        "Raises:",
        "    ValueError: for an unknown, missing or wrong parameter, or a synchrony the rule cannot work with.",
        "",
        "Example:",
        "    >>> from stalegrad.policies import methods",
        f"    >>> methods.{function}({call}).name",
        f"    {name!r}",
        "",
    ]
    first, *others = references
    lines += textwrap.wrap(f"Reference: {first}", 100, subsequent_indent=" " * 4, break_on_hyphens=False)
    for text in others:
        lines += textwrap.wrap(
            text, 100, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
        )
    return "\n".join(lines)


def text_of(source: object) -> str:
    """Return a docstring up to its sections."""
    sections = r"\n\s*(?:Args|Returns|Raises|Reference|Attributes|Example):"
    return re.split(sections, inspect.getdoc(source) or "")[0].strip()


def summary_of(source: object) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(source) or "").split("\n\n")[0].split())


def arguments_of(source: object) -> dict[str, str]:
    """Return what the section Args of a docstring says of each argument."""
    found = re.search(r"^Args:\n((?:    .*\n?|\n)+)", (inspect.getdoc(source) or "") + "\n", re.MULTILINE)
    if found is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*\n(?:        .*\n?)*)", found[1] + "\n", re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in entries}


def allowed_by(annotation: Any) -> str:
    """Return what an annotation allows, in words; empty if nothing is said."""
    kinds = [annotation] if get_origin(annotation) is Annotated else [a for a in get_args(annotation) or ()]
    for kind in kinds:
        if get_origin(kind) is Annotated:
            bounds = [
                f"{words} {getattr(bound, at):g}"
                for field in kind.__metadata__
                for bound in getattr(field, "metadata", ())
                for at, words in _BOUNDS.items()
                if hasattr(bound, at)
            ]
            return f"Allowed: {', '.join(bounds)}." if bounds else ""
    if get_origin(annotation) is Literal:
        return f"Allowed: {', '.join(map(repr, get_args(annotation)))}."
    return ""


def default_of(parameter: inspect.Parameter) -> str:
    """Return what is taken if a parameter is not given."""
    if parameter.default is parameter.empty:
        return "Must be given."
    return f"Default: {parameter.default!r}."
