"""Compiled code is kept on disk, so that the next process need not compile it again."""

from __future__ import annotations

import os
from pathlib import Path

PLACE, LEAST = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def keep_compiled() -> None:
    """Let JAX keep compiled code in the user's cache directory, unless they have chosen a place themselves.

    Processes that this one starts do the same. An empty ``JAX_COMPILATION_CACHE_DIR`` keeps nothing.
    """
    if PLACE in os.environ:
        return
    import jax
    import pooch

    place = str(Path(pooch.os_cache("stalegrad")) / "compiled")
    os.environ[PLACE], os.environ[LEAST] = place, "0.1"
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
