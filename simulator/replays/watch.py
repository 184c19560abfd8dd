"""Observers of a run in progress: the progress bar and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from stalegrad.policies.controllers import Adjustment
from stalegrad.simulator.replays.checkpoint import Checkpoint
from stalegrad.simulator.replays.executor import Executor
from stalegrad.simulator.replays.history import History

Progress = Callable[[int], object]
"""Callback that receives the number of updates made since its last call."""


class Watch:
    """Reports progress and saves the state while a run is executed.

    Args:
        progress: receives the number of updates made.
        checkpoint: where the state is saved at intervals; the run continues from the state that it holds.
        decisions: decisions of a controller so far; they are part of the state.
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
        """Continue from the state that the checkpoint holds, if any."""
        if self.saved is None:
            return
        executor.restore(history.restore(self.saved.about, self.saved.arrays))
        if self.progress is not None:
            self.progress(history.done)

    def made(self, updates: int, executor: Executor, history: History) -> None:
        """Report updates that have been made and noted in the history; save the state if it is time."""
        if self.progress is not None:
            self.progress(updates)
        if self.checkpoint is not None and self.checkpoint.due:
            about, arrays = history.state()
            leaves = jax.device_get(jax.tree.leaves(executor.state))
            self.checkpoint.save({**about, "decisions": list(self.decisions)}, [*arrays, *leaves])
