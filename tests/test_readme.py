"""The README: its code runs, its commands and links exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stalegrad as sg
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator.cli import app
from stalegrad.simulator.cli.protocols import papers

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(stalegrad [^`]+)`", TEXT)))


def test_its_ten_lines_train_and_draw():
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    assert len(code.splitlines()) <= 11
    assert "wallclock=300.0" in code
    names = {}
    exec(code.replace("wallclock=300.0", "wallclock=60.0"), names)
    assert names["result"].history["test_error"].iloc[-1] < names["result"].history["test_error"].iloc[0]
    assert names["result"].trace.update_times[-1] <= 60.0


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_its_links_lead_somewhere(file):
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / file).read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = ROOT / (path or file)
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_and_their_options_exist(command):
    words = shlex.split(command)[1:]
    names = words[:2] if words[0] == "check" else words[:1]
    explained = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"})
    assert explained.exit_code == 0
    assert all(word in explained.output for word in words if word.startswith("-"))


def test_what_it_names_in_python_exists():
    for name in re.findall(r"`sg\.([A-Za-z_.]+)", TEXT):
        thing = sg
        for part in name.split("."):
            thing = getattr(thing, part)


def test_what_it_promises_of_the_lists_holds():
    assert "more than fifty methods" in TEXT
    assert len(REGISTRY) > 50
    assert "--paper dana2019" in TEXT
    assert "dana2019" in papers()


def test_the_test_command_is_the_one_of_the_checks():
    assert "\nmake test " in TEXT
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
