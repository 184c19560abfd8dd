"""Programs of servers and workers: timers, limits of jobs, chosen cancellations, questions, and their errors."""

import random
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stalegrad.policies.synchrony import (
    ANNOUNCE,
    AWAIT,
    DISCARD,
    DROP,
    SEND,
    SSP,
    WAIT,
    Announced,
    Async,
    Compute,
    Decision,
    Joined,
    KAsync,
    KBatchSync,
    KSync,
    Left,
    Received,
    Send,
    Sync,
    Synchrony,
    Timeout,
)
from stalegrad.simulator.timing import server as server_module
from stalegrad.simulator.timing.budget import Budget
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.delays import Empirical, Exponential, Uniform
from stalegrad.simulator.timing.engine import Engine, simulate


def rows(trace):
    """Return (worker, read_version, read_time, finish_time, update, fate) of every message."""
    columns = ("worker", "read_version", "read_time", "finish_time", "update", "fate")
    table = trace.verify().messages[list(columns)].astype({"finish_time": object})
    return [tuple(None if value != value else value for value in row) for row in table.itertuples(index=False)]


def synchrony(serve=None, work=None, membership=False):
    """Return a synchrony of these programs: ``serve(workers)`` and ``work(worker)``."""

    class Made(Synchrony):
        pass

    Made.membership = membership
    if serve is not None:
        Made.serve = lambda self, workers: serve(workers)
    if work is not None:
        Made.work = lambda self, worker: work(worker)
    return Made()


def at_once(workers):
    """Apply every message at once."""
    event = yield WAIT
    while True:
        event = yield Decision(apply=True, send=[event.worker]) if isinstance(event, Received) else WAIT


def telling(told, wake_after):
    """Return a server program that applies every message at once, and tells of what it is sent.

    Args:
        told: list to which workers and ``"timeout"`` are appended.
        wake_after: events told so far, a message's own included -> seconds of a timer, or None.
    """

    def serve(workers):
        event = yield WAIT
        while True:
            told.append("timeout" if isinstance(event, Timeout) else event.worker)
            if isinstance(event, Timeout):
                event = yield WAIT
            else:
                event = yield Decision(apply=True, send=[event.worker], wake_after=wake_after(len(told)))

    return serve


# Timers


@dataclass(frozen=True)
class Deadline(Synchrony):
    """Every round ends after some seconds: what has come makes an update, the others are cancelled."""

    seconds: float

    def serve(self, workers):
        event, kept = (yield WAIT), 0
        while True:
            if isinstance(event, Timeout):
                everybody, again = range(workers), kept == 0
                event = yield Decision(apply=not again, send=() if again else everybody,
                                       cancel=() if again else everybody, wake_after=self.seconds)  # fmt: skip
                kept = 0
            else:
                kept += 1
                event = yield Decision(wake_after=self.seconds if event.read_version == 0 and kept == 1 else None)


def test_a_deadline_cuts_every_round():
    # The first message, at 1.0, sets the timer: rounds end at 3.0 and 5.0. Worker 2 ends at the very moment of the
    # first timeout, which comes after it.
    trace = simulate(Cluster(compute=[1.0, 2.5, 3.0, 3.5]), Deadline(2.0), wallclock=5.5)
    assert trace.update_times.tolist() == [3.0, 5.0]
    assert rows(trace) == [
        (0, 0, 0.0, 1.0, 0, "used"),
        (1, 0, 0.0, 2.5, 0, "used"),
        (2, 0, 0.0, 3.0, 0, "used"),
        (3, 0, 0.0, 3.0, -1, "cancelled"),
        (0, 1, 3.0, 4.0, 1, "used"),
        (1, 1, 3.0, 5.0, -1, "cancelled"),
        (2, 1, 3.0, 5.0, -1, "cancelled"),
        (3, 1, 3.0, 5.0, -1, "cancelled"),
        (0, 2, 5.0, None, -1, "pending"),
        (1, 2, 5.0, None, -1, "pending"),
        (2, 2, 5.0, None, -1, "pending"),
        (3, 2, 5.0, None, -1, "pending"),
    ]


