"""What each entrance loads: heavy libraries are imported where they are used, and nowhere before."""

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stalegrad

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

HEAVY = {
    "IPython", "PIL", "distributed", "flax", "jax", "jaxlib", "matplotlib", "numpy", "optax", "pandas", "pooch",
    "pydantic", "rich", "scipy", "scipy.optimize", "scipy.special", "scipy.stats", "simpy", "tqdm", "typer",
}  # fmt: skip
"""Libraries that take time to import. (Pandas imports pyarrow, too.)"""

NUMBERS = {"numpy", "pydantic"}
SHELL = {"pydantic", "rich", "typer"}
TIMING = NUMBERS | {"pandas", "scipy", "simpy"}
COMMAND = """
import sys
sys.argv[1:] = {!r}.split()
from stalegrad.__main__ import main
try:
    main()
except SystemExit:
    pass
"""
CLUSTER = "from stalegrad.simulator import Cluster, Exponential, simulate; from stalegrad.policies import KAsync\n"
EXPERIMENT = """
import inspect
from stalegrad.simulator import Cluster, Exponential, Experiment
from stalegrad.models import Problem
from stalegrad.policies import methods
for info in methods.REGISTRY.values():
    values = {"seconds": (1.0, 2.0)}
    needed = [name for name, p in inspect.signature(info).parameters.items() if p.default is p.empty]
    info(**{name: values.get(name, 2) for name in needed})
Experiment(Problem("resnet-20", "cifar-10"), Cluster(4, Exponential()), methods.dana_zero(), updates=10)
"""

ENTRANCES = {  # entrance: (code, the heavy libraries that it may load)
    "import stalegrad": ("import stalegrad", set()),
    "import of every room": (
        "import stalegrad.simulator, stalegrad.policies, stalegrad.models, stalegrad.analysis", set()
    ),
    "--help": (COMMAND.format("--help"), SHELL),
    "run --help": (COMMAND.format("run --help"), SHELL),
    "check run --help": (COMMAND.format("check run --help"), SHELL),
    "list": (COMMAND.format("list"), SHELL),
    "list methods": (COMMAND.format("list methods"), SHELL),
    "list models": (COMMAND.format("list models"), SHELL),
    "list datasets": (COMMAND.format("list datasets"), SHELL),
    "list delays": (COMMAND.format("list delays"), SHELL | {"numpy", "scipy"}),
    "the command alone": (COMMAND.format(""), SHELL),
    "doctor": (COMMAND.format("doctor"), SHELL | {"jax", "jaxlib", "numpy", "pooch", "scipy", "tqdm"}),
    "init": (COMMAND.format("init spec.toml"), SHELL),
    "pytest plugin": ("import stalegrad.testing", set()),
    "a cluster": (CLUSTER + "Cluster(4, Exponential())", TIMING),
    "a problem and every method": (EXPERIMENT, TIMING - {"simpy"}),
    "simulate": (CLUSTER + "simulate(Cluster(4, Exponential()), KAsync(2), updates=20)", TIMING),
    "what-if": (
        COMMAND.format("what-if steps.csv"), TIMING | SHELL | {"scipy.stats", "scipy.special", "scipy.optimize"}
    ),
    "run": ("from stalegrad.simulator import run", NUMBERS | {"pandas", "scipy", "simpy", "tqdm"}),
    "trace": (COMMAND.format("trace spec.toml"), TIMING | SHELL | {"tqdm"}),
    "cite": (COMMAND.format("cite spec.toml"), TIMING | SHELL),
    "list papers": (COMMAND.format("list papers"), SHELL),
}  # fmt: skip

SPEC = """
updates = 20
[problem]
model = "mlp"
dataset = "fashion-mnist-small"
[cluster]
workers = 4
compute = { delay = "exponential" }
[method]
name = "k-async"
k = 2
"""

LOADED = f"""
import json, sys
print(json.dumps([name for name in {sorted(HEAVY)!r} if name in sys.modules]))
"""


def loaded(code, place):
    """The heavy libraries that a fresh process has loaded after running some code."""
    ended = subprocess.run(
        [sys.executable, "-c", code + LOADED], cwd=place, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_an_entrance_loads_what_it_needs_only(entrance, tmp_path):
    code, allowed = ENTRANCES[entrance]
    if entrance in ("trace", "cite"):
        (tmp_path / "spec.toml").write_text(SPEC)
    if entrance == "what-if":
        rows = [f"{worker},{step},{1 + worker % 2 * step % 3}" for worker in range(4) for step in range(20)]
        (tmp_path / "steps.csv").write_text("\n".join(["worker,step,seconds", *rows]))
    assert loaded(code, tmp_path) - allowed == set()


def test_a_library_that_is_loaded_too_soon_would_be_found(tmp_path):
    assert loaded("import stalegrad.simulator.replays.run", tmp_path) >= {"jax", "numpy", "pandas"}


# The curated namespace


def test_the_root_offers_names_of_the_rooms_and_a_version():
    assert 30 <= len(stalegrad.__all__) <= 50
    assert [name for name in stalegrad.__all__ if getattr(stalegrad, name, None) is None] == []
    assert stalegrad.__version__ == VERSION
    assert stalegrad.run is __import__("stalegrad.simulator", fromlist=["run"]).run
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = stalegrad.no_such_name


@pytest.mark.parametrize("name", ["", ".simulator", ".policies", ".models", ".analysis"])
def test_names_are_offered_as_editors_see_them(name):
    module = importlib.import_module(f"stalegrad{name}")
    stub = Path(module.__file__).with_suffix(".pyi").read_text()
    assert [offered for offered in module.__all__ if f"{offered} as {offered}" not in stub] == []


@pytest.mark.parametrize("place", [ROOT, ROOT / "simulator"], ids=["checkout", "simulator"])
def test_the_package_is_imported_with_the_checkout_as_current_directory(place):
    code = "import stalegrad.simulator.timing.engine, stalegrad.testing; print(stalegrad.__version__)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == (f"{VERSION}\n", "")


def test_names_that_others_rely_on_stay_importable():
    from stalegrad.models.datasets import ImageFolder
    from stalegrad.policies.methods import REGISTRY
    from stalegrad.policies.optimizers import optimizer_names
    from stalegrad.simulator import load

    assert callable(load)
    assert callable(ImageFolder)
    assert "adam" in optimizer_names()
    assert "k-async" in REGISTRY
