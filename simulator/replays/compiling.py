"""Compiled code is kept on disk, so that the next process need not compile it again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PLACE, LEAST = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

MOST_BYTES = 1 << 30
"""Of compiled code that is kept; what has not been used for longest goes first."""


def compiled_cache() -> Path:
    """Return where compiled code is kept unless users choose a place: ``compiled`` in their cache directory."""
    import pooch

    return Path(pooch.os_cache("stalegrad")) / "compiled"


def keep_compiled() -> None:
    """Let JAX keep compiled code in the user's cache directory, unless they have chosen a place themselves.

    Processes that this one starts do the same. An empty ``JAX_COMPILATION_CACHE_DIR`` keeps nothing. At most
    ``MOST_BYTES`` are kept from one process to the next; a directory that the user has chosen is left alone.
    """
    if PLACE in os.environ:
        return
    import jax

    place = compiled_cache()
    trim(place, MOST_BYTES)
    os.environ[PLACE], os.environ[LEAST] = str(place), "0.1"
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def trim(place: Path, most: int) -> None:
    """Delete files of a directory, the least recently used ones first, until they take ``most`` bytes."""
    used = list[tuple[float, int, Path]]()
    with suppress(OSError):
        for entry in os.scandir(place):
            with suppress(OSError):  # another process deletes as well
                stat = entry.stat()
                used.append((max(stat.st_atime, stat.st_mtime), stat.st_size, Path(entry.path)))
    excess = sum(size for _, size, _ in used) - most
    for _, size, file in sorted(used):
        if excess <= 0:
            break
        with suppress(OSError):
            file.unlink()
            excess -= size
