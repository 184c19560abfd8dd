"""Entry point of the command ``stalegrad``; it imports nothing heavy at the top, so that interrupts are caught."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def main() -> None:
    """Run the command line. An interrupt ends it with one sentence and exit code 130; a second one, at once."""
    # An exception during imports would reach C code that cannot handle it.
    signal.signal(signal.SIGINT, _ended("interrupted"))
    from stalegrad.simulator.cli import main as command

    signal.signal(signal.SIGINT, _interrupted)
    command()


def _interrupted(number: int, frame: FrameType | None) -> None:
    if _in_import(frame):
        _ended("interrupted")(number, frame)
    signal.signal(signal.SIGINT, _ended("interrupted twice: ended at once; what is finished is kept"))
    raise KeyboardInterrupt


def _in_import(frame: FrameType | None) -> bool:
    """Return whether a module is being imported: commands import what they need when they start."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _ended(sentence: str) -> Callable[[int, FrameType | None], None]:
    """Return a handler that ends the process at once; files on disk are complete at every moment."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{sentence}\n".encode())
        os._exit(130)

    return end


if __name__ == "__main__":
    main()
