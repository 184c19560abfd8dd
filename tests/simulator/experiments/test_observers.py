"""Observers: what trackers are told, against the real libraries where they are installed."""

import math

import pytest

from stalegrad.policies import methods
from stalegrad.simulator import MLflow, TensorBoard, run
from stalegrad.simulator.experiments.identity import key_of, run_name
from stalegrad.simulator.sweeps import lanes as sweep_lanes


class Notes:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def finished(self, result):
        self.told.append((result.experiment, None))

    def failed(self, experiment, traceback):
        self.told.append((experiment, traceback.strip().splitlines()[-1]))


def test_observers_are_told_once_of_each_run_that_is_made(tmp_path, base, silent, monkeypatch):
    def fails(experiment, **options):
        return 1 / 0 if experiment.seed == 1 else run(experiment, **options)

    monkeypatch.setattr(sweep_lanes, "run", fails)
    notes, again = Notes(), Notes()
    silent(store=tmp_path / "runs", seed=range(3), observers=[notes])
    raised = "ZeroDivisionError: division by zero"
    assert notes.told == [(base.but(seed=i), raised if i == 1 else None) for i in range(3)]
    silent(store=tmp_path / "runs", seed=range(4), observers=[again])
    assert again.told == [(base.but(seed=3), None)]
    run(base, progress=False, observers=[notes])
    assert notes.told[-1] == (base, None)


def test_an_observer_that_raises_is_named_and_costs_no_run(silent):
    class Bad(Notes):
        def finished(self, result):
            raise OSError("the tracker is down")

    with pytest.warns(UserWarning, match=r"observer Bad missed a run \(seed = 0\): OSError: the tracker is down"):
        assert len(silent(seed=[0], observers=[Bad()])) == 1


def test_a_run_is_called_by_method_seed_and_key(base):
    e = base.but(method=methods.k_async(k=2), seed=5)
    assert run_name(e) == f"k-async(k=2)-seed5-{key_of(e)[:8]}"


@pytest.mark.parametrize(("tracker", "module"), [(TensorBoard, "tensorboardX"), (MLflow, "mlflow")])
def test_a_tracker_that_is_not_installed_says_what_to_install(tracker, module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install 'stalegrad\[{tracker.__name__.lower()}\]'"):
        tracker("somewhere")


def expected(result):
    """What a tracker should hold: name -> (update, simulated seconds, value), NaN left out."""
    found = {}
    for row in result.history.to_dict("records"):
        for name, value in row.items():
            if name != "update" and not math.isnan(value):
                found.setdefault(name, []).append((row["update"], row["wallclock"], value))
    return found


def test_tensorboard_reads_what_was_written(tmp_path, base):
    """Read back from the event files themselves: records of length, checksum, protocol buffer, checksum."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    result = run(base, progress=False, observers=[TensorBoard(tmp_path)])
    (file,) = (tmp_path / run_name(base)).iterdir()
    content, found, texts, at = file.read_bytes(), {}, [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 12 + length + 4
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, event.wall_time, value.simple_value))
            else:
                texts.append(value.tensor.string_val[0].decode())
    assert found.keys() == expected(result).keys()
    for name, points in expected(result).items():
        assert [p[:2] for p in found[name]] == [p[:2] for p in points]
        assert [p[2] for p in found[name]] == pytest.approx([p[2] for p in points], rel=1e-6)
    assert len(texts) == 1
    assert 'model = "softmax-regression"' in texts[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_logged(tmp_path, base):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MLflow("mine", uri)  # makes the experiment; the next one takes it
    result = run(base, progress=False, observers=[MLflow("mine", uri)])
    client = mlflow.MlflowClient(uri)
    (logged,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == run_name(base)
    assert logged.data.params["method.name"] == "async"
    assert logged.data.params["problem.batch_size"] == "8"
    assert logged.data.metrics.keys() == expected(result).keys()
    for name, points in expected(result).items():
        found = client.get_metric_history(logged.info.run_id, name)
        assert [(m.step, m.timestamp) for m in found] == [(p[0], round(1000 * p[1])) for p in points]
        assert [m.value for m in found] == pytest.approx([p[2] for p in points])
