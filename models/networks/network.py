"""What a network is, and the table that holds them all: plain pytrees outside, flax nnx layers inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

Params = Any
Stats = Any

Kind = Literal["images", "text"]


class Apply(Protocol):
    """A network as a function; ``stats`` are needed exactly by networks that keep some."""

    def __call__(self, params: Params, inputs: jax.Array, stats: Stats = ...) -> jax.Array:
        """Return one row of logits per input (of a text: per token)."""


class Network(NamedTuple):
    """A network on pytrees.

    Attributes:
        init: ``init(key) -> params``.
        apply: ``apply(params, inputs, stats={}) -> logits``, as in evaluation; inputs (batch, height, width,
            channels), or tokens (batch, context) of a text.
        penalty: ``penalty(params) -> scalar`` added to the training loss (0 where there is none).
        train: ``train(params, inputs, stats) -> (logits, stats)``, as in training.
        stats: the running statistics of batch norm at the start, a pytree; ``{}`` if there are none.
        width: the most numbers that a layer makes of one input, where these are few (dense networks): then a
            whole data set goes through at once. None: it goes in blocks that fit into the cache.
    """

    init: Callable[[jax.Array], Params]
    apply: Apply
    penalty: Callable[[Params], jax.Array]
    train: Callable[[Params, jax.Array, Stats], tuple[jax.Array, Stats]]
    stats: Stats
    width: int | None = None


NETWORKS: dict[str, Callable[..., Network]] = {}
KINDS: dict[str, Kind] = {}
"""What each network takes."""


def network(name: str, kind: Kind = "images") -> Callable[[Callable[..., Network]], Callable[..., Network]]:
    """Enter a function ``(input_shape, classes, **options) -> Network`` under a name."""

    def enter(function: Callable[..., Network]) -> Callable[..., Network]:
        NETWORKS[name], KINDS[name] = function, kind
        return function

    return enter


def no_penalty(params: Params) -> jax.Array:
    """Return 0."""
    return jnp.zeros(())


def from_module(
    make: Callable[[nnx.Rngs], Any],
    penalty: Callable[[Params], jax.Array] = no_penalty,
    width: int | None = None,
) -> Network:
    """Return the network of an nnx module; parameters and statistics travel as nested dicts of arrays."""
    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    module.train()
    training, *templates = nnx.split(module, nnx.Param, nnx.BatchStat)
    module.eval()
    evaluating, *_ = nnx.split(module, nnx.Param, nnx.BatchStat)

    def built(graph: Any, params: Params, stats: Stats) -> Any:
        states = [jax.tree.map(lambda leaf: leaf, template) for template in templates]
        for state, values in zip(states, (params, stats), strict=True):
            nnx.replace_by_pure_dict(state, values)
        return nnx.merge(graph, *states)

    def part(key: jax.Array, kind: Any) -> Any:
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), kind))

    def apply(params: Params, inputs: jax.Array, stats: Stats = {}) -> jax.Array:  # noqa: B006, never changed
        logits: jax.Array = built(evaluating, params, stats)(inputs)
        return logits

    def train(params: Params, inputs: jax.Array, stats: Stats) -> tuple[jax.Array, Stats]:
        model = built(training, params, stats)
        logits = model(inputs)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    init = jax.jit(lambda key: part(key, nnx.Param))
    stats = jax.jit(lambda: part(jax.random.key(0), nnx.BatchStat))() if jax.tree.leaves(templates[1]) else {}
    return Network(init, apply, penalty, train, stats, width)
