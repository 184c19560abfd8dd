"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def put(file: Path, content: bytes) -> None:
    """Write a file, in place of one that may be there; it has reached the disk before it appears.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    handle, fresh = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with open(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(handle)
        os.chmod(fresh, 0o644)
        os.replace(fresh, file)
    except BaseException:
        os.unlink(fresh)
        raise
