"""Delays with memory in specs, stores and sweeps: kept, found again, and told apart."""

import numpy as np
import pytest

from stalegrad._core.specs import spec
from stalegrad.simulator import (
    Cluster,
    Correlated,
    Exponential,
    Gamma,
    MarkovModulated,
    Recorded,
    Shared,
    from_toml,
    load,
    simulate,
)
from stalegrad.simulator.experiments.identity import functions_in, key_of
from stalegrad.simulator.experiments.traces import trace_text
from stalegrad.simulator.timing.delays import DELAYS, Delay


def test_a_sweep_over_the_measured_jobs_is_stored_and_goes_on(base, silent, tmp_path):
    experiment = base.but(cluster=Cluster(workers=10, compute=1.0))
    jobs = [Recorded.measured(f"alibaba-job-{number}", scale=0.2) for number in range(1, 5)]
    silent(experiment, store=tmp_path / "runs", **{"cluster.compute": jobs[:2]})
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("history*")}
    swept = silent(experiment, store=tmp_path / "runs", **{"cluster.compute": jobs})
    assert len(finished) == 2
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    for job, result in zip(jobs, swept.results, strict=True):
        expected = simulate(Cluster(10, job), experiment.method.synchrony, updates=len(result.trace.update_times))
        np.testing.assert_array_equal(result.trace.update_times, expected.update_times)
    assert len(load(tmp_path / "runs")) == 4


@pytest.mark.parametrize(
    "delay",
    [
        Shared(Correlated(Gamma(1.0, 0.5), 0.7), Exponential(1.0), period=5.0, group=[0, 1, 0, 1]),
        MarkovModulated([Exponential(1.0), Exponential(5.0)], mean_stay=[30.0, 10.0], unit="seconds"),
        Recorded([[1.0, 2.0]] * 4, start="random"),
    ],
    ids=lambda d: type(d).__name__,
)
def test_experiments_go_through_toml_to_the_same_key(base, delay):
    experiment = base.but(cluster=Cluster(4, delay))
    again = from_toml(experiment.to_toml())
    assert again.cluster == experiment.cluster
    assert key_of(again) == key_of(experiment)
    assert key_of(experiment) != key_of(base.but(cluster=Cluster(4, 1.0)))


def test_functions_and_delays_of_users_are_found_inside_others(base, monkeypatch):
    monkeypatch.setattr(DELAYS, "_entries", dict(DELAYS._entries))
    inner = {"delay": "function", "function": "mine:times"}
    found = base.but(cluster=Cluster(4, MarkovModulated([inner, 1.0], [3.0, 3.0])))
    assert functions_in(found) == {"cluster.compute.states[0].function": "mine:times"}

    def keys(factor):
        @spec
        class Constant(Delay):
            def sample(self, rng, size):
                return np.full(size, factor * 2.0)

        own = DELAYS.register("my-delay", Constant)()
        experiment = base.but(cluster=Cluster(4, Shared(own, 2.0, period=3.0)))
        return key_of(experiment), trace_text(experiment)

    assert keys(1.0) == keys(1.0)
    assert keys(1.0)[0] != keys(3.0)[0]
    assert keys(1.0)[1] is None
