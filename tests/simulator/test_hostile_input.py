"""Specs and baselines with anything in them: each is read, or refused in a sentence, and never a traceback."""

import copy
import json
import sys
import tomllib

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings, strategies as st

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Experiment, Exponential
from stalegrad.simulator.cli import main
from stalegrad.simulator.cli.init import EXAMPLE
from stalegrad.simulator.regression import Plan, Recording, record
from stalegrad.simulator.regression.recording import _checksum
from stalegrad.simulator.sweeps.axes import load_sweep, plan as planned

FULL = tomllib.loads(EXAMPLE) | {
    "cluster": {
        "workers": 3,
        "compute": [
            {"delay": "two-level-gamma", "mean": 1.0, "task_cv": 0.1, "machine_cv": 0.6},
            {"delay": "hyper-exponential", "weights": [0.5, 0.5], "means": [1.0, 2.0]},
            {"delay": "scipy", "name": "gamma", "parameters": {"a": 2.0, "scale": 0.5}},
        ],
        "speeds": [1.0, 2.0, 0.5],
        "join": {"delay": "uniform", "low": 0.0, "high": 2.0},
        "uplink": 0.1,
    },
    "method": {
        "name": "mindthestep",
        "learning_rate": {"schedule": "step-decay", "peak": 0.1, "milestones": [1.0, 2.0], "unit": "updates"},
        "synchrony": {"name": "k-async", "k": 1},
    },
    "record": {"updates": 5, "fn": "mine:norm", "train_examples": 10},
    "sweep": {
        "seed": [0, 1],
        "method.learning_rate": [0.1, 0.2],
        "cluster.workers": [3],
        "method": ["async", {"name": "k-async", "k": 2}],
        "mode": "grid",
    },
}
SIMPLE = {
    "updates": 4,
    "seed": 0,
    "problem": {"model": "mlp", "dataset": "fashion-mnist-small", "batch_size": 8, "hidden": [4]},
    "cluster": {"workers": 2, "compute": {"delay": "empirical", "samples": [1.0, 2.0], "weights": [1.0, 3.0]}},
    "method": {"name": "async", "optimizer": {"name": "adam", "b1": 0.9}, "weight_decay": "none"},
    "sweep": {"seed": {"low": 0, "high": 9}, "mode": "random", "samples": 2, "sampling_seed": 1},
}

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 10**9]),
    st.floats(allow_nan=True),
    st.sampled_from([1e308, -1e308, 5e-324, 1e-300, 0.0, -0.0]),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", "none", "async", "adam", "a:b", "os:system", "..:x", "/dev/zero", ".", "nan", "1e5", "$\\q$"]
    ),
    st.sampled_from(["<img src=x onerror=alert(1)>", "a\nb", "\u202eabc", "\x00", "x" * 5000]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXTS, st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["delay", "name", "k", "scale", "low"]), TEXTS), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def places(table, where=()):
    """Every place of nested tables and lists: the keys that lead there."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*where, key)
        yield from places(value, (*where, key))


@st.composite
def altered(draw, tables):
    """One of the tables with one to three places replaced, removed or joined by a new key."""
    table = copy.deepcopy(draw(st.sampled_from(tables)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(table))
        *path, last = draw(st.sampled_from(found))
        inside = table
        for key in path:
            inside = inside[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if change == "replace":
            inside[last] = draw(VALUES)
        elif change == "remove":
            del inside[last]
        elif isinstance(inside, dict):
            inside[draw(TEXTS)] = draw(VALUES)
        if not list(places(table)):
            break
    return table


def sentence(error):
    """What is refused is refused in words, not by what Python happened to trip over."""
    said = str(error)
    assert said
    assert said.count("\n") <= 12, said  # a spec's own newlines, quoted or not
    return said


def check_spec(table, file):
    try:
        file.write_text(tomli_w.dumps(table), encoding="utf-8")
    except (ValueError, TypeError, UnicodeEncodeError):
        return  # no TOML at all
    try:
        found = load_sweep(file)
    except (ValueError, OSError) as error:
        sentence(error)
    else:
        assert found.runs or found.base


def fuzz(examples):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=quiet, derandomize=True)


@fuzz(100)
@given(table=altered([FULL, SIMPLE]))
def test_any_spec_is_read_or_refused_in_a_sentence(table, tmp_path):
    check_spec(table, tmp_path / "spec.toml")


@pytest.mark.slow
@fuzz(2_000)
@given(table=altered([FULL, SIMPLE]))
def test_any_of_very_many_specs_is_read_or_refused_in_a_sentence(table, tmp_path):
    check_spec(table, tmp_path / "spec.toml")


BASELINE = []


@pytest.fixture(scope="module", autouse=True)
def _baseline():
    base = Experiment(
        Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
        Cluster(2, Exponential()),
        methods.async_(learning_rate=0.05),
        updates=4,
    )
    made = record(Plan.of(base, planned(base, {"seed": [0, 1]})), progress=False)
    BASELINE.append(json.loads(made.dumps()))


def check_baseline(data, file, honest):
    table = copy.deepcopy(BASELINE[0])
    expected = table.pop("sha256")
    table = data.draw(altered([table]))
    try:
        text = json.dumps(table | {"sha256": _checksum(table) if honest else expected})
    except (ValueError, TypeError):
        return
    file.write_text(text)
    try:
        assert Recording.load(file).plan.runs
    except (ValueError, OSError) as error:
        sentence(error)
    else:
        assert honest or table == {k: v for k, v in BASELINE[0].items() if k != "sha256"}


@fuzz(100)
@given(data=st.data(), honest=st.booleans())
def test_any_baseline_is_read_or_refused_in_a_sentence(data, honest, tmp_path):
    check_baseline(data, tmp_path / "base.json", honest)


@pytest.mark.slow
@fuzz(2_000)
@given(data=st.data(), honest=st.booleans())
def test_any_of_very_many_baselines_is_read_or_refused_in_a_sentence(data, honest, tmp_path):
    check_baseline(data, tmp_path / "base.json", honest)


def test_no_flipped_bit_of_a_baseline_is_read(tmp_path):
    """Every bit of the head, where settings stand, and of a run; layout aside."""
    whole = json.dumps(BASELINE[0])
    file = tmp_path / "base.json"
    step = max(1, len(whole) * 8 // 500)
    for bit in range(0, len(whole) * 8, step):
        content = bytearray(whole.encode())
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"base\.json"):
            Recording.load(file)


TEXT = tomli_w.dumps(SIMPLE | {"sweep": {"seed": [0, 1]}})


def computing(**delay):
    return tomli_w.dumps(SIMPLE | {"cluster": {"workers": 2, "compute": delay}, "sweep": {"seed": [0, 1]}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (TEXT.replace("seed = 0", "seed = 1180591620717411303424"), "seed"),
        (TEXT.replace("updates = 4", "updates = 4\nwallclock = nan"), "wallclock"),
        (
            TEXT + f'\nupdates = [{", ".join(["1"] * 400)}]\n"problem.batch_size" = [{", ".join(["1"] * 400)}]',
            "runs",
        ),
        (TEXT + "\nmethod = 3\n", "axis 'method' = 3 is not allowed"),
        (TEXT + "\nmethod = [3]\n", "method = 3 is not allowed"),
        (TEXT + '\nmode = "random"\nsamples = 1000000000\n', "samples = 1000000000 is not allowed"),
        (
            TEXT + "\nupdates = { low = 1, high = 1" + "0" * 400 + ' }\nmode = "random"\nsamples = 2\n',
            "high of range",
        ),
        (computing(delay="function", function="..:x"), "package.module:function"),
        (computing(delay="scipy", name="gamma", parameters=[1, 2]), "parameters"),
        (TEXT.replace('name = "async"', 'name = "async"\nlocal_steps = 2147483648'), "local_steps"),
        ("\ufeff" + TEXT, None),
    ],
)
def test_what_takes_too_much_or_means_nothing_is_one_sentence_on_the_command_line(
    text, said, tmp_path, monkeypatch, capsys
):
    spec = tmp_path / "spec.toml"
    spec.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["stalegrad", "run", str(spec), "-o", str(tmp_path / "out"), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == (0 if said is None else 2)
    if said is not None:
        assert printed.err.startswith("error: ")
        assert said in printed.err
        assert printed.err.count("\n") == 1
