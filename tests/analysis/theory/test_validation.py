"""Theory against simulation: a small part of `make validate`, and (slow) all of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stalegrad.policies import methods
from stalegrad.policies.synchrony import Async, KAsync, KBatchAsync, KBatchSync, KSync, Sync
from stalegrad.simulator import Cluster

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "validate_theory.py"


@pytest.fixture(scope="module")
def validate():
    sys.path.insert(0, str(SCRIPT.parent))  # validate_memory
    spec = importlib.util.spec_from_file_location("validate_theory", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "synchrony", [Sync(), KSync(2), KBatchSync(4), Async(), KAsync(4), KBatchAsync(2)], ids=repr
)
@pytest.mark.parametrize("law", ["hyper-exponential", "unlike"])
def test_simulations_are_where_theory_says(validate, law, synchrony):
    checks = validate.check_case(validate.Case(law, synchrony, 8))
    assert {quantity: check.z for quantity, check in checks.items() if not check.holds} == {}
    assert "staleness" in checks or synchrony.name in ("sync", "k-sync", "k-batch-sync")


def test_a_wrong_theory_would_be_found(validate):
    values = np.random.default_rng(0).exponential(1.0, 40_000)
    assert validate._check(1.0, 1.0, values).holds
    assert not validate._check(1.04, 1.04, values).holds
    assert validate._check(0.5, 1.1, values).z == 0
    assert not validate._check(1.04, np.inf, values).holds
    assert not validate._check(0.0, 0.0, np.full(80, 1e-3)).holds


def test_a_memory_that_is_not_as_promised_would_be_found(validate):
    import validate_memory

    correlated = np.convolve(np.random.default_rng(0).standard_normal(40_000), [1, 0.5])
    assert validate_memory._near("moving average", 0.4, validate_memory._lag(correlated), 0.005, 4.5).holds
    assert not validate_memory._near("moving average", 0.5, validate_memory._lag(correlated), 0.005, 4.5).holds
    draws = np.random.default_rng(0).exponential(1.0, 40_000)
    assert validate_memory._distribution("exponential", draws, lambda t: 1 - np.exp(-t)).holds
    assert not validate_memory._distribution("exponential", draws, lambda t: 1 - np.exp(-t / 1.04)).holds
    assert not validate_memory._share("share", draws < 1, 0.66, 0.0, 1.0).holds


def test_bounds_that_do_not_hold_would_be_found(validate):
    import validate_bounds as bounds

    tau = np.array([1.0, 1.05, 1.05])  # two updates take 2 s at most: see test_time_bounds.py
    cluster = Cluster(compute=list(tau))
    assert bounds.window_ratio(tau, 2, cluster, 0, stops=True) == pytest.approx(2.0 / (10 / (1 + 2 / 1.05)))
    assert bounds.window_ratio(tau / 2, 2, cluster, 0, stops=True) > 1
    assert bounds.batch_ratio(tau, 3, cluster, 0) == pytest.approx(1.05 / (6 / (1 + 2 / 1.05)))
    # Times 1 and 2: w1 sends at 1 and 2, w0 at 1, 2 and 3, and so on; a round takes 3 s, of at most 4.
    rounds = bounds.ringleader_rounds(np.array([1.0, 2.0]), Cluster(compute=[1.0, 2.0]), 0)
    assert rounds == (0.75, 0.75, 2, 1.0)
    method = methods.async_(learning_rate=0.02)
    assert bounds.mean_square(method, updates=200, seeds=1)[0] > bounds.EPSILON
    assert bounds.mean_square(method, updates=2_000, seeds=1)[0] < bounds.EPSILON


@pytest.mark.parametrize(
    ("task", "method", "law"),
    [
        ("quadratic", methods.k_async(k=4, learning_rate=0.1), "exponential"),
        ("quadratic", methods.async_(learning_rate=0.02), "exponential"),
        ("softmax regression", methods.k_batch_async(k=2, learning_rate=0.03), "1 + exponential"),
    ],
    ids=["quadratic, k-async", "quadratic, async", "softmax, k-batch-async"],
)
def test_error_bounds_hold_at_every_recorded_point(validate, task, method, law):
    found = validate.run_descent(validate.Descent(task, method, law), seeds=2, updates=60)
    assert found.error <= 1
    assert found.gradient <= 1
    assert found.error > 0.3  # the bound says something
    assert 0 < found.gamma < 1


@pytest.mark.slow
def test_everything_holds():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:3000] + done.stderr[-3000:]
    assert "Everything holds." in done.stdout
