"""Specs: frozen, validated value objects, and error messages for wrong values."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from stalegrad._core.types import Table


def builtin(value: object) -> Any:
    """Return a scalar of NumPy, pandas or JAX as a Python number, and an array or Series of one axis as a list."""
    dimensions = getattr(value, "ndim", None)
    if dimensions == 0 and hasattr(value, "item"):
        return value.item()
    return value.tolist() if dimensions == 1 and hasattr(value, "tolist") else value


def _number(value: object) -> object:
    """Reject values that are not numbers but that pydantic converts to numbers: True to 1.0, "3" to 3.0."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("give a number")
    return builtin(value)


NonNegativeInt = Annotated[int, BeforeValidator(builtin), Field(ge=0, strict=True)]
PositiveInt = Annotated[int, BeforeValidator(builtin), Field(ge=1, strict=True)]
SEEDS = 2**64
Seed = Annotated[int, BeforeValidator(builtin), Field(ge=0, lt=SEEDS, strict=True)]
"""A seed: a whole number of up to 64 bits."""

PositiveFloat = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Correlation = Annotated[float, BeforeValidator(_number), Field(gt=-1, lt=1, allow_inf_nan=False)]
"""A correlation coefficient, strictly between -1 and 1."""

T = TypeVar("T")


def kebab(name: str) -> str:
    """Return a class or function name as users spell it: ``KBatchAsync`` -> ``k-batch-async``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower()


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Return an error message for an unknown name: the name, a close match, and the allowed names."""
    names = sorted(allowed)
    close = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(names)}."


def check_keys(where: str, table: Mapping[str, object], allowed: Iterable[str]) -> None:
    """Raise ValueError for a key that ``where`` does not have, with a suggestion."""
    names = list(allowed)
    for key in table:
        if key not in names:
            raise ValueError(unknown_name(f"key of {where}:", key, names))


def changed_fields(value: Any) -> Table:
    """Return the fields of a spec that differ from their defaults."""
    return {f.name: v for f in dataclasses.fields(value) if f.init and (v := getattr(value, f.name)) != f.default}


def settings_of(value: object) -> Table:
    """Return the fields of a spec that differ from their defaults, as tables, lists, texts and numbers.

    A class with fields of other types defines a method ``settings`` that returns this table.
    """
    if hasattr(value, "settings"):
        settings: Table = value.settings()
        return settings
    return plain(changed_fields(value))


def plain(settings: Mapping[str, object]) -> Table:
    """Return settings in the types of TOML and JSON: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def validate(where: str, annotation: object, value: object) -> Any:
    """Return ``value`` converted to ``annotation``.

    Raises:
        ValueError: if it cannot be converted; the error names the place, the value and what is allowed.
    """
    try:
        return _adapter(annotation).validate_python(builtin(value))
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_url=False)))
        raise ValueError(f"{where} = {shown(value)} is not allowed: {' '.join(problems.split())}") from None


def _problem(error: Any) -> str:
    """Return one problem found by pydantic: where in the value, without the names of its validators, and what."""
    place = ".".join(str(part) for part in error["loc"] if not re.search(r"[\[(]", str(part)))
    what: str = error["msg"]
    return f"{place}: " * bool(place) + what.removeprefix("Value error, ")


def shown(value: object) -> str:
    """Return a value as an error shows it: one line of at most 200 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's class, or an integer with too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:197]}..."


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


@functools.cache
def _hints(cls: type[object]) -> dict[str, object]:
    return get_type_hints(cls, include_extras=True)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def spec(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are checked against their annotations when it is built.

    A class may also define ``check_fields``, which checks that its fields are consistent with each other.
    """

    def __post_init__(self: Any) -> None:
        annotations = _hints(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):
            where = f"{field.name} of {kebab(type(self).__name__)}"
            value = validate(where, annotations[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if hasattr(self, "check_fields"):
            self.check_fields()

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)
