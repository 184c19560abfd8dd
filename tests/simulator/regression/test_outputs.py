"""What a check says to people and to machines, and the command line around it."""

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from stalegrad.analysis.statistics.convergence import Target
from stalegrad.simulator.cli import app, main
from stalegrad.simulator.regression import RecordedRun, Recording, compare
from stalegrad.simulator.regression.digests import Digests
from stalegrad.simulator.regression.outputs import github, junit, pictures, sentence, text
from stalegrad.simulator.regression.recording import _checksum

SPEC = """
updates = 40
[problem]
model = "softmax-regression"
dataset = "fashion-mnist-small"
[cluster]
workers = 3
[method]
name = "async"
learning_rate = 0.01
[record]
updates = 10
[sweep]
seed = [0, 1, 2]
"""


def made(method, ends, digest="a"):
    """Runs that fall in a straight line from 2 to these ends."""
    return [
        RecordedRun(
            method, seed, Digests(digest, "t", digest), 1.0,
            pd.DataFrame(
                {"wallclock": np.arange(5.0), "update": np.arange(5.0), "train_loss": np.linspace(2.0, end, 5)}
            ).assign(test_error=np.nan),
        )
        for seed, end in enumerate(ends)
    ]  # fmt: skip


def recording(*runs):
    return Recording({}, False, {"sync": Target("train_loss", 1.5)}, {"jax": "1"}, {"cores": "2"}, tuple(runs))


@pytest.fixture(scope="module")
def worse():
    """Sync is worse, async different, SSP the same."""
    ends = np.array([1.0, 1.1, 0.9, 1.0, 1.05])
    before = recording(*made("sync", ends), *made("async", ends), *made("ssp(bound=1)", ends))
    after = recording(
        *made("sync", ends * 1.2, "b"), *made("async", ends * 1.0001, "b"), *made("ssp(bound=1)", ends)
    )
    return compare(before, replace(after, versions={"jax": "2"}))


def test_the_text_holds_the_table_and_what_else_has_changed(worse):
    said = text(worse)
    assert said.startswith("convergence: worse\n  sync: worse (timing: other messages")
    assert "  async: different but not worse" in said
    assert "  ssp(bound=1): same\n" in said
    (row,) = [line for line in said.splitlines() if line.startswith("sync") and "final train loss" in line]
    assert row.split()[:7] == ["sync", "final", "train", "loss", "1.01", "1.212", "+20.00%"]
    assert row.endswith("worse")
    assert "not as recorded: jax: 1 -> 2" in said
    assert text(compare(worse.before, worse.before)).splitlines()[0] == "convergence: same"


def test_junit_has_a_case_for_each_method(worse):
    suite = ET.fromstring(junit(worse, "base"))[0]
    assert suite.attrib == {
        "name": "stalegrad.check",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "0",
    }
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == ["sync", "async", "ssp(bound=1)"]
    assert {case.get("classname") for case in suite} == {"base"}
    failure = cases["sync"].find("failure")
    assert failure.get("message").startswith("sync: worse; final train loss 1.01 -> 1.212 (+20.00%)")
    assert "mean train loss" in failure.text
    assert cases["async"].find("failure") is None
    assert cases["async"].find("system-out").text.startswith("different but not worse")
    assert cases["ssp(bound=1)"].find("system-out").text == "same"


def test_junit_survives_what_xml_cannot_hold():
    strange = "a<&>\x00\x1b"
    before, after = recording(*made(strange, [1.0, 1.1])), recording(*made(strange, [1.0, 1.2], "b"))
    assert ET.fromstring(junit(compare(before, after), "b"))[0][0].get("name") == "a<&>??"


def test_github_gets_an_error_for_what_is_worse_and_a_notice_for_the_rest(worse):
    error, notice = github(worse, "a,b:c.json")
    assert error.startswith("::error file=a%2Cb%3Ac.json,title=convergence worse::sync: worse; final train loss")
    assert notice.startswith("::notice file=a%2Cb%3Ac.json,title=convergence different but not worse::async")
    assert "+20.00%25" in error
    assert "\n" not in error
    assert github(compare(worse.before, worse.before), "x") == []


def test_pictures_are_drawn_of_what_is_worse(worse, tmp_path):
    (file,) = pictures(worse, tmp_path / "plots")
    assert file.name == "sync-train-loss.png"
    assert min(image.imread(file).shape[:2]) > 250
    assert pictures(compare(worse.before, worse.before), tmp_path / "none") == []


def test_a_sentence_names_lost_runs():
    ends = [1.0, 1.1, 0.9]
    check = compare(recording(*made("sync", ends)), recording(*made("sync", [1.0, 3.0, 0.9], "b")))
    assert sentence(check, "sync").startswith("sync: worse; lost runs 0 -> 1")


def test_a_sentence_names_what_is_unclear():
    check = compare(recording(*made("sync", [1.0, 1.1, 0.9])), recording(*made("sync", [1.9, 1.0, 0.9], "b")))
    assert "final train loss 1 -> 1.267 (+26.67%), unclear with these seeds" in sentence(check, "sync")


# The command line


