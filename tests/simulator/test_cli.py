"""The command line: what it writes, what it says, and how it ends."""

import json
import re
import shutil
import signal
import struct
import subprocess
import sysconfig
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import stalegrad
from stalegrad.policies import KAsync
from stalegrad.simulator import Cluster, Result, Trace, load, load_experiment, run, simulate
from stalegrad.simulator.cli import app, main
from stalegrad.simulator.cli.list import LISTS

COMMAND = Path(sysconfig.get_path("scripts")) / "stalegrad"
SHORT = """
updates = 4
[problem]
model = "softmax-regression"
dataset = "fashion-mnist-small"
[cluster]
workers = 3
[method]
name = "k-async"
k = 2
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def spec(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text(SHORT)
    return file


def call(*arguments):
    """Run a command that must end well; return what it printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(capsys, monkeypatch, *arguments):
    """Run a command that must be refused; return the sentence it says on stderr."""
    monkeypatch.setattr("sys.argv", ["stalegrad", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    return said.err


def png_size(file):
    """Width and height of a PNG, from its header."""
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


# What works


def test_init_writes_an_experiment_that_runs():
    call("init", "mine.toml")
    text = Path("mine.toml").read_text()
    load_experiment("mine.toml")
    assert text.count("wallclock = 6000.0") == 1
    Path("mine.toml").write_text(text.replace("wallclock = 6000.0", "wallclock = 20"))
    call("run", "mine.toml", "-o", "out")
    assert Result.load("out").history["wallclock"].tolist() == [0, 20]


def test_run_writes_every_file_that_it_names(spec):
    output = call("run", spec, "-o", "deep/out")
    written = [Path(line.removeprefix("wrote ")) for line in output.splitlines() if line.startswith("wrote ")]
    assert {path.name for path in written} >= {"spec.toml", "trace", "history.parquet", "error.png"}
    assert all(path.exists() for path in written)
    for picture in Path("deep/out").glob("*.png"):
        width, height = png_size(picture)
        assert 400 < width < 4_000
        assert 250 < height < 4_000
    assert "k-async, seed 0" in output
    assert load_experiment(spec) == Result.load("deep/out").experiment


def test_run_takes_another_seed(spec):
    call("run", spec, "-o", "out", "--seed", "7")
    assert Result.load("out").experiment.seed == 7


def test_trace_simulates_without_training_and_saves_where_it_is_told(spec, monkeypatch):
    monkeypatch.setattr("stalegrad.models.Problem.objective", lambda self: pytest.fail("a model was made"))
    assert "Trace of k-async, seed 0" in call("trace", spec)
    assert "wrote out" in call("trace", spec, "-o", "out")
    assert len(Trace.load("out").update_times) == 4


def test_trace_tells_what_staleness_consists_of(spec):
    heading, *rows = call("trace", spec).split("speed (gradients/s)\n")[1].splitlines()
    trace = simulate(Cluster(3), KAsync(2), updates=4)
    staleness = [trace.staleness[trace.column("worker")[trace.used] == worker].mean() for worker in range(3)]
    assert heading.split()[:2] == ["worker", "staleness"]
    assert heading.split()[-2:] == ["used", "speed"]
    expected = [f"{mean:.4g}" for mean in (*staleness, trace.staleness.mean())]
    assert [row.split()[:2] for row in rows] == [list(row) for row in zip([*"012", "all"], expected, strict=True)]
    assert [row.split()[-2:] for row in rows] == [["1", "1"]] * 4


def test_trace_takes_many_workers_together_by_speed(spec):
    text = Path(spec).read_text()
    Path("many.toml").write_text(re.sub(r"workers = \d+", "workers = 100\nuplink = 0.1\nserver = 0.01", text))
    heading, *rows = call("trace", "many.toml").split("speed (gradients/s)\n")[1].splitlines()
    assert heading.startswith("slowest first")
    assert [row.split()[0] for row in rows][:2] == ["1\N{EN DASH}7", "8\N{EN DASH}13"]
    assert len(rows) == 17


def test_trace_writes_events_for_viewers(spec):
    assert "wrote events.json" in call("trace", spec, "--perfetto", "events.json")
    events = json.loads(Path("events.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "i" for event in events) == 4


@pytest.mark.parametrize("what", LISTS)
def test_every_list_names_all_its_entries(what):
    output, entries = call("list", what), json.loads(call("list", what, "--json"))
    assert entries
    assert all(entry["name"] in output for entry in entries)


def test_the_command_tells_its_version():
    assert call("--version") == f"{stalegrad.__version__}\n"


def test_list_shows_everything():
    assert json.loads(call("list", "--json")).keys() == LISTS.keys()
    shown = call("list")
    assert all(f"\n{name}: " in "\n" + shown for name in LISTS)
    assert [name for kind in LISTS if kind != "optimizers" for name in LISTS[kind]() if name not in shown] == []


def test_every_listed_method_says_its_synchrony_parameters_and_paper():
    entries = {entry["name"]: entry for entry in json.loads(call("list", "methods", "--json"))}
    assert {"sync", "k-sync", "k-batch-sync", "async", "k-async", "k-batch-async"} <= entries.keys()
    assert all({"name", "paper", "synchrony", "parameters"} <= entry.keys() for entry in entries.values())
    assert entries["k-async"]["parameters"]["learning_rate"] == 0.1
    assert all(entry["paper"] for entry in entries.values())


def test_report_writes_one_file_beside_the_result_or_where_it_is_told(spec):
    result = run(load_experiment(spec), progress=False)
    result.save("out/a")
    replace(result, experiment=result.experiment.but(seed=1)).save("out/b")
    assert "wrote out/a/report.html" in call("report", "out/a")
    first = Path("out/a/report.html").read_text(encoding="utf-8")
    assert "k-async, seed 0" in first
    call("report", "out", "-o", "out/a/report.html", "--target", "0.5", "--force")
    text = Path("out/a/report.html").read_text(encoding="utf-8")
    assert "k-async, seeds 0, 1" in text
    assert "test error of 0.5" in text
    assert sorted(path.name for path in Path("out").iterdir()) == ["a", "b"]


def test_every_command_explains_itself():
    output = call("--help")
    for command in ("demo", "init", "run", "trace", "report", "list", "cite", "doctor"):
        assert command in output
        assert "Usage" in call(command, "--help")


# What is refused


def test_init_overwrites_nothing(spec, capsys, monkeypatch):
    assert f"{spec} exists already: choose another name" in refused(capsys, monkeypatch, "init", spec)
    assert spec.read_text() == SHORT


def test_run_overwrites_nothing_and_says_so_before_any_work(spec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("stalegrad.simulator.run", lambda *a, **k: pytest.fail("work was done"))
    said = refused(capsys, monkeypatch, "run", spec, "-o", tmp_path)
    assert f"{tmp_path} exists and is not empty: choose another place" in said


def test_report_overwrites_nothing_and_says_so_before_any_work(spec, capsys, monkeypatch):
    assert f"{spec} exists already: choose another name" in refused(capsys, monkeypatch, "report", ".", "-o", spec)
    assert spec.read_text() == SHORT


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda out: shutil.rmtree(out), "out is not a directory of results"),
        (lambda out: [shutil.rmtree(out), out.mkdir()], "no result in out: write one with stalegrad run"),
        (lambda out: (out / "result.json").write_text("{"), "result.json is damaged"),
        (lambda out: (out / "history.parquet").write_bytes(b"PAR1"), "history.parquet is damaged"),
        (lambda out: (out / "history.parquet").unlink(), "history.parquet is missing"),
        (lambda out: pd.DataFrame({"update": [0]}).to_parquet(out / "history.parquet"), "parquet is damaged"),
        (lambda out: (out / "spec.toml").write_text("updates = 4"), "spec.toml is damaged"),
        (lambda out: (out / "trace" / "updates.parquet").write_bytes(b""), "updates.parquet is damaged"),
    ],
)  # fmt: skip
def test_report_of_what_is_no_result_is_one_sentence_and_no_file(spec, harm, said, capsys, monkeypatch):
    result = run(load_experiment(spec), progress=False)
    harm(result.save("out"))
    error = refused(capsys, monkeypatch, "report", "out", "-o", "report.html")
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path().rglob("*.html"))


def test_trace_overwrites_no_events_and_says_so_before_any_work(spec, capsys, monkeypatch):
    monkeypatch.setattr("stalegrad.simulator.simulate", lambda *a, **k: pytest.fail("work was done"))
    said = refused(capsys, monkeypatch, "trace", spec, "--perfetto", spec)
    assert f"{spec} exists already: choose another name" in said
    assert spec.read_text() == SHORT


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("updates", "update", "unknown key of the experiment: 'update'. Did you mean 'updates'?"),
        ("workers = 3", "worker = 3", "unknown key of cluster: 'worker'. Did you mean 'workers'?"),
        ("k = 2", "k = 4", "k = 4 of k-async exceeds the number of workers: allowed is 1 to 3"),
        ("k-async", "k-asinc", "unknown method 'k-asinc'. Did you mean 'k-async'?"),
        ("updates = 4", "updates = = 4", "line 2"),
        ("updates = 4", 'record.fn = "nowhere.f"', "fn of record = 'nowhere.f' is not allowed"),
        ('"k-async"', '["k-async"]', "unknown method"),
        ("workers = 3", 'workers = 3\ncompute = { delay = "empirical", file = "." }', "is not a regular file"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec, old, new, said, capsys, monkeypatch):
    spec.write_text(SHORT.replace(old, new))
    for command in (["run", spec, "-o", "out"], ["trace", spec]):
        error = refused(capsys, monkeypatch, *command)
        assert error.startswith("error: ")
        assert said in error
        assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.toml", "-o", "out"], "nowhere.toml"),
        (["run", ".", "-o", "out"], ". is not a regular file"),
        (["trace", "nowhere.toml"], "nowhere.toml"),
        (["init", "nowhere/spec.toml"], "nowhere"),
        (["list", "metods"], "unknown list 'metods'. Did you mean 'methods'?"),
    ],
)
def test_what_is_not_there_is_one_sentence(arguments, said, capsys, monkeypatch):
    error = refused(capsys, monkeypatch, *arguments)
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    ["rum", "run", "run spec.toml", "run spec.toml -o out --seed -1", "demo --seeds 0"],
)
def test_wrong_usage_is_explained_on_stderr(spec, arguments, capsys, monkeypatch):
    assert "Usage" in refused(capsys, monkeypatch, *arguments.split())


