"""Mini-batches of a stream, fetched ahead by threads while the device computes."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from stalegrad._core.types import Batch
from stalegrad.models.streams import Stream
from stalegrad.simulator.replays.batches import Draw


class Feed:
    """A feed that fetches the mini-batches of messages in order, some of them ahead.

    Args:
        stream: stream of the examples.
        ahead: number of messages that are fetched before they are requested.
    """

    def __init__(self, stream: Stream, ahead: int) -> None:
        self.stream, self.ahead = stream, ahead
        self.pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="stalegrad-feed")
        self.waiting: dict[int, Future[Batch]] = {}

    def take(self, draw: Draw, first: int, last: int, messages: int) -> Batch:
        """Return the examples of messages ``first`` to ``last - 1``, concatenated along the first axis.

        Args:
            draw: draw of the mini-batches.
            first: first gradient id.
            last: last gradient id plus 1.
            messages: number of messages in all.

        Raises:
            ValueError: if an example cannot be read.
        """
        for m in range(first, min(last + self.ahead, messages)):
            if m not in self.waiting:
                self.waiting[m] = self.pool.submit(self.stream.fetch, draw(m, m + 1).ravel())
        parts = [self.waiting.pop(m).result() for m in range(first, last)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
