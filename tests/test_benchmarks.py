"""The benchmark for accelerators runs from the checkout alone, and says what it is to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def page(tmp_path, *arguments):
    command = [
        sys.executable,
        ROOT / "tests" / "benchmarks" / "gpu.py",
        "--size",
        "tiny",
        "--out",
        tmp_path / "page.md",
    ]
    subprocess.run([*command, *arguments], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    return (tmp_path / "page.md").read_text()


def test_the_memory_section_runs(tmp_path):
    text = page(tmp_path, "--only", "memory")
    assert "| softmax 784x10 | 4 |" in text


@pytest.mark.slow
def test_every_section_runs_and_executions_agree(tmp_path):
    text = page(tmp_path)
    for title in ("Parameters after", "One gradient", "Runs in lanes", "Memory", "launches and latencies"):
        assert title in text
    assert text.count("| yes |") == 8
    assert "| NO |" not in text
