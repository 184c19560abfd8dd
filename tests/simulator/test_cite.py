"""``stalegrad cite``: BibTeX of what a spec uses."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stalegrad.models.datasets import SOURCES
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.papers import LINKS, PAPERS, REFERENCES
from stalegrad.simulator.cli import app
from stalegrad.simulator.cli.cite import DATA, DATASETS

SPEC = """
updates = 4
[problem]
model = "mlp"
dataset = "fashion-mnist-small"
[cluster]
workers = 10
compute = { delay = "recorded", job = "alibaba-job-1" }
[method]
name = "rennala"
k = 2
"""


def cited(text, tmp_path):
    """The entries that are printed for a spec: fields by key."""
    file = tmp_path / "spec.toml"
    file.write_text(text)
    ended = CliRunner().invoke(app, ["cite", str(file)], catch_exceptions=False)
    assert ended.exit_code == 0
    assert ended.stdout.count("{") == ended.stdout.count("}")
    entries = re.findall(r"^@\w+\{([\w-]+),\n(.*?)^\}", ended.stdout, re.M | re.S)
    return {key: dict(re.findall(r"^  (\w+) = \{(.*)\},$", fields, re.M)) for key, fields in entries}


def test_method_with_its_alias_data_and_measured_times_are_cited(tmp_path):
    entries = cited(SPEC, tmp_path)
    assert list(entries) == ["stalegrad", "dutta2018", "tyurin2023", "xiao2017", "weng2022", "xiao2020"]
    assert entries["tyurin2023"]["author"] == "Tyurin and Richtarik"
    assert entries["tyurin2023"]["year"] == "2023"
    assert entries["tyurin2023"]["url"] == LINKS["tyurin2023"]
    assert entries["dutta2018"]["howpublished"] == "AISTATS"


def test_methods_are_cited_without_a_spec():
    arguments = ["cite", "--method", "ringmaster", "--method", "rennala"]
    ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert re.findall(r"^@\w+\{([\w-]+),", ended.stdout, re.M) == [
        "stalegrad", "ringmaster2025", "dutta2018", "tyurin2023"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="give a spec, or --method NAME"):
        CliRunner().invoke(app, ["cite"], catch_exceptions=False)


def test_a_sweep_cites_every_method_once(tmp_path):
    entries = cited(SPEC + '[sweep]\nmethod = ["async", "dana-zero", "mindthestep"]\nseed = [0, 1]\n', tmp_path)
    assert {"dutta2018", "dana2019", "mindthestep2019"} <= entries.keys()


def test_measured_preemptions_and_trainings_are_cited(tmp_path):
    from stalegrad.simulator import Cluster, Empirical, Events, load_experiment

    (tmp_path / "spec.toml").write_text(SPEC)
    cluster = Cluster(32, Empirical.measured("nn-training-times"), availability=Events.measured("spot-p3"))
    text = load_experiment(tmp_path / "spec.toml").but(cluster=cluster).to_toml()
    assert {"klein2019", "thorpe2023"} <= cited(text, tmp_path).keys()


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_method_cites_is_what_it_lists(name):
    method = REGISTRY[name]
    assert [PAPERS.get(key, key) in method.paper for key in method.papers] == [True] * len(method.papers)
    assert method.papers[0] in REFERENCES


def test_data_sets_of_others_are_cited_as_their_readme_says():
    assert SOURCES.keys() - DATASETS.keys() == {"image-folder", "shakespeare"}
    assert set(DATASETS.values()) <= DATA.keys()
    root = Path(__file__).resolve().parents[2]
    embedded = (root / "models/data/fashion-mnist-small/README").read_text().replace("\n", " ")
    assert DATA["xiao2017"].title in embedded
    assert DATA["xiao2017"].link.removeprefix("https://arxiv.org/abs/") in embedded
    times = (root / "simulator/timing/delays/data/alibaba/README").read_text().replace("\n", " ")
    assert all(DATA[key].title in times and DATA[key].link in times for key in ("weng2022", "xiao2020"))
    trainings = (root / "simulator/timing/delays/data/nn-training-times.txt").read_text().replace("\n# ", " ")
    assert DATA["klein2019"].title in trainings


def test_years_of_references_are_those_of_their_venues_and_names_are_kept_whole():
    for key, paper in REFERENCES.items() | DATA.items():
        assert re.search(r"year = \{(\d{4})\}", paper.bibtex(key))[1] in paper.text
    assert "{Shaikh Omar}" in REFERENCES["mindflayer2025"].bibtex("mindflayer2025")
