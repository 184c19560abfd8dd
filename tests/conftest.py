"""What holds for all tests: compiled code is shared by their processes and kept; hypothesis repeats itself."""

import gc
import os
from pathlib import Path

from hypothesis import settings

KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(KEPT))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish():
    """Look for garbage less often, and not among tests and modules, which stay: tracing makes many objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
