"""Compiled code is kept on disk, so that the next process need not compile it again."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pooch

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep_compiled() -> None:
    """Let JAX keep compiled code in the user's cache directory, unless they have chosen a place themselves.

    An empty ``JAX_COMPILATION_CACHE_DIR`` keeps nothing.
    """
    if VARIABLE in os.environ:
        return
    place = Path(pooch.os_cache("stalegrad")) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
