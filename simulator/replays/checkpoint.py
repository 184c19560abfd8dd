"""Checkpoints: a long run, interrupted by whatever it may be, goes on where it was and gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np

from stalegrad._core.files import check_regular, put
from stalegrad._core.types import Table

MAGIC = b"stalegrad-checkpoint-1\n"


class Saved(NamedTuple):
    """What a checkpoint holds: numbers and texts as JSON takes them, and arrays in order."""

    about: Table
    arrays: list[np.ndarray]


class Checkpoint:
    """A file that holds the newest state of a run; it is replaced as a whole or not at all.

    Args:
        file: where.
        identity: what the run is (spec, versions, machine type): a file that was made by another one is refused.
        every: real seconds between two states, 60 by default.
    """

    def __init__(self, file: str | os.PathLike[str], identity: Mapping[str, object], every: float = 60.0) -> None:
        self.file, self.identity, self.every = Path(file), dict(identity), every
        self.stopping = False
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save: long enough since the last state, or the user wants to stop."""
        return self.stopping or time.monotonic() - self.last >= self.every

    def save(self, about: Table, arrays: Sequence[np.ndarray]) -> None:
        """Write a state down; stop (KeyboardInterrupt) if the user has asked for that."""
        payload = io.BytesIO()
        text = json.dumps({"identity": self.identity, **about}, default=lambda number: number.item())
        numbered: Table = {f"{i}": a for i, a in enumerate(arrays)}
        np.savez(payload, about=np.frombuffer(text.encode(), np.uint8), **numbered)
        content = payload.getvalue()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        put(self.file, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        self.last = time.monotonic()
        if self.stopping:
            raise KeyboardInterrupt(f"stopped; the state is in {self.file}: the same call goes on from there")

    def load(self) -> Saved | None:
        """Return the state that the file holds; None if there is no file.

        Raises:
            ValueError: if it is damaged, or of another run, naming what differs.
        """
        if not self.file.exists():
            return None
        check_regular(self.file, "a checkpoint")
        content = self.file.read_bytes()
        if not content.startswith(MAGIC):
            raise ValueError(f"{self.file} is not a checkpoint of this version ({MAGIC.decode().strip()})")
        expected, _, payload = content[len(MAGIC) :].partition(b"\n")
        found = hashlib.sha256(payload).hexdigest()
        if found.encode() != expected:
            raise ValueError(
                f"{self.file} is damaged: SHA-256 {found}, expected {expected.decode(errors='replace')}; "
                "remove it to start again"
            )
        with zipfile.ZipFile(io.BytesIO(payload)), np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            arrays = [stored[f"{i}"] for i in range(len(stored.files) - 1)]
        theirs = about.pop("identity")
        for name in sorted({*theirs, *self.identity}):
            if theirs.get(name) != self.identity.get(name):
                raise ValueError(
                    f"{self.file} is the checkpoint of another run: its {name} differs"
                    f"{_difference(theirs.get(name), self.identity.get(name))}; remove it, or choose another file"
                )
        return Saved(about, arrays)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Meanwhile Ctrl-C lets the run save its state and stop; a second one stops it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _difference(theirs: object, ours: object) -> str:
    short = all(len(str(value)) < 100 for value in (theirs, ours))
    return f" ({theirs} there, {ours} here)" if short else ""
