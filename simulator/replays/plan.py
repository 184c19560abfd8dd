"""What a replay will do, fixed before it begins: messages in order, mini-batches, learning rates, weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stalegrad._core.types import Floats
from stalegrad.policies import Rule
from stalegrad.simulator.replays.batches import Draw
from stalegrad.simulator.replays.lowering import LoweredTrace
from stalegrad.simulator.replays.record import Points


class Plan(NamedTuple):
    """A lowered trace and what goes with each of its messages and updates.

    Attributes:
        lowered: when what is read and used.
        draw: draws mini-batches.
        epochs: passed before each update, and in all; NaN without data.
        learning_rate: of each update.
        weight: the factor that each message's staleness has earned it.
        due: when rows of the history are.
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
    """Raise ValueError if a trace asks of a rule what it cannot do."""
    if rule.single and lowered.updates and lowered.messages_per_update != 1:
        raise ValueError(f"method {name!r} needs updates of one message each; those of this trace have others")
    if rule.own_reads and lowered.updates:
        later = lowered.read_version > 0
        maker = lowered.worker[lowered.read_version[later] - 1]
        if (maker != lowered.worker[later]).any():
            raise ValueError(
                f"method {name!r} sends each worker a point of its own, but in this trace a worker reads a "
                "version that another one's message made (a late joiner, say)"
            )