def test_a_timer_replaces_the_one_with_its_tag_and_only_that():
    told = []

    def serve(workers):
        event = yield WAIT
        while True:
            if isinstance(event, Timeout):
                told.append((event.tag, "timeout"))
                event = yield WAIT
            else:
                told.append((event.worker, "received"))
                # Every message sets "quiet" anew; the first sets "once".
                tag, seconds = ("once", 2.25) if len(told) == 1 else ("quiet", 1.5)
                event = yield Decision(apply=True, send=[event.worker], wake_after=seconds, tag=tag)

    # Messages at 1.0, 2.0, 2.5, 3.0, 4.0, 5.0 (twice); "once" is due at 3.25, "quiet" never: something is first.
    simulate(Cluster(compute=[1.0, 2.5]), synchrony(serve), wallclock=5.0)
    received = [(0, "received")] * 2 + [(1, "received"), (0, "received")]
    assert told == [*received, ("once", "timeout"), *[(0, "received")] * 2, (1, "received")]


def test_timers_of_one_moment_run_out_in_the_order_in_which_they_were_set_after_all_messages_of_that_moment():
    told = []

    def serve(workers):
        event = yield WAIT
        while True:
            told.append(event.tag if isinstance(event, Timeout) else event.worker)
            tag = {0: "b", 1: "a"}.get(event.worker) if isinstance(event, Received) and len(told) < 3 else None
            event = yield Decision(
                apply=isinstance(event, Received),
                send=[event.worker] if isinstance(event, Received) else (),
                wake_after=None if tag is None else 1.0,
                tag=tag,
            )

    simulate(Cluster(compute=[1.0, 1.0, 2.0]), synchrony(serve), wallclock=2.0)
    assert told == [0, 1, 0, 1, 2, "b", "a"]


def test_a_timer_of_no_time_runs_out_at_the_same_moment_after_the_workers():
    told = []

    def serve(workers):
        event = yield WAIT
        while True:
            told.append("timeout" if isinstance(event, Timeout) else event.worker)
            if isinstance(event, Timeout):
                event = yield Decision(apply=True, send=range(workers))
            else:
                event = yield Decision(wake_after=0.0)

    trace = simulate(Cluster(3, 1.0), synchrony(serve), updates=2)
    assert told == [0, 1, 2, "timeout"] * 2
    assert trace.verify().updates.messages.tolist() == [3, 3]


def test_a_timeout_waits_for_its_turn_while_the_server_spends_time_on_a_message():
    told = []
    serve = telling(told, lambda events: 0.1 if events == 1 else None)

    # The server is at worker 0's message from 1.0 to 1.5, then sets the timer: 1.6, while it is at worker 1's.
    simulate(Cluster(compute=[1.0, 1.2], server=0.5), synchrony(serve), wallclock=2.1)
    assert told == [0, 1, "timeout"]


# Jobs that end before they are done


def test_a_job_that_ends_early_sends_the_whole_gradients_that_it_has():
    def work(worker):
        job = Compute(4, at_most=2.5, send=True)
        while True:
            yield job
            while worker.unanswered:
                yield AWAIT

    # Worker 0 has 2 whole gradients after 2.5 s, worker 1 ends its fourth exactly then, worker 2 has none.
    trace = simulate(Cluster(compute=[1.0, 0.625, 3.0]), synchrony(at_once, work), wallclock=5.0)
    assert trace.verify().column("steps").tolist() == [2, 4, 4, 2, 4, 4]
    assert rows(trace) == [
        (0, 0, 0.0, 2.5, 0, "used"),
        (1, 0, 0.0, 2.5, 1, "used"),
        (2, 0, 0.0, 2.5, -1, "cancelled"),
        (0, 1, 2.5, 5.0, 2, "used"),
        (1, 2, 2.5, 5.0, 3, "used"),
        (2, 0, 2.5, 5.0, -1, "cancelled"),
    ]
    assert trace.updates.gradients.tolist() == [2, 4, 2, 4]


def test_a_trial_that_takes_too_long_begins_again_at_the_version_held():
    tries = []

    def work(worker):
        trial = Compute(at_most=2.0)
        while True:
            steps = yield trial
            tries.append((worker.index, steps))
            if steps:
                yield SEND
            while worker.unanswered:
                yield AWAIT

    cluster = Cluster(compute=[Empirical((1.0, 5.0)), 1.5])
    trace = simulate(cluster, synchrony(at_once, work), updates=12, seed=1).verify()
    draws = list(islice(cluster.compute_times(1, 0), 20))
    first = trace.messages[trace.messages.worker == 0]
    assert first.fate.replace("pending", "cancelled").tolist() == [
        "used" if draw == 1.0 else "cancelled" for draw in draws[: len(first)]
    ]
    aborted = first[first.fate == "cancelled"]
    assert len(aborted) >= 2
    assert (aborted.finish_time - aborted.read_time).tolist() == [2.0] * len(aborted)
    after = first.read_version.to_numpy()[1:][first.fate.to_numpy()[:-1] == "cancelled"]
    assert after.tolist() == first.read_version.to_numpy()[:-1][first.fate.to_numpy()[:-1] == "cancelled"].tolist()


