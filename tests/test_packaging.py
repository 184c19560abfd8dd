"""The sdist and the wheel: what is in them, and that they work in an empty environment."""

import os
import re
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("root", "simulator", "models", "policies", "analysis")
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

slow = pytest.mark.slow


def call(*command, cwd):
    """Run a command that must end well, away from the checkout."""
    command = [str(part) for part in command]
    ended = subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and a wheel built from it; made from a copy, so that the checkout stays as it is."""
    place = tmp_path_factory.mktemp("dist")
    files = (*FOLDERS, "pyproject.toml", "MANIFEST.in", "CITATION.cff", "*.md", "LICENSE")
    listed = call("git", "ls-files", "-co", "--exclude-standard", "-z", "--", *files, cwd=ROOT)
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file():
            (place / "source" / file).parent.mkdir(parents=True, exist_ok=True)
            (place / "source" / file).write_bytes((ROOT / file).read_bytes())
    call(sys.executable, "-m", "build", "--outdir", place, place / "source", cwd=place)
    (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
    return sdist, wheel


@pytest.fixture(scope="module")
def wheel(built):
    return built[1]


def test_the_version_stands_in_pyproject_and_nowhere_else():
    version = PROJECT["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()
    for page in (ROOT / "docs").glob("*.md"):  # names of wheels and images
        named = re.findall(r"stalegrad[-:](\d+\.\d+\.\d+)", page.read_text(encoding="utf-8"))
        assert set(named) <= {version}, page.name


def test_the_extra_all_holds_every_extra_of_users():
    extras = PROJECT["optional-dependencies"]
    (inner,) = re.fullmatch(r"stalegrad\[(.*)\]", extras["all"][0]).groups()
    assert set(inner.split(",")) == set(extras) - {"all", "cuda12", "cuda13", "dev", "docs"}


@slow
def test_indexes_accept_the_sdist_and_the_wheel(built):
    said = call(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=built[0].parent)
    assert said.count("PASSED") == 2
    with tarfile.open(built[0]) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"} <= names


@slow
def test_the_wheel_claims_one_name_and_holds_every_file_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"stalegrad"}
    for folder in FOLDERS:
        files = (ROOT / folder).rglob("*")
        wanted = [f for f in files if f.is_file() and "__pycache__" not in f.parts]
        paths = {
            str(file.relative_to(ROOT)).replace("simulator/testing/", "testing/").removeprefix("root/")
            for file in wanted
        }
        assert {f"stalegrad/{path}" for path in paths} - names == set()
    assert any(name.endswith("entry_points.txt") for name in names)
    assert sum(name.endswith("/LICENSE") and ".dist-info/" in name for name in names) >= 2


@slow
def test_the_wheel_runs_the_demo_in_an_environment_of_its_own(wheel, tmp_path):
    call(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    call(scripts / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=tmp_path)
    said = call(scripts / "stalegrad", "demo", "--seeds", "1", "-o", "demo", cwd=tmp_path)
    pictures = sorted((tmp_path / "demo").glob("*.png"))
    assert len(pictures) >= 5
    for picture in pictures:
        assert picture.name in said
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", content[16:24])) > 250
    assert (tmp_path / "demo" / "table.csv").read_text().startswith("method,")


@slow
def test_the_pytest_plugin_works_where_nothing_else_is(wheel, tmp_path):
    call(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    call(
        scripts / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        wheel,
        "pytest",
        cwd=tmp_path,
    )
    repository = tmp_path / "repository"
    repository.mkdir()
    call(scripts / "stalegrad", "init", "spec.toml", cwd=repository)
    spec = repository / "spec.toml"
    spec.write_text(spec.read_text().replace("wallclock = 6000.0", "wallclock = 60.0"))
    (repository / "test_convergence.py").write_text(
        "def test_it(convergence):\n    convergence.check('spec.toml')\n", encoding="utf-8"
    )
    assert "recorded" in call(scripts / "pytest", "--convergence-record", cwd=repository)
    assert (repository / "convergence" / "test_convergence" / "test_it.json").exists()
    assert "1 passed" in call(scripts / "pytest", "--convergence-strict", cwd=repository)
