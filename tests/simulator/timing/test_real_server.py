"""A real parameter server with worker processes on loopback, recorded, simulated and replayed: a small version of
``make validate-real``. Nothing here depends on how fast the machine is."""

import sys
from pathlib import Path

import numpy as np
import pytest

from stalegrad.simulator import Exponential

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
MESSAGES = 160

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server forks its workers")


@pytest.fixture(scope="module")
def validate_real():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import validate_real

        return validate_real


@pytest.fixture(scope="module", params=[1, 2, 4], ids="k = {}".format)
def ended(request, validate_real, tmp_path_factory):
    case = validate_real.Case("test", 4, Exponential(0.02), k=request.param)
    settings = case.settings(MESSAGES)
    trace, arrays = validate_real.real_run(settings, tmp_path_factory.mktemp("real"))
    return case, settings, trace, arrays


def test_what_a_real_server_did_is_a_trace(ended):
    case, settings, trace, _ = ended
    trace.verify()
    assert trace.workers == 4
    assert len(trace.update_times) == settings.updates == MESSAGES // case.k
    assert (trace.updates["messages"] == case.k).all()
    assert set(trace.column("fate")) <= {"used", "pending", "cancelled"}


def test_workers_compute_for_at_least_as_long_as_they_are_told_to(ended):
    _, settings, trace, _ = ended
    used = trace.messages[trace.messages["fate"] == "used"]
    for worker, own in used.groupby("worker"):
        told = np.array(settings.sleeps[worker][: len(own)])
        assert ((own["finish_time"] - own["read_time"]).to_numpy() >= told - 1e-6).all()
        assert (own["receive_time"] >= own["finish_time"]).all()


def test_its_staleness_is_that_of_its_synchrony(ended):
    case, settings, trace, _ = ended
    if case.k == 4:
        assert (trace.staleness == 0).all()
        slowest = np.array(settings.sleeps)[:, : settings.updates].max(axis=0)
        assert trace.end >= slowest.sum()
    else:  # (workers - k) / k in the long run, less at the start
        assert trace.staleness.mean() == pytest.approx((4 - case.k) / case.k, rel=0.2)


def test_its_parameters_are_those_of_a_replay(ended, validate_real):
    case, settings, trace, arrays = ended
    assert np.abs(arrays["weights"]).max() > 0.01
    assert validate_real.reproduced(case, trace, arrays, settings.learning_rate) < 1e-13


def test_the_shared_link_carries_no_more_than_it_can(validate_real, tmp_path):
    case = validate_real.Case("test", 4, Exponential(0.01), link=0.008)
    trace, _ = validate_real.real_run(case.settings(60), tmp_path)
    assert trace.end >= 60 * 0.008 - 0.01
    assert (trace.messages["receive_time"] - trace.messages["finish_time"]).min() >= 0.008 * 7 / 8 - 0.0041
