"""Descriptions of objects as plain tables, independent of ``repr``, addresses and the order of dictionary keys.

There are two kinds. With ``content=False`` a description holds qualified names and settings (numbers, texts,
options, also those that functions hold in closures). With ``content=True`` it also holds the code of functions,
the functions and values to which they refer, and the data of arrays. In both, functions of the standard library
and of installed packages, including this one, are described by name and closure.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sys
import sysconfig
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import scipy

from stalegrad._core.errors import UnknownPartError
from stalegrad._core.specs import builtin
from stalegrad._core.types import Array

Description: TypeAlias = "bool | int | float | str | Sequence[Description] | Mapping[str, Description] | None"
"""A value that JSON can hold."""

LARGEST = 100_000
"""Largest number of parts of an object in a description."""


def described(value: object, *, content: bool) -> Description:
    """Return a description of any object: nested lists, tables, texts and numbers that JSON can hold.

    Args:
        value: the object.
        content: whether to describe code and data, besides names and settings.

    Raises:
        UnknownPartError: with ``content``, for a part that cannot be compared; it names the part. Without
            ``content``, such a part is described by its type, see :func:`unsure`.
    """
    return _Description(content).of(value)


def digest_of(description: object) -> str:
    """Return the SHA-256 of a description."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unsure(description: Description) -> list[str]:
    """Return the types of the parts of a description that cannot be compared, without repetition."""
    found: dict[str, None] = {}

    def visit(part: Description) -> None:
        if isinstance(part, Mapping):
            if set(part) == {"opaque"}:
                found[str(part["opaque"])] = None
            for inner in part.values():
                visit(inner)
        elif isinstance(part, list):
            for inner in part:
                visit(inner)

    visit(description)
    return list(found)


class _Description:
    """The construction of one description."""

    def __init__(self, content: bool) -> None:
        self.content = content
        self.parts = 0
        self.above: list[int] = []
        """Ids of the objects that contain the current one: a part that is one of them is a cycle."""

    def of(self, value: object) -> Description:
        self.parts += 1
        if self.parts > LARGEST:
            raise UnknownPartError(f"an object with more than {LARGEST} parts cannot be compared")
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
            return value
        if isinstance(value, float | complex):
            return {"number": repr(value)} if isinstance(value, complex) or value != value else value
        if isinstance(value, bytes):
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if id(value) in self.above:
            return {"cycle": len(self.above) - self.above.index(id(value))}
        self.above.append(id(value))
        try:
            return self._compound(value)
        finally:
            self.above.pop()

    def _compound(self, value: object) -> Description:
        import jax

        if isinstance(value, np.ndarray | jax.Array):
            return self._array(value)
        if isinstance(value, Enum):
            return {"enum": _name(type(value)), "value": value.name}
        if isinstance(value, os.PathLike):
            return {"path": os.fspath(value)}
        if isinstance(value, np.dtype | types.GenericAlias | types.UnionType | jax.tree_util.PyTreeDef):
            return {"type": str(value)}
        if isinstance(value, weakref.ref):
            return {"reference": self.of(value())}
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | np.ufunc):
            return self._builtin(value)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return {"method": self.of(value.__func__), "of": self.of(value.__self__)}
        if isinstance(value, functools.partial):
            return {"partial": [self.of(part) for part in (value.func, value.args, value.keywords)]}
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            items = self._items(value)
            further = getattr(value, "__dict__", None)
            plain = type(value) in (dict, list, tuple, set, frozenset)
            return items if plain else {"type": _name(type(value)), "items": items, "fields": self.of(further)}
        return self._object(value)

    def _items(self, value: Any) -> Description:
        if isinstance(value, Mapping):
            ordered = isinstance(value, OrderedDict)
            if all(type(key) is str for key in value) and not ordered:
                return {"table": {key: self.of(inner) for key, inner in value.items()}}
            pairs = [[self.of(key), self.of(inner)] for key, inner in value.items()]
            if not ordered:
                pairs.sort(key=functools.partial(json.dumps, sort_keys=True))
            return {"table": pairs}
        if isinstance(value, list | tuple):
            items = [self.of(inner) for inner in value]
            return items if isinstance(value, list) else {"tuple": items}
        return {"set": sorted(json.dumps(self.of(inner), sort_keys=True) for inner in value)}

    def _builtin(self, value: Any) -> Description:
        """Describe a function of C code by its name and the object that it belongs to."""
        if isinstance(value, np.ufunc):
            known = any(getattr(module, value.__name__, None) is value for module in (np, scipy.special))
            return {"name": value.__name__} if known else self._unknown(value)
        owner = getattr(value, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            return {"name": _name(value)}
        return {"name": value.__name__, "of": self.of(owner)}

    def _module(self, module: types.ModuleType) -> Description:
        """Describe a module by its name, and a user's module also by its source: any part may be called."""
        name, file = module.__name__, getattr(module, "__file__", None)
        if not self.content or file is None or _is_ours(name) or _is_in_places(file):
            return {"module": name}
        return {"module": name, "source": hashlib.sha256(Path(file).read_bytes()).hexdigest()}

    def _unknown(self, value: object) -> Description:
        kind = _name(type(value))
        if self.content:
            raise UnknownPartError(f"an object of {kind} cannot be compared with another one")
        return {"opaque": kind}

    def _array(self, value: Array) -> Description:
        import jax
        import jax.numpy as jnp

        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        about: dict[str, Description] = {"array": str(value.dtype), "shape": list(value.shape)}
        if isinstance(value, np.ndarray) and type(value) is not np.ndarray:  # for example a masked array
            about |= {"type": _name(type(value)), "fields": self.of(getattr(value, "__dict__", None))}
        if not self.content:
            return about
        if value.dtype.hasobject:
            raise UnknownPartError("an array of objects cannot be compared")
        return about | {"sha256": _hashed(value)}

    def _function(self, function: types.FunctionType) -> Description:
        table: dict[str, Description] = {"function": _name(function)}
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
        settings = {"closure": held, "defaults": function.__defaults__, "also": function.__kwdefaults__}
        table |= {name: self.of(part) for name, part in settings.items() if part}
        if self.content and not _is_installed(function):
            table["code"] = self._code(function.__code__, function.__doc__)
            known = function.__globals__
            table["globals"] = self.of({name: known[name] for name in _names(function.__code__) if name in known})
        return table

    def _code(self, code: types.CodeType, doc: str | None = None) -> Description:
        # None takes the place of a docstring, as in a function without one.
        held = [None if doc is not None and constant == doc else constant for constant in code.co_consts]
        constants = [self._code(c) if isinstance(c, types.CodeType) else _constant(c) for c in held]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        numbers = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        return [hashlib.sha256(code.co_code).hexdigest(), [list(n) for n in names], numbers, constants]

    def _class(self, cls: type) -> Description:
        table: dict[str, Description] = {"name": _name(cls)}
        own = [base for base in reversed(cls.__mro__) if not _is_installed(base)]
        if self.content and own:
            members = {name: member for base in own for name, member in vars(base).items()}
            table["members"] = self.of({name: _held(m) for name, m in members.items() if _counts(name, m)})
        return table

    def _object(self, value: object) -> Description:
        cls = type(value)
        wrapped = getattr(value, "__wrapped__", None)
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        elif hasattr(value, "tolist") and getattr(value, "ndim", None) == 1:  # a Series
            fields = {"values": builtin(value)}
        elif callable(wrapped) or not _hides_state(cls):
            slots = [name for base in cls.__mro__ for name in _slots(base) if hasattr(value, name)]
            fields = {name: getattr(value, name) for name in slots} | dict(getattr(value, "__dict__", {}))
            if callable(wrapped):  # the other state of jax.jit does not change results
                compiled = cls.__module__.partition(".")[0] == "jaxlib"
                fields = {"__wrapped__": wrapped} if compiled else fields | {"__wrapped__": wrapped}
        else:
            return self._unknown(value)
        return {"object": self._class(cls), "fields": self.of(fields)}


_HASHED: dict[int, tuple[weakref.ref[Array], str]] = {}
"""SHA-256 of JAX arrays, which are immutable, by id: a data set is part of every run of a sweep."""


def _hashed(array: Array) -> str:
    key = id(array)
    if key in _HASHED and _HASHED[key][0]() is array:
        return _HASHED[key][1]
    contiguous: Any = np.ascontiguousarray(array)
    digest = hashlib.sha256(contiguous.view(np.uint8) if contiguous.size else b"").hexdigest()
    import jax

    if isinstance(array, jax.Array):

        def forget(_: object) -> None:
            _HASHED.pop(key, None)

        _HASHED[key] = weakref.ref(array, forget), digest
    return digest


def _name(value: object) -> str:
    """Return a qualified name, or that of the type for an object without a name; it holds no address."""
    module = getattr(value, "__module__", None) or "builtins"
    return f"{module}:{getattr(value, '__qualname__', getattr(value, '__name__', type(value).__name__))}"


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(name for name in slots if not name.startswith("__"))


_PYTHONS_OWN = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)
"""Types of attributes that Python adds to classes."""


