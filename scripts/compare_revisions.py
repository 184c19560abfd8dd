"""Compare the traces, histories and final parameters that two revisions compute for their golden specs.

    python scripts/compare_revisions.py A B            (git revisions; "." is the working tree)

Each revision is checked out into a temporary git worktree and runs its own tests/golden/digests.py with its own
code and specs, in the current Python environment. The exit status is 1 if anything differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"trace": "trace", "history": "history", "per_gradient": "per gradient", "params": "params"}

RUN = """
import importlib, pkgutil, runpy, sys
from pathlib import Path
tree, folder, *sys.argv = sys.argv[1:]
import stalegrad
stalegrad.__path__ = [folder]  # without what is installed, which a namespace package would add
packages = [importlib.import_module(f"stalegrad.{p.name}") for p in pkgutil.iter_modules(stalegrad.__path__)]
if not packages:
    sys.exit(f"no package of {tree} can be imported")
def check():
    for name, module in list(sys.modules.items()):
        if name.startswith("stalegrad.") and getattr(module, "__file__", None):
            if not Path(module.__file__).resolve().is_relative_to(tree):
                sys.exit(f"{name} comes from {module.__file__}, not from {tree}")
check()
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
check()
"""
"""Program that computes the digests, and checks before and after that every module is that of the revision."""


def git(*arguments):
    """Return the output of a git command."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def checked_out(revision, folder):
    """Yield the tree of a revision: the working tree, or a git worktree that is removed afterwards."""
    if revision == ".":
        yield ROOT
        return
    git("worktree", "add", "--detach", str(folder), git("rev-parse", "--verify", f"{revision}^{{commit}}"))
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def link_packages(tree, folder):
    """Link the packages of a tree below a folder, so that Python finds them under their import names."""
    setuptools = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    places = {name: tree / place for name, place in setuptools["package-dir"].items()}
    for name, place in sorted(places.items()):  # a package before its subpackages
        inside = folder.joinpath(*name.split("."))
        if not place.is_dir():
            sys.exit(f"{tree} has no folder for {name}: {place}")
        inside.mkdir(parents=True, exist_ok=True)
        for entry in place.iterdir():
            target = inside / entry.name
            named = any(other.resolve() == entry.resolve() for other in places.values())
            if not (named or entry.name == "__pycache__" or target.exists()):
                target.symlink_to(entry.resolve())


def digests_of(revision, scratch, only):
    """Return the digests that a revision computes, for some specs or for all."""
    with checked_out(revision, scratch / "tree") as tree:
        program = tree / "tests" / "golden" / "digests.py"
        if not program.exists():
            sys.exit(f"{revision} has no tests/golden/digests.py")
        packages, out = scratch / "packages", scratch / "digests.json"
        link_packages(tree, packages)
        environment = os.environ | {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
        where = [str(tree.resolve()), str(packages / "stalegrad")]
        command = [sys.executable, "-c", RUN, *where, str(program), "--out", str(out)]
        command += ["--only", *only] if only else []
        done = subprocess.run(command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(f"the digests of {revision} failed with exit status {done.returncode}")
        return json.loads(out.read_text(encoding="utf-8"))


def parts(recording):
    """Return the digests of every spec of a recording, by part."""
    (machine,) = recording["bytes"].values()
    found = {name: {"trace": digest} for name, digest in recording["traces"].items()}
    for name, digests in machine["digests"].items():
        found[name] = found.get(name, {}) | digests
    return found


def differing(one, other):
    """Return the parts that differ, by spec: ``{name: [part, ...]}``."""
    found = {}
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            found[name] = ["only in the first" if name in one else "only in the second"]
            continue
        keys = one[name].keys() | other[name].keys()
        wrong = sorted(key for key in keys if one[name].get(key) != other[name].get(key))
        if wrong:
            found[name] = [PARTS.get(key, key) for key in wrong]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--only", nargs="+", metavar="SPEC", help="names of specs; by default all")
    options = parser.parse_args()
    recordings = []
    for revision in (options.first, options.second):
        with tempfile.TemporaryDirectory() as folder:
            recordings.append(parts(digests_of(revision, Path(folder), options.only)))
        print(f"{revision}: {len(recordings[-1])} specs", flush=True)
    found = differing(*recordings)
    for name, wrong in found.items():
        print(f"{name}: {', '.join(wrong)}")
    print(f"{len(found)} specs differ" if found else "no spec differs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
