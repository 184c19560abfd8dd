"""The protocols of papers: what `stalegrad init --paper` writes can be loaded, simulated and run."""

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stalegrad.models.datasets import SOURCES
from stalegrad.models.datasets.fetching import File
from stalegrad.policies.papers import PAPERS
from stalegrad.simulator import simulate
from stalegrad.simulator.cli import app
from stalegrad.simulator.cli.protocols import FOLDER, papers, protocol
from stalegrad.simulator.sweeps.axes import load_sweep

STATED = {  # model, data, batch size, workers, delay, a method and its rate: read off the specifications
    "dutta2018": ("softmax-regression", "mnist", 1, {8}, "exponential", ("k-batch-async", 0.01)),
    "dutta2020": ("lenet-adasync", "cifar-10", 32, {8}, "exponential", ("adasync", 0.12)),
    "mindthestep2019": ("cnn-mindthestep", "mnist", 512, {8, 16, 32}, "gamma", ("mindthestep", 0.01)),
    "talyansky2018": ("resnet-20", "cifar-10", 32, {4}, "gamma", ("delayed-averaging", 0.04)),
    "dana2019": ("resnet-20", "cifar-10", 128, {4, 8, 16, 32}, "two-level-gamma", ("dana-zero", 0.1)),
    "gapaware2020": ("resnet-20", "cifar-10", 128, {4, 8, 16, 32}, "two-level-gamma", ("gap-aware", 0.1)),
    "asap2022": ("lenet-mindthestep", "cifar-10", 16, {16}, "gamma", ("tail", 0.005)),
    "fasgd2016": ("mlp", "mnist", {1, 4, 8, 32}, {4, 16, 32, 128}, "exponential", ("fasgd", 0.005)),
    "ringleader2026": ("mlp", "fashion-mnist", 4, {100}, "two-level-gamma", ("ringleader", 0.01)),
}
QUICK = ("dutta2018", "ringleader2026")
"""Papers whose dry run compiles little."""

SMALL = Path(__file__).resolve().parents[2] / "models" / "data" / "fashion-mnist-small"


def written(paper, tmp_path):
    """The sweep that `stalegrad init` writes."""
    file = tmp_path / f"{paper}.toml"
    ended = CliRunner().invoke(app, ["init", str(file), "--paper", paper], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    assert f"stalegrad run {file} -o runs/{paper}" in ended.output
    return load_sweep(file)


@pytest.mark.parametrize("paper", papers())
def test_a_protocol_is_that_of_its_paper(paper, tmp_path):
    model, data, batch, workers, delay, (method, rate) = STATED[paper]
    runs = [run.experiment for run in written(paper, tmp_path).runs]
    assert {(e.problem.model, e.problem.dataset) for e in runs} == {(model, data)}
    assert {e.problem.batch_size for e in runs} == (batch if isinstance(batch, set) else {batch})
    assert {e.cluster.size for e in runs} == workers
    assert {e.cluster.table()["compute"]["delay"] for e in runs} == {delay}
    assert rate in {e.method.learning_rate.peak for e in runs if e.method.name == method}
    assert len({e.method.name for e in runs}) > 1


@pytest.mark.parametrize("paper", papers())
def test_the_timing_of_a_protocol_is_simulated(paper, tmp_path):
    for experiment in {(e.method.synchrony, e.cluster): e for _, e in written(paper, tmp_path).runs}.values():
        trace = simulate(experiment.timed_cluster, experiment.method.synchrony, updates=100).verify()
        assert len(trace.updates) == 100


def test_workers_of_talyansky_2018_hardly_wait_from_tau_8_on(tmp_path):
    idle = {}
    for _, e in written("talyansky2018", tmp_path).runs:
        if e.method.name == "delayed-averaging":
            trace = simulate(e.timed_cluster, e.method.synchrony, updates=200)
            idle[e.method.synchrony.tau] = trace.summary()["idle"]
    assert idle[4] > 0.3
    assert idle[16] < 0.02


def test_every_protocol_says_what_is_not_from_the_paper():
    assert papers().keys() == STATED.keys()
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.toml" for name in STATED}
    for name, reference in papers().items():
        text = protocol(name)
        assert reference == PAPERS[name]
        assert re.split(r",| et al", reference)[0] in text.splitlines()[0]
        assert "# From " in text
        assert "# Not from the paper: " in text
        assert not re.search(r"^# [a-z_]+ = ", text, re.M), "what is not used is left out"


@pytest.fixture
def small_data(monkeypatch, tmp_path):
    """Data of the right shapes in place of CIFAR-10 (noise) and of MNIST (the subset of Fashion-MNIST)."""
    source, files = SOURCES["cifar-10"], []
    place = tmp_path / "data" / "cifar-10"
    place.mkdir(parents=True)
    for number, file in enumerate(source.files):
        records = np.random.default_rng(number).integers(0, 256, (60, 3073), np.uint8)
        records[:, 0] %= 10
        (place / file.name).write_bytes(records.tobytes())
        files.append(File(file.name, hashlib.sha256(records.tobytes()).hexdigest()))
    monkeypatch.setitem(SOURCES._entries, "cifar-10", dataclasses.replace(source, files=tuple(files)))
    for name in ("mnist", "fashion-mnist"):
        shutil.copytree(SMALL, tmp_path / "data" / name)
        files = tuple(File(file.name) for file in SOURCES[name].files)
        monkeypatch.setitem(SOURCES._entries, name, dataclasses.replace(SOURCES[name], files=files, system=None))
    monkeypatch.setenv("STALEGRAD_DATA", str(tmp_path / "data"))


@pytest.mark.usefixtures("small_data")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "paper", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in sorted(STATED)]
)
def test_a_protocol_is_dry_run(paper, tmp_path):
    runs = written(paper, tmp_path).runs
    file = str(tmp_path / f"{paper}.toml")
    said = CliRunner().invoke(app, ["run", file, "-o", str(tmp_path / "out"), "--dry-run"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert f"{len(runs)} runs, 0 of them done already" in said.output
    assert "GiB of memory" in said.output
    assert not Path(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("paper", "said"),
    [
        ("dana", "unknown paper 'dana'. Did you mean 'dana2019'?"),
        ("ringmaster2025", "there is no protocol of 'ringmaster2025'"),
    ],
)
def test_a_paper_without_a_protocol_is_one_sentence(paper, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        protocol(paper)