def test_what_is_dropped_is_cancelled():
    def work(worker):
        while True:
            yield Compute()
            yield Compute()
            if worker.version == 0:
                yield DROP
            else:
                yield SEND
            while worker.unanswered:
                yield AWAIT
            if worker.version == 0:
                yield Compute(send=True)
                while worker.unanswered:
                    yield AWAIT

    assert rows(simulate(Cluster(1, 1.0), synchrony(at_once, work), wallclock=5.0)) == [
        (0, 0, 0.0, 1.0, -1, "cancelled"),
        (0, 0, 1.0, 2.0, -1, "cancelled"),
        (0, 0, 2.0, 3.0, 0, "used"),
        (0, 1, 3.0, 4.0, 1, "used"),
        (0, 1, 4.0, 5.0, 1, "used"),
    ]


# Chosen cancellations


def test_only_those_chosen_are_cancelled_and_the_others_use_the_model_for_the_next_job():
    def serve(workers):
        yield WAIT
        while True:
            yield Decision(apply=True, send=range(workers), cancel=[2])

    trace = simulate(Cluster(compute=[2.0, 3.0, 4.0]), synchrony(serve), updates=3)
    assert rows(trace) == [
        (0, 0, 0.0, 2.0, 0, "used"),
        (1, 0, 0.0, 3.0, 1, "used"),
        (2, 0, 0.0, 2.0, -1, "cancelled"),
        (0, 1, 2.0, 4.0, 2, "used"),
        (2, 1, 2.0, 3.0, -1, "cancelled"),
        (1, 2, 3.0, None, -1, "pending"),
        (2, 2, 3.0, 4.0, -1, "cancelled"),
    ]


def test_at_a_tie_a_lower_worker_has_finished_and_a_higher_one_is_cancelled():
    def serve(workers):
        event = yield WAIT
        while True:
            if event.worker == 1:
                event = yield Decision(apply=True, send=range(workers), cancel=range(workers))
            else:
                event = yield WAIT

    trace = simulate(Cluster(3, 1.0), synchrony(serve), updates=2)
    assert trace.verify().messages.fate.tolist() == ["used", "used", "cancelled"] * 2


def test_a_cancellation_travels_with_the_model():
    def serve(workers):
        yield WAIT
        while True:
            yield Decision(apply=True, send=range(workers), cancel=[1])

    # The model of 2.0 is there at 2.5: worker 1 drops its job then. Worker 1's message of 4.0 is not on time.
    trace = simulate(Cluster(compute=[2.0, 4.0], downlink=0.5), synchrony(serve), updates=2)
    assert rows(trace) == [
        (0, 0, 0.0, 2.0, 0, "used"),
        (1, 0, 0.0, 2.5, -1, "cancelled"),
        (0, 1, 2.5, 4.5, 1, "used"),
        (1, 1, 2.5, None, -1, "pending"),
    ]


def test_a_worker_can_go_on_at_the_version_it_holds_while_the_server_updates():
    def work(worker):
        while True:
            yield Compute()
            yield Send(go_on=True)

    trace = simulate(Cluster(1, 1.0), synchrony(at_once, work), updates=3)
    assert trace.verify().staleness.tolist() == [0, 1, 1]
    trace = simulate(Cluster(1, 1.0), synchrony(at_once, doing(Compute(send=True))), updates=3)
    assert trace.verify().staleness.tolist() == [0, 0, 0]


# Who is there


