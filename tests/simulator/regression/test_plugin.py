"""The pytest plugin, in a pytest inside this one."""

import importlib.util
import json
import sys

import pytest

import stalegrad.simulator.regression.outputs  # noqa: F401  (what is first imported in an inner pytest is so in each)

pytest_plugins = "pytester"

PROBLEM = """
import jax.numpy as jnp
import numpy as np
from stalegrad.models import Problem

train = np.random.default_rng(0).normal(scale=0.1, size=(64, 4)).astype(np.float32)

def start(key):
    return jnp.ones(4)

def loss(w, batch, key):
    return 2 * jnp.mean((w - batch) ** 2)

problem = Problem.from_functions(start, loss, train=train, batch_size=4)
"""
TEST = """
import jax
import pytest
from quick_problem import loss, start, train
from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record

SLOPE = 1.0

def ours(w, batch, key):
    value = loss(w, batch, key)
    return SLOPE * value + (1 - SLOPE) * jax.lax.stop_gradient(value)

def experiment(workers):
    return Experiment(
        problem=Problem.from_functions(start, ours, train=train, batch_size=4),
        cluster=Cluster(workers=workers, compute=Exponential(1.0)),
        method=methods.async_(learning_rate=0.1), updates=20, record=Record(updates=5),
    )

@pytest.mark.parametrize("workers", [2, 3])
def test_it(convergence, workers):
    convergence.check(experiment(workers), seed=range(3))
"""
SPEC = """
updates = 4
[problem]
model = "softmax-regression"
dataset = "fashion-mnist-small"
[cluster]
workers = 2
[method]
name = "async"
[sweep]
seed = [0, 1]
"""


