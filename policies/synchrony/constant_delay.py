"""Gradients of constant staleness: workers in turn."""

from __future__ import annotations

from stalegrad._core.specs import NonNegativeInt, spec
from stalegrad.policies.synchrony.base import Synchrony
from stalegrad.policies.synchrony.programs import WAIT, Decision, Received, ServerProgram


@spec
class ConstantDelay(Synchrony):
    """Workers take turns, and every gradient has the same staleness, ``delay`` (less in the first updates).

    Update j takes a gradient of worker j mod P at version j - ``delay``: a gradient that comes before its turn is
    held, and a worker begins when its version exists. delay = 0 is sequential, delay = 1 that of PipeDream-2BW.

    Args:
        delay: staleness of all gradients, in updates; less than the number of workers.

    Reference: Langford, Smola, Zinkevich, Slow Learners are Fast, 2009, https://arxiv.org/abs/0911.0491.

    Example:
        >>> from stalegrad.policies import ConstantDelay
        >>> from stalegrad.simulator import Cluster, simulate
        >>> trace = simulate(Cluster(compute=[1.0, 1.0]), ConstantDelay(1), updates=5)
        >>> trace.staleness.tolist()
        [0, 1, 1, 1, 1]
    """

    delay: NonNegativeInt

    def check(self, workers: int) -> None:
        """Raise ValueError if there are too few workers."""
        if self.delay >= workers:
            raise ValueError(
                f"delay = {self.delay} of {self.name} is not allowed for {workers} workers: at most {workers - 1}"
            )

    def serve(self, workers: int) -> ServerProgram:
        """Apply messages in turn, one update each; send each version to the worker whose turn needs it."""
        version, held = 0, dict[int, Received]()
        event = yield WAIT
        while True:
            if isinstance(event, Received):
                turn = version + (event.worker - version) % workers
                if event.read_version != max(turn - self.delay, 0):  # its version is still to come
                    event = yield Decision(keep=False)
                    continue
                held[event.worker] = event
            message = held.pop(version % workers, None)
            if message is None:
                event = yield WAIT
                continue
            version += 1
            reader = (version + self.delay) % workers
            again = 0.0 if version % workers in held else None
            event = yield Decision((message,), send=(reader,), cancel=(reader,), wake_after=again)
