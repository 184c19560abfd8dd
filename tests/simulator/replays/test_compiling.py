"""Compiled code is kept in the user's cache directory, and no more of it than is allowed."""

import os
import subprocess
import sys

import pytest

from stalegrad.simulator.replays.compiling import PLACE, trim

RUN = """
import jax
from stalegrad.simulator.replays.compiling import compiled_cache, keep_compiled
keep_compiled()
keep_compiled()
print(compiled_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((5, 5)))
"""

SWEEP = """
from stalegrad.simulator.sweeps.executors import processes
import os
def cache(_):
    import jax
    return jax.config.jax_compilation_cache_dir
if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(cache, 0).result())
    print(os.environ.get("JAX_COMPILATION_CACHE_DIR"))
"""


def carried_out(code, tmp_path, **settings):
    environment = (
        {k: v for k, v in os.environ.items() if k != PLACE} | {"XDG_CACHE_HOME": str(tmp_path)} | settings
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME")
def test_compiled_code_is_kept_in_the_cache_directory(tmp_path):
    (place,) = carried_out(RUN, tmp_path)
    assert place == str(tmp_path / "stalegrad" / "compiled")
    assert any("cache" in file.name for file in (tmp_path / "stalegrad" / "compiled").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME")
def test_processes_of_sweeps_keep_it_and_their_parent_does_not(tmp_path):
    assert carried_out(SWEEP, tmp_path) == [str(tmp_path / "stalegrad" / "compiled"), "None"]


def test_what_has_not_been_used_for_longest_goes_first(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))
    trim(tmp_path, 400)
    assert {file.name for file in tmp_path.iterdir()} == set("abcd")
    trim(tmp_path, 250)
    assert {file.name for file in tmp_path.iterdir()} == set("ab")
    trim(tmp_path / "nowhere", 0)
