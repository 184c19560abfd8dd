"""Traces shared by runs that differ in the rule only."""

import threading
from dataclasses import dataclass

import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Delay, Experiment, Exponential, Record, simulate, sweep
from stalegrad.simulator.experiments import traces
from stalegrad.simulator.experiments.traces import trace_of, trace_text

BASE = Experiment(
    Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
    Cluster(4, compute=Exponential()),
    methods.async_(learning_rate=0.01),
    updates=40,
    record=Record(updates=40),
)


@pytest.fixture
def simulated(monkeypatch):
    """The synchronies that have been simulated."""
    made = []
    monkeypatch.setattr(traces, "simulate", lambda c, s, **k: made.append((s, k["seed"])) or simulate(c, s, **k))
    monkeypatch.setattr(traces, "_TRACES", traces._Traces())
    return made


def test_runs_that_differ_in_the_rule_only_share_one_trace(simulated):
    rules = [methods.async_(learning_rate=rate) for rate in (0.1, 0.2)]
    swept = sweep(BASE, progress=False, method=rules, seed=range(10))
    assert len(swept) == 20
    assert [seed for _, seed in simulated] == list(range(10))
    assert len({id(trace) for trace in swept.traces}) == 10


def test_a_shared_trace_is_the_one_that_the_run_alone_has(simulated):
    trace_of(BASE)
    shared, alone = (
        trace_of(BASE.but(method=methods.dana_zero(momentum=0.5))),
        simulate(BASE.cluster, BASE.method.synchrony, updates=40),
    )
    assert len(simulated) == 1
    assert shared.messages.equals(alone.messages)
    assert shared.spec == alone.spec


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"updates": 41},
        {"cluster": Cluster(5, compute=Exponential())},
        {"cluster": Cluster(4, compute=Exponential(scale=2.0))},
        {"method": methods.sync()},
        {"method": methods.k_async(k=2)},
    ],
)
def test_what_changes_the_timing_changes_the_trace(other):
    assert trace_text(BASE.but(**other)) != trace_text(BASE)


@pytest.mark.parametrize("other", [{"record": Record(updates=7)}, {"method": methods.async_(learning_rate=1.0)}])
def test_what_does_not_change_the_timing_shares_the_trace(other):
    assert trace_text(BASE.but(**other)) == trace_text(BASE)


@dataclass(frozen=True)
class Mine(Delay):
    def sample(self, rng, size):
        return rng.random(size)


@pytest.mark.parametrize("law", [Mine(), lambda rng, size: rng.random(size)])
def test_laws_of_this_process_have_no_text_and_are_simulated_each_time(law, simulated):
    mine = BASE.but(cluster=Cluster(4, compute=law))
    assert trace_text(mine) is None
    assert trace_of(mine).messages.equals(trace_of(mine).messages)
    assert len(simulated) == 2


def test_where_the_training_has_a_say_no_trace_is_shared():
    assert trace_text(BASE.but(method=methods.adasync(k=2))) is None
    assert trace_text(BASE.but(method=methods.k_async(k=2))) is not None


def test_a_trace_that_is_simulated_ahead_is_simulated_once_and_the_same(monkeypatch):
    began, release, count = threading.Event(), threading.Event(), []
    original = traces._simulated

    def slow(text):
        count.append(threading.current_thread().name)
        began.set()
        assert release.wait(10)
        return original(text)

    monkeypatch.setattr(traces, "_simulated", slow)
    monkeypatch.setattr(traces, "_TRACES", traces._Traces())
    experiment = BASE.but(seed=91)
    traces.simulate_ahead(experiment)
    assert began.wait(10)
    traces.simulate_ahead(experiment)
    threading.Timer(0.05, release.set).start()
    found = trace_of(experiment)
    assert count == ["simulate ahead"]
    assert trace_of(experiment) is found
    again = simulate(experiment.cluster, experiment.method.synchrony, updates=experiment.budget.updates, seed=91)
    assert found.messages.equals(again.messages)


def test_what_a_simulation_ahead_raises_is_raised_where_the_trace_is_asked_for():
    wrong = BASE.but(cluster=Cluster(2, compute=Exponential(), uplink=1e-30))
    traces.simulate_ahead(wrong)
    for _ in range(2):
        with pytest.raises(ValueError, match="uplink of cluster = 1e-30 s is not allowed"):
            trace_of(wrong)
