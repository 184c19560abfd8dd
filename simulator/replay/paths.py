"""Which way a replay is executed: chosen by backend and problem, never by chance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from stalegrad.models import Objective
from stalegrad.models.streams import first_examples
from stalegrad.simulator.replay.executor import Executor
from stalegrad.simulator.replay.loop import Loop
from stalegrad.simulator.replay.scan import Scan
from stalegrad.simulator.replay.step import Params

PATHS: dict[str, type[Executor]] = {"scan": Scan, "loop": Loop}


@functools.lru_cache(maxsize=64)
def _has_convolution(loss: Callable[..., Any], signature: Any) -> bool:
    return "conv_general_dilated" in str(jax.make_jaxpr(loss)(*signature.tree, jax.random.key(0)))


class _Signature:
    """Shapes and dtypes of a loss's arguments, hashable."""

    def __init__(self, tree: Any) -> None:
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        self.key = (
            str(jax.tree.structure(tree)),
            tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(self.tree)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Signature) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def choose_path(objective: Objective, params: Params, batch_size: int) -> str:
    """Return ``loop`` for native convolutions on CPU, whose backward pass is slow inside a loop, else ``scan``."""
    if jax.default_backend() != "cpu":
        return "scan"
    batch = first_examples(objective.train, batch_size)
    return "loop" if _has_convolution(objective.loss, _Signature((params, objective.stats, batch))) else "scan"
