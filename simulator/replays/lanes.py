"""Runs that share compiled code, executed together by ``vmap``, to use an accelerator fully with small models.

All lanes make update u at the same time. If a row of one lane is due, all lanes stop. A lane whose run has ended
continues without work and is not evaluated again. So the numbers of a run depend on the number of lanes, but not
on the other runs: a group with free lanes is filled with copies of its last run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.trees import scalar_type
from stalegrad._core.types import Params, PyTree
from stalegrad.models import Objective
from stalegrad.models.objective import Evaluate, Loss
from stalegrad.models.streams import Stream
from stalegrad.simulator.replays.evaluation import Evaluation, Values, evaluate, sample, values_of
from stalegrad.simulator.replays.executor import Program, numbers_of, slot_after
from stalegrad.simulator.replays.history import Begin, History, Measures
from stalegrad.simulator.replays.plan import Plan
from stalegrad.simulator.replays.record import Record, cadence_of
from stalegrad.simulator.replays.scan import CHUNK, Chunk, compiled_length, cut, gather, run_chunk, state_of
from stalegrad.simulator.replays.training import Snapshot, Structure, Training


class Part(NamedTuple):
    """A run to be replayed in a group: its training, its plan and its history."""

    training: Training
    plan: Plan
    history: History

    @property
    def shape(self) -> tuple[Program, int, int | None] | None:
        """The common facts of the runs of a group: program (without slots), batch size, examples evaluated on.

        None if updates of this run differ in their number of messages, because lanes would wait for each other, or
        if its data are streamed.
        """
        training, layout = self.training, self.training.layout(self.plan.lowered)
        if layout.messages is None or isinstance(training.objective.train, Stream):
            return None
        structure = Structure(training.method, training.workers)
        program = Program(training.objective.loss, structure, layout._replace(slots=0))
        return program, training.problem.batch_size, training.record.train_examples

    @property
    def in_step(self) -> bool:
        """Whether its rows are due at updates, like those of all its lanes, and not at simulated seconds."""
        return cadence_of(self.training.record, self.training.budget).wallclock is None


class Done(NamedTuple):
    """A run that has ended: its snapshot, and the number of lanes in which it was executed."""

    part: Part
    snapshot: Snapshot
    lanes: int


class Group:
    """The state of several replays, lane by lane along the first axis of every array.

    Args:
        program: program of the runs.
        parts: runs of the group.
        objective: objective of the runs, with its data on ``device``.
        device: device that executes the runs.
    """

    def __init__(self, program: Program, parts: Sequence[Part], objective: Objective, device: jax.Device) -> None:
        self.trainings = [part.training for part in parts]
        self.objective, self.most = objective, program.layout.most
        self.keys = jax.device_put(jnp.stack([t.loss_key for t in self.trainings]), device)
        dtype = scalar_type(self.trainings[0].initial.params)
        self.plans = [part.plan.cast(dtype) for part in parts]
        self.numbers = stack(
            [
                numbers_of(t.method, t.workers, plan.learning_rate, dtype)
                for t, plan in zip(self.trainings, self.plans, strict=True)
            ]
        )
        slots = np.array([plan.lowered.initial_slot for plan in self.plans], np.int32)
        longest = max(plan.lowered.updates for plan in self.plans)
        self.window = max(1, min(CHUNK // self.most, compiled_length(longest)))
        self.chunk = functools.lru_cache(maxsize=1)(lambda start: jax.device_put(self.cut(start), device))
        self.start, self.run = compiled(program)
        initial = stack([t.initial for t in self.trainings])
        self.initial = jax.device_put((*initial, self.numbers, slots), device)

    def bytes(self) -> int:
        """Return the memory of the group in bytes, as planned by the compiler, before it is allocated."""
        shapes = jax.eval_shape(
            lambda *all_of_it: all_of_it, jax.eval_shape(self.start, *self.initial), self.cut(0)
        )
        state, chunk = shapes
        index = np.int32(0)
        run = self.run.lower(state, self.numbers, self.objective.train, self.keys, chunk, index, index)
        plan = run.compile().memory_analysis()
        assert plan is not None
        taken = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        return int(taken - plan.alias_size_in_bytes)

    def begin(self) -> None:
        """Write version 0 to its slots."""
        self.state = self.start(*self.initial)

    def snapshot(self, index: int) -> Snapshot:
        """Return the current parameters and statistics of a run."""
        now = Snapshot(self.state.params, self.state.kept.stats)
        return Snapshot(*jax.tree.map(lambda leaf: leaf[index], tuple(now)))

    def cut(self, start: int) -> Chunk:
        """Return a window of all lowered traces; it is empty for a run that has ended."""
        chunks = []
        for plan in self.plans:
            end = plan.lowered.updates
            ours = min(start, end), min(start + self.window, end)
            a, b = (int(plan.lowered.first[u]) for u in ours)
            indices = None if self.objective.train is None else plan.draw(a, max(b, a + 1))[: b - a]
            chunks.append(cut(plan, *ours, self.window, self.most, indices))
        stacked: Chunk = jax.tree.map(lambda *leaves: np.stack(leaves), *chunks)
        return stacked

    def advance(self, first: int, last: int) -> list[np.ndarray] | list[None]:
        """Make the updates ``first`` to ``last - 1`` of all runs; return the measures, run by run."""
        measured = []
        while first < last:
            start = first // self.window * self.window
            stop = min(last, start + self.window)
            a, b = np.int32(first - start), np.int32(stop - start)
            train, chunk = self.objective.train, self.chunk(start)
            self.state, measures = self.run(self.state, self.numbers, train, self.keys, chunk, a, b)
            if measures is not None:
                measured.append(np.asarray(measures)[:, a * self.most : b * self.most])
            first = stop
        return list(np.concatenate(measured, axis=1)) if measured else [None] * len(self.plans)

    def evaluate(self) -> list[Values]:
        """Evaluate all runs at once; return the values of each."""
        metrics = _evaluator(self.objective.evaluate)
        at = self.state.params, self.state.kept.stats
        train = metrics(*at, sample(self.objective.train, self.trainings[0].record.train_examples))
        test = metrics(*at, self.objective.test) if self.objective.test is not None else {}
        found = jax.device_get((train, test))

        def of(i: int, record: Record) -> Values:
            train, test = ({name: values[i] for name, values in metric.items()} for metric in found)
            return values_of(train, test, self.snapshot(i).params if record.fn else None, record)

        return [of(i, training.record) for i, training in enumerate(self.trainings)]

    def look(self, index: int, update: int) -> dict[str, Params]:
        """Return a run's parameters and the point sent to workers after ``update`` updates."""
        at = jax.tree.map(lambda leaf: leaf[index], (self.state.params, self.state.slots))
        sent = at[0] if at[1] is None else gather(at[1], slot_after(self.plans[index], update))
        return cast("dict[str, Params]", jax.device_get({"params": at[0], "sent": sent}))

    def evaluate_one(self, index: int) -> Evaluation:
        """Evaluate one run."""
        values = evaluate(self.objective, self.snapshot(index), self.trainings[index].record)
        return lambda: values


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped]:
    """Return the compiled start and run_chunk of a group."""
    return (
        jax.jit(jax.vmap(state_of(program))),
        jax.jit(jax.vmap(run_chunk(program), (0, 0, None, 0, 0, None, None)), donate_argnums=0),
    )


