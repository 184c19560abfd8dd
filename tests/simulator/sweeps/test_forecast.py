"""What a dry run says of a sweep."""

import math
import tracemalloc
from types import SimpleNamespace

import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, methods
from stalegrad.simulator import Cluster, Experiment, Exponential, Record, run, simulate
from stalegrad.simulator.sweeps import forecast as module
from stalegrad.simulator.sweeps.axes import plan
from stalegrad.simulator.sweeps.forecast import (
    Cost,
    Size,
    distinct_traces,
    forecast,
    format_duration,
    size_of,
    state_bytes,
    trial,
)

BASE = Experiment(
    Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    Cluster(4, compute=Exponential()),
    methods.async_(learning_rate=0.01),
    updates=40,
)


def test_tables_and_momenta_of_every_worker_are_counted():
    """A table has a row for each of n workers; DANA a momentum for each, and their sum; EASGD a model, a pull."""
    model = BASE.problem.parameter_bytes()
    kept = {
        "async": 0,
        "ia2sgd": 20 * model,
        "dude": 21 * model,
        "ringleader": 21 * model,
        "ca2fl": 22 * model,
        "dana-zero": 21 * model,
        "easgd": 40 * model,
    }
    for name, expected in kept.items():
        method = methods.method(name, {"k": 2} if name == "ca2fl" else {})
        assert expected <= state_bytes(BASE.problem, method, 20) <= expected + 200, name


def test_traces_are_counted_once_for_all_rules():
    axes = {"method": ["async", "dana-zero", "sync"], "method.learning_rate": [0.1, 0.2], "seed": range(3)}
    runs = plan(BASE, axes)
    assert len(runs) == 18
    assert distinct_traces(runs) == 6  # async and dana-zero have one synchrony
    controlled = plan(BASE, {"method": [{"name": "adasync", "k": 2}], "method.learning_rate": [0.1, 0.2]})
    assert distinct_traces(controlled) == 2


def test_the_size_of_a_run_is_that_of_the_run():
    for budget in ({"updates": 40}, {"updates": None, "wallclock": 9.0}, {"updates": None, "gradients": 50}):
        for method in (methods.async_(), methods.k_async(k=3)):
            e = BASE.but(method=method, record=Record(updates=7), **budget)
            result = run(e, progress=False)
            size = size_of(e)
            assert size.rows == len(result.history)
            assert size.gradients == result.history["gradients"].iloc[-1]


@pytest.mark.parametrize("budget", [{"updates": 2_000}, {"wallclock": 2_000.0}, {"gradients": 4_000}])
@pytest.mark.parametrize(
    "method", [methods.async_(), methods.sync(), methods.k_async(k=3), methods.k_batch_sync(k=6)]
)
@pytest.mark.parametrize("record", [Record(updates=10), Record(gradients=40), Record(wallclock=5.0), Record()])
def test_a_large_run_is_extrapolated_from_a_part_of_it(budget, method, record, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", math.inf)  # however busy the machine is
    e = BASE.but(**{"updates": None, "method": method, "record": record, **budget})
    whole = size_of(e)
    assert not whole.sampled
    monkeypatch.setattr(module, "SAMPLE_MESSAGES", 500)
    part = size_of(e)
    assert part.sampled
    assert part.gradients == pytest.approx(whole.gradients, rel=0.2)
    assert part.rows == pytest.approx(whole.rows, rel=0.2)
    assert part.bytes == pytest.approx(whole.bytes, rel=0.2)
    assert whole.versions / 2 <= part.versions <= whole.versions * 2


@pytest.mark.parametrize("method", [methods.async_(), methods.sync()])
def test_a_wide_run_is_extrapolated_from_one_with_fewer_workers(method, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", math.inf)
    e = BASE.but(cluster=Cluster(64, compute=[Exponential()] * 64), method=method, updates=400)
    whole = size_of(e)
    monkeypatch.setattr(module, "SAMPLE_WORKERS", 16)
    part = size_of(e)
    assert part.sampled
    assert part.gradients == whole.gradients
    assert part.rows == whole.rows
    assert part.bytes == pytest.approx(whole.bytes, rel=0.2)
    assert whole.versions / 2 <= part.versions <= whole.versions * 2


def test_runs_that_would_never_end_are_forecast_all_the_same():
    for budget in ({"updates": 10**12}, {"wallclock": 1e300}):
        size = size_of(BASE.but(**{"updates": None, **budget}))
        assert size.sampled
        assert size.gradients > 10**11
        assert size.rows <= 52
    wide = size_of(BASE.but(cluster=Cluster(10**7, compute=Exponential())))
    assert wide.bytes > 10**7 * module.WORKER_BYTES


def test_the_memory_of_a_simulation_is_that_of_its_workers_and_messages():
    for workers, updates in ((500, 1), (4, 4_000)):
        tracemalloc.start()
        simulate(Cluster(workers, Exponential()), Async(), updates=updates)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken / 2 < workers * module.WORKER_BYTES + updates * module.MESSAGE_BYTES < 2 * taken


def test_a_forecast_adds_up_what_its_trials_say(monkeypatch):
    monkeypatch.setattr(module, "size_of", lambda e: Size(gradients=100, rows=10, versions=4, seconds=0.5))
    costs = {"async": Cost(3.0, 0.25, 0.01, 0.5, 10**12), "sync": Cost(1.0, 0.0, 0.02, 0.5, 8)}
    monkeypatch.setattr(module, "trial", lambda e, gradients: costs[e.method.name])
    found = forecast(
        plan(BASE, {"method": ["async", "sync"], "method.learning_rate": [0.1, 0.2], "seed": range(2)})
    )
    # compiled once a kind; four runs of each kind; one trace for each kind and seed
    assert found.seconds == pytest.approx(3 + 1 + 4 * (0.25 + 1 + 5) + 4 * (2 + 5) + 4 * 0.5)
    assert found.traces == 4
    assert found.kinds == 2
    assert 4e12 < found.memory < 4e12 + 64e9


def test_a_trial_tells_compiling_gradients_and_rows_apart(monkeypatch):
    """On a clock of our own: 1 ms a gradient, 2 ms a row, 50 ms a run, and 100 ms when a length is new."""
    now, seen = [0.0], []
    real = run(BASE.but(updates=1), progress=False)

    def takes(e, progress):
        now[0] += 0.1 * (e.gradients not in seen) + 0.001 * e.gradients + 2 * 0.002 + 0.05
        seen.append(e.gradients)
        return SimpleNamespace(params=real.params, stats=real.stats)

    def evaluates(*_):
        now[0] += 0.002

    monkeypatch.setattr(module, "run", takes)
    monkeypatch.setattr(module, "evaluate", evaluates)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    cost = trial(BASE, 10**6)
    assert cost[:4] == pytest.approx((0.1, 0.05, 0.001, 0.002))
    assert cost.version == 4 * (784 * 10 + 10)
    assert max(seen) < 10**4  # it stops as soon as that takes long enough
    assert trial(BASE, 20)[1:4] == pytest.approx((0.0, 0.07 / 20, 0.002))  # all that there is


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.4, "3 s"), (90.0, "2 min"), (7200.0, "2.0 h"), (1e6, "12 days"), (1e295, "more than 100 years")],
)
def test_a_time_is_said_in_a_handy_unit(seconds, said):
    assert format_duration(seconds) == said