def test_a_server_that_asks_for_it_is_told_who_joins_and_who_leaves():
    told = []

    def serve(workers):
        event = yield WAIT
        while True:
            told.append(event if not isinstance(event, Received) else event.worker)
            event = yield Decision(apply=isinstance(event, Received), send=range(workers))

    def work(worker):
        for _ in range(2 if worker.index else 100):
            yield Compute(send=True)
            while worker.unanswered:
                yield AWAIT

    made = synchrony(serve, work, membership=True)
    trace = simulate(Cluster(2, 1.0, join=[0.0, 1.5]), made, wallclock=5.0).verify()
    assert told == [Joined(0), 0, Joined(1), 0, 1, 0, 1, Left(1), 0, 0]
    assert trace.messages.worker.tolist() == [0, 0, 1, 0, 1, 0, 0]
    told.clear()
    simulate(Cluster(2, 1.0, join=[0.0, 1.5]), synchrony(serve, work), wallclock=5.0)
    assert told == [0, 0, 1, 0, 1, 0, 0]


def test_a_question_comes_at_once_and_is_answered_at_the_next_boundary():
    def serve(workers):
        event = yield WAIT
        while True:
            if isinstance(event, Announced):
                event = yield Decision(ask=[1] if event.worker == 0 else ())
            else:
                event = yield Decision(apply=True, send=range(workers))

    def work(worker):
        answered = 0
        while True:
            yield Compute()
            if worker.index == 0:
                yield ANNOUNCE
            if worker.asked > answered:
                answered = worker.asked
                yield SEND

    # Worker 0 announces at 1, 2, 3, ...; worker 1 computes until 1.5, 3.0, 4.5 and sends then all that it has.
    trace = simulate(Cluster(compute=[1.0, 1.5]), synchrony(serve, work), updates=3).verify()
    assert trace.update_times.tolist() == [1.5, 3.0, 4.5]
    assert set(trace.column("worker")[trace.used]) == {1}


# Another synchrony during a run


def test_another_synchrony_decides_from_the_next_update_on():
    engine = Engine(Cluster(compute=[1.0, 1.5, 4.0]), KAsync(2), Budget(updates=6), 0)
    assert not engine.advance(1.25)
    engine.server.change(KAsync(3))  # one message of the first update has come: that is still made of two
    assert not engine.advance(4.5)
    assert engine.server.update_times == [1.5, 4.0]
    assert engine.trace().verify().updates.messages.tolist() == [2, 3]
    engine.server.change(KAsync(1))
    assert engine.advance(100.0)
    assert engine.trace().verify().updates.messages.tolist() == [2, 3, 1, 1, 1, 1]


# Errors


def answering(decision):
    """Return a server program with this answer to everything."""

    def serve(workers):
        while True:
            yield decision

    return serve


def ending(workers):
    """A server program that ends."""
    yield WAIT


def doing(*actions):
    """Return a worker program of these actions, again and again."""

    def work(worker):
        for action in cycle(actions):  # noqa: UP028 - ``yield from`` would pass on what is sent
            yield action

    return work


WRONG = {
    "no update without messages": (
        answering(Decision(keep=False, apply=True)), None, r"Decision\(apply=True.*needs at least",
    ),
    "no such worker": (answering(Decision(send=[7])), None, r"send=\[7\].*: 7 is no worker: they are 0 to 1"),
    "a negative worker": (answering(Decision(send=[-1])), None, "-1 is no worker"),
    "a worker by name": (answering(Decision(send="ab")), None, "'a' is no worker"),
    "a worker that is a list": (answering(Decision(send=[[0]])), None, "send: give workers: 0 to 1"),
    "nobody to ask": (answering(Decision(ask=[2])), None, "2 is no worker"),
    "cancelled without a model": (answering(Decision(cancel=[1])), None, "cancel names a worker that is not in"),
    "negative time": (answering(Decision(wake_after=-1.0)), None, "wake_after must be finite seconds of at"),
    "no number": (answering(Decision(wake_after=float("nan"))), None, "wake_after must be finite"),
    "endless time": (answering(Decision(wake_after=float("inf"))), None, "wake_after must be finite"),
    "no decision": (answering(None), None, r"Received\(worker=0.*\) at 1.0 s with None: give a Decision"),
    "a tuple": (answering((True, ())), None, "give a Decision"),
    "an end": (ending, None, "its server program has ended"),
    "nothing to send": (at_once, doing(SEND), r"worker 0 do Send\(go_on=False\) at 0.0 s: it has computed no"),
    "twice the same": (at_once, doing(Compute(), SEND, SEND), "worker 0 do Send.* at 1.0 s: it has computed no"),
    "no steps": (at_once, doing(Compute(0)), r"Compute\(steps=0.*: steps must be a whole number from 1 to 100000"),
    "half a step": (at_once, doing(Compute(1.5)), "steps must be a whole number"),
    "no time at all": (at_once, doing(Compute(at_most=-1.0)), "at_most must be finite seconds of at least 0"),
    "no time to abort": (at_once, doing(Compute(at_most=0.0)), "worker 0: it reads more than 512 times"),
    "no action": (at_once, doing("compute"), "do 'compute' at 0.0 s: yield Compute"),
    "announcing for ever": (at_once, doing(ANNOUNCE), "do Announce.*513 times without computing"),
    "dropping for ever": (at_once, doing(DROP), "do Drop.*513 times without computing"),
    "waiting for ever": (at_once, doing(AWAIT), "stands still at 0.0 s: every worker waits"),
    "discarding for ever": (answering(DISCARD), None, "stands still at 1.0 s"),
}  # fmt: skip


