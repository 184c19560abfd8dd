"""The recorder: a run by hand, simulations played to it, threads that use it at the same time."""

import math
import threading
import time

import numpy as np
import pandas as pd
import pytest

from stalegrad.policies.synchrony import SSP, Async, DelayedAveraging, KAsync, KBatchSync, KSync, Sync
from stalegrad.simulator import Cluster, Gamma, TraceRecorder, simulate


def by_hand(**options):
    """A recorder whose clock is set by hand."""
    clock = [100.0]
    return TraceRecorder(clock=lambda: clock[0], **options), clock


@pytest.mark.parametrize(
    "synchrony",
    [Async(), Async(local_steps=2), Sync(), KSync(2), KAsync(3), KBatchSync(2), SSP(1), DelayedAveraging(tau=2)],
    ids=lambda s: f"{s.name}-{s.local_steps}",
)
@pytest.mark.parametrize("linked", [False, True], ids=["plain", "linked"])
@pytest.mark.parametrize("names", [int, "machine-{}".format], ids=["numbers", "names"])
def test_a_simulation_that_is_played_to_it_is_recorded(synchrony, linked, names):
    links = {"uplink": 0.1, "downlink": 0.2, "server": 0.05} if linked else {}
    trace = simulate(Cluster(4, Gamma(1.0, 0.7), **links), synchrony, updates=40, seed=1)
    calls = []
    for row in trace.messages.itertuples():
        moments = {"read": row.read_time, "finish": row.finish_time, "receive": row.receive_time}
        if row.fate == "cancelled":
            del moments["finish"]  # as it is: the next model tells
        calls += [(t, rank, name, row) for rank, (name, t) in enumerate(moments.items(), 1) if not math.isnan(t)]
    calls += [(t, 4, "apply", j) for j, t in enumerate(trace.update_times)]
    # At one moment: results first, then updates, then reading of the new version.
    order = {"finish": 0, "receive": 1, "apply": 2, "read": 3}
    recorder, clock = by_hand()
    tokens = {}
    for moment, _, name, what in sorted(calls, key=lambda call: (call[0], order[call[2]])):
        clock[0] = moment
        if name == "read":
            held = linked or synchrony.name == "delayed-averaging"  # else they read the newest version
            version = what.read_version if held else None
            tokens[what.Index] = recorder.read(names(what.worker), steps=what.steps, version=version)
        elif name == "apply":
            used = trace.messages.index[trace.column("update") == what]
            assert recorder.apply([tokens[row] for row in used]) == what
        else:
            getattr(recorder, name)(tokens[what.Index])
    found = recorder.trace()
    columns = ["worker", "read_version", "update", "staleness", "steps"]
    late = trace.column("finish_time") >= trace.update_times[-1]
    pd.testing.assert_frame_equal(found.messages[columns], trace.messages[columns])
    for name in ("read_time", "receive_time"):
        np.testing.assert_array_equal(found.column(name), trace.column(name))
    np.testing.assert_array_equal(found.column("finish_time")[~late], trace.column("finish_time")[~late])
    pd.testing.assert_frame_equal(found.updates, trace.updates)
    assert found.used.tolist() == trace.used.tolist()
    rows = {token: row for row, token in tokens.items()}
    assert [rows[token] for token in recorder.used()] == trace.used.tolist()


def test_a_run_by_hand():
    recorder, clock = by_hand()
    a, b = recorder.read(0), recorder.read(1)
    clock[0] = 101.0
    recorder.receive(a)
    assert recorder.apply([a]) == 0
    c = recorder.read(0)
    clock[0] = 102.5
    recorder.finish(b, at=102.0)
    recorder.receive(b)
    clock[0] = 103.0
    assert recorder.apply([b, c]) == 1
    d = recorder.read(0)
    clock[0] = 104.0
    e = recorder.read(0)
    assert (a, b, c, d, e) == (0, 1, 2, 3, 4)
    nan = math.nan
    expected = [  # worker, version, read, finish, receive, update, staleness, steps, fate
        (0, 0, 0.0, 1.0, 1.0, 0, 0, 1, "used"),
        (1, 0, 0.0, 2.0, 2.5, 1, 1, 1, "used"),
        (0, 1, 1.0, 3.0, 3.0, 1, 0, 1, "used"),
        (0, 2, 3.0, 4.0, nan, -1, -1, 1, "cancelled"),
        (0, 2, 4.0, nan, nan, -1, -1, 1, "pending"),
    ]
    found = recorder.trace()
    expected = pd.DataFrame(expected, columns=found.messages.columns)
    for name in found.messages:
        np.testing.assert_array_equal(found.column(name), expected[name].to_numpy(), err_msg=name)
    assert found.update_times.tolist() == [1.0, 3.0]
    assert recorder.used() == [0, 1, 2]


def test_threads_may_use_it_at_the_same_time():
    recorder, lock = TraceRecorder(), threading.Lock()

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        for _ in range(60):
            with lock:
                token = recorder.read(worker)
            time.sleep(float(rng.uniform(0, 0.002)))
            recorder.finish(token)
            recorder.receive(token)
            with lock:
                recorder.apply([token])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace = recorder.trace()
    assert (len(trace.update_times), len(trace.messages), trace.workers) == (480, 480, 8)
    assert (trace.messages["fate"] == "used").all()
    # Every update is read by those that read later, and only by them: counted without the recorder's versions.
    reads, updates = trace.column("read_time"), trace.update_times
    counted = (updates[None, :] <= reads[:, None]).sum(axis=1)
    assert np.abs(counted - trace.column("read_version")).max() <= 1  # two calls within one tick of the clock
    assert sorted(recorder.used()) == list(range(480))


