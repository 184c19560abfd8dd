"""Runs that share their compiled code, executed together by ``vmap``: what fills an accelerator with small models.

All lanes make update u at the same time. Where one of them is to be looked at, all stop; one that is over goes on
with nothing to do, and is not looked at again. So no run's numbers depend on what its neighbours are, only on how
many lanes there are: a group that is not full is filled with copies of its last run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stalegrad._core.trees import scalar_type
from stalegrad.models import Objective
from stalegrad.models.streams import Stream
from stalegrad.simulator.replays.executor import Program, Snapshot, Structure, numbers_of
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.player import Player, sample, values_of
from stalegrad.simulator.replays.record import cadence_of
from stalegrad.simulator.replays.scan import CHUNK, compiled_length, cut, run_chunk, state_of


class Part(NamedTuple):
    """A run to be played in a group: its player, its lowered, and the simulated seconds that it reaches to."""

    player: Player
    lowered: LoweredTrace
    end: float

    @property
    def shape(self) -> tuple[Program, int, int | None] | None:
        """What runs of one group have in common: program (slots aside), batch size, examples evaluated on.

        None if updates of this run differ in their number of messages, for lanes would wait for each other, or if
        its data are streamed.
        """
        player, layout = self.player, self.player.layout(self.lowered)
        if layout.messages is None or isinstance(player.objective.train, Stream):
            return None
        structure = Structure(player.method, player.workers)
        program = Program(player.objective.loss, structure, layout._replace(slots=0))
        return program, player.problem.batch_size, player.record.train_examples


class Group:
    """The state of several replays, lane by lane along the first axis of every array.

    Args:
        program: what they share.
        players: theirs; they have read their lowered traces.
        objective: theirs, with its data on the device that is to do the work.
        device: that device.
    """

    def __init__(
        self, program: Program, players: Sequence[Player], objective: Objective, device: jax.Device
    ) -> None:
        self.players, self.objective, self.most = players, objective, program.layout.most
        self.keys = jax.device_put(jnp.stack([p.loss_key for p in players]), device)
        dtype = scalar_type(players[0].initial.params)
        self.plans = [p.last.cast(dtype) for p in players]
        self.numbers = stack(
            [numbers_of(p.method, p.workers, s.rates, dtype) for p, s in zip(players, self.plans, strict=True)]
        )
        slots = np.array([s.lowered.initial_slot for s in self.plans], np.int32)
        longest = max(s.lowered.updates for s in self.plans)
        self.window = max(1, min(CHUNK // self.most, compiled_length(longest)))
        self.chunk = functools.lru_cache(maxsize=1)(lambda start: jax.device_put(self.cut(start), device))
        self.start, self.run = compiled(program)
        self.initial = jax.device_put((*stack([p.initial for p in players]), self.numbers, slots), device)

    def bytes(self) -> int:
        """Return how much memory the group takes, as the compiler plans it, before any of it is taken."""
        shapes = jax.eval_shape(
            lambda *all_of_it: all_of_it, jax.eval_shape(self.start, *self.initial), self.cut(0)
        )
        state, chunk = shapes
        index = np.int32(0)
        run = self.run.lower(state, self.numbers, self.objective.train, self.keys, chunk, index, index)
        plan = run.compile().memory_analysis()
        taken = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
        return int(taken - plan.alias_size_in_bytes)

    def begin(self) -> None:
        """Put version 0 into its slots."""
        self.state = self.start(*self.initial)

    def snapshot(self, index: int) -> Snapshot:
        """Return where a run stands."""
        now = Snapshot(self.state.params, self.state.kept.stats)
        return Snapshot(*jax.tree.map(lambda leaf: leaf[index], tuple(now)))

    def cut(self, start: int) -> Any:
        """Return a window of all lowered traces; that of a run that is over is empty."""
        chunks = []
        for plan in self.plans:
            end = plan.lowered.updates
            ours = min(start, end), min(start + self.window, end)
            a, b = (int(plan.lowered.first[u]) for u in ours)
            indices = None if self.objective.train is None else plan.draw(a, max(b, a + 1))[: b - a]
            chunks.append(cut(plan, *ours, self.window, self.most, indices))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *chunks)

    def advance(self, first: int, last: int) -> list[Any]:
        """Make the updates ``first`` to ``last - 1`` everywhere; return what is measured, run by run."""
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
        return list(np.concatenate(measured, axis=1)) if measured else [None] * len(self.players)

    def evaluate(self) -> list[dict[str, float]]:
        """Evaluate all runs at once; return the values of each."""
        metrics = _evaluator(self.objective.evaluate)
        at = self.state.params, self.state.kept.stats
        train = metrics(*at, sample(self.objective.train, self.players[0].record.train_examples))
        test = metrics(*at, self.objective.test) if self.objective.test is not None else {}
        found = jax.device_get((train, test))

        def of(i: int, player: Player) -> dict[str, float]:
            train, test = ({name: values[i] for name, values in metric.items()} for metric in found)
            return values_of(train, test, self.snapshot(i).params if player.record.fn else None, player.record)

        return [of(i, player) for i, player in enumerate(self.players)]


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> tuple[Any, Any]:
    """Return the compiled start and run_chunk of a group."""
    return (
        jax.jit(jax.vmap(state_of(program))),
        jax.jit(jax.vmap(run_chunk(program), (0, 0, None, 0, 0, None, None)), donate_argnums=0),
    )


@functools.lru_cache(maxsize=64)
def _evaluator(function: Callable[..., Any]) -> Any:
    return jax.jit(jax.vmap(function, (0, 0, None)))


def stack(trees: Sequence[Any]) -> Any:
    """Return equal pytrees as one, stacked along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def grouped(parts: Sequence[Part], lanes: int) -> list[list[Part]]:
    """Return which parts to play together, ``lanes`` at a time; those that cannot be are alone."""
    alike: dict[Any, list[Part]] = {}
    for i, part in enumerate(parts):
        alike.setdefault(part.shape or i, []).append(part)
    return [same[i : i + lanes] for same in alike.values() for i in range(0, len(same), lanes)]


