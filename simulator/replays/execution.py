"""Choose the execution of a replay from the backend and the problem."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from stalegrad.models import Objective
from stalegrad.models.streams import Stream, first_examples
from stalegrad.policies import Rule
from stalegrad.policies.optimizers import build_optimizer, needs_loss
from stalegrad.simulator.replays.executor import Executor, Structure
from stalegrad.simulator.replays.loop import Loop
from stalegrad.simulator.replays.lowering import LoweredTrace, windows
from stalegrad.simulator.replays.scan import Scan
from stalegrad.simulator.replays.step import Layout, Params

EXECUTIONS: dict[str, type[Executor]] = {"scan": Scan, "windows": Scan, "loop": Loop}

WINDOW = 4
"""Messages in a window at most."""

EXAMPLES, NUMBERS, FULL = 32, 1 << 16, 3.5
"""Where windows pay on CPU (docs/benchmarks.md): examples in a message, numbers in its mini-batch and in the
parameters at most; messages in a window on average at least."""


@functools.lru_cache(maxsize=64)
def _has_convolution(loss: Callable[..., Any], signature: Any) -> bool:
    return "conv_general_dilated" in str(jax.make_jaxpr(loss)(*signature.tree, jax.random.key(0)))


class Signature:
    """Shapes and types of a pytree, hashable."""

    def __init__(self, tree: Any) -> None:
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        self.key = (
            str(jax.tree.structure(tree)),
            tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(self.tree)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=256)
def asks_for_loss(structure: Structure, signature: Signature) -> bool:
    """Return whether the optimizer of a method uses the loss, for parameters of these shapes.

    Raises:
        ValueError: as :func:`~stalegrad.policies.optimizers.needs_loss`.
    """
    rule = structure.method.rule(structure.workers)
    return needs_loss(build_optimizer(rule.optimizer), signature.tree)


def choose_execution(
    objective: Objective, params: Params, batch_size: int, rule: Rule, layout: Layout, lowered: LoweredTrace
) -> str:
    """Return ``scan``, but on CPU ``loop`` for native convolutions, whose backward pass is slow inside a compiled
    loop, and ``windows`` where a gradient is so small that most of its time goes into starting operations.
    """
    if jax.default_backend() != "cpu":
        return "scan"
    batch = first_examples(objective.train, batch_size)
    if _has_convolution(objective.loss, Signature((params, objective.stats, batch))):
        return "loop"
    largest = max(sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, batch))
    small = batch_size * layout.steps <= EXAMPLES and largest <= NUMBERS
    if not small or not has_windows(objective, rule, layout):
        return "scan"
    reads = lowered.read_version[:NUMBERS]
    return "windows" if len(reads) >= FULL * (len(windows(reads, WINDOW)) - 1) > 0 else "scan"


def has_windows(objective: Objective, rule: Rule, layout: Layout) -> bool:
    """Return whether gradients depend on the version read alone, and every update has one that may be stale."""
    kept = rule.work is not None or bool(jax.tree.leaves(objective.stats))
    return layout.messages == 1 and not (
        layout.fresh or layout.varied or kept or isinstance(objective.train, Stream)
    )