def test_the_installed_command_ends_with_two_and_no_traceback(tmp_path):
    assert COMMAND.exists(), "install the package: the command is missing"
    ended = subprocess.run([COMMAND, "trace", "nowhere.toml"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


def test_the_installed_command_works(spec):
    assert shutil.which("stalegrad", path=str(COMMAND.parent))
    ended = subprocess.run([COMMAND, "trace", spec, "-o", "out"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(Trace.load("out").update_times) == 4


# Sweeps


@pytest.fixture
def sweep_spec(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(SHORT + '[sweep]\nmethod = ["async", "k-async"]\n"method.k" = [1, 2]\nseed = [0, 1]\n')
    return file


def test_a_spec_with_a_table_sweep_runs_every_combination_once(sweep_spec):
    planned = call("run", sweep_spec, "-o", "runs", "--dry-run")
    assert "6 runs, 0 of them done already" in planned
    assert planned.count("k-async") == 4
    assert "6 distinct traces" in planned
    assert re.search(r"about \d+ (s|min) of real time one after the other\nabout [\d.]+ GiB of memory", planned)
    assert not Path("runs").exists()
    printed = call("run", sweep_spec, "-o", "runs")
    assert "k-async(k=2)" in printed
    assert len(load("runs")) == 6
    assert "6 runs, 6 of them done already" in call("run", sweep_spec, "-o", "runs", "--dry-run")


def test_a_dry_run_of_a_single_experiment_runs_nothing(tmp_path):
    (tmp_path / "spec.toml").write_text(SHORT)
    assert "1 run, 0 of them done already" in call("run", tmp_path / "spec.toml", "-o", "out", "--dry-run")
    assert not Path("out").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_runs_on_a_dask_cluster(sweep_spec):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as c:
        call("run", sweep_spec, "-o", "runs", "--scheduler", c.scheduler_address)
    assert len(load("runs")) == 6


def test_an_interrupt_says_what_is_done_and_ends_with_130(sweep_spec, monkeypatch):
    from stalegrad.simulator.sweeps import lanes as module

    def interrupted(experiment, **options):
        if experiment.method.name == "k-async":
            raise KeyboardInterrupt
        return run(experiment, **options)

    monkeypatch.setattr(module, "run", interrupted)
    result = CliRunner().invoke(app, ["run", str(sweep_spec), "-o", "runs"])
    assert result.exit_code == 130
    assert "2 of 6 runs are done and kept in runs; the same call continues from there" in result.output


def test_fail_fast_ends_with_1_and_says_what_raised(sweep_spec, monkeypatch):
    from stalegrad.simulator.sweeps import lanes as module

    monkeypatch.setattr(module, "run", lambda *a, **k: 1 / 0)
    result = CliRunner().invoke(app, ["run", str(sweep_spec), "-o", "runs", "--fail-fast"])
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert "0 of 6 runs are done" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "3"], "--seed = 3 is not allowed: the spec is a sweep"),
        (["--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"], "--scheduler = tcp://127.0.0.1:1 is not allowed"),
    ],
)
def test_options_that_do_not_go_with_a_sweep_are_one_sentence_and_2(
    options, said, sweep_spec, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["stalegrad", "run", str(sweep_spec), "-o", "runs", *options])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in capsys.readouterr().err


def test_a_sweep_of_which_a_run_raised_ends_with_1_and_says_which(sweep_spec, monkeypatch):
    from stalegrad.simulator.sweeps import lanes as module

    def fails(experiment, **options):
        return 1 / 0 if experiment.method.name == "async" else run(experiment, **options)

    monkeypatch.setattr(module, "run", fails)
    result = CliRunner().invoke(app, ["run", str(sweep_spec), "-o", "runs"])
    assert result.exit_code == 1
    assert "failed: method = async, seed = 0: ZeroDivisionError" in result.output
    assert len(load("runs")) == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sed = [1]", "unknown axis 'sed'"),
        ("seed = 1", "axis 'seed'"),
        ("seed = []", "axis 'seed' is empty"),
        ('mode = "all"', "mode of sampling"),
        ('"method.k" = [9]', "k = 9"),
    ],
)
def test_a_wrong_sweep_is_one_sentence_and_2(line, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "sweep.toml").write_text(f"{SHORT}[sweep]\n{line}\n")
    monkeypatch.setattr("sys.argv", ["stalegrad", "run", "sweep.toml", "-o", "runs"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def ended(process, seconds=60):
    """The exit code and what a process printed; it has no more than so many seconds left."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what a process has loaded")
@pytest.mark.parametrize(("library", "kind"), [("numpy", "delays"), ("jaxlib", "optimizers")])
def test_an_interrupt_while_a_command_imports_is_one_sentence(library, kind):
    process = subprocess.Popen([COMMAND, "list", kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err) == (130, "interrupted\n")


def test_two_interrupts_of_a_sweep_end_it_at_once_and_leave_the_store_whole(sweep_spec, tmp_path):
    sweep_spec.write_text(
        sweep_spec.read_text().replace("seed = [0, 1]", "seed = [" + ", ".join(map(str, range(400))) + "]")
    )
    process = subprocess.Popen(
        [COMMAND, "run", sweep_spec, "-o", tmp_path / "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len([*(tmp_path / "runs" / "runs").glob("[0-9a-f]*")]) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert code == 130
    assert "Traceback" not in out + err
    assert "interrupted" in err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(tmp_path / "runs")) >= 3
