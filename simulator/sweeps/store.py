"""A directory of finished runs, each under the hash of what it depends on. It can be killed at any moment.

A run appears by renaming a complete directory, so what is there is whole; nothing else is written into it, so
two stores of the same runs are equal byte for byte. Several processes may work on one store: a run is made under
a file lock, which the operating system gives back when its process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stalegrad.simulator.sweeps.experiment import Experiment
from stalegrad.simulator.sweeps.result import Result

FORMAT = "stalegrad-store-1"
SEMANTICS = 1
"""Raised whenever the same experiment begins to give other numbers: its runs then have other keys."""


def key_of(experiment: Experiment) -> str:
    """Return the key of a run: a hash of its canonical spec and of the version of the simulation's semantics.

    Raises:
        ValueError: if a part of the experiment exists in this process only.
    """
    return hashlib.sha256(f"{SEMANTICS}\n{experiment.to_toml()}".encode()).hexdigest()[:20]


class Store:
    """The runs in a directory, which is made if it is not there.

    Args:
        directory: where; ``runs/<key>`` holds a finished run, ``failed/<key>`` the spec and the traceback of one
            that raised, ``locks/`` nothing of value.

    Raises:
        ValueError: if the directory holds something else, or runs of other semantics.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.runs, self.failed, self.locks = (self.directory / name for name in ("runs", "failed", "locks"))
        about = self.directory / "store.json"
        if not about.exists():
            if self.directory.exists() and any(self.directory.iterdir()):
                raise ValueError(f"{self.directory} is not empty and not a store: choose another place")
            for folder in (self.runs, self.failed, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
            fresh = about.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps({"format": FORMAT, "semantics": SEMANTICS}) + "\n", encoding="utf-8")
            fresh.replace(about)
        found = json.loads(about.read_text(encoding="utf-8"))
        if found != {"format": FORMAT, "semantics": SEMANTICS}:
            raise ValueError(
                f"{self.directory} is a store of {found}; this version makes {FORMAT} with semantics {SEMANTICS}"
            )

    def __contains__(self, key: str) -> bool:
        return (self.runs / key).is_dir()

    def __iter__(self) -> Iterator[str]:
        """Go over the keys of the finished runs, in alphabetical order."""
        return iter(sorted(run.name for run in self.runs.iterdir() if not run.name.startswith(".")))

    def load(self, key: str) -> Result | None:
        """Return a finished run; one that cannot be read is named in a warning, and None is returned."""
        try:
            return Result.load(self.runs / key)
        except (ValueError, FileNotFoundError) as error:
            warnings.warn(f"run {key} is left out: {error}", stacklevel=2)
            return None

    def save(self, key: str, result: Result) -> None:
        """Put a finished run into its place, in that of one that cannot be read; hold it with :meth:`claim`."""
        if key in self:
            shutil.rmtree(self.runs / key)
        result.save(self.runs / key)
        self.forget_failure(key)

    def fail(self, key: str, experiment: Experiment, traceback: str) -> None:
        """Write down that a run raised, and how to repeat it alone."""
        folder = self.failed / key
        folder.mkdir(exist_ok=True)
        (folder / "spec.toml").write_text(experiment.to_toml(), encoding="utf-8")
        (folder / "traceback.txt").write_text(traceback, encoding="utf-8")

    def failure(self, key: str) -> str | None:
        """Return the traceback of a run that raised, or None."""
        file = self.failed / key / "traceback.txt"
        return file.read_text(encoding="utf-8") if file.exists() else None

    def forget_failure(self, key: str) -> None:
        """Forget that a run once raised."""
        for name in ("traceback.txt", "spec.toml"):
            (self.failed / key / name).unlink(missing_ok=True)
        if (self.failed / key).is_dir():
            (self.failed / key).rmdir()

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold a run while it is made; wait while another process holds it. What a killed one left is removed."""
        with (self.locks / key).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for unfinished in self.runs.glob(f".{key}-*"):
                shutil.rmtree(unfinished)
            yield