def call(code, *arguments):
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def refused(capsys, monkeypatch, *arguments):
    """Run a command that must be refused; return the sentence it says on stderr."""
    monkeypatch.setattr("sys.argv", ["stalegrad", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    return said.err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a spec and its baseline."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "spec.toml").write_text(SPEC)
    said = call(0, "record", folder / "spec.toml", "-o", folder / "base.json")
    assert "3 runs of async" in said
    return folder


def changed(place, name, factor, digest="0" * 16):
    """A baseline as if all had been better by this factor, on another machine."""
    table = json.loads((place / "base.json").read_text())
    for run in table["runs"]:
        run["digests"]["params"] = digest
        for column in ("train_loss", "test_error", "test_loss"):
            first, *rest = run["curve"][column]
            run["curve"][column] = [first, *(value * factor for value in rest)]
    del table["sha256"]
    (place / name).write_text(json.dumps(table | {"sha256": _checksum(table)}))
    return place / name


def test_what_has_not_changed_is_the_same(place):
    assert call(0, "run", place / "base.json", "--strict", "--spec", place / "spec.toml").startswith(
        "convergence: same\n"
    )


def test_what_is_worse_ends_with_1_and_leaves_its_outputs(place, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    baseline = changed(place, "better.json", 0.7)
    said = call(1, "run", baseline, "--junit", place / "out" / "j.xml", "--plots", place / "plots")
    assert said.startswith("convergence: worse\n")
    assert f"::error file={baseline},title=convergence worse::async: worse;" in said
    assert ET.parse(place / "out" / "j.xml").getroot()[0].get("failures") == "1"
    assert sorted(file.name for file in (place / "plots").iterdir()) == [
        "async-test-error.png",
        "async-train-loss.png",
    ]
    assert "::error" not in call(1, "run", baseline, "--no-github")


def test_what_is_different_but_not_worse_ends_with_0_unless_strict(place):
    baseline = changed(place, "near.json", 1.0001)
    assert call(0, "run", baseline).startswith("convergence: different but not worse\n")
    assert "::" not in call(1, "run", baseline, "--strict")


def test_metrics_and_tolerance_are_the_users(place):
    baseline = changed(place, "better.json", 0.7)
    said = call(1, "run", baseline, "--metric", "best_train_loss")
    assert "best train loss" in said
    assert "final" not in said
    call(0, "run", baseline, "--tolerance", "3", "--metric", "best_train_loss")


def test_a_run_that_raises_fails_the_check_and_is_told(place, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("run seed = 0 raised: no loss today")

    monkeypatch.setattr("stalegrad.simulator.regression.record", broken)
    assert call(1, "run", place / "base.json") == "run seed = 0 raised: no loss today\n"


def test_a_function_that_is_missing_is_refused_before_any_run(place, capsys, monkeypatch):
    spec = place / "missing.toml"
    rate = "learning_rate = 0.01\n"
    spec.write_text(SPEC.replace(rate, f'{rate}optimizer = "nowhere.optimizers:clipped"\n'))
    said = refused(capsys, monkeypatch, "record", spec, "-o", place / "missing.json")
    assert "function = 'nowhere.optimizers:clipped' cannot be imported: No module named 'nowhere'" in said
    assert "Traceback" not in said
    assert not (place / "missing.json").exists()


def test_power_is_a_table(place):
    said = call(0, "power", place / "base.json", "--seeds", 3, "--seeds", 8)
    assert "probability 0.8, tolerance 2.00%" in said
    row = next(line for line in said.splitlines() if "final_train_loss" in line)
    three, eight = (float(cell.rstrip("%")) for cell in row.split()[-2:])
    assert three > eight > 2


def test_bad_input_ends_with_2(place, capsys, monkeypatch):
    def fails(*arguments):
        return refused(capsys, monkeypatch, *arguments)

    base, spec = place / "base.json", place / "spec.toml"
    text_before = base.read_text()
    assert "exists already: --force" in fails("record", spec, "-o", base)
    assert base.read_text() == text_before
    assert "there is no file" in fails("run", place / "none.json")
    (place / "torn.json").write_text(text_before[: len(text_before) // 2])
    assert "torn.json is damaged" in fails("run", place / "torn.json")
    (place / "old.json").write_text(text_before.replace("stalegrad-baseline-3", "stalegrad-baseline-0"))
    assert "found 'stalegrad-baseline-0'" in fails("run", place / "old.json")
    (place / "other.toml").write_text(SPEC.replace("updates = 40", "updates = 50"))
    assert "experiment.updates: 40 -> 50" in fails("run", base, "--spec", place / "other.toml")
    assert "tolerance = -1.0" in fails("run", base, "--tolerance", "-1")
    assert "unknown metric 'final_los'" in fails("run", base, "--metric", "final_los")
    assert "alpha = 0.7" in fails("power", base, "--alpha", "0.7")
    assert "seeds = 1" in fails("power", base, "--seeds", "1")
    (place / "one.toml").write_text(SPEC.replace("[0, 1, 2]", "[0]"))
    assert "one seed of 'async'" in fails("record", place / "one.toml", "-o", place / "one.json")
    assert not (place / "one.json").exists()
