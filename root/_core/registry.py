"""The registry: entries of one kind by name, for specs, sweeps and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from stalegrad._core.functions import resolve
from stalegrad._core.specs import kebab, settings_of, unknown_name
from stalegrad._core.types import Table

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to entries of one kind: classes of specs, functions, or descriptions.

    Args:
        kind: the kind of the entries, for error messages, e.g. ``delay``.
        entries: the package's own entries by name. Classes may be listed without names; the name is then the
            class name in kebab case (``KBatchAsync``: ``k-batch-async``). A text ``module:name`` stands for an
            entry that is imported when it is first used.
        key: the key that holds the name in a table, e.g. ``delay`` in ``{ delay = "gamma", mean = 1.0 }``.
        aliases: further names, by alias.

    Example:
        >>> from stalegrad._core.specs import spec
        >>> @spec
        ... class Fixed:
        ...     seconds: float = 1.0
        >>> DELAYS = Registry("delay", [Fixed], key="delay")
        >>> DELAYS.from_table({"delay": "fixed", "seconds": 2.0})
        Fixed(seconds=2.0)
        >>> DELAYS.to_table(Fixed(2.0))
        {'delay': 'fixed', 'seconds': 2.0}
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, T | str] | Iterable[T],
        *,
        key: str = "name",
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        named = entries if isinstance(entries, Mapping) else {kebab(entry.__name__): entry for entry in entries}  # type: ignore[attr-defined]
        self.kind, self.key, self.aliases = kind, key, dict(aliases or {})
        self._own: dict[str, T | str] = dict(named)
        self._entries: dict[str, T | str] = dict(named)

    def register(self, name: str, entry: T) -> T:
        """Add an entry under a name that specs and sweeps understand, in this process, and return it.

        Registering a name again replaces its entry.

        Raises:
            ValueError: if the name is not a text, or the package itself has an entry of this name.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"name of the {self.kind} = {name!r} is not allowed: give a text")
        if name in self._own or name in self.aliases:
            raise ValueError(
                f"name of the {self.kind} = {name!r} is not allowed: the package has one of that name"
            )
        self._entries[name] = entry
        return entry

    def find(self, name: object) -> T:
        """Return the entry of a name or alias.

        Raises:
            ValueError: if there is none; the error suggests a name and lists the allowed ones.
        """
        found = self.aliases.get(name, name) if isinstance(name, str) else name
        if not isinstance(found, str) or found not in self._entries:
            raise ValueError(unknown_name(self.kind, name, self._entries))
        return self[found]

    def has(self, entry: object) -> bool:
        """Return whether an entry is registered."""
        return any(_same(entry, known) for known in self._entries.values())

    def built_in(self, entry: object) -> bool:
        """Return whether an entry is the package's own, rather than registered by a user."""
        return any(_same(entry, own) for own in self._own.values())

    def name_of(self, entry: object) -> str:
        """Return the name of a registered entry.

        Raises:
            ValueError: if it is not registered.
        """
        for name, known in self._entries.items():
            if _same(entry, known):
                return name
        raise ValueError(f"{self.kind} {entry!r} exists in this process only and cannot be written to a spec")

    def from_table(self, table: Mapping[str, object]) -> Any:
        """Return the spec that a table describes; ``key`` names its class, the other keys are its fields.

        Args:
            table: ``{key: name, field: value, ...}``, e.g. a table of TOML.

        Raises:
            ValueError: for an unknown name or key, a missing key or a wrong value; the error names it and what is
                allowed.
        """
        arguments = dict(table)
        if self.key not in arguments:
            has = ", ".join(map(str, arguments)) or "nothing"
            raise ValueError(
                f"a {self.kind} needs {self.key} = NAME, but the table has {has}: allowed are "
                f"{', '.join(sorted(self))}"
            )
        name = arguments.pop(self.key)
        cls: Any = self.find(name)
        known = [field for field in dataclasses.fields(cls) if field.init]
        for key in arguments:
            if key not in [field.name for field in known]:
                raise ValueError(
                    unknown_name(f"key of {self.kind} {name!r}:", key, [field.name for field in known])
                )
        missing = [f.name for f in known if f.default is dataclasses.MISSING and f.name not in arguments]
        if missing:
            raise ValueError(f"{self.kind} {name!r} needs {', '.join(missing)}")
        return cls(**arguments)

    def to_table(self, spec: object) -> Table:
        """Return a spec as the table that :meth:`from_table` reads back; fields with their defaults are left out.

        Raises:
            ValueError: if its class is not registered, or a field exists in this process only.
        """
        try:
            name = self.name_of(type(spec))
        except ValueError:
            raise ValueError(
                f"{self.kind} {spec!r} exists in this process only and cannot be written to a spec: "
                "its class is not registered"
            ) from None
        return {self.key: name, **settings_of(spec)}

    def __getitem__(self, name: str) -> T:
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = resolve(entry)
        return entry  # type: ignore[return-value]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self._entries)})"


def _same(entry: object, known: object) -> bool:
    if isinstance(known, str):
        return known == f"{getattr(entry, '__module__', None)}:{getattr(entry, '__qualname__', None)}"
    return entry is known