def test_the_trace_so_far_may_be_taken_while_it_runs():
    recorder, clock = by_hand()
    with pytest.raises(ValueError, match="nothing was read"):
        recorder.trace()
    token = recorder.read("a")
    assert recorder.trace().messages["fate"].tolist() == ["pending"]
    clock[0] += 1.0
    recorder.receive(token)
    assert recorder.trace().messages["fate"].tolist() == ["pending"]
    recorder.apply([token])
    assert recorder.trace().messages["fate"].tolist() == ["used"]
    assert recorder.trace().spec == {"worker_names": ["a"]}


def test_what_is_never_applied_is_discarded():
    recorder, clock = by_hand()
    stale, fresh = recorder.read(0), recorder.read(1)
    clock[0] += 1.0
    recorder.receive(stale)
    clock[0] += 1.0
    recorder.apply([fresh])
    assert recorder.trace().messages["fate"].tolist() == ["discarded", "used"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r, a, b: r.read(-1), "worker = -1 is not allowed"),
        (lambda r, a, b: r.read("x"), "worker = 'x' is not allowed beside 0: all numbers, or all names"),
        (lambda r, a, b: r.read(2, steps=0), "steps = 0 is not allowed"),
        (lambda r, a, b: r.read(2, version=2), "version = 2 is not allowed: 1 updates have been made"),
        (lambda r, a, b: r.read(2, at=math.nan), "at = nan is not allowed: give finite seconds of the clock"),
        (lambda r, a, b: r.read(0, at=1.0), r"worker 0 cannot read at 1\.0 s: it was computing until 101\.0 s"),
        (lambda r, a, b: r.finish(9), "token 9 is not known: there are 2, counted from 0"),
        (lambda r, a, b: r.finish(True), "token = True is not allowed"),
        (
            lambda r, a, b: r.finish(b, at=50.0),
            r"token 1: at = 50\.0 s is not allowed: its last event is at 100\.0 s",
        ),
        (lambda r, a, b: (r.finish(b), r.finish(b)), "token 1 was finished already"),
        (lambda r, a, b: (r.receive(b), r.receive(b)), "token 1 was received already"),
        (lambda r, a, b: r.receive(a), "token 0 was applied already, by update 0"),
        (lambda r, a, b: r.apply([a]), "token 0 was applied already, by update 0"),
        (lambda r, a, b: r.apply([]), r"tokens = \[\] is not allowed: give at least one"),
        (lambda r, a, b: r.apply([b, b]), r"tokens = \[1, 1\] is not allowed"),
        (lambda r, a, b: r.apply([b], at=100.5), r"at = 100\.5 s is not allowed: the last update was at 101\.0 s"),
        (
            lambda r, a, b: (r.read(1), r.receive(b)),
            "token 1 was given up when its worker 1 read again: give different names to workers",
        ),
    ],
)
def test_wrong_calls_are_refused_and_change_nothing(call, says):
    recorder, clock = by_hand()
    a, b = recorder.read(0), recorder.read(1)
    clock[0] = 101.0
    recorder.apply([a])
    clock[0] = 102.0
    with pytest.raises(ValueError, match=says):
        call(recorder, a, b)
    trace = recorder.trace()
    assert trace.updates["messages"].tolist() == [1]
    assert len(trace.messages) == 2 + ("given up" in says)


def test_an_update_with_a_wrong_token_changes_none_of_the_others():
    recorder, _ = by_hand()
    a, b = recorder.read(0), recorder.read(1)
    recorder.apply([a])
    with pytest.raises(ValueError, match="token 0 was applied already"):
        recorder.apply([b, a])
    assert math.isnan(recorder.trace().column("receive_time")[b])
    assert recorder.apply([b]) == 1


def test_a_replay_of_what_was_recorded_ends_at_the_parameters_of_the_run():
    from stalegrad.models import Problem
    from stalegrad.policies import methods
    from stalegrad.simulator import replay

    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(64, 5)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    server, waiting, batch_of = np.ones(5), [], {}
    recorder, lock = TraceRecorder(), threading.Lock()

    def work(worker: int) -> None:
        draws = np.random.default_rng(worker)
        for _ in range(40):
            with lock:
                token, copy = recorder.read(worker), server.copy()
            batch_of[token] = draws.integers(0, 64, 4)
            time.sleep(0.0005 * (1 + worker))
            x, y = inputs[batch_of[token]], targets[batch_of[token]]
            gradient = x.T @ (x @ copy - y) / 4
            recorder.finish(token)
            with lock:
                recorder.receive(token)
                waiting.append((token, gradient))
                if len(waiting) == 3:  # an update of three gradients
                    server[:] -= 0.05 * np.mean([g for _, g in waiting], axis=0)
                    recorder.apply([t for t, _ in waiting])
                    waiting.clear()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace = recorder.trace()
    assert trace.updates["messages"].tolist() == [3] * 80
    assert trace.staleness.mean() > 0.3

    def loss(w, batch, key):
        return 0.5 * ((batch[0] @ w - batch[1]) ** 2).mean()

    start = np.ones(5, np.float32)
    problem = Problem.from_functions(lambda key: start, loss, train=(inputs, targets), batch_size=4)
    batches = np.array([[batch_of[token]] for token in recorder.used()])
    again = replay(trace, problem, methods.k_batch_async(k=3, learning_rate=0.05), params=start, batches=batches)
    assert np.abs(server - 1).max() > 0.3
    np.testing.assert_allclose(again.params, server, atol=2e-6)
    shuffled = np.roll(batches, 1, axis=0)
    other = replay(trace, problem, methods.k_batch_async(k=3, learning_rate=0.05), params=start, batches=shuffled)
    assert np.abs(other.params - server).max() > 1e-4
