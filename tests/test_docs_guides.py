"""The code of the guides in docs/ runs, and prints what stands there."""

import importlib.util
import re
import sys
import tomllib
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import jax
import pytest

import stalegrad as sg
from stalegrad.policies.methods import REGISTRY
from stalegrad.policies.synchrony import SYNCHRONIES
from stalegrad.simulator.experiments.experiment import read_experiment
from stalegrad.simulator.timing import blocks
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Exponential, as_delay
from stalegrad.simulator.timing.engine import simulate

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDES = (
    "synchronies", "methods", "anatomy", "availability", "data", "delays", "links", "logs", "rollouts", "theory",
    "what-if", "index", "step-times", "own-model", "own-optimizer", "choosing-k", "gpu", "repeatable", "citing",
    "concepts", "time", "randomness", "check-a-bound",
)  # fmt: skip
ELSEWHERE = {
    "gallery": "drawn by test_docs_site.py",
    "clusters": "below, with stand-ins for clusters",
    "checks": "test_docs_checks.py",
}
"""Pages whose code is not executed here, and why."""


def carried_out(guide):
    """Return the names that a guide's code makes, and what it prints against what it says that it prints.

    Code of PyTorch, which is not a dependency, ends a guide; without PyTorch it ends before.
    """
    text = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\S*).*?\n(.*?)^```", text, re.M | re.S)
    blocks = [(language, code) for language, code in fenced if language in ("", "python")]
    if importlib.util.find_spec("torch") is None:
        blocks = blocks[: next((i for i, (_, code) in enumerate(blocks) if "\nimport torch\n" in code), None)]
    names, printed = {"__name__": "guide"}, StringIO()
    with redirect_stdout(printed):
        for language, code in blocks:
            if language:
                exec(code, names)
    return names, printed.getvalue(), "".join(text for language, text in blocks if not language)


@pytest.fixture(autouse=True)
def no_traces_left(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    precision = jax.config.jax_enable_x64
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._entries))
    monkeypatch.setattr(SYNCHRONIES, "_entries", dict(SYNCHRONIES._entries))
    yield
    jax.config.update("jax_enable_x64", precision)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_prints_what_it_says(guide):
    _, printed, said = carried_out(guide)
    assert printed.split() == said.split()
    assert printed


def test_the_code_of_every_page_is_executed():
    with_code = {file.stem for file in DOCS.glob("*.md") if "\n```python\n" in file.read_text(encoding="utf-8")}
    assert with_code - {*GUIDES} == ELSEWHERE.keys()
    assert not ELSEWHERE.keys() & {*GUIDES}


