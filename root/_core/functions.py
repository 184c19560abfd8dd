"""Functions that a spec names as ``module:function``.

A name is resolved only when a run that the user starts calls the function. Reading a spec checks the form of the
name and imports nothing, so that reading specs, stores and baselines of others executes nothing that they name.
"""

from __future__ import annotations

import importlib
import keyword
import sys
from collections.abc import Callable
from typing import Any


def is_function_name(value: object) -> bool:
    """Return whether a value has the form ``package.module:function``."""
    if not isinstance(value, str):
        return False
    module, colon, name = value.partition(":")
    parts = [*module.split("."), name]
    return bool(colon) and all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


def check_function_name(where: str, value: object) -> str:
    """Check the form of a function's name and return the name unchanged; nothing is imported.

    Raises:
        ValueError: if it has not the form ``package.module:function``; the error names the place and the value.
    """
    if not is_function_name(value):
        raise ValueError(
            f"{where} = {value!r} is not allowed: give package.module:function, a function at the top level of a "
            "module that can be imported"
        )
    return str(value)


def resolve(name: str) -> Any:
    """Import the module of ``module:name`` and return its attribute ``name``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_function(name: str) -> Callable[..., Any]:
    """Import the module that a name gives, which executes it, and return the function.

    Raises:
        ValueError: if there is no such module or function, or it is not callable.
    """
    check_function_name("function", name)
    try:
        function = resolve(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"function = {name!r} cannot be imported: {error}") from None
    if not callable(function):
        raise ValueError(f"function = {name!r} is not callable")
    return function  # type: ignore[no-any-return]


def function_of(function: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a function given as an object or by name; a name is imported by :func:`import_function`."""
    return import_function(function) if isinstance(function, str) else function


def name_of(function: Callable[..., object] | str) -> str:
    """Return ``module:function`` for a function that can be imported under that name; return a name unchanged.

    Raises:
        ValueError: if it cannot be imported (a lambda, a local function, a function of ``__main__``).
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or not is_function_name(f"{module}:{name}"):
        raise ValueError(
            f"{function!r} runs in this process only and cannot be written to a spec: "
            "define it at the top level of a module that can be imported"
        )
    return f"{module}:{name}"


def by_name(function: Callable[..., object] | str) -> Callable[..., object] | str:
    """Return the name of a function, if a loaded module has it under this name, and otherwise the function.

    A name is returned unchanged. A function kept by name equals the one that a spec names, in every process.
    """
    try:
        name = name_of(function)
    except ValueError:
        return function
    module, _, attribute = name.partition(":")
    return name if getattr(sys.modules.get(module), attribute, None) is function else function