@pytest.mark.parametrize(("serve", "work", "said"), WRONG.values(), ids=WRONG)
def test_what_programs_cannot_have_is_an_error_that_names_it(serve, work, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        simulate(Cluster(2, 1.0), synchrony(serve, work), updates=5)


def test_programs_that_never_let_time_advance_are_refused():
    def again(workers):
        while True:
            yield Decision(wake_after=0.0)

    with pytest.raises(ValueError, match=r"wake_after of synchrony 'made' = 0 s, 515 times at 0.0 s: time"):
        simulate(Cluster(2, 1.0), synchrony(again), updates=5)

    def asking(workers):
        while True:
            yield Decision(ask=range(workers))

    def telling(worker):
        yield Compute()
        while True:
            yield ANNOUNCE
            yield AWAIT

    with pytest.raises(ValueError, match=r"send each other events without end at 1.0 s"):
        simulate(Cluster(2, 1.0), synchrony(asking, telling), updates=5)


def test_a_timer_that_the_clock_cannot_represent_is_refused():
    def late(workers):
        yield WAIT
        while True:
            yield Decision(wake_after=1e-20)

    with pytest.raises(ValueError, match=r"wake_after of synchrony 'made' = 1e-20 s is not allowed at 1.0 s"):
        simulate(Cluster(2, 1.0), synchrony(late), updates=5)


ODD = {
    "one number": (answering(Decision(send=1)), None, "send: give workers: 0 to 1"),
    "nothing to send": (answering(Decision(send=None)), None, "send: give workers: 0 to 1"),
    "nobody asked": (answering(Decision(ask=1)), None, "ask: give workers: 0 to 1"),
    "no workers cancelled": (answering(Decision(cancel=None)), None, "send and cancel: give workers: 0 to 1"),
    "lists cancelled": (answering(Decision(cancel=[[0]])), None, "send and cancel: give workers: 0 to 1"),
    "an unhashable tag": (answering(Decision(wake_after=1.0, tag=[1])), None, "tag must be hashable"),
    "seconds beyond floats": (answering(Decision(wake_after=10**400)), None, "wake_after must be finite"),
    "workers for apply": (answering(Decision([0])), None, "apply must be True, False or messages that are kept"),
    "too many steps": (at_once, doing(Compute(2**31)), "steps must be a whole number from 1 to 100000"),
    "a truth value for seconds": (at_once, doing(Compute(at_most=True)), "at_most must be finite seconds"),
    "no server program": (lambda workers: None, None, r"serve\(\) of synchrony 'made' returned None: it must be"),
    "an empty server program": (lambda workers: (x for x in ()), None, r"serve\(\) of synchrony 'made' ends"),
    "no worker program": (at_once, lambda worker: [Compute()], r"work\(\) of synchrony 'made' returned \[Compute"),
}  # fmt: skip


@pytest.mark.parametrize(("serve", "work", "said"), ODD.values(), ids=ODD)
def test_odd_answers_are_errors_that_name_the_synchrony(serve, work, said):
    with pytest.raises(ValueError, match=f"(?s)'made'.*{said}" if "made" not in said else said):
        simulate(Cluster(2, 1.0), synchrony(serve, work), updates=5)


@pytest.mark.parametrize("kind", [list, set, np.array, iter], ids=["list", "set", "array", "iterator"])
def test_workers_come_in_any_collection(kind):
    def serve(workers):
        yield WAIT
        while True:
            yield Decision(np.bool_(True), send=kind([0, 1, 2]), cancel=kind([2]))

    trace = simulate(Cluster(compute=[2.0, 3.0, 4.0]), synchrony(serve), updates=3)
    assert trace.verify().messages.fate.tolist() == [
        "used", "used", "cancelled", "used", "cancelled", "pending", "cancelled"
    ]  # fmt: skip


def test_a_backlog_that_a_slow_server_discards_at_once_is_no_reason_to_give_up():
    trace = simulate(Cluster(1, 0.001, server=1.0), KBatchSync(10), updates=3).verify()
    assert trace.updates.messages.tolist() == [10, 10, 10]
    assert (trace.column("fate") == "discarded").sum() > 10_000


def test_as_many_timers_as_workers_may_run_out_at_one_moment():
    def serve(workers):
        event, kept = (yield WAIT), 0
        while True:
            if isinstance(event, Timeout):
                kept, apply = 0, kept > 0
                event = yield Decision(apply=apply, send=[event.tag])
            else:
                kept += 1
                event = yield Decision(wake_after=1.0, tag=event.worker)

    trace = simulate(Cluster(600, 1.0), synchrony(serve), wallclock=5.0).verify()
    assert trace.updates.messages.sum() == 1200


def test_several_messages_sent_as_one_count_all_their_gradients():
    told = []

    def serve(workers):
        event = yield WAIT
        while True:
            told.append((event.steps, event.read_version, event.version, event.staleness))
            event = yield Decision(apply=True, send=[event.worker])

    def work(worker):
        while True:
            yield Compute(2)
            yield Compute(3)
            yield Compute(1, send=True)
            while worker.unanswered:
                yield AWAIT

    trace = simulate(Cluster(2, 1.0), synchrony(serve, work), updates=3).verify()
    assert told == [(6, 0, 0, 0), (6, 0, 1, 1), (6, 1, 2, 1)]
    assert trace.updates.gradients.tolist() == [6, 6, 6]


def test_a_timer_that_is_set_anew_while_its_timeout_waits_does_not_run_out():
    told = []
    serve = telling(told, lambda events: 0.75 if events == 1 else 5.0)

    # Served from 1.0 to 2.0, when the timer is set, and to 3.0: it runs out at 2.75, and is set anew at 3.0.
    simulate(Cluster(compute=[1.0, 1.25], server=1.0), synchrony(serve), wallclock=4.5)
    assert told == [0, 1, 0, 1]


def test_a_program_that_takes_over_is_sent_no_timeout_of_the_one_before():
    def serve(workers):
        event, kept = (yield WAIT), 0
        while True:
            kept += isinstance(event, Received)
            second = kept > 0 and kept % 2 == 0 and isinstance(event, Received)
            event = yield Decision(
                apply=second, send=[event.worker] if isinstance(event, Received) else (), wake_after=0.1
            )

    for server, time in ((0.0, 1.0), (0.5, 1.76)):
        engine = Engine(Cluster(compute=[1.0, 1.25], server=server), synchrony(serve), Budget(updates=6), 0)
        engine.advance(time)
        engine.server.change(Async())
        assert engine.advance(100.0)
        engine.trace().verify()


def test_a_change_to_the_same_or_to_an_impossible_synchrony():
    engine = Engine(Cluster(compute=[1.0, 2.5]), SSP(0), Budget(updates=6), 0)
    for time in (1.5, 2.0, 3.5):
        engine.advance(time)
        engine.server.change(SSP(0))  # its program goes on, and knows who waits
    assert engine.advance(100.0)
    with pytest.raises(ValueError, match=r"k = 9 of k-async exceeds the number of workers: allowed is 1 to 2"):
        engine.server.change(KAsync(9))


def test_a_run_without_updates_is_given_up(monkeypatch):
    monkeypatch.setattr(server_module, "IDLE_MESSAGES", 10_000)
    monkeypatch.setattr(server_module, "IDLE_TIMEOUTS", 1_000)

    def discarding(workers):
        event = yield WAIT
        while True:
            event = yield Decision(keep=False, send=[event.worker])

    with pytest.raises(ValueError, match=r"'made' stands still: at .* no update out of the last \d+ messages"):
        simulate(Cluster(2, 1.0), synchrony(discarding), updates=5)
    with pytest.raises(ValueError, match=r"'made' stands still: .* and 1001 timeouts"):
        simulate(Cluster(2, 1.0), synchrony(answering(Decision(wake_after=1.0))), gradients=5)
    assert len(simulate(Cluster(2, 1.0), synchrony(discarding), wallclock=10_000.0).update_times) == 0
    assert len(simulate(Cluster(2, 1.0), KBatchSync(20_000), updates=2).update_times) == 2


def test_an_error_of_a_program_itself_comes_through():
    def broken(workers):
        yield WAIT
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        simulate(Cluster(1, 1.0), synchrony(broken), updates=5)


# Whatever programs decide


def random_server(rng, mistakes):
    """Return a server program of random decisions; a part ``mistakes`` of them cannot be carried out."""

    def serve(workers):
        event, kept = (yield WAIT), 0
        while True:
            keep = rng.random() < 0.7
            kept += isinstance(event, Received) and keep
            apply = kept > 0 and rng.random() < 0.5
            send = rng.sample(range(workers), rng.randint(1, workers)) if rng.random() < 0.7 else []
            cancel = [worker for worker in send if rng.random() < 0.3]
            if rng.random() < mistakes:
                kind = rng.randrange(4)
                apply = apply or (kind == 0 and not kept)
                send = [*send, workers] if kind == 1 else send
                cancel = [*cancel, -1] if kind == 2 else cancel
            wake_after = rng.choice([None, None, None, 0.0, 0.25, 1.0])
            tag = rng.choice("ab")
            ask = range(workers) if rng.random() < 0.2 else ()
            event = yield Decision(apply, send, keep, cancel, ask, wake_after, tag)
            kept = 0 if apply else kept

    return serve


def random_worker(rng, mistakes):
    """Return a worker program of random actions; a part ``mistakes`` of them cannot be carried out."""

    def work(worker):
        held = 0
        while rng.random() > 0.01:
            job = Compute(rng.randint(1, 3), rng.choice([None, None, 0.4, 2.0]), rng.random() < 0.6)
            steps = yield job
            held = 0 if job.send and steps else held + (steps > 0)
            while rng.random() < 0.4:
                action = rng.choice([ANNOUNCE, DROP, AWAIT, SEND, SEND, Send(go_on=True)])
                if isinstance(action, Send) and not held and rng.random() > mistakes:
                    continue
                held = 0 if isinstance(action, Send) or action is DROP else held
                yield action

    return work


def test_random_programs_end_in_a_trace_that_verifies_or_in_an_error_that_names_what_was_wrong():
    ended = Counter()

    @settings(deadline=None, max_examples=300)
    @given(
        seed=st.integers(0, 2**32),
        workers=st.integers(1, 5),
        links=st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=3),
        delay=st.sampled_from([Exponential(), Uniform(0.1, 1.0), Empirical((0.5, 1.0)), Empirical((0.0, 1.0))]),
        mistakes=st.sampled_from([0.0, 0.0, 0.02]),
    )
    def simulated(seed, workers, links, delay, mistakes):
        rng = random.Random(seed)
        join = [rng.choice([0.0, 0.0, 1.0]) for _ in range(workers)]
        cluster = Cluster(workers, delay, uplink=links[0], downlink=links[1], server=links[2], join=join)
        made = synchrony(random_server(rng, mistakes), random_worker(rng, mistakes), membership=rng.random() < 0.5)
        try:
            trace = simulate(cluster, made, wallclock=20.0, seed=seed)
        except ValueError as error:
            named = ["stands still", "time would never advance"]
            named += ["'made' answered", "'made' lets worker"] if mistakes else []
            if not any(words in str(error) for words in named):
                raise
            ended["error"] += 1
        else:
            ended["trace"] += 1
            ended["used"] += len(trace.verify().used)

    simulated()
    assert ended["error"] > 5
    assert ended["used"] > 5 * ended["trace"] > 500


# Local steps


def test_the_times_of_local_steps_are_added_one_by_one():
    """Python 3.12 sums with compensation; a trace is the same on every version."""
    cluster = Cluster(1, Uniform(0.0, 1.0))
    for made in (Async(local_steps=7), KSync(1, local_steps=7), Sync(local_steps=20)):
        trace = simulate(cluster, made, updates=30)
        draws, now = cluster.compute_times(0, 0), 0.0
        for time in trace.update_times:
            total = next(draws)
            for _ in range(made.local_steps - 1):
                total += next(draws)
            now += total
            assert time == now
