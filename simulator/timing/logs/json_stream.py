"""JSON files of profilers, read one event at a time, so that files of gigabytes need little memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stalegrad._core.specs import shown
from stalegrad.simulator.timing.logs.sources import blocks

LARGEST = 2**34
"""Largest number of bytes of a file of events, uncompressed."""

LARGEST_VALUE = 2**24
"""Largest number of characters of one event, or of another value in the file."""

KEY = "traceEvents"

ALLOWED = 'trace events in JSON: {"traceEvents": [...]} or a list of events'

_BLANKS = re.compile(r"[ \t\r\n]*")


class EventFile:
    """A file of trace events.

    Args:
        file: path of the file; it may be compressed with gzip.

    Attributes:
        about: values of the file besides the events, by name, as far as the file has been read.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.about = file, dict[str, object]()
        self._blocks = self._texts()
        self._text, self._at, self._more, self._count = "", 0, True, 0
        self._decode = json.JSONDecoder(parse_float=str).raw_decode  # texts keep all digits of a time

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events, and read the file to its end.

        Raises:
            ValueError: for an event that is not allowed, or a file that is damaged or too large; it names it.
            FileNotFoundError: if there is no such file.
        """
        if self._next() == "[":
            yield from self._list(closed=False)
            return
        if self._next() != "{":
            raise self._error(f"it begins with {shown(self._next())}")
        self._at += 1
        found = False
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str) or self._next() != ":":
                raise self._error(f"after {shown(key)} a colon is expected")
            self._at += 1
            if key == KEY and self._next() == "[":
                found = True
                yield from self._list(closed=True)
            else:
                self.about[key] = self._value()
            if self._next() == ",":
                self._at += 1
        if not found:
            raise self._error(f"it has no list {KEY}")

    def _list(self, closed: bool) -> Iterator[dict[str, Any]]:
        """Yield the events of a list; the format allows a list that is the whole file to lack its end."""
        self._at += 1
        while (mark := self._next()) != "]":
            if mark == "" and not closed:
                return
            event = self._value()
            if not isinstance(event, dict):
                raise ValueError(f"{self.file}, event {self._count}: {shown(event)} is no event: give {ALLOWED}")
            yield event
            self._count += 1
            if self._next() == ",":
                self._at += 1
            elif self._next() not in ("]", ""):
                raise self._error(f"after event {self._count - 1} a comma is expected")
        self._at += 1

    def _next(self) -> str:
        """Return the next character that is not blank, without consuming it; empty at the end of the file."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _value(self) -> object:
        """Return the next value; more of the file is read until it is complete."""
        self._next()
        wanted = 2**16
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end < len(self._text) or not self._more:
                    self._at = end
                    return value
            except RecursionError:
                raise self._error("it is nested too deeply") from None
            except ValueError as error:
                if not self._more or len(self._text) - self._at > LARGEST_VALUE:
                    what = str(error).split(":")[0] if self._text else "the file is empty"
                    raise self._error(what) from None
            wanted *= 2
            while len(self._text) - self._at < wanted and self._read():
                pass

    def _read(self) -> bool:
        """Read the next block; return whether there was one."""
        block = next(self._blocks, None)
        self._more = block is not None
        self._text, self._at = self._text[self._at :] + (block or ""), 0
        return self._more

    def _texts(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        try:
            for block in blocks(self.file, LARGEST, "a file of trace events"):
                yield decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise self._error("it is no text in UTF-8") from None

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{self.file}, after event {self._count - 1}: {what}; give {ALLOWED}" if self._count else
                          f"{self.file}: {what}; give {ALLOWED}")  # fmt: skip
