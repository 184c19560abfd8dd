"""Measurements of a contestant in its own process: times, peak memory, and a fingerprint of its parameters."""

import argparse
import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np


class TimeIsUp(Exception):
    """Error: the time limit has passed."""


class Meter:
    """A meter that reads the arguments of a contestant, measures its times, and prints one line of JSON.

    ``gradients`` is the number of gradients that the server has applied; ``updates`` is the number of changes of
    its parameters.
    """

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--workload", required=True)
        parser.add_argument("--setting", required=True)
        parser.add_argument("--workers", type=int, required=True)
        parser.add_argument("--gradients", type=int, required=True)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--limit", type=float, default=float("inf"), help="seconds from the start")
        parser.add_argument("--started", type=float, default=time.monotonic(), help="monotonic clock at the start")
        self.arguments = parser.parse_args()
        self.gradients = self.updates = self.first_gradients = 0
        self.called = self.first = self.last = 0.0

    def call(self) -> None:
        """Record the start of the work, after imports and loading of data."""
        self.called = time.monotonic()

    def update(self, gradients: int = 1, updates: int = 1) -> None:
        """Record that gradients have been applied.

        Raises:
            TimeIsUp: if the time limit has passed.
        """
        now = time.monotonic()
        self.gradients += gradients
        self.updates += updates
        if not self.first:
            self.first, self.first_gradients = now, self.gradients
        self.last = now
        if now - self.arguments.started > self.arguments.limit:
            raise TimeIsUp

    def done(
        self, parameters: Iterable[Any], loss: float, versions: dict[str, str], rate: float | None = None
    ) -> None:
        """Print the result; ``rate``, in gradients per second, is by default that after the first update."""
        if rate is None and self.last > self.first:
            rate = (self.gradients - self.first_gradients) / (self.last - self.first)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parameters))
        result = {
            "gradients": self.gradients,
            "updates": self.updates,
            "complete": self.gradients >= self.arguments.gradients,
            "rate": rate,
            "first_from_start": self.first - self.arguments.started,
            "first_from_call": self.first - self.called,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
            "loss": loss,
            "fingerprint": digest.hexdigest(),
            "versions": versions,
        }
        print(json.dumps(result))
