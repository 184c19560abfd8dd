"""Values of options that several commands take: ``NAME=VALUE``, and ``NAME:PARAMETER=VALUE,...``."""

from __future__ import annotations

import re
import tomllib


def pair(text: str, option: str) -> tuple[str, str]:
    """Return the name and the value of ``NAME=VALUE``.

    Raises:
        ValueError: if either is missing, naming the option.
    """
    name, _, value = (part.strip() for part in text.partition("="))
    if not name or not value:
        raise ValueError(f"{option} = {text!r} is not allowed: give NAME=VALUE")
    return name, value


def named(text: str, option: str) -> tuple[str, dict[str, object]]:
    """Return the name and the parameters of ``NAME`` or ``NAME:PARAMETER=VALUE,...``; values are TOML or strings.

    Raises:
        ValueError: as :func:`pair`.
    """
    name, _, rest = text.partition(":")
    parts = re.split(r",(?![^\[]*\])", rest)  # no commas within a list
    return name, {key: _value(value) for key, value in (pair(part, option) for part in parts if part)}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
