"""Sweeps whose runs are executed together."""

import numpy as np
import pytest

from stalegrad.policies import KAsync, methods
from stalegrad.simulator import Cluster, Exponential, load, sweep
from stalegrad.simulator.experiments.identity import key_of
from stalegrad.simulator.sweeps.lanes import run_together
from stalegrad.simulator.sweeps.store import Store

AXES = {"method": ["async", "k-async", "dana-zero"], "method.k": [2], "seed": range(3)}


def test_lanes_change_nothing_but_the_rounding(silent):
    one, four = (silent(lanes=lanes, **AXES) for lanes in (1, 4))
    assert [r.execution for r in one.results] == ["scan"] * 9
    assert [r.execution for r in four.results] == ["4 lanes"] * 9
    for a, b in zip(one.results, four.results, strict=True):
        assert a.experiment == b.experiment
        np.testing.assert_allclose(a.history["train_loss"], b.history["train_loss"], rtol=1e-4)


def test_a_store_made_in_pieces_is_that_made_at_once(silent, same, tmp_path):
    silent(store=tmp_path / "whole", lanes=4, **AXES)
    silent(store=tmp_path / "pieces", lanes=4, **AXES | {"seed": [2]})
    silent(store=tmp_path / "pieces", lanes=4, **AXES | {"method": ["k-async"], "seed": [0, 2]})
    silent(store=tmp_path / "pieces", lanes=4, **AXES)
    assert same(tmp_path / "whole" / "runs", tmp_path / "pieces" / "runs")


def test_the_number_of_lanes_is_part_of_the_key(base, silent, tmp_path):
    keys = {key_of(base, lanes) for lanes in (None, 2, 4)}
    assert len(keys) == 3
    silent(store=tmp_path / "store", lanes=1, seed=[0])
    silent(store=tmp_path / "store", lanes=2, seed=[0])
    assert {*Store(tmp_path / "store")} == {key_of(base), key_of(base, 2)}
    assert len(load(tmp_path / "store")) == 2


def test_one_that_raises_does_not_take_its_neighbours_with_it(silent, base):
    late = base.but(cluster=Cluster(4, compute=Exponential(), join=[0, 0, 0, 9]))  # multi-asgd cannot take that
    found = silent(late, lanes=4, method=["multi-asgd", "async"], seed=range(2))
    assert len(found) == 2
    assert set(found.runs["method"]) == {"async"}
    assert len(found.failed) == 2


def test_a_run_with_a_controller_is_alone(base):
    adaptive = base.but(method=methods.adasync(synchrony=KAsync(1), interval=5.0, learning_rate=0.05))
    found = run_together([adaptive, base, base.but(seed=1)], 2)
    assert [r.execution for r in found] == ["scan", "2 lanes", "2 lanes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "lanes = 0 is not allowed"),
        ({"lanes": 2.5}, "lanes = 2.5 is not allowed"),
    ],
)
def test_a_wrong_width_is_refused(base, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(base, progress=False, seed=[0], **options)