@functools.lru_cache(maxsize=64)
def _evaluator(function: Evaluate) -> jax.stages.Wrapped:
    return jax.jit(jax.vmap(function, (0, 0, None)))


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Return pytrees of one structure as one pytree, stacked along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def grouped(parts: Sequence[Part], lanes: int) -> list[list[Part]]:
    """Return the groups of parts to replay together, at most ``lanes`` each; parts without a shape are alone."""
    alike: dict[Hashable, list[Part]] = {}
    for i, part in enumerate(parts):
        alike.setdefault(part.shape or i, []).append(part)
    return [same[i : i + lanes] for same in alike.values() for i in range(0, len(same), lanes)]


def memory(device: jax.Device) -> int:
    """Return the bytes that a group may take: nine tenths of the accelerator's memory, or half of the machine's.

    If the system does not report its memory (Windows), 8 GiB are assumed.
    """
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return int(0.9 * limit)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    return machine // 2


def replay_group(parts: Sequence[Part], lanes: int, objective: Objective, device: jax.Device) -> Iterator[Done]:
    """Replay runs of one shape to their ends, in ``lanes`` lanes, or fewer if the memory requires it.

    Args:
        parts: runs to replay.
        lanes: number of lanes.
        objective: objective of the runs, with its data on ``device``.
        device: device that executes the runs.

    Yields:
        Each run as soon as it has ended.
    """
    assert parts[0].shape is not None
    program, *_ = parts[0].shape
    slots = max(part.training.layout(part.plan.lowered).slots for part in parts)
    padded = [*parts, *[parts[-1]] * (lanes - len(parts))]
    group = Group(program._replace(layout=program.layout._replace(slots=slots)), padded, objective, device)
    if lanes > 1 and group.bytes() > memory(device):
        for i in range(0, len(parts), lanes // 2):
            yield from replay_group(parts[i : i + lanes // 2], lanes // 2, objective, device)
        return
    group.begin()

    stops = {int(u) for part in parts for u in part.plan.due.update} | {p.plan.lowered.updates for p in parts}
    done = 0
    for update in sorted(stops):
        measured = group.advance(done, update)
        done = update
        values = group.evaluate() if any(part.in_step for part in parts) else []
        for i, part in enumerate(parts):
            history, last = part.history, part.plan.lowered.updates
            if history.diverged_at is not None or update > last:
                continue
            if update > history.done or part.in_step:  # also at the start: all rows alike
                mine = measured[i]
                history.note(None if mine is None else Measures(mine, len(mine)), update)

            begin: Begin = functools.partial(group.evaluate_one, i)
            if part.in_step:  # evaluated with the others
                begin = functools.partial(functools.partial, values.__getitem__, i)
            history.reach(part.plan, begin, functools.partial(group.look, i, update))
            if not history.write(part.plan) or update == last:
                yield Done(part, group.snapshot(i), lanes)


def replay_groups(devices: Sequence[jax.Device], groups: Sequence[Sequence[Part]], lanes: int) -> list[Done]:
    """Replay groups of runs of one shape; devices execute their shares of the groups at the same time."""
    placed: dict[tuple[Loss, jax.Device], Objective] = {}
    for i, group in enumerate(groups):
        objective, device = group[0].training.objective, devices[i % len(devices)]
        if (objective.loss, device) not in placed:  # data are copied to a device once
            data = jax.device_put((objective.train, objective.test), device)
            placed[objective.loss, device] = objective._replace(train=data[0], test=data[1])

    def share_of(share: int) -> list[Done]:
        device = devices[share]
        return [
            done
            for group in groups[share :: len(devices)]
            for done in replay_group(group, lanes, placed[group[0].training.objective.loss, device], device)
        ]

    if len(devices) == 1:  # in this thread, for settings like jax.enable_x64
        return share_of(0)
    with ThreadPoolExecutor(len(devices)) as pool:
        return [done for share in pool.map(share_of, range(len(devices))) for done in share]