def _counts(name: str, member: object) -> bool:
    """Return whether an attribute of a class can change what its objects compute."""
    if isinstance(member, _PYTHONS_OWN) or name == "_abc_impl":
        return False
    return isinstance(member, types.FunctionType) or not (name.startswith("__") and name.endswith("__"))


def _held(member: object) -> object:
    """Return the object in an attribute of a class, without the locks of the standard library."""
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return [member.fget, member.fset]
    return member.func if isinstance(member, functools.cached_property) else member


def _hides_state(cls: type) -> bool:
    """Return whether objects of a class are larger than their attributes, because C code keeps state in them."""
    slots = sum(len(_slots(base)) for base in cls.__mro__)
    plain = cls is object or any({"__dict__", "__slots__"} & vars(base).keys() for base in cls.__mro__)
    return not plain or cls.__basicsize__ > object.__basicsize__ + 8 * (slots + 2)


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> list[str]:
    """Return the global names to which code may refer, including those of inner functions."""
    inner = [
        name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)
    ]
    return sorted({*code.co_names, *inner})


def _constant(value: object) -> Description:
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return [_constant(inner) for inner in value] if isinstance(value, tuple) else repr(value)


@functools.lru_cache(maxsize=1)
def _places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(str(Path(paths[name]).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _is_in_places(file: str) -> bool:
    """Return whether a file belongs to the standard library or to an installed package."""
    return str(Path(file).resolve()).startswith(_places())


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "stalegrad"


def _is_installed(value: object) -> bool:
    """Return whether a function or class is of the standard library, an installed package, or this package."""
    module = getattr(value, "__module__", None) or ""
    if _is_ours(module) or module == "builtins":
        return True
    code = getattr(value, "__code__", None)
    file = (
        code.co_filename
        if isinstance(code, types.CodeType)
        else getattr(sys.modules.get(module), "__file__", None)
    )
    return file is not None and _is_in_places(file)
