"""What the tests of sweeps share: a small experiment, sweeping it, comparing directories."""

import filecmp
import sys

import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, sweep

BASE = Experiment(
    Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    Cluster(4, compute=Exponential()),
    methods.async_(learning_rate=0.01),
    updates=40,
    record=Record(updates=20),
)


@pytest.fixture(scope="session")
def base():
    return BASE


@pytest.fixture(scope="session")
def silent():
    """Sweep the base, or another experiment, without a progress bar."""
    return lambda base=BASE, **options: sweep(base, progress=False, **options)


@pytest.fixture(scope="session")
def same():
    """Whether two directories hold the same files with the same bytes."""

    def compare(a, b):
        found = filecmp.dircmp(a, b)
        if found.left_only or found.right_only or filecmp.cmpfiles(a, b, found.common_files, shallow=False)[1]:
            return False
        return all(compare(a / name, b / name) for name in found.common_dirs)

    return compare


SCRIPT = """
import sys
from stalegrad.simulator import from_toml, processes, sweep

def main():
    text, store, jobs, seeds = sys.argv[1:]
    axes = {"method": ["async", "sync"], "seed": range(int(seeds))}
    if int(jobs) == 1:
        sweep(from_toml(text), store=store, progress=False, **axes)
    else:
        with processes(int(jobs)) as pool:
            sweep(from_toml(text), store=store, executor=pool, progress=False, **axes)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def command(tmp_path):
    """The command line of a process that sweeps two methods and so many seeds into a store."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def line(store, *, jobs=1, seeds=20, base=BASE):
        return [sys.executable, str(script), base.to_toml(), str(store), str(jobs), str(seeds)]

    return line
