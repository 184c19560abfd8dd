"""Message sizes that are those of the model: resolved when the problem is known; traces that are shared."""

from dataclasses import dataclass, fields

import jax.numpy as jnp
import pytest

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import (
    Cluster,
    Delay,
    Experiment,
    Exponential,
    Network,
    Record,
    Renewal,
    Uniform,
    from_toml,
    run,
    sweep,
)
from stalegrad.simulator.experiments.identity import Identity, functions_in, registered_in
from stalegrad.simulator.experiments.traces import trace_of, trace_text
from stalegrad.simulator.sweeps import forecast as forecasts
from stalegrad.simulator.sweeps.axes import Run
from stalegrad.simulator.sweeps.forecast import forecast, size_of
from stalegrad.simulator.timing.delays import DELAYS

BYTES = 4 * (784 * 10 + 10)  # softmax regression in float32
SPEED = float(BYTES)


def of(size, cluster=None, **network):
    return Experiment(
        Problem("softmax-regression", "fashion-mnist-small", batch_size=8),
        cluster or Cluster(4, compute=1.0, network=Network(size, **({"upload": SPEED} | network))),
        methods.async_(learning_rate=0.01),
        updates=12,
        record=Record(updates=12),
    )


def test_the_size_of_the_model_is_that_of_its_parameters():
    trace = trace_of(of("model"))
    assert trace.spec["cluster"]["network"]["message_bytes"] == BYTES
    assert trace.update_times[0] == 1.0 + 1.0  # of computing, of the upload
    assert of("model").timed_cluster == of(BYTES).cluster
    mixed = {"a": jnp.zeros((3, 5), jnp.float16), "b": [jnp.zeros(7)]}
    problem = Problem.from_functions(lambda key: mixed, lambda params, batch, key: params["b"][0].sum())
    assert problem.parameter_bytes() == 2 * 15 + 4 * 7
    assert of("model").but(problem=problem).timed_cluster.network.message_bytes == 58


def test_runs_share_a_trace_if_their_models_have_the_same_size():
    assert trace_text(of("model")) == trace_text(of(BYTES)) != trace_text(of(BYTES + 1))
    larger = of("model").but(problem=Problem("mlp", "fashion-mnist-small", batch_size=8, hidden=[8]))
    assert trace_text(larger) != trace_text(of("model"))
    assert Identity.of(of("model")).key != Identity.of(of(BYTES)).key  # their specs say different things
    assert Identity.of(of("model")).key == Identity.of(of("model")).key


def test_runs_sweeps_controllers_and_forecasts_know_the_size(tmp_path, monkeypatch):
    assert run(of("model"), progress=False).trace.spec["cluster"]["network"]["message_bytes"] == BYTES
    adaptive = of("model").but(method=methods.adasync(k=2, interval=3.0, learning_rate=0.01), updates=20)
    result = run(adaptive, progress=False)
    assert result.trace.verify().spec["cluster"]["network"]["message_bytes"] == BYTES
    swept = sweep(
        of("model"),
        store=tmp_path,
        progress=False,
        **{"cluster.network": [Network(BYTES), Network("model", ingress=SPEED)]},
    )
    assert [t.update_times[0] for t in swept.traces] == [1.0, 5.0]  # four uploads at once
    many = Cluster(2_000, compute=1.0, network=Network("model", upload=[SPEED, 2 * SPEED] * 1_000, ingress=1e9))
    assert forecast([Run({}, of("model", many))]).sampled
    models = [
        of("model"),
        of("model").but(problem=Problem("mlp", "fashion-mnist-small", batch_size=8, hidden=[8])),
    ]
    sized = []
    monkeypatch.setattr(forecasts, "size_of", lambda e: sized.append(size_of(e)) or sized[-1])
    forecast([Run({}, e.but(updates=None, wallclock=30.0)) for e in models])
    assert sized[0].gradients < sized[1].gradients  # a smaller model is sent sooner


def test_links_round_trip_through_toml():
    cluster = Cluster(
        3,
        Exponential(1.0),
        uplink=[0.1, Uniform(0.1, 0.2), 0.0],
        downlink=Exponential(0.1),
        server=Uniform(0.0, 0.1),
        server_update=0.5,
        network=Network("model", Exponential(1e3), [1e6, None, 2e6], 5e6, 1e7, 2e7, "fifo"),
    )
    one = of(None, cluster)
    again = from_toml(one.to_toml())
    assert again.cluster == cluster
    assert hash(again.cluster) == hash(cluster)
    assert {f.name for f in fields(Network)} == again.cluster.table()["network"].keys()
    assert Identity.of(again).key == Identity.of(one).key
    assert from_toml(of("model").to_toml()) == of("model")


@dataclass(frozen=True)
class Mine(Delay):
    def sample(self, rng, size):
        return rng.random(size)


PLACES = [
    {"uplink": [Mine(), 0.0, 0.0, 0.0]},
    {"server": Mine()},
    {"network": Network(Mine(), upload=1.0)},
    {"availability": Renewal(Mine(), Exponential(2.0))},
]


@pytest.mark.parametrize("place", PLACES, ids=[next(iter(place)) for place in PLACES])
def test_a_registered_delay_is_noticed_wherever_it_stands(monkeypatch, place):
    monkeypatch.setattr(DELAYS, "_entries", dict(DELAYS._entries))
    DELAYS.register("mine", Mine)
    experiment = of(None, Cluster(4, Exponential(1.0), **place))
    assert list(registered_in(experiment)) == [f"cluster.{next(iter(place))}.mine"]
    assert trace_text(experiment) is None


def test_functions_in_links_are_imported_by_a_run_only():
    text = (
        of(1e3)
        .to_toml()
        .replace("message_bytes = 1000.0", 'message_bytes = { delay = "function", function = "math:fsum" }')
    )
    assert list(functions_in(from_toml(text)).values()) == ["math:fsum"]
