"""Planted faults are found, harmless changes left alone; a part of scripts/validate_checks.py, and (slow) all."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "validate_checks.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("validate_checks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["validate_checks"] = module  # where planting looks for its own functions
    spec.loader.exec_module(module)
    yield module
    del sys.modules["validate_checks"]


@pytest.mark.parametrize(
    ("what", "outcome", "digests"),
    [
        ("a worker is never refreshed", "worse", "timing, numbers"),
        ("mini-batches summed in another order", "different but not worse", "numbers"),
    ],
)
def test_a_planted_change_is_called_what_it_is(script, what, outcome, digests):
    (fault,) = [fault for fault in script.FAULTS if fault.what == what]
    found = script.detect(fault, truth=False)
    assert (found["outcome"], found["digests"]) == (outcome, digests)


def test_a_fault_is_gone_when_it_is_no_longer_planted(script):
    before = script.baseline("sync", (0, 1))
    (fault,) = [fault for fault in script.FAULTS if fault.what == "the last of K gradients is lost"]
    with script.planted(fault):
        assert script.compare(before, script.record(script.plan("sync", [0, 1]), progress=False)).outcome != "same"
    assert script.compare(before, script.record(script.plan("sync", [0, 1]), progress=False)).outcome == "same"


def test_a_fault_that_cannot_be_planted_is_an_error(script):
    fault = script.FAULTS[0]._replace(old="no such expression")
    with pytest.raises(ValueError, match="has no 'no such expression'"), script.planted(fault):
        pass


def test_every_fault_can_be_planted(script):
    for fault in script.FAULTS:
        with script.planted(fault):
            pass


@pytest.mark.slow
def test_what_five_seeds_say_is_what_thirty_others_know(script):
    """``beyond``: how many standard errors (of thirty seeds) the most hurt metric lies beyond its margin."""
    rows = [script.detect(fault) for fault in script.FAULTS]
    faults = [row for row in rows if not row["harmless"]]
    assert len(faults) >= 12
    assert sum(row["digests"] != "same" for row in faults) >= len(faults) - 1
    for row in rows:
        if row["outcome"] == "worse":
            assert row["true beyond"] > 2, row
            assert not row["harmless"]
        if row["true beyond"] > 20 or row["true lost"] > 10:
            assert row["outcome"] == "worse", row


@pytest.mark.slow
def test_false_alarms_are_rare(script):
    alarms = script.false_alarms(40)
    assert (alarms["worse"] <= 2).all()
    assert set(alarms["checks"]) == {40}
