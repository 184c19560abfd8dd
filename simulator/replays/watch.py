"""Who is told that updates have been made: the progress bar and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from stalegrad.policies.controllers import Adjustment
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.executor import Executor
from stalegrad.simulator.replays.history import History

Progress = Callable[[int], object]
"""Told, now and then, how many updates have been made since it was last told."""


class Watch:
    """Looks on while a run is executed.

    Args:
        progress: told about updates.
        checkpoint: where the state is kept, now and then; the run goes on from what it holds.
        decisions: those of a controller so far; they are part of the state.
    """

    def __init__(
        self,
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        decisions: Sequence[Adjustment] = (),
    ) -> None:
        self.progress, self.checkpoint, self.decisions = progress, checkpoint, decisions
        self.saved = checkpoint.load() if checkpoint is not None else None

    def decisions_before(self) -> list[Adjustment]:
        """Return the controller's decisions up to the state that the checkpoint holds."""
        return [Adjustment(*made) for made in self.saved.about["decisions"]] if self.saved is not None else []

    def resume(self, executor: Executor, history: History) -> None:
        """Go on from the state that the checkpoint holds, if any."""
        if self.saved is None:
            return
        executor.restore(history.restore(self.saved.about, self.saved.arrays))
        if self.progress is not None:
            self.progress(history.done)

    def made(self, updates: int, executor: Executor, history: History) -> None:
        """Take notice that so many updates have been made, and that the history knows."""
        if self.progress is not None:
            self.progress(updates)
        if self.checkpoint is not None and self.checkpoint.due:
            about, arrays = history.state()
            leaves = jax.device_get(jax.tree.leaves(executor.state))
            self.checkpoint.save({**about, "decisions": list(self.decisions)}, [*arrays, *leaves])
