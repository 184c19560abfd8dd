"""The example of docs/checks.md: its files make a repository; its commands and its workflow run there."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sysconfig.get_path("scripts")
TEXT = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").partition("## In GitHub Actions")[2]
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", TEXT, re.M | re.S))
COMMANDS = re.search(r"^```sh\n(.*?)^```", TEXT, re.M | re.S)[1]


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load(FILES[".github/workflows/convergence.yml"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory, workflow):
    """The example with its baselines recorded, and a way to run a command there as the workflow does."""
    place = tmp_path_factory.mktemp("repository")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")

    def shell(command, scripts=SCRIPTS, **variables):
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **workflow["env"], "PATH": path, **variables}
        return subprocess.run(
            ["bash", "-e", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False
        )

    recorded = shell(COMMANDS)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert (place / "baseline.json").exists()
    return place, shell


def steps(workflow):
    return [step["run"] for step in workflow["jobs"]["convergence"]["steps"] if "run" in step]


def test_every_step_of_the_workflow_but_the_installation_passes(workflow, repository):
    place, shell = repository
    install, *checks = steps(workflow)
    assert install.startswith("python -m pip install")
    assert len(checks) == 2
    for step in checks:
        ended = shell(step)
        assert ended.returncode == 0, f"{step}\n{ended.stdout}\n{ended.stderr}"
    assert (place / "convergence.xml").exists()
    assert (place / "tests.xml").exists()


@pytest.mark.slow
def test_the_workflow_fails_when_the_optimizer_becomes_worse_and_refuses_another_setting(workflow, repository):
    place, shell = repository
    _, check, tests = steps(workflow)
    source, spec = place / "ours" / "optimizers.py", place / "spec.toml"
    try:
        source.write_text(FILES["ours/optimizers.py"].replace("sgd(learning_rate", "sgd(0.1 * learning_rate"))
        for step in (check, tests):
            ended = shell(step)
            assert ended.returncode == 1, f"{step}\n{ended.stdout}\n{ended.stderr}"
            assert "worse" in ended.stdout
    finally:
        source.write_text(FILES["ours/optimizers.py"])
    try:
        spec.write_text(FILES["spec.toml"].replace("norm = 0.5", "norm = 0.6"))
        ended = shell(check)
        assert ended.returncode == 2
        assert "optimizer.norm: 0.5 -> 0.6" in " ".join(ended.stderr.split())
    finally:
        spec.write_text(FILES["spec.toml"])


@pytest.mark.slow
def test_every_step_of_the_workflow_passes_in_an_environment_of_its_own(workflow, repository, tmp_path):
    """Of stalegrad nothing but the wheel is there; what it depends on is found where these tests have it."""
    place, shell = repository
    name = Path(workflow["env"]["STALEGRAD"])
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place / name.parent, ROOT], check=False
    )
    assert built.returncode == 0
    assert (place / name).exists()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "those_of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for step in steps(workflow):
        ended = shell(step, tmp_path / "env" / "bin", VIRTUAL_ENV="")
        assert ended.returncode == 0, f"{step}\n{ended.stdout}\n{ended.stderr}"
    where = shell("python -c 'import stalegrad.simulator as s; print(s.__file__)'", tmp_path / "env" / "bin")
    assert where.stdout.startswith(str(tmp_path / "env"))
