"""Workers that return have lost what they kept: replays against loops in NumPy that know it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, methods
from stalegrad.simulator import Cluster, Exponential, Record, Renewal, replay, simulate
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import Request, replay_together

CLUSTER = Cluster(4, Exponential(1.0), availability=Renewal(Exponential(8.0), Exponential(3.0)))
RATE = 0.1


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def bowl():
    """f(w) = w^4 / 4 in two dimensions: gradients differ between points."""
    return Problem.from_functions(lambda key: jnp.asarray([1.0, -0.5]), lambda w, batch, key: 0.25 * jnp.sum(w**4))


def played(method, trace, execution):
    problem, record = bowl(), Record(updates=1, params=True)
    if execution == "lanes":
        return replay_together([Request(trace, problem, method, record, 0)] * 2, 2)[0].snapshots["params"]
    return replay(trace, problem, method, record=record, execution=execution).snapshots["params"]


def stays(trace):
    """Return, of every used message, in which stay of its worker it was computed."""
    away = trace.absences
    columns = zip(*(trace.column(name)[trace.used] for name in ("worker", "read_time")), strict=True)
    return [int(((away["worker"] == worker) & (away["leave_time"] <= read)).sum()) for worker, read in columns]


def used(trace):
    columns = (trace.column(name)[trace.used].tolist() for name in ("worker", "read_version", "update"))
    return zip(*columns, stays(trace), strict=True)


@pytest.mark.parametrize("execution", ["scan", "loop", "lanes"])
def test_a_model_of_its_own_is_lost_with_its_machine(execution):
    """EASGD: e = alpha (x - center), center += e, x <- x - eta g(x) - e; one that is back begins at the center."""
    method = methods.easgd(learning_rate=RATE, alpha=0.2)
    trace = simulate(CLUSTER, method.synchrony, updates=120, seed=2)
    assert lower(trace).returned.sum() > 5
    versions, own = [np.array([1.0, -0.5])], {}
    for worker, read, _, stay in used(trace):
        x, pull = own.get((worker, stay), (versions[read], 0.0))
        x = x - RATE * x**3 - pull
        pull = 0.2 * (x - versions[-1])
        own[worker, stay] = x, pull
        versions.append(versions[-1] + pull)
    np.testing.assert_allclose(played(method, trace, execution), versions, rtol=1e-12)


@pytest.mark.parametrize("execution", ["scan", "loop"])
def test_a_release_that_is_not_merged_is_lost_with_its_machine(execution):
    """Delayed averaging: a cycle starts at y_j + d, d the worker's last cycle; one that is back begins at y_j."""
    method = methods.delayed_averaging(learning_rate=RATE, tau=4)
    trace = simulate(CLUSTER, method.synchrony, updates=40, seed=4)
    assert trace.updates["messages"].nunique() > 1
    versions, own, merged = [np.array([1.0, -0.5])], {}, []
    current = 0
    for worker, read, update, stay in used(trace):
        if update > current:
            versions.append(versions[-1] + np.mean(merged, axis=0))
            merged, current = [], update
        start = versions[read] + own.get((worker, stay), 0.0)
        point = start - RATE * start**3
        point = point - RATE * point**3
        own[worker, stay] = point - start
        merged.append(point - start)
    versions.append(versions[-1] + np.mean(merged, axis=0))
    np.testing.assert_allclose(played(method, trace, execution), versions, rtol=1e-12)


def test_nothing_is_lost_where_nobody_has_returned():
    cluster = Cluster(3, Exponential(1.0))
    assert lower(simulate(cluster, Async(), updates=30)).returned is None
    trace = simulate(CLUSTER, Async(), updates=60, seed=2)
    seen, flags = {}, []
    for worker, _, _, stay in used(trace):
        flags.append(worker in seen and seen[worker] != stay)
        seen[worker] = stay
    assert lower(trace).returned.tolist() == flags