@pytest.fixture(scope="module", autouse=True)
def _problem(tmp_path_factory):
    """The problem is imported once, and so compiled once, by all inner pytests of this process."""
    file = tmp_path_factory.mktemp("problem") / "quick_problem.py"
    file.write_text(PROBLEM)
    spec = importlib.util.spec_from_file_location("quick_problem", file)
    module = sys.modules["quick_problem"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield
    del sys.modules["quick_problem"]


@pytest.fixture
def place(pytester):
    """A repository with one file of tests."""
    (pytester.path / "test_quick.py").write_text(TEST)
    (pytester.path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    return pytester.path


@pytest.fixture
def pytest_in(pytester):
    """Run pytest there; return its exit code and what it said."""

    def run(*arguments):
        others = [f"-pno:{name}" for name in ("cacheprovider", "benchmark", "hypothesispytest")]
        ended = pytester.runpytest_inprocess(*others, *arguments)
        return ended.ret, str(ended.stdout) + str(ended.stderr)

    return run


def files(place):
    return sorted(str(file.relative_to(place)) for file in (place / "convergence").rglob("*.json"))


def test_the_plugin_takes_no_jax_to_the_start_of_pytest(pytester):
    pytester.makepyfile(
        "import sys\n\ndef test_it(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('stalegrad')\n"
        "    assert not {'jax', 'numpy', 'stalegrad.simulator'} & set(sys.modules)\n"
    )
    ended = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:benchmark")
    assert ended.ret == 0, str(ended.stdout)


KEPT = ["convergence/test_quick/test_it-2.json", "convergence/test_quick/test_it-3.json"]


def test_a_baseline_is_asked_for_recorded_and_held(place, pytest_in):
    code, said = pytest_in("-n", "0")
    assert code == 1
    assert "record it with pytest --convergence-record" in said
    assert files(place) == []

    code, said = pytest_in("-n", "0", "--convergence-record")
    assert code == 0, said
    assert files(place) == KEPT
    assert said.count("recorded ") == 2
    before = [(place / file).read_text() for file in KEPT]
    code, said = pytest_in("-n", "0", "--convergence-strict")
    assert code == 0, said

    # A harmless change of numbers passes, is told, and fails if strict.
    source = place / "test_quick.py"
    source.write_text(TEST.replace("SLOPE = 1.0", "SLOPE = 1.000001"))
    code, said = pytest_in("-n", "0")
    assert code == 0, said
    assert "test_quick.py::test_it[2]: async: different but not worse" in said
    assert "numbers: other parameters at the end" in said
    assert pytest_in("-n", "0", "--convergence-strict")[0] == 1

    # A harmful one fails, with the table.
    source.write_text(TEST.replace("SLOPE = 1.0", "SLOPE = 0.5"))
    code, said = pytest_in("-n", "0")
    assert code == 1
    assert "convergence: worse" in said
    assert "final train loss" in said
    assert "Traceback" not in said
    assert [(place / file).read_text() for file in KEPT] == before


@pytest.mark.slow
def test_baselines_are_recorded_and_held_in_parallel(place, pytest_in):
    (place / "quick_problem.py").write_text(PROBLEM)
    code, said = pytest_in("-n", "2", "--convergence-record")
    assert code == 0, said
    assert said.count("recorded ") == 2
    assert files(place) == KEPT
    (place / "test_quick.py").write_text(TEST.replace("SLOPE = 1.0", "SLOPE = 1.000001"))
    code, said = pytest_in("-n", "2")
    assert code == 0, said
    assert said.count("different but not worse") == 2


def test_a_baseline_of_lost_runs_is_announced(place, pytest_in):
    (place / "test_quick.py").write_text(TEST.replace("learning_rate=0.1", "learning_rate=9.0"))
    code, said = pytest_in("-n", "0", "--convergence-record", "-k", "2")
    assert code == 0, said
    assert "3 of 3 runs of async are lost" in said


def test_marker_and_arguments_set_the_check(place, pytest_in):
    source = place / "test_quick.py"
    pytest_in("-n", "0", "--convergence-record", "-k", "2")
    slower = TEST.replace("SLOPE = 1.0", "SLOPE = 0.5")
    marked = slower.replace(
        "@pytest.mark.parametrize", "@pytest.mark.convergence(tolerance=50.0)\n@pytest.mark.parametrize"
    )
    source.write_text(marked)
    assert pytest_in("-n", "0", "-k", "2")[0] == 0
    source.write_text(marked.replace("seed=range(3)", "seed=range(3), tolerance=0.01"))
    assert pytest_in("-n", "0", "-k", "2")[0] == 1
    source.write_text(marked.replace("tolerance=50.0", "tolerence=50.0"))
    code, said = pytest_in("-n", "0", "-k", "2")
    assert code == 1
    assert "marker convergence knows tolerance, alpha, metrics, strict, not tolerence" in said


def test_a_baseline_of_other_seeds_or_damaged_is_refused(place, pytest_in):
    pytest_in("-n", "0", "--convergence-record", "-k", "2")
    source = place / "test_quick.py"
    source.write_text(TEST.replace("range(3)", "range(4)"))
    code, said = pytest_in("-n", "0", "-k", "2")
    assert code == 1
    assert "another spec (seeds: [0, 1, 2] -> [0, 1, 2, 3])" in " ".join(said.split())
    source.write_text(TEST.replace("learning_rate=0.1", "learning_rate=0.2"))
    code, said = pytest_in("-n", "0", "-k", "2")
    assert code == 1
    assert "another spec (experiment.method.learning_rate: 0.1 -> 0.2)" in " ".join(said.split())
    source.write_text(TEST)
    (file,) = (place / "convergence").rglob("*.json")
    table = json.loads(file.read_text())
    table["runs"][0]["curve"].pop("train_loss")
    file.write_text(json.dumps(table))
    code, said = pytest_in("-n", "0", "-k", "2")
    assert code == 1
    assert "is damaged or was edited" in said


def test_two_checks_of_one_test_need_names(place, pytest_in):
    source = place / "test_quick.py"
    twice = TEST + "    convergence.check(experiment(workers), seed=[0, 1])\n"
    source.write_text(twice)
    code, said = pytest_in("-n", "0", "--convergence-record", "-k", "2")
    assert code == 1
    assert "give each a name=" in said
    source.write_text(twice.replace("[0, 1])", "[0, 1], name='b c')"))
    assert pytest_in("-n", "0", "--convergence-record", "-k", "2")[0] == 0
    assert files(place) == [
        "convergence/test_quick/test_it-2-b-c-4d7267.json",
        "convergence/test_quick/test_it-2.json",
    ]


def test_a_spec_file_is_checked_by_its_path(place, pytest_in):
    (place / "spec.toml").write_text(SPEC)
    (place / "test_quick.py").write_text(
        "def test_spec(convergence, request):\n"
        "    check = convergence.check(request.path.parent / 'spec.toml')\n"
        "    assert len(check.runs if hasattr(check, 'runs') else check.after.runs) == 2\n"
    )
    assert pytest_in("-n", "0", "--convergence-record")[0] == 0
    (place / "spec.toml").write_text(SPEC.replace("updates = 4", "updates = 6"))
    code, said = pytest_in("-n", "0")
    assert code == 1
    assert "experiment.updates: 4 -> 6" in said
