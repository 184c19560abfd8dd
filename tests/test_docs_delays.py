"""The code of docs/delays.md runs, and prints what stands there; its tables of TOML are delays."""

import re
import tomllib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from stalegrad.simulator.timing.delays import as_delay

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "delays.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```", TEXT, re.M | re.S)
TABLES = re.findall(r"`(\{ delay = .*?\})`", TEXT)


def test_the_guide_prints_what_it_says():
    names, printed = {"__name__": "guide"}, StringIO()
    with redirect_stdout(printed):
        for language, code in BLOCKS:
            if language:
                exec(code, names)
    said = "".join(text for language, text in BLOCKS if not language)
    assert printed.getvalue().split() == said.split()
    assert len(said.splitlines()) > 10


@pytest.mark.parametrize("table", [table for table in TABLES if "..." not in table])
def test_its_tables_are_delays(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.csv").write_text("worker,step,seconds\n0,0,1.0\n")
    assert as_delay(tomllib.loads(f"delay = {table}")["delay"])
