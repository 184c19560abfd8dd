"""The plan of a replay, fixed before it begins: messages in order, mini-batches, learning rates, weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stalegrad._core.types import Floats
from stalegrad.policies import Rule
from stalegrad.simulator.replays.batches import Draw
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.record import Points


class Plan(NamedTuple):
    """A lowered trace with the numbers of each of its messages and updates.

    Attributes:
        lowered: the lowered trace.
        draw: function that draws mini-batches.
        epochs: epochs passed before each update, and in all; NaN without data.
        learning_rate: learning rate of each update.
        weight: staleness weight of each message.
        due: times at which rows of the history are due.
    """

    lowered: LoweredTrace
    draw: Draw
    epochs: Floats
    learning_rate: Floats
    weight: Floats
    due: Points

    def cast(self, dtype: np.dtype) -> Plan:
        """Return the plan with learning rates and weights of this type."""
        return self._replace(
            learning_rate=np.asarray(self.learning_rate, dtype), weight=np.asarray(self.weight, dtype)
        )


def check_rule(name: str, rule: Rule, lowered: LoweredTrace) -> None:
    """Raise ValueError if a rule cannot work with a trace."""
    if rule.single and lowered.updates and lowered.messages_per_update != 1:
        raise ValueError(f"method {name!r} needs updates of one message each; this trace has other updates")
    if rule.own_reads and lowered.updates:
        later = lowered.read_version > 0
        maker = lowered.worker[lowered.read_version[later] - 1]
        if (maker != lowered.worker[later]).any():
            raise ValueError(
                f"method {name!r} sends each worker its own point, but in this trace a worker reads a version "
                "that another worker's message made (for example a late joiner)"
            )
