"""Expected staleness of asynchronous reinforcement learning: rollout slots, a queue, a trainer."""

from __future__ import annotations

import math
from typing import NamedTuple

from stalegrad._core.protocols import SynchronyLike
from stalegrad.analysis.theory.arguments import DelayLike
from stalegrad.analysis.theory.order_statistics import order_statistic
from stalegrad.simulator.timing.delays import as_delay


class RolloutStaleness(NamedTuple):
    """The mean staleness of used samples in the long run, and its two parts.

    Attributes:
        in_flight: number of updates made until a sample's group is complete.
        in_queue: number of updates made from then until the update that uses the sample.
        load: rho, samples per second that the slots generate over those that the trainer can use.
        group_factor: M, mean length of the longest sample of a group over that of a sample; 1 without groups.
    """

    in_flight: float
    in_queue: float
    load: float
    group_factor: float

    @property
    def mean(self) -> float:
        """The sum of both parts, in updates."""
        return self.in_flight + self.in_queue


def expected_rollout_staleness(rollouts: SynchronyLike, lengths: DelayLike, slots: int) -> RolloutStaleness:
    """Return the mean staleness of C rollout slots with a queue of q batches and a trainer.

    With the batch B, the load rho and M = E[longest of a group] / E[length], in updates::

        rho <= 1:  C M / B        in flight,  rho                          in the queue
        rho > 1:   C M / (rho B)  in flight,  (2 q + rho - 1) / (2 rho)    in the queue

    It assumes that slots and trainer run at constant rates, and agrees with simulation within 3 % unless the load
    is near 1 or a batch has only a few samples.

    Args:
        rollouts: a ``Rollouts`` without the bounds ``max_staleness``, ``admission`` and ``pacing``.
        lengths: delay of the seconds of a sample, anything that ``Cluster`` takes as ``compute``; independent.
        slots: number of slots C.

    Raises:
        ValueError: for one of the three bounds, fewer than 1 slot, lengths whose mean is infinite or unknown, or a
            load above 1 without a limit of the queue, which then grows without bound.

    Reference: Applied Compute, July 2026.

    Example:
        >>> from stalegrad.analysis import expected_rollout_staleness
        >>> from stalegrad.policies import Rollouts
        >>> from stalegrad.simulator import LogNormal
        >>> rules = Rollouts(batch=128, train=60.0, group=8, queue=2)
        >>> theory = expected_rollout_staleness(rules, LogNormal(40.0, 0.5), slots=128)
        >>> f"{theory.in_flight:.2f} + {theory.in_queue:.2f} = {theory.mean:.2f}"
        '1.43 + 1.63 = 3.06'
    """
    if rollouts.name != "rollouts":
        raise ValueError(f"synchrony {rollouts.name} has no rollouts: use expected_staleness, or simulate")
    for name in ("max_staleness", "admission", "pacing"):
        if getattr(rollouts, name) is not None:
            raise ValueError(f"there is no closed form for {name} = {getattr(rollouts, name)}: simulate instead")
    if slots < 1:
        raise ValueError(f"slots = {slots} is not allowed: at least 1")
    batch, train, group, queue = (getattr(rollouts, name) for name in ("batch", "train", "group", "queue"))
    law = as_delay(lengths)
    mean = law.expectation()
    if not 0 < mean < math.inf:
        raise ValueError(f"lengths = {law!r} has mean {mean}: theory needs a finite one above 0")
    load = slots * train / (batch * mean)
    longest = order_statistic([law] * group, group) if group > 1 else mean
    factor = longest / mean
    per_batch = slots * factor / batch
    if load <= 1:
        return RolloutStaleness(per_batch, load, load, factor)
    if queue is None:
        raise ValueError(f"the load is {load:.3g} and the queue has no limit: staleness grows without bound")
    return RolloutStaleness(per_batch / load, (2 * queue + load - 1) / (2 * load), load, factor)
