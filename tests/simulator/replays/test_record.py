"""What a history holds: its rows, and columns of the user's own."""

import jax.numpy as jnp
import numpy as np
import pytest

from stalegrad.models import Problem
from stalegrad.policies import Async, KAsync, KSync, methods
from stalegrad.simulator import Budget, Cluster, Record, TraceError, replay, simulate
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.record import COLUMNS, ROWS, cadence_of, points
from stalegrad.simulator.replays.run import Request, replay_together
from stalegrad.simulator.timing.trace import Trace

QUADRATIC = Problem.from_functions(lambda key: jnp.ones(3), lambda w, batch, key: 0.5 * jnp.sum(w**2))
TRACE = simulate(Cluster(2, [1.0, 1.5]), Async(), updates=4)


def replayed(fn=None, trace=TRACE, **record):
    """Replay a small trace; return the history, and how many updates had been made at most."""
    made = []
    method = methods.async_(learning_rate=0.1)
    done = replay(trace, QUADRATIC, method, record=Record(fn=fn, **record), progress=made.append)
    return done.history, sum(made)


# Columns of the user's own


def test_every_history_has_the_reserved_columns_and_no_other():
    assert list(replayed()[0].columns) == list(COLUMNS)


def test_scalars_of_any_kind_become_columns():
    values = {
        "a": 1,
        "b": np.float32(2.0),
        "c": jnp.array(3.0),
        "d": True,
        "e": jnp.bfloat16(4.0),
        "f": np.array(5),
    }
    history, _ = replayed(lambda w: values, updates=1)
    assert history[list(values)].to_numpy().tolist() == [[1.0, 2.0, 3.0, 1.0, 4.0, 5.0]] * 5


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_every_history_has_is_refused_before_any_update(column):
    made = []
    method, record = methods.async_(learning_rate=0.1), Record(fn=lambda w: {"mine": 1.0, column: 0.0})
    with pytest.raises(ValueError, match=f"fn of record returned the column '{column}', which every history has"):
        replay(TRACE, QUADRATIC, method, record=record, progress=made.append)
    assert made == []


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (
            {"w": np.ones(10_001)},
            r"returned an array of shape \(10001,\) for the column 'w': at most 10000 numbers",
        ),
        ({"w": ["a", "b"]}, r"returned \['a', 'b'\] for the column 'w': give a real number"),
        ({"w": "high"}, "returned 'high' for the column 'w': give a real number"),
        ({"w": None}, "returned None for the column 'w': give a real number"),
        ({"w": 1j}, "returned 1j for the column 'w': give a real number"),
        ({3: 1.0}, "returned the column 3: names of columns are strings"),
        (1.0, "returned 1.0: it must return a mapping of column to scalar or array"),
        ([("w", 1.0)], r"returned \[.*\]: it must return a mapping"),
    ],
)
def test_what_is_no_mapping_to_numbers_is_refused_before_any_update(returned, said):
    made = []
    method, record = methods.async_(learning_rate=0.1), Record(fn=lambda w: returned)
    with pytest.raises(ValueError, match=f"fn of record {said}"):
        replay(TRACE, QUADRATIC, method, record=record, progress=made.append)
    assert made == []


# Rows


@pytest.mark.parametrize("wallclock", [1e-300, 5e-324, 1e-7])
def test_too_many_rows_are_refused_before_any_update(wallclock):
    with pytest.raises(
        ValueError, match=f"wallclock of record = {wallclock} is not allowed for a run of 3.0 s: .* 3e-06"
    ):
        replayed(wallclock=wallclock)


def test_as_many_rows_as_are_allowed_are_due():
    due = points(Record(wallclock=TRACE.end / (ROWS - 1)), Budget(updates=4), lower(TRACE), TRACE.end)
    assert len(due.wallclock) == ROWS


def test_the_cadence_of_the_shortest_budget_is_positive():
    assert cadence_of(Record(), Budget(wallclock=5e-324)).wallclock == 5e-324
    assert cadence_of(Record(), Budget(wallclock=1.0)).wallclock == 0.02


def test_rows_and_budgets_count_the_same_updates_within_a_wallclock():
    trace = simulate(Cluster(1, 0.1), Async(), wallclock=0.3)
    history, _ = replayed(trace=trace, wallclock=0.3)
    assert history["wallclock"].tolist() == [0.0, 0.3]
    assert history["update"].tolist() == [0, 3]
    longer, _ = replayed(trace=simulate(Cluster(1, 0.1), Async(), wallclock=0.9), wallclock=0.3)
    assert longer["update"].tolist() == [0, 3, 6, 9]


# Traces that cannot have happened


def table(**changed):
    """Return the tables of two workers, two updates; row 1 of the first can be changed."""
    rows = {
        "worker": [0, 1], "read_version": [0, 0], "read_time": [0.0, 0.0], "finish_time": [1.0, 1.5],
        "receive_time": [1.2, 1.7], "update": [0, 1], "staleness": [0, 1], "steps": [1, 1], "fate": ["used"] * 2,
    }  # fmt: skip
    for name, value in changed.items():
        rows[name][1] = value
    return rows, {"time": [1.2, 1.7], "messages": [1, 1], "gradients": [1, 1]}


LAW = "row 1 of the messages table breaks a law: "
IMPOSSIBLE = {
    "no such update": ({"update": 7, "staleness": 7}, "update is below 2; it has update = 7"),
    "no such version": ({"read_version": 5}, "read_version is between 0 and 2"),
    "a version of the future": ({"read_version": 1}, "a version is read only after it exists"),
    "a wrong staleness": ({"staleness": 0}, "staleness = update - read_version"),
    "an endless time": ({"receive_time": np.inf}, "receive_time is finite"),
    "no time": ({"read_time": np.nan}, "read_time is finite"),
}


@pytest.mark.parametrize(("changed", "law"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_trace_is_not_replayed(changed, law):
    trace, method = Trace(*table(**changed), workers=2), methods.async_(learning_rate=0.1)
    with pytest.raises(TraceError, match=LAW + law):
        replay(trace, QUADRATIC, method)
    good = Request(TRACE, QUADRATIC, method, Record(), 0)
    with pytest.raises(TraceError, match=LAW):
        replay_together([good, good._replace(trace=trace)], 2)


def test_a_possible_trace_of_the_users_own_is_replayed():
    trace = Trace(*table(), workers=2)
    w = replay(trace, QUADRATIC, methods.async_(learning_rate=0.1)).params
    np.testing.assert_allclose(w, 1.0 - 0.1 - 0.1, rtol=1e-6)  # both gradients are those of version 0


def test_ties_of_one_worker_do_not_change_what_is_applied_first():
    zeros = Cluster(2, [1.0, lambda rng, n: rng.integers(0, 2, n) * 1.0])
    for synchrony in (KAsync(2), KSync(1)):
        trace = simulate(zeros, synchrony, updates=30)
        again = Trace(trace.messages, trace.updates, workers=2)
        assert lower(again).worker.tolist() == lower(trace).worker.tolist()
        assert lower(again).read_version.tolist() == lower(trace).read_version.tolist()
