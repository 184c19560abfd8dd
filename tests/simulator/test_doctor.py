"""``stalegrad doctor`` and ``stalegrad`` alone: what a new user is told first."""

import json
from importlib import metadata

import jax
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from stalegrad.simulator.cli import app, doctor


@pytest.fixture(autouse=True)
def _nothing_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "console", Console(width=400))
    monkeypatch.setenv("STALEGRAD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)


def examined(code=0):
    """The report as it is printed for machines."""
    ended = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    assert ended.exit_code == code, ended.output
    return json.loads(ended.stdout)


def test_the_table_holds_what_the_json_holds():
    table = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)
    assert table.exit_code == 0
    for section, findings in examined().items():
        assert section in table.output
        for name, finding in findings.items():
            assert f"  {name}" in table.output
            assert finding["value"].split()[0] in table.output
            assert finding["advice"] in " ".join(table.output.split())


def test_versions_and_devices_are_those_of_the_libraries():
    found = examined()
    assert found["versions"]["numpy"]["value"] == np.__version__
    assert found["versions"]["jax"]["value"] == jax.__version__
    names = {name for name in found["devices"] if name.startswith("JAX")}
    assert names == {f"JAX {device.platform}:{device.id}" for device in jax.devices()}


def test_a_missing_dependency_is_named_with_its_remedy_and_ends_with_1(monkeypatch):
    def version(name, installed=metadata.version):
        if name == "optax":
            raise metadata.PackageNotFoundError
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    optax = examined(code=1)["versions"]["optax"]
    assert optax["value"] is None
    assert optax["advice"].startswith("pip install 'optax>=")


def test_a_device_that_cannot_be_started_is_one_sentence_and_ends_with_1(monkeypatch):
    def fail():
        raise RuntimeError("no device\nand much more")

    monkeypatch.setattr(jax, "devices", fail)
    assert examined(code=1)["devices"]["JAX"] == {"value": None, "advice": "no device"}


def test_extras_are_installed_or_come_with_a_command_that_installs_them(monkeypatch):
    def version(name, installed=metadata.version):
        if name == "jax-cuda13-plugin":
            return "0.9.9"
        if name == "distributed":
            raise metadata.PackageNotFoundError
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)
    extras = examined()["extras"]
    assert extras["cuda13"] == {"value": "jax-cuda13-plugin 0.9.9", "advice": ""}
    assert extras["dask"]["value"] == "not installed"
    assert extras["dask"]["advice"].startswith("pip install 'distributed>=")
    assert extras.keys() == {"cuda12", "cuda13", "jupyter", "dask", "tensorboard", "mlflow"}


def test_data_sets_are_found_where_they_lie_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.retrieve", lambda *a, **k: pytest.fail("a download"))
    assert examined()["data"]["penn-treebank"]["value"] == "not there"
    place = tmp_path / "data" / "penn-treebank"
    place.mkdir(parents=True)
    (place / "ptb.train.txt").write_text("a")
    assert examined()["data"]["penn-treebank"]["value"] == "not there"
    (place / "ptb.test.txt").write_text("a")
    assert examined()["data"]["penn-treebank"] == {"value": str(place), "advice": ""}


def test_compiled_code_is_weighed(tmp_path, monkeypatch):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "a").write_bytes(bytes(3 << 20))
    found = examined()["compiled code"]
    assert found["directory"]["value"] == str(tmp_path / "compiled")
    assert found["size"]["value"] == "3.0 MiB in 1 files"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert examined()["compiled code"]["directory"]["value"].startswith("none")


@pytest.mark.parametrize(
    ("content", "tunables", "value", "advised"),
    [
        ("always [madvise] never", "", "madvise: allowed, but not asked for", True),
        ("always [madvise] never", "glibc.malloc.hugetlb=1", "madvise: used", False),
        ("[always] madvise never", "", "always: used", False),
        ("always madvise [never]", "glibc.malloc.hugetlb=1", "never", True),
        (None, "", "not known on this system", False),
    ],
)
def test_huge_pages_are_read_from_the_system(content, tunables, value, advised, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    if content is not None:
        (tmp_path / "enabled").write_text(content)
    found = examined()["memory"]["huge pages"]
    assert found["value"] == value
    assert bool(found["advice"]) == advised


def test_the_command_alone_says_what_to_try_first():
    ended = CliRunner().invoke(app, [], catch_exceptions=False)
    assert ended.exit_code == 0
    for line in ended.stdout.splitlines():
        if line.startswith("  stalegrad ") and "--help" not in line:
            command = line.split()[1]
            assert "Usage" in CliRunner().invoke(app, [command, "--help"]).output
    assert "stalegrad demo" in ended.stdout
