"""The code of docs/anatomy.md runs, and prints what stands there."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "anatomy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python)?\n(.*?)^```", TEXT, re.M | re.S)


def test_the_guide_prints_what_it_says():
    names, printed = {"__name__": "guide"}, StringIO()
    with redirect_stdout(printed):
        for language, code in BLOCKS:
            if language:
                exec(code, names)
    said = "".join(text for language, text in BLOCKS if not language)
    assert printed.getvalue().split() == said.split()
    assert len(said.splitlines()) > 5


def test_its_shares_of_a_cycle_are_those_of_the_delays():
    shares = [5 * seconds / (0.5 + 1.0 + 0.25) for seconds in (0.5, 1.0, 0.25)]
    said = [float(number) for number in re.findall(r"1\.75 s, ([\d.]+), ([\d.]+) and (0\.\d+)", TEXT)[0]]
    assert said == pytest.approx(shares, abs=0.006)