def memory(device: jax.Device) -> int:
    """Return the bytes that a group may take: nine tenths of the accelerator's, or half of the machine's.

    Where the system does not tell (Windows) the machine is taken to have 8 GiB.
    """
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return int(0.9 * limit)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    return machine // 2


def play_together(parts: Sequence[Part], lanes: int, objective: Objective, device: jax.Device) -> None:
    """Play runs of one shape to their ends, in ``lanes`` lanes, or in as many as the memory holds.

    Args:
        parts: the runs.
        lanes: number of lanes.
        objective: that of the runs, with its data on ``device``.
        device: where to play them.
    """
    players = [part.player for part in parts]
    for player, lowered, end in parts:
        player.read(lowered, end)
        player.execution, player.objective = f"{lanes} lanes", objective
    assert parts[0].shape is not None
    program, *_ = parts[0].shape
    slots = max(player.layout(lowered).slots for player, lowered, _ in parts)
    padded = [*players, *[players[-1]] * (lanes - len(players))]
    group = Group(program._replace(layout=program.layout._replace(slots=slots)), padded, objective, device)
    if lanes > 1 and group.bytes() > memory(device):
        for i in range(0, len(parts), lanes // 2):
            play_together(parts[i : i + lanes // 2], lanes // 2, objective, device)
        return
    group.begin()

    stops = {int(u) for p in players for u in p.due.update} | {p.last.lowered.updates for p in players}
    done = 0
    for update in sorted(stops):
        measured = group.advance(done, update)
        done = update
        values = group.evaluate() if any(map(in_step, players)) else []
        for i, player in enumerate(players):
            last = player.last.lowered.updates
            if player.diverged_at is not None or update > last:
                continue
            if update > player.done:
                player.note(measured[i], update)
            if in_step(player):
                player.values = values[i]
            else:
                player.snapshot = group.snapshot(i)
            player.write_rows()
            if player.diverged_at is not None or update == last:
                player.snapshot = group.snapshot(i)


def play_on(devices: Sequence[jax.Device], groups: Sequence[Sequence[Part]], lanes: int) -> None:
    """Play groups of runs of one shape, each device its share of them at the same time as the others."""
    placed: dict[Any, Objective] = {}
    for i, group in enumerate(groups):
        objective, device = group[0].player.objective, devices[i % len(devices)]
        if (objective.loss, device) not in placed:  # data are put onto a device once
            data = jax.device_put((objective.train, objective.test), device)
            placed[objective.loss, device] = objective._replace(train=data[0], test=data[1])

    def play(share: int) -> None:
        device = devices[share]
        for group in groups[share :: len(devices)]:
            play_together(group, lanes, placed[group[0].player.objective.loss, device], device)

    if len(devices) == 1:  # here, where settings hold that are those of this thread: jax.enable_x64, say
        play(0)
        return
    with ThreadPoolExecutor(len(devices)) as pool:
        for done in [pool.submit(play, share) for share in range(len(devices))]:
            done.result()


def in_step(player: Player) -> bool:
    """Return whether a run's rows are due at updates, as those of all its lanes, and not at simulated seconds."""
    return cadence_of(player.record, player.budget).wallclock is None
