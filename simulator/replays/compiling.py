"""The cache of compiled code on disk, which saves the next process the compilation."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PLACE, LEAST = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

MOST_BYTES = 1 << 30
"""Largest number of bytes of compiled code in the cache; the least recently used files are deleted first."""


def compiled_cache() -> Path:
    """Return the default directory of compiled code: ``compiled`` in the user's cache directory."""
    import pooch

    return Path(pooch.os_cache("stalegrad")) / "compiled"


def keep_compiled() -> None:
    """Let JAX keep compiled code in the user's cache directory, unless ``JAX_COMPILATION_CACHE_DIR`` is set.

    Processes that this process starts do the same. With an empty ``JAX_COMPILATION_CACHE_DIR`` nothing is kept. At
    most ``MOST_BYTES`` are kept from one process to the next; a directory set by the user is not trimmed.
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
    """Delete files of a directory, the least recently used first, until they take at most ``most`` bytes."""
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