def test_the_sweeps_of_the_guide_to_clusters_run(monkeypatch):
    """Slurm, Kubernetes and the scheduler are stand-ins; sweeps take what a client of theirs would give."""
    text = (DOCS / "clusters.md").read_text(encoding="utf-8")
    asked, pool = [], ThreadPoolExecutor(1)

    @contextmanager
    def client(where):
        asked.append(where)
        yield type("Client", (), {"get_executor": lambda self, pure: pool})()

    class Jobs:
        def __init__(self, **options):
            self.options = options

        def adapt(self, minimum=0, maximum=0, maximum_jobs=0):
            self.most = maximum or maximum_jobs

    for name, held in {
        "distributed": {"Client": client},
        "dask_jobqueue": {"SLURMCluster": Jobs},
        "dask_kubernetes": {},
        "dask_kubernetes.operator": {"KubeCluster": Jobs},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(held)
        monkeypatch.setitem(sys.modules, name, module)
    made = sg.Problem("softmax-regression", "fashion-mnist-small", batch_size=8)
    names = {
        "__name__": "guide",  # so that no processes are started
        "experiment": sg.Experiment(made, Cluster(2, Exponential()), sg.methods.async_(), updates=5),
        "sweep": sg.sweep,
    }
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for block in blocks:
        exec(re.sub(r"range\(\d+\)", "range(2)", block), names)
    with pool:
        assert asked[0] == "tcp://10.0.0.1:8786"
    assert [cluster.most for cluster in asked[1:]] == [50, 50]
    assert len(names["results"].runs) == 2
    assert len(sg.load("runs/").runs) == 2


def test_tables_of_guides_in_toml_are_read():
    tables = [
        code
        for guide in GUIDES
        for code in re.findall(
            r"^```toml\n(.*?)^```", (DOCS / f"{guide}.md").read_text(encoding="utf-8"), re.M | re.S
        )
    ]
    assert len(tables) >= 2
    problem = {"model": "mlp", "dataset": "fashion-mnist-small"}
    rest = {"problem": problem, "cluster": {"workers": 16}, "method": {"name": "async"}, "updates": 10}
    for code in tables:
        table = tomllib.loads(code)
        table.pop("sweep", None)
        given = {k: {**rest[k], **table[k]} if isinstance(rest.get(k), dict) else table[k] for k in table}
        budget = {"updates"} if {"wallclock", "gradients"} & table.keys() else set()
        assert read_experiment({k: v for k, v in (rest | given).items() if k not in budget})


def test_pytorch_s_parameters_are_reproduced_by_a_replay_of_what_was_recorded():
    pytest.importorskip("torch")
    names, *_ = carried_out("logs")
    for name, parameter in names["model"].named_parameters():
        moved = abs(names["start"][name] - parameter.detach().numpy()).max()
        assert abs(names["again"][name] - parameter.detach().numpy()).max() < min(1e-5, 0.001 * moved)


def test_its_synchronies_do_what_it_says_of_them():
    names, *_ = carried_out("synchronies")
    cluster = Cluster(6, Exponential())
    backup = simulate(cluster, names["FirstOf"](needed=4), updates=200).verify()
    assert (backup.updates.messages == 4).all()
    assert (backup.staleness == 0).all()
    assert set(backup.column("fate")) == {"used", "discarded", "pending"}
    grace = simulate(cluster, names["Grace"](seconds=0.25), updates=200).verify()
    first = grace.messages[grace.messages.fate == "used"].groupby("update").receive_time.min()
    assert (grace.update_times == first + 0.25).all()
    assert grace.updates.messages.nunique() > 2
    impatient = simulate(cluster, names["Impatient"](patience=0.5), updates=200).verify()
    table = impatient.messages
    given_up = table[table.fate == "cancelled"]
    assert len(given_up) > 50
    assert (given_up.finish_time == given_up.read_time + 0.5).all()
    assert (table[table.fate == "used"].eval("finish_time - read_time") <= 0.5 + 1e-9).all()
    assert blocks.pattern_of(names["Impatient"](patience=0.5), 6) is None


def test_its_synchronies_can_be_registered_and_are_checked():
    names, *_ = carried_out("synchronies")
    SYNCHRONIES.register("grace", names["Grace"])
    made = SYNCHRONIES.from_table({"name": "grace", "seconds": 2})
    assert made == names["Grace"](seconds=2.0)
    assert SYNCHRONIES.to_table(made) == {"name": "grace", "seconds": 2.0}


def test_shares_of_a_cycle_are_those_of_its_delays():
    text = " ".join((DOCS / "anatomy.md").read_text(encoding="utf-8").split())
    said = re.search(r"1\.75 s .* in it: ([\d.]+) before reading, ([\d.]+) computing and (\d\.\d+)", text).groups()
    assert list(map(float, said)) == pytest.approx([5 * s / 1.75 for s in (0.5, 1.0, 0.25)], abs=0.006)


def test_the_tables_of_the_guide_to_delays_are_delays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.csv").write_text("worker,step,seconds\n0,0,1.0\n")
    tables = re.findall(r"`(\{ delay = .*?\})`", (DOCS / "delays.md").read_text(encoding="utf-8"))
    whole = [table for table in tables if "..." not in table]
    assert len(whole) >= 2
    for table in whole:
        assert as_delay(tomllib.loads(f"delay = {table}")["delay"])
