"""``stalegrad what-if``: what it prints, what it writes, what it refuses."""

import gzip

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from stalegrad.simulator import what_if
from stalegrad.simulator.cli import app, main


def call(*arguments):
    result = CliRunner().invoke(app, ["what-if", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    times = np.random.default_rng(0).gamma(4.0, 0.25, (2, 30, 4))
    rows = [
        f"{job},{worker},{step},{1e3 * times[j, step, worker]:.6f}"
        for j, job in enumerate("AB") for step in range(30) for worker in range(4)
    ]  # fmt: skip
    (tmp_path / "jobs.csv").write_text("\n".join(["job,rank,iteration,duration_ms", *rows]) + "\n")
    (tmp_path / "steps.csv").write_text("\n".join(["job,rank,iteration,duration_ms", *rows[:120]]) + "\n")
    return times[0]


def test_a_csv_becomes_a_table_sentences_and_a_page(log, tmp_path):
    said = call("steps.csv", "-o", "out")
    assert f"{4 * 30 / log.max(axis=1).sum():.4g}" in said
    assert "upper bound" in said
    table = pd.read_csv(tmp_path / "out" / "what-if.csv", index_col=0)
    assert table.loc["async", "speedup"] == pytest.approx(what_if("steps.csv").table.loc["async", "speedup"])
    page = (tmp_path / "out" / "what-if.html").read_text()
    assert "<img" in page
    assert "upper bound" in page
    assert (tmp_path / "out" / "what-if.png").read_bytes().startswith(b"\x89PNG")


def test_one_job_of_several_and_chosen_synchronies(log):
    said = call(
        "jobs.csv", "--only", "job=A", "-s", "sync", "-s", "k-async:k=2", "-s", "ringmaster:threshold=sqrt"
    )
    assert [line.split("  ")[0] for line in said.splitlines()[1:4]] == [
        "sync", "k-async (k = 2)", "ringmaster (threshold = sqrt)"
    ]  # fmt: skip
    assert f"{4 * 30 / log.max(axis=1).sum():.4g}" in said


def test_columns_links_and_measured_jobs(log, tmp_path):
    (tmp_path / "odd.csv").write_text((tmp_path / "steps.csv").read_text().replace("rank", "host"))
    said = call(
        "odd.csv", "--column", "worker=host", "--message-bytes", "1e6", "--link", "ingress=1e7", "-s", "sync"
    )
    assert "communication takes as long as the links take" in said
    assert "S = 1.11" in call("alibaba-job-1", "-s", "sync", "-s", "async")


@pytest.mark.parametrize("more", ["", "updates = 3\n[cluster]\nworkers = 2\n"])
def test_a_problem_needs_no_cluster_and_a_method_has_its_own_rate(more, log, tmp_path):
    (tmp_path / "spec.toml").write_text(
        f"""{more}
        [problem]
        model = "softmax-regression"
        dataset = "fashion-mnist-small"
        batch_size = 8
        [method]
        name = "sync"
        learning_rate = 0.05
        """
    )
    said = call("steps.csv", "--spec", "spec.toml", "-s", "sync", "-s", "async:learning_rate=1e-9")
    error = {line.split()[0]: float(line.split()[-1]) for line in said.splitlines()[1:3]}
    assert error["sync"] < 0.5
    assert error["async"] > 0.8  # hardly moved


REFUSED = {
    "no file": (["missing.csv"], "does not exist"),
    "two jobs": (["jobs.csv"], "keep the rows of one"),
    "no column": (["steps.csv", "--only", "stage=0"], "unknown column 'stage'"),
    "no row": (["steps.csv", "--only", "job=C"], "no row has job = C; there are A"),
    "no pair": (["steps.csv", "--only", "job"], "give NAME=VALUE"),
    "unknown": (["steps.csv", "-s", "k-asink:k=2"], "Did you mean 'k-async'"),
    "no k": (["steps.csv", "-s", "k-async"], "k"),
    "latin 1": (["latin.csv"], "expected a text in UTF-8"),
    "a bomb": (["bomb.csv.gz"], "bytes uncompressed"),
    "empty": (["empty.csv"], "has no rows"),
    "a directory": (["."], "not a regular file"),
    "text": (["text.csv"], "seconds = 'long' is not allowed"),
    "negative": (["negative.csv"], "line 3: seconds = '-1'"),
    "a wrong link": (["steps.csv", "--link", "uplod=1"], "Did you mean 'upload'"),
    "not empty": (["steps.csv", "-o", "full"], "not empty"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_input_is_one_sentence_and_nothing_is_written(kind, log, tmp_path, capsys, monkeypatch):
    arguments, said = REFUSED[kind]
    (tmp_path / "latin.csv").write_bytes("worker,step,seconds\nä,0,1\n".encode("latin-1"))
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"1," * (1 << 26)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.csv").write_text("worker,step,seconds\n0,0,long\n")
    (tmp_path / "negative.csv").write_text("worker,step,seconds\n0,0,1\n1,0,-1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    out = [] if "-o" in arguments else ["-o", "out"]
    monkeypatch.setattr("sys.argv", ["stalegrad", "what-if", *arguments, *out])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
