"""Checkpoints: a run continues after any interruption where it was, and gives the same bytes."""

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
    """The content of a checkpoint: values that JSON can hold, and arrays in order."""

    about: Table
    arrays: list[np.ndarray]


class Checkpoint:
    """A file with the newest state of a run; it is replaced completely or not at all.

    Args:
        file: path of the file.
        identity: identity of the run (spec, versions, machine type); a file of another run is an error.
        every: real seconds between two states.
    """

    def __init__(self, file: str | os.PathLike[str], identity: Mapping[str, object], every: float = 60.0) -> None:
        self.file, self.identity, self.every = Path(file), dict(identity), every
        self.stopping = False
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether to save now: ``every`` seconds after the last state, or when the user stops the run."""
        return self.stopping or time.monotonic() - self.last >= self.every

    def save(self, about: Table, arrays: Sequence[np.ndarray]) -> None:
        """Write a state; raise KeyboardInterrupt if the user has stopped the run."""
        payload = io.BytesIO()
        text = json.dumps({"identity": self.identity, **about}, default=lambda number: number.item())
        numbered: Table = {f"{i}": a for i, a in enumerate(arrays)}
        np.savez(payload, about=np.frombuffer(text.encode(), np.uint8), **numbered)
        content = payload.getvalue()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        put(self.file, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        self.last = time.monotonic()
        if self.stopping:
            raise KeyboardInterrupt(f"stopped; the state is in {self.file}: the same call continues from there")

    def load(self) -> Saved | None:
        """Return the state in the file; None if there is no file.

        Raises:
            ValueError: if the file is damaged or of another run; it names the difference.
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
        """Let Ctrl-C stop the run after its state is saved, within the context; a second one stops it at once."""
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
