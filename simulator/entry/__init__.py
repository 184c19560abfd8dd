"""The entry of the command ``stalegrad``; it imports nothing heavy at its top, where an interrupt is a traceback."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line. An interrupt ends it with one sentence and exit code 130, a second one at once."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        from stalegrad.simulator.cli import main as command

        command()
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _interrupted(number: int, frame: Any) -> None:
    signal.signal(signal.SIGINT, _ended)
    raise KeyboardInterrupt


def _ended(number: int, frame: Any) -> None:
    # What is on disk is whole at every moment, so nothing need be tidied up.
    os.write(2, b"\ninterrupted twice: ended at once; what is finished is kept\n")
    os._exit(130)
